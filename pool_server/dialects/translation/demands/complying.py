"""A written request as its endpoint demands it."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from pool_server.dialects.translation import demands
from pool_server.dialects.translation.fields import obj

_BLANK_REASONING = " "  # DeepSeek and Kimi refuse an empty text
_FILLER_TURN = "Done."
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# What vendors' own endpoints are known to demand, by their provider's name; others tell it in a refusal.
_VENDORS = {
    "mistral": (
        demands.NINE_LETTER_IDS,
        "-messages.reasoning_content",
        "-prompt_cache_key",
        "-verbosity",
        "-stream_options",
    ),
    "groq": ("-messages.reasoning_content", "-prompt_cache_key", "-verbosity"),
    "cerebras": ("-messages.reasoning_content", "-prompt_cache_key", "-verbosity"),
}
KNOWN = {vendor: frozenset(told) for vendor, told in _VENDORS.items()}


def comply(body: dict[str, Any], demanded: frozenset[str]) -> list[str]:
    """Change the body of a Chat, Responses or Messages request in place; returns what of it had to change."""
    told = []
    for demand in sorted(demanded):
        changed = _omit(body, demand[1:]) if demand.startswith("-") else _FORMS[demand](body)
        if changed:
            told.append(f"without {demand[1:]}" if demand.startswith("-") else demand)
    return told


def _omit(body: dict[str, Any], path: str) -> bool:
    head, _, inner = path.partition(".")
    if not inner:
        return body.pop(head, None) is not None
    value = body.get(head)
    found = False
    for one in value if isinstance(value, list) else [value]:
        for shape in (obj(one), obj(obj(one).get("function"))):
            found = shape.pop(inner, None) is not None or found
    if value == {}:
        del body[head]
    return found


def _rename(body: dict[str, Any], old: str, new: str) -> bool:
    if old not in body:
        return False
    body[new] = body.pop(old)
    return True


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    found = body.get("messages")
    return found if isinstance(found, list) else []


def _keep_reasoning(body: dict[str, Any]) -> bool:
    lacking = [one for one in _messages(body) if one.get("role") == "assistant" and not one.get("reasoning_content")]
    for message in lacking:
        message["reasoning_content"] = _BLANK_REASONING
    return bool(lacking)


def _nine_letter_ids(body: dict[str, Any]) -> bool:
    changed = False
    for message in _messages(body):
        calls = message.get("tool_calls")
        for shape, name in [(message, "tool_call_id"), *((call, "id") for call in calls or ())]:
            ident = shape.get(name)
            if isinstance(ident, str) and not (len(ident) == 9 and ident.isascii() and ident.isalnum()):
                shape[name], changed = _short_id(ident), True
    return changed


def _short_id(ident: str) -> str:
    number = int.from_bytes(blake2b(ident.encode("utf-8", "replace"), digest_size=8).digest())
    found = ""
    for _ in range(9):
        number, digit = divmod(number, len(_DIGITS))
        found += _DIGITS[digit]
    return found


def _assistant_after_tool(body: dict[str, Any]) -> bool:
    messages = _messages(body)
    found: list[dict[str, Any]] = []
    for message in messages:
        if found and found[-1].get("role") == "tool" and message.get("role") not in ("tool", "assistant"):
            found.append({"role": "assistant", "content": _FILLER_TURN})
        found.append(message)
    changed = len(found) > len(messages)
    if changed:
        body["messages"] = found
    return changed


def _first_system_alone(body: dict[str, Any]) -> bool:
    messages = _messages(body)
    leading = next((at for at, one in enumerate(messages) if one.get("role") != "system"), len(messages))
    later = [one for one in messages[leading:] if one.get("role") == "system"]
    if leading < 2 and not later:
        return False
    for message in later:
        message["role"] = "user"
    if leading > 1:
        whole = "\n\n".join(str(one.get("content")) for one in messages[:leading])
        body["messages"] = [{"role": "system", "content": whole}, *messages[leading:]]
    return True


def _alternate_roles(body: dict[str, Any]) -> bool:
    """Turns of one role that follow each other become one; a later system turn is the user's."""
    changed = _first_system_alone(body)
    found: list[dict[str, Any]] = []
    for message in _messages(body):
        before = found[-1] if found else {}
        if message.get("role") == before.get("role") and before.get("role") in ("user", "assistant"):
            changed = True
            content = _joined(before.get("content"), message.get("content"))
            found[-1] = {**before, **message, "content": content}
            if calls := [*(before.get("tool_calls") or ()), *(message.get("tool_calls") or ())]:
                found[-1]["tool_calls"] = calls
        else:
            found.append(message)
    if changed:
        body["messages"] = found
    return changed


def _joined(one: Any, other: Any) -> Any:
    if not one or not other:
        return one or other
    if isinstance(one, str) and isinstance(other, str):
        return f"{one}\n\n{other}"
    return [*_parts(one), *_parts(other)]


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


_FORMS = {
    demands.COMPLETION_TOKENS: lambda body: _rename(body, "max_tokens", "max_completion_tokens"),
    demands.MAX_TOKENS: lambda body: _rename(body, "max_completion_tokens", "max_tokens"),
    demands.REASONING_KEPT: _keep_reasoning,
    demands.NINE_LETTER_IDS: _nine_letter_ids,
    demands.ASSISTANT_AFTER_TOOL: _assistant_after_tool,
    demands.ONE_SYSTEM: _first_system_alone,
    demands.ALTERNATING_ROLES: _alternate_roles,
}
