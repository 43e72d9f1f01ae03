"""One server that fails at one point, and what must hold of it then and of the one that is started after it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

from pool_server.accounts.credentials.escrow import FOLDER as ESCROW
from pool_server.app.server import open_durable, open_people
from pool_server.app.supervisor import run
from pool_server.core.models import HttpAnswer, HttpRequest, Usage, UsageRecord
from pool_server.core.settings import PoolUsers, Settings
from pool_server.core.settings_file import LoadedSettings
from pool_server.gateway.upstream import Upstream
from pool_server.ledger import Ledger
from pool_server.storage import backup_folder, restore
from pool_server.users import AuditActor
from tests.failpoints.old_faults import FAULTS
from tests.failpoints.points import ACTIONS, PHASES, PLACES, Failpoint, Point
from tests.fakes import FakeProviders, account, fake_settings, key_account, plays
from tests.gateway.stack import messages
from tests.process import until

ASKED = 12
LIMIT = 72  # tokens a day of one of the two friends: six requests
USED = Usage(input=7, output=5, known=True)
CTX = multiprocessing.get_context("forkserver")
CTX.set_forkserver_preload(["tests.failpoints.runs"])

SIGN_IN, KEY = "claude:sign-in", "claude:key"


ANSWERED_S, STARTED_S = 5.0, 3.0  # at most, of a request and of the next start
CLIENT_S = 30.0  # a client's patience


class ModelError(AssertionError):
    """What was promised does not hold."""


def _serve(
    settings: Settings, folder: Path, point: Point | None, fault: str, prepare: Callable[[], None] | None
) -> None:
    """The process of a server; what it prints goes into a file."""
    out = os.open(folder / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if point is not None:
        Failpoint(point, folder / "armed", folder / "passed").install()
        _watch_tokens(folder, settings)
    if fault:
        FAULTS[fault].put_back()
    if prepare is not None:
        prepare()
    loaded = LoadedSettings(settings, {}, None)
    try:
        code = run(loaded, lambda: loaded)
    except Exception as error:  # the one line a command would print
        print(f"refused: {error}", flush=True)
        code = 1
    os._exit(code)


def _watch_tokens(folder: Path, settings: Settings) -> None:
    """Note when a file of the accounts was durable after a token endpoint had answered: before that, a kill may lose
    the rotated token."""
    sync, send = os.fsync, Upstream.send
    mine = tuple(os.path.realpath(place) for place in (settings.pool_dir, Path(settings.data_dir) / ESCROW))
    answered: list[str] = []

    async def noted(upstream: Upstream, request: HttpRequest) -> HttpAnswer:
        answer = await send(upstream, request)
        if "token" in request.url:
            answered.append(request.url)
        return answer

    def synced(descriptor: int) -> None:
        sync(descriptor)
        path = os.path.realpath(f"/proc/self/fd/{descriptor}")
        if answered and os.path.isfile(path) and path.startswith(mine):
            (folder / "kept").touch()

    Upstream.send, os.fsync = noted, synced  # type: ignore[assignment,method-assign]


class Stopwatch:
    """What a program's own work and waiting take, on a machine however busy: time in which one of its threads could
    have run and was given no processor does not count."""

    def __init__(self, *pids: int | None) -> None:
        self._began, self._queued = time.monotonic(), _queued_ns(pids)

    def own_s(self, *pids: int | None) -> float:
        """Threads that have ended since, with a process that was killed, count for nothing."""
        waited = sum(now - self._queued.get(task, 0) for task, now in _queued_ns(pids).items())
        return max(0.0, time.monotonic() - self._began - waited / 1e9)


def _queued_ns(pids: tuple[int | None, ...]) -> dict[Path, int]:
    """For how long each thread of these processes has waited for a processor (Linux; elsewhere none is known)."""
    waited = {}
    for task in (task for pid in pids for task in Path(f"/proc/{pid}/task").glob("*/schedstat")):
        try:
            waited[task] = int(task.read_text().split()[1])
        except (OSError, IndexError):
            continue  # it has ended
    return waited


class Server:
    """`with Server(settings, folder, point) as server`: `url` is "" where it did not come up. `fault`: of FAULTS.
    `prepare` is called in its process before it starts."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        point: Point | None = None,
        fault: str = "",
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._out = folder / "out"
        self._said = len(self._out.read_text(encoding="utf-8")) if self._out.exists() else 0
        self.process: ForkServerProcess = CTX.Process(target=_serve, args=(settings, folder, point, fault, prepare))
        self.url = ""
        self.started_s = 0.0  # see `Stopwatch.own_s`
        self.slowest_s = 0.0  # of its answers, likewise

    def __enter__(self) -> Server:
        self.process.start()
        watch = Stopwatch(os.getpid())
        self.url = until(lambda: self._announced() or (not self.alive and "-"), "a start or an end")
        until(lambda: not self.alive or self._healthy(), "an answer or an end")
        self.url = self.url if self.alive else ""
        self.started_s = watch.own_s(os.getpid(), self.process.pid)
        return self

    def _announced(self) -> str:
        said = self._out.read_text(encoding="utf-8") if self._out.exists() else ""
        found = re.findall(r"^pool-server \S+ on (http://\S+)", said[self._said :], re.M)
        return found[-1] if found else ""

    def _healthy(self) -> bool:
        try:
            return self.call("GET", "/healthz", "")[0] > 0
        except OSError:
            return False

    @property
    def alive(self) -> bool:
        return bool(self.process.is_alive())

    def call(self, method: str, path: str, key: str, body: Any = None, **headers: str) -> tuple[int, str, bytes]:
        """Status, request id, body. Raises OSError or HTTPException."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=CLIENT_S)
        try:
            sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            sent |= {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            return answer.status, answer.getheader("X-Pool-Request-Id", ""), answer.read()
        finally:
            connection.close()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.alive and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGTERM if kind is None else signal.SIGKILL)
        self.process.join(60)
        if self.alive:
            self.process.kill()
            self.process.join()
            raise ModelError("the server does not end")


class World(NamedTuple):
    """What two lives of a server share: `keys` and `users` (ids) of the friends by name."""

    folder: Path
    fakes: FakeProviders
    settings: Settings
    keys: dict[str, str]
    users: dict[str, str]


@contextmanager
def world(folder: Path, *, expired: bool) -> Iterator[World]:
    """Providers, settings, and two friends: one with a limit, one without. `expired`: the sign-in's token is due."""
    accounts = [account(SIGN_IN, life_s=-60.0 if expired else 28_800.0, priority=1), key_account(KEY, priority=2)]
    with FakeProviders(accounts) as fakes:
        accounts[0].life_s = 28_800.0
        for one in accounts:
            fakes.always(one.id, plays.ok(USED))
        users = PoolUsers(admin_password="deep end")
        settings = fake_settings(folder, fakes, drain_s=1, friend_code="swim", pool_users=users)
        keys, ids = {}, {}
        with open_people(settings) as people:
            for name, limits in (("ada", {"tokens_day": LIMIT}), ("bob", {})):
                made = people.people.create_user(name, limits=limits, actor=AuditActor("admin", name="test"))
                user = asyncio.run(made)
                keys[name], ids[name] = str(user["key"]), str(user["id"])
        yield World(folder, fakes, settings, keys, ids)


def ask(server: Server, key: str, number: int) -> tuple[int, str]:
    """Status and id of one answered request; status 0 where nothing whole came back."""
    body = messages(stream=bool(number % 2), session=f"s-{number}") | {"max_tokens": 5}
    pids = (os.getpid(), server.process.pid)
    watch = Stopwatch(*pids)
    try:
        status, ident, _ = server.call("POST", "/v1/messages", key, body)
    except (OSError, http.client.HTTPException):
        status, ident = 0, ""
    server.slowest_s = max(server.slowest_s, watch.own_s(*pids))
    return status, ident


def check(point: Point, folder: Path, fault: str = "") -> str:
    """Run the point and hold the outcome to the model; returns what came of it. Raises ModelError. `fault`: with one of
    FAULTS put back."""
    with world(folder, expired=point.phase == "start") as shared:
        acknowledged: set[str] = set()
        with Server(shared.settings, folder, point, fault) as server:
            if server.url:
                (folder / "armed").touch()
                if point.phase == "load":
                    shared.fakes.accounts[SIGN_IN].revoke()  # the first request has it renewed
                acknowledged = _load(server, list(shared.keys.values()))
                if point.action != "kill":
                    status, _ = ask(server, shared.keys["bob"], 99)
                    _expect(status == 200, f"it answers {status}: {(folder / 'out').read_text()}")
            if (folder / "passed").exists() and point.action == "kill":
                server.process.join(60)
            died = not server.alive
        passed = (folder / "passed").exists()  # some are passed at the end alone
        _expect(passed or not died, f"it ended without a fault: {(folder / 'out').read_text()}")
        _expect(not died or point.action == "kill" or point.phase == "start", "an error of the disk ended it")
        _expect(server.slowest_s <= ANSWERED_S, f"a request waits {server.slowest_s:.1f} s")
        _copy(shared, acknowledged, fault)
        seconds = _second_life(shared, point, fault)
        _books(shared, acknowledged)
    return f"{'passed' if passed else 'not reached'}, {'died' if died else 'lived'}, up again in {seconds:.1f} s"


def _load(server: Server, keys: list[str]) -> set[str]:
    """Some requests at once, and once more: the ids of those that were answered. Between them a page is looked at, for
    which the store takes what the log has."""
    answered: list[tuple[int, str]] = []
    for half in range(2):
        with ThreadPoolExecutor(4) as pool:
            numbers = range(half * ASKED // 2, (half + 1) * ASKED // 2)
            answered += pool.map(lambda n: ask(server, keys[n % 2], n), numbers)
        with contextlib.suppress(OSError, http.client.HTTPException):
            server.call("GET", "/admin/accounts", "deep end")
    return {ident for status, ident in answered if status == 200}


def _expect(true: bool, what: str) -> None:
    if not true:
        raise ModelError(what)


def _copy(shared: World, acknowledged: set[str], fault: str) -> None:
    """A copy of what the first life left, made and put back as an operator does, has what was acknowledged. The folder
    itself stays as it was left."""
    data, folder = Path(shared.settings.data_dir), shared.folder
    shutil.copytree(data, folder / "left" / data.name)
    process = CTX.Process(target=_back_up, args=(folder / "left" / data.name, folder, fault))
    process.start()
    process.join()
    _expect(process.exitcode == 0, f"no copy can be made: {(folder / 'out').read_text()}")
    missing = acknowledged - {record.id for record in _recorded(folder / "restored", shared.settings)}
    _expect(not missing, f"{len(missing)} acknowledged requests are in no copy")


def _back_up(data: Path, folder: Path, fault: str) -> None:
    if fault:
        FAULTS[fault].put_back()
    backup_folder(data, folder / "copy.tar", now=time.time())
    restore(folder / "copy.tar", folder / "restored")


def _second_life(shared: World, point: Point, fault: str) -> float:
    """A start without faults, and what it must be able to do; how long it took in seconds."""
    with Server(shared.settings, shared.folder, fault=fault) as server:
        seconds = server.started_s
        _expect(bool(server.url), f"the next start refuses: {(shared.folder / 'out').read_text()}")
        _expect(seconds <= STARTED_S, f"the next start takes {seconds:.1f} s")
        for number in range(ASKED):
            ask(server, shared.keys["ada"], 100 + number)
            _expect(server.slowest_s <= ANSWERED_S, f"a request of the next start waits {server.slowest_s:.1f} s")
        _expect(ask(server, shared.keys["bob"], 200)[0] == 200, "the next start serves")
        renewed = shared.fakes.accounts[SIGN_IN].generation > 0
        if renewed and not (shared.folder / "kept").exists() and (point.action == "kill" or point.times > 1):
            return seconds  # the token was in the memory of the first process alone: no place took it before its end
        status, _, answer = server.call("POST", f"/admin/accounts/{SIGN_IN}/test", "deep end", {})
        _expect(status == 200 and json.loads(answer)["result"]["ok"], f"the sign-in is of no use: {answer!r}")
    return seconds


def _recorded(data: Path, settings: Settings) -> list[UsageRecord]:
    """What the ledger in this folder has, and that its sums agree. Raises ModelError."""
    store = open_durable(data)
    try:
        ledger = Ledger(store, settings)
        records = list(ledger.log.scan(0, 1e11))
        total = ledger.queries.total(0, 1e11)
    finally:
        store.close()
    ids = [record.id for record in records]
    _expect(len(ids) == len(set(ids)), "an id is there twice")
    _expect(total["requests"] == len(records), "sums and records differ")
    _expect(total["output"] == sum(record.usage.output for record in records), "tokens and records differ")
    return records


def _books(shared: World, acknowledged: set[str]) -> None:
    records = _recorded(Path(shared.settings.data_dir), shared.settings)
    missing = acknowledged - {record.id for record in records}
    _expect(not missing, f"{len(missing)} acknowledged requests are in no book")
    ada = [record.usage for record in records if record.user == shared.users["ada"]]
    spent = sum(usage.input + usage.output for usage in ada if usage.known)
    _expect(spent <= LIMIT, f"{spent} tokens were let through, {LIMIT} were allowed")


def points() -> list[Point]:
    """Every place, phase and action, at its first passing and at a later one; an error also for good while it lasts."""
    every = [
        Point(place, phase, action, hit, times)
        for place in PLACES
        for phase in PHASES
        for action in ACTIONS
        for hit, times in ((1, 1), (3, 1), (1, 1000))
    ]
    return [point for point in every if point.sensible and not (point.action == "kill" and point.times > 1)]


def main(named: list[Point]) -> int:
    """Run these points or all, one line each; how many failed."""
    failed = 0
    for point in named or points():
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(point, check(point, Path(folder)), flush=True)
            except Exception as error:
                failed += 1
                print(point, "FAILED:", repr(error), flush=True)
    return failed
