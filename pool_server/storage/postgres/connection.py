"""The one place that knows the driver. Whatever goes wrong with it is a `StoreError`; what is not the database's own
answer to a statement is `StoreAwayError`: the driver has errors of many trees, also when a server dies within a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import cache
from typing import Any, Protocol

from pool_server.storage.errors import StoreAwayError, StoreError, StoreRefusedError
from pool_server.storage.postgres.url import DatabaseUrl

CONNECT_S = 5.0
CALL_S = 30.0
# Its commit is answered once it is on the standby, with all that was committed before; it locks nothing.
PROVE = "select pg_logical_emit_message(true, 'pool', '')::text"
_AWAY = ("08", "40", "53", "57", "58", "XX")  # classes of SQLSTATE: connection, rollback, resources, shutdown, system
_NAMED = {"application_name": "pool-server"}
_NO_RIGHT = "42501"
_READ_ONLY = "25006"  # a server that was primary, or never was


class ResultRow(Protocol):
    """A row, by name or position."""

    def __getitem__(self, key: str | int) -> Any: ...
    def items(self) -> Iterator[tuple[str, Any]]: ...
    def values(self) -> Iterator[Any]: ...


class Connection:
    """One connection; statements and functions with parameters. `pooled`: a statement is read and run on one server
    within a transaction alone."""

    def __init__(self, raw: Any, *, pooled: bool = False) -> None:
        self._raw = raw
        self._pooled = pooled

    @contextlib.asynccontextmanager
    async def _statement(self) -> AsyncIterator[None]:
        with translated():
            if self._pooled and not self._raw.is_in_transaction():
                async with self._raw.transaction():
                    yield
            else:
                yield

    async def rows(self, sql: str, *values: Any) -> Sequence[ResultRow]:
        async with self._statement():
            found: Sequence[ResultRow] = await self._raw.fetch(sql, *values, timeout=CALL_S)
            return found

    async def row(self, sql: str, *values: Any) -> ResultRow | None:
        async with self._statement():
            found: ResultRow | None = await self._raw.fetchrow(sql, *values, timeout=CALL_S)
            return found

    async def value(self, sql: str, *values: Any) -> Any:
        async with self._statement():
            return await self._raw.fetchval(sql, *values, timeout=CALL_S)

    async def script(self, sql: str) -> None:
        """Several statements without parameters, however long they take."""
        with translated():
            await self._raw.execute(sql)

    @contextlib.asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncIterator[None]:
        """`snapshot`: all that is read stems from one moment, and nothing may be written."""
        raw = self._raw.transaction(isolation="repeatable_read", readonly=True) if snapshot else self._raw.transaction()
        with translated():
            await raw.start()
        try:
            yield
        except BaseException:
            with contextlib.suppress(StoreError), translated():
                await raw.rollback()
            raise
        with translated():
            await raw.commit()


class DatabasePool:
    """Connections that are kept open, at most so many at once; the first is made when one is needed. `lost` is called
    when one has ended that was not closed here."""

    def __init__(self, url: DatabaseUrl, most: int, lost: Callable[[], None] = lambda: None) -> None:
        self._url = url
        self._most = most
        self._lost = lost
        self._opening = asyncio.Lock()
        self._raw: Any = None

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One connection for as long as the block lasts. Raises StoreError."""
        pool = await self._opened()
        with translated():
            raw = await pool.acquire(timeout=CALL_S)
        try:
            yield Connection(raw, pooled=self._url.pooled)
        finally:
            with contextlib.suppress(StoreError), translated():
                await pool.release(raw, timeout=CONNECT_S)

    async def _opened(self) -> Any:
        async with self._opening:
            if self._raw is None:
                with translated():
                    self._raw = await _driver().create_pool(
                        **self._url.arguments(),
                        min_size=0,  # more would be made anew at once, and each failure be told with a traceback
                        max_size=self._most,
                        timeout=CONNECT_S,
                        server_settings=_NAMED,
                        max_inactive_connection_lifetime=0,
                        init=self._watch,
                        connection_class=_plain(),
                    )
            return self._raw

    async def _watch(self, raw: Any) -> None:
        raw.add_termination_listener(lambda _: self._lost() if self._raw is not None else None)

    def close(self) -> None:
        """Ends all connections at once."""
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.terminate()

    async def rows(self, sql: str, *values: Any) -> Sequence[ResultRow]:
        async with self.connection() as connection:
            return await connection.rows(sql, *values)

    async def value(self, sql: str, *values: Any) -> Any:
        async with self.connection() as connection:
            return await connection.value(sql, *values)


class Listener:
    """Hears what is told on a channel, as long as there is a connection; `keep` makes one where there is none. What was
    told in between is never heard: whoever listens also looks."""

    def __init__(self, url: DatabaseUrl, channel: str, heard: Callable[[], None]) -> None:
        self._url = url
        self._channel = channel
        self._heard = heard
        self._raw: Any = None
        self._again = 0.0  # monotonic, before which no connection is tried

    async def keep(self) -> None:
        """Never raises; without a connection nothing is heard."""
        if self._url.pooled:
            return  # what is heard there may be for anybody
        if (self._raw is not None and not self._raw.is_closed()) or time.monotonic() < self._again:
            return
        self._again = time.monotonic() + CONNECT_S
        self._raw = None
        with contextlib.suppress(StoreError):
            raw = await connect(self._url)
            try:
                with translated():
                    await raw.add_listener(self._channel, lambda *_: self._heard())
            except BaseException:
                raw.terminate()
                raise
            self._raw = raw

    async def close(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            with contextlib.suppress(StoreError), translated():
                await raw.close(timeout=CONNECT_S)


def storable(text: str) -> bool:
    """Whether the database can hold a text that came from outside: it takes no NUL, and nothing that is no UTF-8."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


@contextlib.asynccontextmanager
async def pooled(url: DatabaseUrl, most: int) -> AsyncIterator[DatabasePool]:
    """A pool for as long as the block lasts."""
    pool = DatabasePool(url, most)
    try:
        yield pool
    finally:
        pool.close()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns the driver's errors into the store's. Messages of the server are kept out where they could hold values."""
    try:
        yield
    except (StoreError, asyncio.CancelledError):
        raise
    except Exception as exc:
        raise _error(exc) from None


def _error(exc: Exception) -> StoreError:
    state = getattr(exc, "sqlstate", None)
    if not isinstance(state, str):
        return StoreAwayError(f"the database does not answer ({type(exc).__name__})")
    if state.startswith(_AWAY) or state == _READ_ONLY:
        return StoreAwayError(f"the database cannot serve just now (SQLSTATE {state})")
    if state in ("28000", "28P01"):
        return StoreRefusedError(
            "the database does not let this role in: look at role, password and pg_hba.conf", state
        )
    if state == "3D000":
        return StoreRefusedError("the database does not exist: createdb it first", state)
    if state == _NO_RIGHT:
        return StoreRefusedError("the database role lacks a right: `pool-server store check` names roles", state)
    if state in ("3F000", "42P01", "42883"):
        return StoreRefusedError("the database lacks what this program needs: `pool-server store migrate`", state)
    return StoreRefusedError(f"the database refused a statement ({type(exc).__name__}, SQLSTATE {state})", state)


async def connect(url: DatabaseUrl) -> Any:
    """A connection of the driver. Raises StoreError."""
    driver = _driver()
    try:
        with translated():
            return await driver.connect(**url.arguments(), timeout=CONNECT_S, server_settings=_NAMED)
    except StoreRefusedError as exc:
        if exc.state != _NO_RIGHT:
            raise
        raise StoreRefusedError(
            "this role may not connect to the database: its owner may grant that", exc.state
        ) from None


@contextlib.asynccontextmanager
async def connected(url: DatabaseUrl) -> AsyncIterator[Connection]:
    """One connection for as long as the block lasts."""
    raw = await connect(url)
    try:
        yield Connection(raw, pooled=url.pooled)
    finally:
        with contextlib.suppress(StoreError), translated():
            await raw.close(timeout=CONNECT_S)


@cache
def _plain() -> Any:
    """The driver's connection, without a question to the server that it asks when one is given back: what is set is set
    for a transaction alone, and nothing listens or locks."""

    class PlainConnection(_driver().Connection):  # type: ignore[misc]
        def get_reset_query(self) -> str:
            return ""

    return PlainConnection


def _driver() -> Any:
    try:
        import asyncpg
    except ImportError:
        raise StoreError("several machines need the driver: pip install 'pool-server[cluster]'") from None
    return asyncpg
