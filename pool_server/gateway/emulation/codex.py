"""Codex's own calls around the model traffic, answered by the pool. Pure.

Paths and shapes as the CLI (0.169) sends and reads them: the ChatGPT backend's `wham/…`, `ps/…` and analytics. The
answers without content are the smallest ones its own log takes without a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from pool_server.gateway.emulation.quota_windows import QuotaWindow, two_slots
from pool_server.gateway.emulation.types import Json, LocalAnswer, LocalRequest, answer, empty

_SHOWN_PLAN = "pro"  # what the set-up's login says; plans of the real accounts are nobody's business here
_MOST_CALLS = 32  # of one JSON-RPC batch
_LONGEST_ID = 128  # characters of a JSON-RPC id, which is part of the answer
_LONGEST_VERSION = 32  # likewise, of the version of MCP that is asked for
_EMPTY_LISTS: dict[str, Json] = {
    "tools/list": {"tools": []},
    "resources/list": {"resources": []},
    "resources/templates/list": {"resourceTemplates": []},
    "prompts/list": {"prompts": []},
    "ping": {},
    "logging/setLevel": {},
}


def usage(room: Sequence[QuotaWindow], now: float) -> LocalAnswer:
    """`wham/usage`: the friend's view, the tighter of own limit and pooled room in each window."""
    slots = [_window(one, now) for one in two_slots(room)]
    reached = any(one.used_percent >= 100 for one in room)
    limit: Json = {
        "allowed": not reached,
        "limit_reached": reached,
        "primary_window": None,
        "secondary_window": None,
    }
    limit.update(zip(("primary_window", "secondary_window"), slots, strict=False))
    return answer(
        {
            "plan_type": _SHOWN_PLAN,
            "rate_limit": limit,
            "credits": {"has_credits": False, "unlimited": False, "balance": "0"},
        }
    )


def _window(room: QuotaWindow, now: float) -> Json:
    resets_at = room.resets_at if room.resets_at is not None else now + room.seconds
    return {
        "used_percent": min(100, int(room.used_percent)),
        "limit_window_seconds": room.seconds,
        "reset_after_seconds": max(0, int(resets_at - now)),
        "reset_at": int(resets_at),
    }


def reset_credits() -> LocalAnswer:
    """There are never any: a reset belongs to an account's owner, not to a pool user."""
    return answer({"available_count": 0, "credits": []})


def consume_reset_credit() -> LocalAnswer:
    return answer({"code": "no_credit", "windows_reset": 0})


def settings() -> LocalAnswer:
    """`wham/settings/user`: nothing is set."""
    return answer({})


def plugins(request: LocalRequest) -> LocalAnswer:
    """`ps/plugins/installed` and `ps/plugins/suggested/codex`: none, and none to recommend."""
    if "/suggested/" in request.path:
        return answer({"enabled": False, "plugins": []})
    return answer({"plugins": [], "pagination": {"limit": 200, "next_page_token": None}})


def accounts_check(request: LocalRequest, public_url: str) -> LocalAnswer:
    """`wham/accounts/check`: the workspace and its origin.

    The CLI may send its model traffic to `workspace_backend_origin`, which must be https. The only origin that
    can never lead around the pool is the pool's own, so that is named, also where the pool itself speaks plain
    http: a provider of the CLI's that is not called "OpenAI" reads it and does not follow it. A login without an
    account id, which is what the set-up hands out, never asks.
    """
    ident = request.headers.get("chatgpt-account-id", "")
    if not ident:
        return answer({"accounts": []})
    host = urlsplit(public_url).netloc or urlsplit(request.base_url).netloc
    workspace = {
        "id": ident,
        "workspace_backend_origin": f"https://{host}",
        "account_routing_override": "NO_CONSTRAINT",
    }
    return answer({"accounts": [workspace]})


def mcp(request: LocalRequest) -> LocalAnswer:
    """`ps/mcp`: a JSON-RPC server without tools. The CLI calls it without a key over http."""
    if request.method != "POST":
        return LocalAnswer(405, [("Allow", "POST")])  # no event stream is offered
    message = request.json()
    if isinstance(message, list):
        if not 0 < len(message) <= _MOST_CALLS:
            return answer(_rpc_error(None, -32600, f"a batch holds 1 to {_MOST_CALLS} calls"), 400)
        replies = [reply for one in message if (reply := _mcp_reply(one)) is not None]
        return answer(replies) if replies else empty(202)
    reply = _mcp_reply(message)
    return empty(202) if reply is None else answer(reply)


def _mcp_reply(message: Any) -> Json | None:
    if not isinstance(message, dict) or not isinstance(message.get("method"), str):
        return _rpc_error(None, -32600, "not a JSON-RPC request")
    ident = message.get("id")
    if ident is None:
        return None  # a notification
    if not isinstance(ident, str | int | float) or len(str(ident)) > _LONGEST_ID:
        return _rpc_error(None, -32600, "not a JSON-RPC id")
    method, params = message["method"], message.get("params")
    if method == "initialize":
        asked = params.get("protocolVersion") if isinstance(params, dict) else None
        result: Json = {
            "protocolVersion": asked if isinstance(asked, str) and len(asked) <= _LONGEST_VERSION else "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "pool-server", "version": "1"},
        }
    elif method in _EMPTY_LISTS:
        result = _EMPTY_LISTS[method]
    else:
        return _rpc_error(ident, -32601, "no such method")
    return {"jsonrpc": "2.0", "id": ident, "result": result}


def _rpc_error(ident: str | float | None, code: int, message: str) -> Json:
    return {"jsonrpc": "2.0", "id": ident, "error": {"code": code, "message": message}}
