"""Where a secret may go: the hosts its file and vendor name, and nowhere else, whatever answers on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.core.enums import Provider
from pool_server.core.models import HttpRequest, UpstreamRequest
from pool_server.core.origins import PUBLIC_ONLY, origins
from pool_server.core.settings import Settings
from pool_server.gateway.upstream import Upstream, UpstreamError
from pool_server.providers import SPECS, provider_module
from tests.fakes import account, key_account
from tests.gateway.stack import Stack
from tests.http1.wire import raw_server, read_request, run

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
REDIRECTS = [301, 302, 303, 307, 308]


class Trap:
    """A host that must never be asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        writer.close()


def redirecting(status: int, to: str) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(f"HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    return handle


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("where", ["elsewhere", "same"])
def test_a_redirect_is_a_refusal_on_every_way_up(status: int, where: str) -> None:
    async def test() -> None:
        trap = Trap()
        async with raw_server(trap) as other:
            to = f"http://127.0.0.1:{other}/taken" if where == "elsewhere" else "/v1/other"
            async with raw_server(redirecting(status, to)) as port:
                upstream, url = Upstream(), f"http://127.0.0.1:{port}/v1/responses"
                both = origins(url, f"http://127.0.0.1:{other}")  # not even to a host it may reach
                prepared = UpstreamRequest("POST", url, [("Authorization", "Bearer t")], egress=both)
                with pytest.raises(UpstreamError, match="redirect"):
                    await upstream.open(prepared, b"{}", size=2, proxy_url=None, first_byte_s=5)
                answer = await upstream.send(HttpRequest("GET", url, egress=both))
                assert answer.status == 0 and "redirect" in answer.error
                prepared = UpstreamRequest(
                    "GET", url.replace("http", "ws", 1), [("Authorization", "Bearer t")], egress=both
                )
                with pytest.raises(UpstreamError, match="redirect"):
                    await upstream.dial(prepared, proxy_url=None, frame_cap=1 << 20, timeout_s=5)
                await upstream.close()
        assert trap.asked == 0

    run(test)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{other}/v1", "http://localhost:{port}/v1", "https://127.0.0.1:{port}/v1",
        "http://127.0.0.1:{port}.evil.example/v1", "http://127.0.0.1/v1", "http://[::1]:{port}/v1",
        "http://127.0.0.1:{port}@127.0.0.1:{other}/v1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("allowed", [True, False])
def test_a_host_that_is_not_the_accounts_is_not_asked(url: str, allowed: bool) -> None:
    async def test() -> None:
        trap = Trap()
        async with raw_server(trap) as port, raw_server(trap) as other:
            upstream, address = Upstream(), url.format(port=port, other=other)
            egress = origins(f"http://127.0.0.1:{port}") if allowed else frozenset[str]()
            prepared = UpstreamRequest("POST", address, [("Authorization", "Bearer t")], egress=egress)
            with pytest.raises(UpstreamError, match=r"none of the hosts|cannot be written") as caught:
                await upstream.open(prepared, b"{}", size=2, proxy_url=None, first_byte_s=5)
            assert "127.0.0.1" not in str(caught.value)
            assert (await upstream.send(HttpRequest("GET", address, egress=egress))).status == 0
            with pytest.raises(UpstreamError):
                await upstream.dial(prepared, proxy_url=None, frame_cap=1 << 20, timeout_s=5)
            await upstream.close()
        assert trap.asked == 0

    run(test)


def test_every_call_of_every_account_stays_within_its_hosts(tmp_path: Path) -> None:
    calls: dict[str, Any] = {
        "/claude/v1/messages": {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": []},
        "/codex/v1/responses": {"model": "gpt-5.1", "input": "q", "instructions": ""},
        "/gemini/v1internal:generateContent": {"model": "gemini-2.5-pro", "request": {"contents": []}},
        "/qwen/v1/chat/completions": {"model": "qwen3-coder-plus", "messages": []},
        "/openai/v1/chat/completions": {"model": "m", "messages": []},
    }

    async def test() -> None:
        files = [
            account(f"{one}:a") for one, spec in SPECS.items() if not spec.preset and one is not Provider.OPENAI
        ] + [key_account("openai:a")]
        async with Stack(tmp_path, files) as stack:
            for path, body in calls.items():
                status, raw = await stack.post(path, body)
                assert status == 200, (path, raw)
            for row in stack.accounts.describe_all():
                assert all(host.startswith("http://127.0.0.1:") for host in row.hosts)
                assert (await stack.accounts.test(row.id))["ok"], row.id
            # an upstream that moves away under a running pool is another host, which nothing is sent to
            asked = len(stack.fakes.calls)
            cred = stack.accounts.credential("claude:a")
            request = HttpRequest("GET", "https://api.anthropic.com/v1/models")
            bounded = stack.accounts.bounded("claude:a", request)
            assert (await stack.upstream.send(bounded)).error.startswith("the address is none of the hosts")
            assert len(stack.fakes.calls) == asked
            assert cred.secret.encode() not in msgspec.json.encode(stack.accounts.describe_all())

    asyncio.run(asyncio.wait_for(test(), 30))


@pytest.mark.parametrize("said", [True, "false", 0, None])
def test_who_may_not_reach_inside_is_bound_at_every_call(said: object) -> None:
    """Anything but a plain `false` binds: a file that was edited badly opens nothing."""
    module, settings = provider_module(Provider.OPENAI), Settings()
    data = {"api_key": "sk-123456", "base_url": "https://models.example.org/v1"}
    bound = module.parse({**data, "public_only": said}, "openai:x", now=0)
    assert PUBLIC_ONLY in module.egress(bound, settings)
    for free in ({}, {"public_only": False}):
        assert PUBLIC_ONLY not in module.egress(module.parse({**data, **free}, "openai:x", now=0), settings)
