"""Builds every service once and wires them: start, reload, drain."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pool_server import __version__, accounts, ledger, users, web
from pool_server.accounts import Accounts, AccountSignIn
from pool_server.accounts.objects.owners import OwnersPort
from pool_server.alerts import AlertMonitor, PersonalAlerts
from pool_server.app import budgets, logs
from pool_server.app.alert_facts import AlertFactsSource
from pool_server.app.backup_schedule import BackupSchedule, change_log, keeps_log
from pool_server.app.composition import ports
from pool_server.app.composition.ports import BuildPorts
from pool_server.app.lifecycle import late_imports
from pool_server.app.tls.pair import pair_files
from pool_server.app.tls.served import ServedCertificate
from pool_server.app.upkeep import OTHERS_S, Upkeep
from pool_server.core.enums import SignInState
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import ConfigError, Settings, bind_address
from pool_server.core.settings_file import LoadedSettings, overlaid
from pool_server.gateway import OBJECT_TABLES, Gateway, Upstream
from pool_server.http1 import HttpServer, Request, RequestHandler, Response
from pool_server.ledger import Ledger
from pool_server.storage import FORMAT, LEDGER, STATE, FolderIdentity, Store, StoreVersionError, outgrows
from pool_server.storage.leases import WATCH
from pool_server.telemetry.service import Telemetry
from pool_server.transcripts import Transcripts
from pool_server.users import Users
from pool_server.web import WebContext

log = logging.getLogger(__name__)

IDLE_S = 100.0  # so long must nothing have come on a connection that a server which is replaced ends: clients drop
# their own after 90 s at the latest (reqwest, Go), and one that sends a request at that moment would lose it

JUST_NOW_S = 0.25  # who has connected or been answered so lately may have sent a request before the sockets closed

# Read once at the start: a reload keeps the old value and says so.
FIXED = (
    "listen_addr", "tls_cert", "tls_key", "log_format", "workers", "pool_dir", "data_dir", "ledger", "prices",
    "subscriptions", "backup", "telemetry", "store_url", "store_listen_url",
    "store_wait_s", "store_grace_s", "store_when_away", "node_name",
)  # fmt: skip


class CoreServices(NamedTuple):
    """The services under the data plane and the pages, on the two stores of a data folder."""

    accounts: Accounts
    users: Users
    ledger: Ledger
    state: Store
    durable: Store
    owners: OwnersPort | None = None  # None: of the durable store

    def close_stores(self) -> None:
        self.state.close()
        self.durable.close()


def open_services(
    settings: Settings,
    send: Callable[[HttpRequest], Awaitable[HttpAnswer]],
    *,
    leader: bool = True,
    build: BuildPorts = ports.embedded,
) -> CoreServices:
    """Open a data folder. Nothing runs yet; several processes may have it open. `build` says what keeps the state of
    rooms that is not in the folder itself.

    Raises StoreError, OSError or ValueError, each with one line.
    """
    with ExitStack() as undo:
        state, durable = open_stores(Path(settings.data_dir))
        undo.callback(state.close)
        undo.callback(durable.close)
        kept = build(settings, durable)
        ledger = Ledger(durable, settings, write_ahead=True, port=kept.ledger, notes=kept.notes)
        users = Users(
            settings,
            durable,
            state,
            used=ledger.used_by_user if kept.admission is None else None,
            many=settings.workers != 1,
            ports=kept.users,
            admission=kept.admission,
        )
        accounts = Accounts(
            settings, state, send=send, leader=leader, ports=kept.accounts, pins=kept.pins, sign_ins=kept.sign_ins
        )
        users.bookings.owns = accounts.owns
        accounts.follow_people(users.people.owner_id, users.groups.of)
        users.sign_in.keep_names(accounts.owners)
        undo.pop_all()
        return CoreServices(accounts, users, ledger, state, durable, kept.owners)


@contextmanager
def open_people(settings: Settings) -> Iterator[Users]:
    """The people of a data folder for as long as the block lasts, also beside a running server."""
    state, durable = open_stores(Path(settings.data_dir))
    try:
        yield Users(settings, durable, state, used=Ledger(durable, settings).used_by_user)
    finally:
        state.close()
        durable.close()


@asynccontextmanager
async def people_of(settings: Settings) -> AsyncIterator[Users]:
    """The pool's people for a command, in the data folder or in the database that `store_url` names. Raises
    ConfigError, SealError, StoreError."""
    if not settings.store_url:
        with open_people(settings) as users:
            yield users
        return
    async with ports.visited(settings) as node:
        build = await ports.over_database(node, settings)
        state, durable = open_stores(Path(settings.data_dir))
        try:
            kept = build(settings, durable)
            users = Users(settings, durable, state, ports=kept.users, admission=kept.admission)
            await users.follower.catch_up()
            yield users
        finally:
            state.close()
            durable.close()


def open_stores(folder: Path) -> tuple[Store, Store]:
    """The two stores of a data folder: what may be rebuilt, and what must last. Raises StoreError."""
    durable = open_durable(folder)
    try:
        state = Store.open(folder / STATE, tables=(*accounts.STATE_TABLES, *users.STATE_TABLES), durable=False)
    except BaseException:
        durable.close()
        raise
    return state, durable


def open_durable(folder: Path) -> Store:
    """The store of what must last. Raises StoreError."""
    return Store.open(
        folder / LEDGER,
        tables=(*ledger.TABLES, *users.LEDGER_TABLES, *OBJECT_TABLES),
        durable=True,
        version=ledger.FORMAT,
        usable_from=ledger.USABLE_FROM,
        migrations=ledger.MIGRATIONS,
    )


def can_stand_beside(data_dir: Path) -> None:
    """Raise StoreVersionError when this version would take the store from a server that still runs."""
    if outgrows(data_dir / LEDGER, ledger.USABLE_FROM) or outgrows(data_dir / STATE, FORMAT):
        raise StoreVersionError("this version changes the store's format: stop the running server, then start this one")


class Server:
    """One worker: all services in one process. `leader` is the worker that does what must happen once."""

    def __init__(
        self,
        settings: Settings,
        *,
        sources: dict[str, str] | None = None,
        reread: Callable[[], LoadedSettings] | None = None,
        tell_others: Callable[[], None] | None = None,
        worker: int = 0,
        leader: bool = True,
        leave: Callable[[], None] = lambda: None,
        others: int | None = None,
        succeeds: Callable[[], bool] | None = None,
    ) -> None:
        """`sources` says where each setting came from; `reread` reads them again for a reload, after which
        `tell_others` is called when the reload was asked of this worker alone. `leave` is called when serving makes no
        sense any more. `others`: a pipe that ends when the other workers have. `succeeds`: whether this worker does at
        its end what the leader would have done, who died."""
        self.settings = settings
        self.worker = worker
        self.leader = leader
        self._sources = sources or {}
        self._reread = reread
        self._tell_others = tell_others
        self._leave = leave
        self._others = others
        self._succeeds = succeeds
        self._stack = AsyncExitStack()
        self._reloading = asyncio.Lock()
        self._tls: ServedCertificate | None = None

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Open everything and serve on bound, listening sockets. Raises what `open_services` raises."""
        try:
            await self._build()
            await self._begin(sockets)
        except BaseException:
            await self._stack.aclose()
            raise

    async def _build(self) -> None:
        upstream = Upstream()
        if (files := pair_files(self.settings)) is not None:
            self._tls = ServedCertificate(*files, clock=time.time, leader=self.leader)
        services, settings = await self._open(upstream), self.settings
        self.accounts, self.users, self.ledger = services.accounts, services.users, services.ledger
        self._send = upstream.send
        stores = {LEDGER: services.durable, STATE: services.state}
        self._build_backups(stores)
        copies = [Path(settings.backup.folder)] if settings.backup.folder else []
        self._upkeep = Upkeep(
            stores,
            FolderIdentity(Path(settings.data_dir)),
            [Path(settings.data_dir), *copies],
            leader=self.leader,
            on_lost=self._data_lost,
            gone=self._leave,
        )
        self._stack.push_async_callback(self._rescue)
        self.transcripts = Transcripts(settings, self.users.consents, leader=self.leader)
        self.telemetry = Telemetry(settings.telemetry, version=__version__)
        self.gateway = Gateway(
            settings,
            accounts=self.accounts,
            users=self.users,
            ledger=self.ledger,
            upstream=upstream,
            transcripts=self.transcripts,
            telemetry=self.telemetry,
            owners=services.owners,
        )
        self._stack.push_async_callback(self.gateway.close)
        self.web = WebContext(
            settings,
            accounts=self.accounts,
            users=self.users,
            ledger=self.ledger,
            version=__version__,
            started_at=time.time(),
            reload=self.reload,
            sources=self._sources,
            models=self.gateway.local.every_model,
            usable=self.gateway.local.usable,
            send=upstream.send,
            reread=self._reread,
            transcripts=self.transcripts,
            store=self._node.state if self._node is not None else None,
            share_setting=self._share_setting if self._shared is not None else None,
        )

    def _build_backups(self, stores: dict[str, Store]) -> None:
        wanted = self.settings.backup
        stores[LEDGER].keep_log(keeps_log(wanted))
        self._changes = change_log(wanted, stores[LEDGER]) if self.leader else None
        if self._changes is not None:
            self._stack.push_async_callback(self._changes.close)
        self._backups = BackupSchedule(
            wanted,
            stores,
            Path(self.settings.data_dir),
            pool_dir=Path(self.settings.pool_dir),
            changes=self._changes,
        )

    async def _open(self, upstream: Upstream) -> CoreServices:
        """The services, of one machine alone or of a node of several."""
        self._node = node = await ports.join(self.settings, self.worker) if self.settings.store_url else None
        self._shared = None
        if node is not None:
            self._stack.push_async_callback(node.close)
            self._shared = ports.shared_settings(node)
            loaded = await self._shared.over(LoadedSettings(self.settings, self._sources, None))
            ports.check_shared(loaded.settings)
            self.settings, self._sources = loaded.settings, loaded.origins
        build = ports.embedded if node is None else await ports.over_database(node, self.settings, leader=self.leader)
        services = open_services(self.settings, upstream.send, leader=self.leader, build=build)
        self._stack.callback(services.close_stores)
        if node is not None:
            node.on_feed["people"].append(services.users.follower.look)
            node.on_feed["credentials"].append(services.accounts.follow_credentials)
            node.on_feed["settings"].append(self.reload_quietly)
        return services

    async def _begin(self, sockets: Sequence[socket.socket]) -> None:
        self.accounts.on_observation.append(self.ledger.observe)
        self.ledger.on_record.append(logs.exchange)
        self.ledger.on_hours.append(self.accounts.learn_demand)
        self.accounts.sign_ins.on_end.append(self._signed_in)
        await self.accounts.prepare()
        self.accounts.load()
        self.users.load()
        if self._shared is not None:
            await self._shared.describe(self.settings, self.users.mark)
        self._stack.push_async_callback(self.ledger.close)
        await self.ledger.start(leader=self.leader)
        tls = (self._tls,) if self._tls is not None else ()
        leading = await self._for_the_leader() if self.leader else ()
        for part in (self.users, self.accounts, self._upkeep, self.transcripts, self.telemetry, *tls, *leading):
            self._stack.push_async_callback(part.close)
            await part.start()
        self.gateway.start()
        pages, scheme = cache(self._pages), self.settings.scheme

        def serve(request: Request, response: Response) -> RequestHandler:
            return self.gateway.take(request, response) or pages()(request, response, scheme)

        table = budgets.connection_table(lambda: self.settings)
        context = self._tls.context if self._tls is not None else None
        self.http = HttpServer(serve, table=table, refuse=budgets.refusal, told=budgets.told, tls=context)
        self._stack.push_async_callback(self.http.close)
        await self.http.listen(sockets)
        late = asyncio.get_running_loop().create_task(late_imports.load())
        self._stack.callback(late.cancel)

    def _pages(self) -> Callable[[Request, Response, str], RequestHandler]:
        """Who answers what is no call of the data plane."""
        from pool_server.http1.tornado import TornadoRequestHandler

        return partial(TornadoRequestHandler, web.application(self.web))

    async def _signed_in(self, record: AccountSignIn) -> None:
        """Keep in the audit log how a sign-in ended."""
        detail = {"provider": record.provider.value, "flow": record.flow.value}
        if record.code:
            detail["code"] = record.code
        if record.invitation and record.state is SignInState.DONE:
            await self.users.codes.contributed(record.invitation, record.owner)
        await self.users.audit(users.SERVER, f"sign_in.{record.state.value}", record.account or record.target, detail)

    async def _for_the_leader(self) -> tuple[BackupSchedule, AlertMonitor, PersonalAlerts]:
        """What one worker does for all: scheduled copies, a look at what people should be told."""
        gathering = AlertFactsSource(
            self.accounts, self.users, self.ledger, clock=time.time, data_folder=lambda: self._upkeep.lost,
            certificate=lambda: self._tls.trouble if self._tls is not None else "",
        )  # fmt: skip
        await asyncio.to_thread(gathering.prime)
        if self._changes is not None:
            await self._changes.start()
        watches = partial(self.accounts.duties.mine, WATCH)
        self.watch = AlertMonitor(self.ledger, self._send, gathering, clock=time.time, mine=watches)
        pool = self.settings.friend_name or "the pool"
        personal = PersonalAlerts(self.ledger, self.users, self._send, pool, clock=time.time, mine=watches)
        return self._backups, self.watch, personal

    @property
    def lost(self) -> str:
        """Why the data folder is not the one that was opened, "" while it is."""
        return self._upkeep.lost

    def _data_lost(self) -> None:
        self.web.data_lost = self._upkeep.lost
        if self.leader:
            self._looking = asyncio.get_running_loop().create_task(self.watch.look())

    async def _rescue(self) -> None:
        if self.leader or (self._succeeds is not None and self._succeeds()):
            await self._upkeep.rescue(self._others, within_s=OTHERS_S + self.settings.drain_s)

    def hurry(self, seconds: float) -> None:
        """A drain, now or later, may take no longer than so many seconds from now."""
        self.gateway.hurry(seconds)

    def stand_beside(self, another: bool) -> None:
        """Another server shares the data folder from now on, as while an upgrade lasts, or one that did has ended."""
        self.accounts.stand_beside(another)
        self.users.stand_beside(another)

    async def hand_over(self) -> None:
        """Another server has these sockets: leave the lead to it, serve who is connected here to the end, each with one
        answer more, but no longer than `upgrade_drain_s` or `hurry` says."""
        self.http.stop()
        self.web.replaced = True
        if self.leader:
            await self.accounts.step_down()
            await self.watch.close()
            await self._backups.close()
            if self._changes is not None:
                await self._changes.close()
        self.gateway.hurry(self.settings.upgrade_drain_s)
        await self.gateway.serve_out(lambda: self.http.quiet(IDLE_S))

    async def drain(self) -> None:
        """Take nothing new, let running exchanges finish within `drain_s`, end the rest, close everything."""
        self.web.draining = True
        self.http.stop()
        await self.gateway.drain(self.settings.drain_s, quiet=lambda: self.http.quiet(JUST_NOW_S))
        await self._stack.aclose()

    async def reload(self) -> dict[str, Any]:
        """Reread settings and credential files for every worker → what changed (see `_reload`)."""
        report = await self._reload()
        if self._shared is not None:
            await self._shared.announce()  # the other workers of this machine are nodes as well
        elif self._tell_others is not None:
            self._tell_others()
        return report

    async def _share_setting(self, key: str, text: str | None) -> None:
        """Raises ConfigError where no node could go by it, StoreError."""
        assert self._shared is not None
        if text is not None:
            loaded = overlaid(LoadedSettings(self.settings, {}, None), {key: text})
            ports.check_shared(loaded.settings)
        await self._shared.put(key, text)

    async def reload_quietly(self) -> None:
        """The same for this worker alone, told to the log: another worker or a signal asked for it."""
        try:
            report = await self._reload()
        except Exception:
            log.exception("the reload failed; everything stays as it was")
            return
        if report["settings_error"]:
            log.error("settings stay as they were: %s", report["settings_error"])
        changes = {name: report[name] for name in ("added", "changed", "removed") if report[name]}
        if self.leader:
            log.info("reloaded: %s", changes or "no account changed")

    async def _reload(self) -> dict[str, Any]:
        """The accounts' report, and `settings_error` (one line, "" = none), `restart_needed` (settings that have
        changed and are only read at the start)."""
        async with self._reloading:
            error = ""
            restart: list[str] = []
            if self._tls is not None:
                await self._tls.look()
            if self._reread is not None:
                try:
                    loaded = self._reread()
                    if self._shared is not None:
                        loaded = await self._shared.over(loaded)
                    settings, restart = _mixed(self.settings, loaded.settings)
                    bind_address(settings)
                    if settings.store_url:
                        ports.check_shared(settings)
                    self._apply(settings, loaded.origins)
                except (ConfigError, ValueError) as mistake:
                    error = str(mistake)
            if self._shared is not None:
                await self._shared.describe(self.settings, self.users.mark)
            report = await self.accounts.reload(self.settings)
            return {**report.told(), "settings_error": error, "restart_needed": restart}

    def _apply(self, settings: Settings, sources: dict[str, str]) -> None:
        self.users.reload(settings)  # may refuse a secret, before anything has changed
        self.settings = self.web.settings = self.ledger.settings = settings
        self.web.sources = sources
        self.gateway.apply(settings)
        self.transcripts.apply(settings)
        self.http.table.limits = budgets.connection_limits(settings, budgets.descriptor_limit())
        logs.set_debug(settings.debug)


def _mixed(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """The new settings with the old values of those that are only read at the start, and their names."""
    kept = {name: getattr(old, name) for name in FIXED if getattr(old, name) != getattr(new, name)}
    return msgspec.structs.replace(new, **kept), sorted(kept)
