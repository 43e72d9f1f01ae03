"""What the pages are given: the rooms below, the settings in force, and a few facts of the running server."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import Settings
from pool_server.dialects import UsableModel
from pool_server.web.base.proxies import Network, networks

if TYPE_CHECKING:
    from pool_server.accounts import Accounts
    from pool_server.core.enums import Dialect
    from pool_server.core.settings_file import LoadedSettings
    from pool_server.dialects import ModelInfo
    from pool_server.ledger import Ledger
    from pool_server.transcripts import Transcripts
    from pool_server.users import Principal, Users


async def _no_network(request: HttpRequest) -> HttpAnswer:
    return HttpAnswer(0, {}, error="no network")


async def _nothing_usable(principal: Principal | None, dialect: Dialect) -> UsableModel:
    return UsableModel()


async def _no_models() -> Sequence[ModelInfo]:
    return ()


@dataclass
class WebContext:
    """Built once by the server and shared by every handler.

    `reload` rereads settings and credential files and answers the report of what changed. `models` are those the pool
    serves, by whatever client; `usable` is what somebody (None: nobody in particular) can be told to ask for in a
    dialect; `send` makes a call of the pool's own; `reread` reads the settings' file and the environment.
    `draining`, `replaced` (another server has taken over),
    `data_lost` (why the data folder is not the one that was opened, "" while it is) and `settings` are set by the
    server while it runs. `sources` says where a setting came from ("file",
    "environment"), by its dotted name; what is not in it is a default. Times are unix seconds.
    """

    settings: Settings
    accounts: Accounts
    users: Users
    ledger: Ledger
    transcripts: Transcripts
    version: str
    started_at: float
    reload: Callable[[], Awaitable[dict[str, Any]]]
    models: Callable[[], Awaitable[Sequence[ModelInfo]]] = _no_models
    usable: Callable[[Principal | None, Dialect], Awaitable[UsableModel]] = _nothing_usable
    send: Callable[[HttpRequest], Awaitable[HttpAnswer]] = _no_network
    reread: Callable[[], LoadedSettings] | None = None
    draining: bool = False
    replaced: bool = False
    data_lost: str = ""
    sources: dict[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.time
    digest: tuple[float, Any] = (0.0, None)  # when the accounts were last looked at for open pages, and how they were
    newest: tuple[float, dict[str, asyncio.Future[str]]] = field(default_factory=lambda: (0.0, {}))  # user → id, as of
    streams: Counter[str] = field(
        default_factory=Counter
    )  # live streams open in this process, by session and by person
    foretold: tuple[float, Mapping[str, Any]] = (0.0, MappingProxyType({}))  # when made, and what

    # of a node: changes a setting for all machines (None: back to what each file says). Raises ConfigError, StoreError
    share_setting: Callable[[str, str | None], Awaitable[None]] | None = None
    store: Callable[[], tuple[str, float]] | None = None  # of a node: ok, slow or away, and for how long it is away
    alert_tries: dict[str, deque[float]] = field(default_factory=dict)  # person → when they tried addresses
    open_id: Any = None  # what is kept of the identity provider, made when first asked for
    _colours: Any = None
    _conversations: Any = None

    def colour_book(self, make: Callable[[], Any]) -> Any:
        """The one book of colours of this process, made when first asked for."""
        if self._colours is None:
            self._colours = make()
        return self._colours

    def conversation_book(self, make: Callable[[], Any]) -> Any:
        """What this process knows of conversations, made when first asked for."""
        if self._conversations is None:
            self._conversations = make()
        return self._conversations

    @property
    def local(self) -> bool:
        """Local mode: no keys, no door, loopback peers only."""
        return not self.settings.friends_mode

    @property
    def trusted(self) -> tuple[Network, ...]:
        """The proxies whose X-Forwarded-* is believed."""
        return networks(self.settings.trusted_proxies)

    @property
    def pool_name(self) -> str:
        """What the operator calls the pool."""
        return self.settings.friend_name or "Pool"
