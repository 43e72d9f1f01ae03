"""The demo's fake providers: answers paced like a real model's, quota that fills as it is used."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterable, Mapping, Sequence

from aiohttp import web

from pool_server.core.enums import Provider
from pool_server.core.models import Usage
from pool_server.demo.cast import EXHAUSTED, MODELS, RESTING, SIGNED_OUT
from pool_server.demo.fake_account import FakeAccount
from pool_server.demo.fake_upstream import Call, FakeUpstream, Json, refused_refresh
from pool_server.demo.surfaces import Surface

_FIRST_S = (0.35, 0.9)  # until the first word
_WORD_S = 0.03
_BYTES_A_TOKEN = 4
_SPENT = 0.4  # percent of five hours a request costs
_OPENING = 1  # events that come with the headers

_TEXT = (
    "This is the demo of the pool: no model is behind it. The pool took your request, looked at every account "
    "that could serve it, chose {account} because it had the most room, and will keep this conversation there so "
    "that the provider's cache stays warm. If that account fails, the next one takes over and you notice nothing. "
    "Your tokens were counted just now; you find them on the pool's pages."
)


class DemoProviders(FakeUpstream):
    """Fake providers at a human pace. `pace` scales every pause; 0 = none."""

    def __init__(self, accounts: Iterable[FakeAccount] = (), *, pace: float = 1.0) -> None:
        super().__init__(accounts)
        self._pace = pace
        self._rng = random.Random()

    def pieces(self, call: Call) -> list[str]:
        return re.findall(r"\S+\s*", _TEXT.format(account=call.account))

    def usage(self, call: Call, text: list[str]) -> Usage:
        prompt = len(call.body) // _BYTES_A_TOKEN
        cached = prompt * 4 // 5
        return Usage(input=prompt - cached + 1, cache_read=cached, output=len(text) * 4 // 3, known=True)

    def models(self) -> Mapping[Provider, Sequence[str]]:
        return MODELS

    async def generate(self, call: Call, request: web.Request, account: FakeAccount) -> web.StreamResponse:
        if account.id == EXHAUSTED:
            return web.json_response(_used_up(account, self.clock()), status=429, headers=account.quota_headers())
        account.spend(_SPENT, now=self.clock())
        return await super().generate(call, request, account)

    async def write_events(
        self, call: Call, request: web.Request, response: web.StreamResponse, events: list[bytes]
    ) -> None:
        for number, event in enumerate(events):
            if number == _OPENING:
                await asyncio.sleep(self._rng.uniform(*_FIRST_S) * self._pace)
            elif number > _OPENING:
                await asyncio.sleep(_WORD_S * self._pace)
            await response.write(event)

    async def turn(self, call: Call, request: web.Request, socket: web.WebSocketResponse, frame: Json) -> None:
        await asyncio.sleep(self._rng.uniform(*_FIRST_S) * self._pace)
        await super().turn(call, request, socket, frame)

    async def act(self, call: Call, request: web.Request) -> web.StreamResponse | None:
        """The account that was signed in elsewhere since, and the one whose usage is not told just now."""
        if call.surface is Surface.TOKEN and SIGNED_OUT.partition(":")[2].encode() in call.body:
            status, body = refused_refresh(call.vendor)
            return web.json_response(body, status=status)
        if call.surface is Surface.USAGE and call.account == RESTING:
            error = {"type": "rate_limit_error", "message": "Rate limited. Please try again later."}
            return web.json_response({"type": "error", "error": error}, status=429)
        return None


def _used_up(account: FakeAccount, now: float) -> Json:
    resets_at = max(window.resets_at for window in account.windows.values() if window.used_percent >= 100)
    return {
        "error": {
            "type": "usage_limit_reached",
            "message": "The usage limit has been reached",
            "plan_type": account.plan,
            "resets_at": int(resets_at),
            "resets_in_seconds": max(0, int(resets_at - now)),
        }
    }
