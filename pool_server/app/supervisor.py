"""Processes and signals: one server a data folder, its workers, and how they are told to go."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pool_server import __version__
from pool_server.app import budgets, run_file
from pool_server.app.listening import StartError, listen
from pool_server.app.parent_watch import ParentWatch
from pool_server.app.server import Server
from pool_server.app.shared_metrics import worker_ended
from pool_server.app.upkeep import SURE_S
from pool_server.app.worker_state import Heartbeats, LeaderLock
from pool_server.core.settings import ConfigError, Settings, bind_address
from pool_server.core.settings_file import LoadedSettings
from pool_server.core.tasks import PeriodicTasks
from pool_server.storage import FolderIdentity, FolderLock, StoreError, join_folder, lock_folder, wait_for_workers

log = logging.getLogger(__name__)

QUICK_DEATH_S = 10.0  # a worker that lived shorter than this is restarted ever later
LONGEST_WAIT_S = 30.0
_COLLECTED = (10_000, 20, 20)  # containers made between two collections: a request makes some hundred, and frees them
_SWITCH_S = 0.0005  # the committing thread gives up the interpreter at every write and must get it back soon
LEFT_BEHIND_S = 2.0  # a start waits so long for workers of a server that was killed
ORPHAN_DRAIN_S = 1.0  # and they for their running answers: a new server may be there to take whoever comes again
BEAT_S = 2.0  # so often a worker says that its loop runs
LOOK_S = 5.0  # so often the supervisor looks at it
HUNG_S = 30.0  # a loop that has not run for so long serves nobody: its worker is replaced
HOPELESS = 78  # a worker's exit code when starting it again cannot help (EX_CONFIG)

Reread = Callable[[], LoadedSettings]


def run(loaded: LoadedSettings, reread: Reread) -> int:
    """Serves until told to stop; the exit code. Raises ConfigError, StartError or StoreError with one line."""
    settings = loaded.settings
    address = bind_address(settings)
    budgets.raise_descriptor_limit()
    folder = Path(settings.data_dir)
    with lock_folder(folder) as lock:
        if not wait_for_workers(folder, LEFT_BEHIND_S):
            log.warning("a worker of a server that was killed still brings something to its end")
        sockets = listen(address.host, address.port, friends_mode=settings.friends_mode)
        with contextlib.ExitStack() as listening, run_file.announced(folder, _url(sockets)):
            for bound in sockets:
                listening.callback(bound.close)
            workers = settings.workers or os.cpu_count() or 1
            if workers == 1:
                return work(loaded, reread, sockets)

            def child(number: int, life: Life) -> int:
                return _child(loaded, reread, sockets, number, life, lock)

            identity = FolderIdentity(folder)
            return Supervisor(workers, child, leaving=listening.close, lost=identity.changed).run()


def banner(
    settings: Settings, sockets: list[socket.socket], accounts: tuple[int, int], rejected: Sequence[Mapping[str, str]]
) -> str:
    """The one line a start prints: address, mode, accounts (total, ready); without any, the first reason why."""
    mode = "friends mode" if settings.friends_mode else "local mode, this machine only"
    total, ready = accounts
    pool = f"{ready} of {total} accounts ready" if total else f"no accounts in {settings.pool_dir}/ yet"
    if rejected and not total:
        pool = f"no accounts: {rejected[0]['file']} {rejected[0]['reason']}"
    return f"pool-server {__version__} on {_url(sockets)} ({mode}; {pool})"


def _url(sockets: list[socket.socket]) -> str:
    host, port = sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def work(
    loaded: LoadedSettings,
    reread: Reread,
    sockets: list[socket.socket],
    *,
    number: int = 0,
    life: Life | None = None,
    watch: ParentWatch | None = None,
) -> int:
    """One worker from start to end, in this process; `life` and `watch` are None where it has no supervisor."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(loaded, reread, sockets, number, life, watch))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not made for every system
        return None
    return uvloop.new_event_loop


async def _serve(
    loaded: LoadedSettings,
    reread: Reread,
    sockets: list[socket.socket],
    number: int,
    life: Life | None,
    watch: ParentWatch | None,
) -> int:
    leave = _Leaving(alone=life is None)
    server = Server(
        loaded.settings,
        sources=loaded.origins,
        reread=reread,
        tell_others=None if life is None else life.tell_supervisor,
        worker=number,
        leader=number == 0,
        leave=leave.ask,
        others=None if life is None else life.others,
        succeeds=None if life is None else life.succeeds,
    )
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, leave.signal)
    loop.add_signal_handler(signal.SIGINT, leave.signal if life is None else _nothing)
    loop.add_signal_handler(signal.SIGHUP, lambda: leave.keep(loop.create_task(server.reload_quietly())))
    await server.start(sockets)
    beating = PeriodicTasks()
    if life is not None:
        beating.every(BEAT_S, lambda: life.heartbeats.beat(number, time.monotonic()), "the heartbeat", at_once=True)
    beating.start()
    if watch is not None:
        watch.follow(lambda: leave.orphaned(server))
    gc.collect()
    gc.freeze()  # what was built at the start stays: full collections need not walk it
    gc.set_threshold(*_COLLECTED)
    sys.setswitchinterval(_SWITCH_S)
    if number == 0 and (life is None or life.first):
        print(banner(loaded.settings, sockets, server.accounts.ready(), server.accounts.rejected()), flush=True)
    await leave.asked.wait()
    await server.drain()
    await beating.close()
    return HOPELESS if server.lost else 0


class _Leaving:
    """First signal to stop: leave well. Second: at once, unless there is a supervisor, who kills when it means that.

    A worker may be told several times over: by the supervisor, by a service manager that tells every process of the
    service, by what it finds itself.
    """

    def __init__(self, *, alone: bool) -> None:
        self.asked = asyncio.Event()
        self._alone = alone
        self._signals = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def signal(self) -> None:
        """SIGTERM has come, or SIGINT."""
        self._signals += 1
        if self._alone and self._signals > 1:
            os._exit(1)
        self.ask()

    def ask(self) -> None:
        """Leave, however often it is asked."""
        if self._alone and not self.asked.is_set():
            log.info("leaving: running answers may finish, a second signal ends at once")
        self.asked.set()

    def orphaned(self, server: Server) -> None:
        """The supervisor is gone: leave soon, also where leaving has begun."""
        server.hurry(ORPHAN_DRAIN_S)
        self.ask()

    def keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _nothing() -> None:
    """A worker leaves when its supervisor says so; Ctrl-C reaches both."""


def _child(
    loaded: LoadedSettings, reread: Reread, sockets: list[socket.socket], number: int, life: Life, lock: FolderLock
) -> int:
    """One worker under a supervisor. The data folder's lock stays the supervisor's alone: it ends when that does."""
    try:
        with join_folder(Path(loaded.settings.data_dir)):
            lock.close()
            watch = ParentWatch(life.parent, sockets)
            watch.start()
            return work(loaded, reread, sockets, number=number, life=life, watch=watch)
    except (ConfigError, StartError, StoreError, ValueError) as error:
        print(f"pool-server: {error}", file=sys.stderr, flush=True)
        return HOPELESS


@dataclass
class Life:
    """What a worker is born with. `parent` is a pipe that ends when the supervisor does; `others` one that ends when
    the supervisor starts nothing any more and all other workers have ended: each that is no leader holds its other
    end, `own_end`. `lock` is the leader's as long as it lives."""

    first: bool
    parent: int
    others: int
    lock: LeaderLock
    heartbeats: Heartbeats
    own_end: int | None = None
    supervisor: int = field(default_factory=os.getppid)

    def succeeds(self) -> bool:
        """At its end: whether the leader died, and this worker does before all others what the leader would have."""
        if not self.lock.take():
            return False
        if self.own_end is not None:  # it waits for the others, not for itself
            os.close(self.own_end)
            self.own_end = None
        return True

    def tell_supervisor(self) -> None:
        """SIGHUP, for all workers to reread their settings. A supervisor that is gone is told nothing."""
        if os.getppid() == self.supervisor:
            os.kill(self.supervisor, signal.SIGHUP)


@dataclass
class _Worker:
    number: int
    pid: int = 0
    born: float = 0.0
    quick_deaths: int = 0
    due: float = 0.0  # when it may be started again


class Supervisor:
    """Forks workers before anything is opened, starts the dead again, hands signals on.

    `leaving` closes what only this process still listens on: whoever comes then is to be refused, not to wait. `lost`
    says what is wrong with the data folder, "" when it is the one that was locked: a worker that is started again would
    begin an empty one where it was removed, and whoever still has the old one open is to save it.
    """

    def __init__(
        self,
        workers: int,
        child: Callable[[int, Life], int],
        *,
        leaving: Callable[[], None],
        lost: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers = [_Worker(number) for number in range(workers)]
        self._child = child
        self._leaving = leaving
        self._lost = lost
        self._heartbeats = Heartbeats(workers)
        self._looked_at = clock()
        self._lost_since: float | None = None  # monotonic seconds of the look that found the data folder lost
        self._clock = clock
        self._pipe: tuple[int, int] = (-1, -1)
        self._others: tuple[int, int] = (-1, -1)  # whoever writes is no leader, and lives
        self._stops = 0
        self._code = 0

    def run(self) -> int:
        """Until every worker has ended; the exit code."""
        self._pipe, self._others, self._lock = os.pipe(), os.pipe(), LeaderLock()
        with _signals() as wake:
            try:
                self._loop(wake)
            finally:
                for end in (*self._pipe, self._others[0]):
                    os.close(end)
                self._lock.close()
                self._start_nothing()
        return self._code

    def _loop(self, wake: socket.socket) -> None:
        while True:
            self._reap()
            if self._stops:
                if not any(worker.pid for worker in self._workers):
                    return
            else:
                self._end_hung()
                self._start_due()
            for number in _received(wake, self._wait_s()):
                self._on_signal(number)

    def _wait_s(self) -> float | None:
        waiting = [worker.due - self._clock() for worker in self._workers if not worker.pid]
        return None if self._stops else max(0.0, min([LOOK_S, *waiting]))

    def _end_hung(self) -> None:
        """End workers whose loop does not run any more (blocked, stopped): they are started again like others that
        died. Who was stopped along with them judges nobody."""
        now = self._clock()
        before, self._looked_at = self._looked_at, now
        if now - before > 2 * LOOK_S:
            for worker in self._workers:
                self._heartbeats.begin(worker.number)
            return
        for worker in self._workers:
            if worker.pid and (silent := self._heartbeats.silent_s(worker.number, now)) > HUNG_S:
                log.error("worker %d has done nothing for %.0f s: it is ended", worker.number, silent)
                self._heartbeats.begin(worker.number)
                os.kill(worker.pid, signal.SIGKILL)

    def _start_due(self) -> None:
        lost = self._lost()
        if not lost:
            self._lost_since = None
        for worker in self._workers:
            if worker.pid or worker.due > self._clock():
                continue
            if not lost or not worker.born:
                self._fork(worker)
            elif self._lost_since is not None and self._clock() - self._lost_since >= SURE_S:
                log.critical("%s: no worker is started again, those that live save what it held", lost)
                self._code = 1
                self._stop()
                return
            else:
                self._lost_since = self._lost_since or self._clock()
                worker.due = self._clock() + SURE_S

    def _fork(self, worker: _Worker) -> None:
        first = worker.born == 0.0
        worker.born = self._clock()
        self._heartbeats.begin(worker.number)
        pid = os.fork()
        if pid:
            worker.pid = pid
            return
        code = 70
        leader = worker.number == 0
        try:
            os.close(self._pipe[1])
            if leader:
                os.close(self._others[1])
                self._lock.take()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            code = self._child(worker.number, self._life(first, leader))
        except BaseException:
            log.exception("worker %d failed", worker.number)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _life(self, first: bool, leader: bool) -> Life:
        own_end = None if leader else self._others[1]
        return Life(first, self._pipe[0], self._others[0], self._lock, self._heartbeats, own_end)

    def _reap(self) -> None:
        for worker in self._workers:
            if worker.pid:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid:
                    worker_ended(pid)
                    self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, code: int) -> None:
        worker.pid = 0
        if self._stops:
            told = code == -signal.SIGTERM  # before it had begun to listen to signals
            self._code = self._code or int(code != 0 and not told)
            return
        if code == HOPELESS:
            self._code = 1
            self._stop()
            return
        quick = self._clock() - worker.born < QUICK_DEATH_S
        worker.quick_deaths = worker.quick_deaths + 1 if quick else 0
        wait = min(LONGEST_WAIT_S, 2.0 ** (worker.quick_deaths - 1)) if worker.quick_deaths else 0.0
        worker.due = self._clock() + wait
        log.error("worker %d ended with %d, starting it again in %g s", worker.number, code, wait)

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGHUP:
            self._tell(signal.SIGHUP)

    def _stop(self) -> None:
        self._stops += 1
        self._start_nothing()
        self._leaving()
        self._tell(signal.SIGTERM if self._stops == 1 else signal.SIGKILL)

    def _start_nothing(self) -> None:
        """No worker is started any more: the pipe to the leader ends with those that live."""
        read, write = self._others
        if write >= 0:
            os.close(write)
        self._others = (read, -1)

    def _tell(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket on which the numbers of arriving signals can be read, for as long as the block lasts."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        ours.close()
        theirs.close()


def _received(wake: socket.socket, timeout_s: float | None) -> list[int]:
    select.select([wake], [], [], timeout_s)
    try:
        return list(wake.recv(4096))
    except BlockingIOError:
        return []
