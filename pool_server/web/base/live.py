"""What changes while a page is open: one connection a page, told only what to look at again.

The server renders everything; an event names what has changed and the page's script fetches those parts again.
Several workers share the stores, so that one look a second sees what any of them did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from tornado.iostream import StreamClosedError

from pool_server.core.enums import TokenScope
from pool_server.language import gettext as _
from pool_server.ledger import LogFilters
from pool_server.web.base import recent_log
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, BaseHandler, ProblemError

TICK_S = 1.0
STATE_TICKS = 3  # the accounts are looked at every third tick
SILENCE_TICKS = 15  # a comment after so many ticks without an event keeps proxies from closing
RETRY_MS = 3000
MOST = 8  # live streams of one session in one process …
MOST_OF_ONE = 24  # … and of one person, who may sign in as often as they like


class PageWatch:
    """What one open page has seen last. `changes()` says what is new since."""

    def __init__(self, ctx: WebContext, user: str, *, operator: bool = False) -> None:
        self.ctx = ctx
        self.user = user
        self._operator = operator
        self._logged = self._log()
        self._latest = ""
        self._state = self._digest()
        self._ticks = 0

    async def begin(self) -> None:
        """What there is by now is not told."""
        self._latest = await self._newest()

    async def changes(self) -> list[tuple[str, dict[str, str]]]:
        """(event, data) for each thing that is new: "request" with its id; "state" and, for who may read it, "log"
        empty."""
        events: list[tuple[str, dict[str, str]]] = []
        self._ticks += 1
        newest = await self._newest()
        if newest != self._latest:
            self._latest = newest
            events.append(("request", {"id": newest}))
        log = self._log()
        if log != self._logged:
            self._logged = log
            events.append(("log", {}))
        if self._ticks % STATE_TICKS == 0:
            state = self._digest()
            if state != self._state:
                self._state = state
                events.append(("state", {}))
        return events

    async def _newest(self) -> str:
        """The id of the user's newest exchange, "" for none. The admin's pages show everyone's.

        One look a tick serves every page of that user.
        """
        now = self.ctx.clock()
        at, newest = self.ctx.newest
        if not 0 <= now - at < TICK_S / 2:
            newest = {}
            self.ctx.newest = (now, newest)
        if self.user not in newest:
            newest[self.user] = asyncio.ensure_future(self._look())
        return await asyncio.shield(newest[self.user])

    async def _look(self) -> str:
        ledger = self.ctx.ledger
        found, _next = await ledger.ask(ledger.log.page, 1, None, LogFilters(user=self.user or None))
        return found[0].id if found else ""

    def _log(self) -> int:
        """Another number whenever the log has a new line; the operator's to know."""
        return recent_log.mark(Path(self.ctx.settings.data_dir)) if self._operator else 0

    def _digest(self) -> Any:
        """What a page shows of the accounts, coarse enough that not every request is a change.

        One look serves every page that is open.
        """
        now = self.ctx.clock()
        at, digest = self.ctx.digest
        if not 0 <= now - at < TICK_S:
            digest = [
                (row.provider, row.accounts, row.ready, [round(w.used_percent or 0) for w in row.windows])
                for row in self.ctx.accounts.summary()
            ]
            self.ctx.digest = (now, digest)
        return digest


class LiveHandler(BaseHandler, access=Access.FRIEND):
    """`GET /api/live`: server-sent events `request`, `state`, `log` and `bye` (the session has ended)."""

    def initialize(self, ctx: WebContext, scopes: Mapping[str, TokenScope | None] | None = None) -> None:
        super().initialize(ctx, scopes)
        self._gone = asyncio.Event()

    def on_connection_close(self) -> None:
        self._gone.set()
        super().on_connection_close()

    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")
        everyone = self.principal.admin and not self.principal.local
        open_, who = self.ctx.streams, self.principal
        counted = {f"user {who.user}": MOST_OF_ONE, f"session {who.session or who.user}": MOST}
        if any(open_[name] >= most for name, most in counted.items()):
            raise ProblemError(
                429, "too_many_pages", _("too many pages are open: close some"), retry_after=RETRY_MS / 1000
            )
        open_.update(counted.keys())
        try:
            self.write(f"retry: {RETRY_MS}\n\n")
            await self.flush()
            user = "" if everyone else self.principal.user
            await self._follow(PageWatch(self.ctx, user, operator=self.caller.rank >= Access.ADMIN))
        except StreamClosedError:
            return
        finally:
            open_.subtract(counted.keys())
            for name in counted:
                if not open_[name]:
                    del open_[name]

    async def _follow(self, watch: PageWatch) -> None:
        silent = 0
        await watch.begin()
        while True:
            try:
                await asyncio.wait_for(self._gone.wait(), TICK_S)
            except TimeoutError:
                pass
            if self._gone.is_set() or self.ctx.draining or self.ctx.replaced:  # the stores may be closed by now
                return
            if not await self._still_in():
                await self._send("bye", {})
                return
            events = await watch.changes()
            for name, data in events:
                await self._send(name, data)
            silent = 0 if events else silent + 1
            if silent >= SILENCE_TICKS:
                silent = 0
                self.write(": still here\n\n")
                await self.flush()

    async def _still_in(self) -> bool:
        """A session that was ended elsewhere ends its open pages too."""
        if self.caller.via != "session":
            return True
        return await self.ctx.users.sessions.find(self.session_cookie) is not None

    async def _send(self, name: str, data: dict[str, str]) -> None:
        self.write(f"event: {name}\ndata: {msgspec.json.encode(data).decode()}\n\n")
        await self.flush()
