"""A list with only the caller's own in it, over every account that holds some, its paging whole.

An account's list holds what everybody made there. Its pages are read until the caller's page is full or all that is
theirs was seen; cursors name the caller's own entries, and Google's opaque page tokens are replaced by the pool's.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

import msgspec

from pool_server.accounts.objects.owners import digest
from pool_server.core.enums import ApiFamily, ObjectKind
from pool_server.dialects.references import google_name

MOST_PAGES = 100  # of the providers', for one of the caller's
_UPSTREAM_PAGE = 100  # entries; what every vendor takes
_USUAL_PAGE = {ApiFamily.OPENAI: 20, ApiFamily.ANTHROPIC: 20, ApiFamily.GOOGLE: 50}
_LARGEST_PAGE = 10_000

Query = list[tuple[str, str]]
Rows = list[msgspec.Raw]


class Page(NamedTuple):
    """One page of an account's list: `rows` with their ids, and how to ask for the next one ("" = there is none)."""

    rows: list[tuple[str, msgspec.Raw]]
    following: str
    envelope: dict[str, msgspec.Raw]


class ListRefusedError(Exception):
    """No account could be asked for its list."""


# (account, query string) → status 200's body; None when the account cannot be asked.
Fetch = Callable[[str, str], Awaitable[bytes | None]]


class Listing:
    """One list call. `visible` maps each account to ask to the hashes of the caller's ids there, None = all of it."""

    def __init__(
        self, family: ApiFamily, kind: ObjectKind, query: str, visible: dict[str, set[bytes] | None], fetch: Fetch
    ) -> None:
        self._family = family
        self._google = family is ApiFamily.GOOGLE
        self._anthropic = family is ApiFamily.ANTHROPIC
        self._kind = kind
        self._query = parse_qsl(query, keep_blank_values=True)
        self._accounts = sorted(visible)
        self._left = {account: set(ids) if ids is not None else None for account, ids in visible.items()}
        self._fetch = fetch
        self._back = any(name in ("before", "before_id") for name, _ in self._query)
        self._pages = 0
        self._answered = False
        self._envelope: dict[str, msgspec.Raw] = {}

    async def answer(self, start_at: str = "") -> bytes:
        """The list as JSON. `start_at` is the account that holds the entry the caller's cursor names.

        Raises ListRefusedError.
        """
        size, more = self._size(), False
        first, cursor, skip = self._start(start_at)
        taken: list[tuple[str, msgspec.Raw]] = []
        places: list[tuple[str, str, int]] = []  # of each taken row: account, the page's cursor, its place there
        for account in self._accounts[self._accounts.index(first) :] if first else ():
            async for row, place in self._own_rows(account, cursor, skip):
                if len(taken) == size:
                    more = True
                    break
                taken.append(row)
                places.append((account, *place))
            if more:
                break
            if self._back:  # towards the beginning: within one account, a page at a time
                break
            cursor, skip = "", 0
        more = more or (bool(taken) and self._pages >= MOST_PAGES)
        if self._accounts and not self._answered:
            raise ListRefusedError
        return self._body(taken, places[-1] if more and places else None)

    async def _own_rows(
        self, account: str, cursor: str, skip: int
    ) -> AsyncIterator[tuple[tuple[str, msgspec.Raw], tuple[str, int]]]:
        """The caller's rows of one account from a cursor on, each with where it stands."""
        left = self._left[account]
        while self._pages < MOST_PAGES:
            page = await self._page(account, cursor)
            if page is None:
                return
            for place, (ident, row) in enumerate(page.rows):
                key = digest(ident)
                if left is not None and key not in left:
                    continue
                if left is not None:
                    left.discard(key)
                if place >= skip:
                    yield (ident, row), (cursor, place + 1)
            skip = 0
            if not page.following or self._back or (left is not None and not left):
                return
            cursor = page.following

    async def _page(self, account: str, cursor: str) -> Page | None:
        self._pages += 1
        body = await self._fetch(account, urlencode(self._upstream_query(cursor), quote_via=quote))
        if body is None:
            return None
        try:
            envelope = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            page = self._google_page(envelope) if self._google else self._cursor_page(envelope)
        except msgspec.MsgspecError:
            return None
        self._answered = True
        self._envelope = self._envelope or envelope
        return page

    def _upstream_query(self, cursor: str) -> Query:
        dropped = {"pageSize", "page_size", "pageToken", "page_token"} if self._google else {"limit", self._after}
        kept = [(name, value) for name, value in self._query if name not in dropped]
        size = ("pageSize" if self._google else "limit", str(_UPSTREAM_PAGE))
        if not cursor:
            return [*kept, size]
        return [*kept, size, ("pageToken" if self._google else self._after, cursor)]

    @property
    def _after(self) -> str:
        return "after_id" if self._anthropic else "after"

    @property
    def by_id(self) -> bool:
        """Is a cursor the id of an entry?"""
        return not self._google

    def cursor(self) -> str:
        """The id the caller's page is to begin after (or end before), "" for the first page."""
        names = ("pageToken",) if self._google else (self._after, "before_id" if self._anthropic else "before")
        return next((value for name, value in self._query if name in names and value), "")

    def _size(self) -> int:
        names = ("pageSize", "page_size") if self._google else ("limit",)
        asked = next((value for name, value in self._query if name in names), "")
        if asked.isascii() and asked.isdigit() and int(asked) > 0:
            return min(int(asked), _LARGEST_PAGE)
        every = self._family is ApiFamily.OPENAI and self._kind is ObjectKind.FILE
        return _LARGEST_PAGE if every else _USUAL_PAGE[self._family]

    def _start(self, start_at: str) -> tuple[str, str, int]:
        """Account, cursor and rows to leave out of the first page to read."""
        first = self._accounts[0] if self._accounts else ""
        if not self._google:
            return start_at or first, "" if self._back else self.cursor(), 0
        token = self.cursor()
        if not token:
            return first, "", 0
        name, _, rest = token.partition(".")
        skip, _, packed = rest.partition(".")
        account = next((one for one in self._accounts if digest(one).hex()[:16] == name), "")
        try:
            return account or first, urlsafe_b64decode(packed.encode()).decode() if account else "", int(skip[:6] or 0)
        except ValueError:
            return first, "", 0

    def _cursor_page(self, envelope: dict[str, msgspec.Raw]) -> Page:
        rows = msgspec.json.decode(envelope.get("data", msgspec.Raw(b"[]")), type=Rows)
        named = list(_named(rows))
        more = envelope.get("has_more") == msgspec.Raw(b"true")
        last = named[-1][0] if named else ""
        return Page(named, last if more else "", envelope)

    def _google_page(self, envelope: dict[str, msgspec.Raw]) -> Page:
        key = _rows_key(envelope)
        rows = msgspec.json.decode(envelope[key], type=Rows) if key else []
        named = list(_google_named(rows))
        following = msgspec.json.decode(envelope.get("nextPageToken", msgspec.Raw(b'""')), type=str)
        return Page(named, following, envelope)

    def _body(self, taken: list[tuple[str, msgspec.Raw]], last: tuple[str, str, int] | None) -> bytes:
        """The caller's page; `last` is where its last row stands when there may be more behind it."""
        rows = [row for _, row in taken]
        if self._google:
            body: dict[str, Any] = {_rows_key(self._envelope): rows} if rows else {}
            if last is not None:
                account, cursor, place = last
                packed = urlsafe_b64encode(cursor.encode()).decode()
                body["nextPageToken"] = f"{digest(account).hex()[:16]}.{place}.{packed}"
            return msgspec.json.encode(body)
        ends = {"first_id": taken[0][0] if taken else None, "last_id": taken[-1][0] if taken else None}
        body = {"data": rows, "has_more": last is not None} | ends
        return msgspec.json.encode(body if self._anthropic else {"object": "list"} | body)


def _rows_key(envelope: Iterable[str]) -> str:
    return next((key for key in ("files", "cachedContents", "operations", "batches") if key in envelope), "")


class _Named(msgspec.Struct):
    id: str = ""
    name: str = ""


def _named(rows: Rows) -> Iterator[tuple[str, msgspec.Raw]]:
    for row in rows:
        yield msgspec.json.decode(row, type=_Named).id, row


def _google_named(rows: Rows) -> Iterator[tuple[str, msgspec.Raw]]:
    for row in rows:
        found = google_name(msgspec.json.decode(row, type=_Named).name)
        yield (found[1] if found is not None else ""), row
