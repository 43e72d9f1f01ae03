"""Processes and signals: one server a data folder, its workers, and how they are told to go."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pool_server.accounts.credentials.sealing import environment_keys
from pool_server.app import budgets, listening, logs
from pool_server.app.composition.ports import check_shared
from pool_server.app.lifecycle import late_imports, service_manager
from pool_server.app.lifecycle.incumbent import Incumbent
from pool_server.app.lifecycle.successor import Handover, handed_over
from pool_server.app.lifecycle.worker import HOPELESS, Life, Reread, url_of, work
from pool_server.app.listening import StartError
from pool_server.app.parent_watch import ParentWatch
from pool_server.app.server import can_stand_beside
from pool_server.app.shared_metrics import worker_ended
from pool_server.app.tls.pair import load_pair, pair_files
from pool_server.app.upkeep import SURE_S
from pool_server.app.worker_state import Heartbeats, LeaderLock
from pool_server.core.settings import ConfigError, Settings, bind_address
from pool_server.core.settings_file import LoadedSettings
from pool_server.storage import (
    FolderIdentity,
    FolderLock,
    StoreError,
    adopt_lock,
    join_folder,
    lock_folder,
    wait_for_workers,
)

log = logging.getLogger(__name__)

QUICK_DEATH_S = 10.0  # a worker that lived shorter than this is restarted ever later
LONGEST_WAIT_S = 30.0
LOOK_S = 5.0  # so often the supervisor looks at the heartbeats of its workers
HUNG_S = 30.0  # a loop that has not run for so long serves nobody: its worker is replaced
LEFT_BEHIND_S = 2.0  # a start waits so long for workers of a server that was killed
HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2)


def run(loaded: LoadedSettings, reread: Reread) -> int:
    """Serves until told to stop, or until another server has taken over; the exit code. Raises ConfigError, StartError,
    SealError or StoreError with one line."""
    settings = loaded.settings
    if settings.store_url:
        check_shared(settings)
    environment_keys()
    if (files := pair_files(settings)) is not None:
        load_pair(*files)
    budgets.raise_descriptor_limit()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # until there is a server that can hand over
    given = handed_over(os.environ)
    folder = Path(settings.data_dir)
    with _held(folder, given) as lock, contextlib.ExitStack() as stack:
        stack.enter_context(logs.kept(folder))
        sockets = _sockets(settings, given)
        url = url_of(sockets, settings.scheme)
        incumbent = Incumbent(folder, lock, sockets, address=settings.listen_addr, url=url, given=given)
        stack.callback(incumbent.close)
        leaving = contextlib.ExitStack()
        stack.push(leaving)
        for bound in sockets:
            leaving.callback(bound.close)
        workers = settings.workers or os.cpu_count() or 1
        if workers == 1:
            return work(loaded, reread, sockets, incumbent=incumbent)

        def child(number: int, life: Life) -> int:
            return _child(loaded, reread, sockets, number, life, lock)

        identity = FolderIdentity(folder)
        return Supervisor(workers, child, leaving=leaving.close, incumbent=incumbent, lost=identity.changed).run()


def _held(folder: Path, given: Handover | None) -> FolderLock:
    """The hold of the data folder, with nobody else in it but a server that hands it over."""
    if given is not None:
        _see_whether_whole()
        lock = adopt_lock(folder, given.lock)
        can_stand_beside(folder)
        return lock
    lock = lock_folder(folder)
    if not wait_for_workers(folder, LEFT_BEHIND_S):
        log.warning("a worker of a server that was killed still brings something to its end")
    return lock


def _see_whether_whole() -> None:
    """Raises StartError for a version of which something is missing or broken, as after an installation that was cut
    off."""
    try:
        late_imports.load_at_once()
    except Exception as error:  # a module may fail in any way
        raise StartError(f"this version is not whole: {type(error).__name__}: {error}") from None


def _sockets(settings: Settings, given: Handover | None) -> list[socket.socket]:
    """The listening sockets: an old server's, a socket unit's, or new ones."""
    host, port = bind_address(settings)
    passed = given.listening(settings.listen_addr) if given is not None else service_manager.activated(os.environ)
    if passed:
        return listening.check(passed, host, friends_mode=settings.friends_mode)
    return listening.listen(host, port, friends_mode=settings.friends_mode)


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
        incumbent: Incumbent,
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
        self._incumbent = incumbent
        self._started: tuple[int, int] = (-1, -1)
        self._serving = 0  # workers that have begun to serve, each restart counted
        self._beat_s = service_manager.watchdog_s()
        self._beat_due = 0.0
        self._clock = clock
        self._pipe: tuple[int, int] = (-1, -1)
        self._others: tuple[int, int] = (-1, -1)  # whoever writes is no leader, and lives
        self._stops = 0
        self._code = 0

    def run(self) -> int:
        """Until every worker has ended; the exit code."""
        self._pipe, self._others, self._started = os.pipe(), os.pipe(), os.pipe()
        self._lock = LeaderLock()
        with _signals() as wake:
            try:
                self._loop(wake)
            finally:
                for end in (*self._pipe, *self._started, self._others[0]):
                    os.close(end)
                self._lock.close()
                self._start_nothing()
        return self._code

    def _loop(self, wake: socket.socket) -> None:
        while True:
            self._reap()
            if self._ending:
                if not any(worker.pid for worker in self._workers):
                    return
            else:
                self._end_hung()
                self._start_due()
                self._incumbent.keep_note()
            self._beat()
            for number in self._wait(wake):
                self._on_signal(number)

    @property
    def _ending(self) -> bool:
        """No worker is started any more."""
        return bool(self._stops) or self._incumbent.replaced

    def _wait(self, wake: socket.socket) -> list[int]:
        """Wait for something to do; the signals that have come."""
        successor = self._incumbent.successor
        speaks = successor is not None and not successor.failed  # else its end is told by SIGCHLD
        sources: list[Any] = [wake, self._started[0], *([successor] if speaks else [])]
        readable = select.select(sources, [], [], self._wait_s())[0]
        if self._started[0] in readable:
            before, self._serving = self._serving, self._serving + len(os.read(self._started[0], 256))
            if before < len(self._workers) <= self._serving:
                self._incumbent.ready()
        if successor is not None and self._incumbent.judge_successor():
            self._start_nothing()
            self._leaving()
            self._tell(signal.SIGUSR2)
        return _received(wake)

    def _wait_s(self) -> float | None:
        """How long nothing is due: a worker to start, a word to the service manager, the end of an upgrade's time."""
        now = self._clock()
        due = [now + LOOK_S, *(worker.due for worker in self._workers if not worker.pid)] if not self._ending else []
        due += [self._beat_due] if self._beat_s is not None else []
        due += [self._incumbent.successor.deadline] if self._incumbent.successor is not None else []
        return max(0.0, min(due) - now) if due else None

    def _beat(self) -> None:
        if self._beat_s is not None and self._clock() >= self._beat_due:
            self._beat_due = self._clock() + self._beat_s
            service_manager.notify("WATCHDOG=1")

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
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # the child is not to run our handlers
        pid = os.fork()
        if pid:
            worker.pid = pid
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return
        code = 70
        leader = worker.number == 0
        try:
            for number in HEARD:
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(self._pipe[1])
            if leader:
                os.close(self._others[1])
                self._lock.take()
            os.close(self._started[0])
            code = self._child(worker.number, self._life(first, leader))
        except BaseException:
            log.exception("worker %d failed", worker.number)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _life(self, first: bool, leader: bool) -> Life:
        own_end = None if leader else self._others[1]
        return Life(first, self._pipe[0], self._others[0], self._lock, self._heartbeats, self._started[1], own_end)

    def _reap(self) -> None:
        for worker in self._workers:
            if worker.pid:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid:
                    worker_ended(pid)
                    self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, code: int) -> None:
        worker.pid = 0
        if self._ending:
            told = code in (-signal.SIGTERM, -signal.SIGUSR2)  # before it had begun to listen to signals
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
        elif number == signal.SIGUSR2:
            self._incumbent.begin_upgrade()

    def _stop(self) -> None:
        self._stops += 1
        self._incumbent.stopping()
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
    before = [signal.signal(number, lambda *_: None) for number in HEARD]
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in zip(HEARD, before, strict=True):
            signal.signal(number, handler)
        ours.close()
        theirs.close()


def _received(wake: socket.socket) -> list[int]:
    try:
        return list(wake.recv(4096))
    except BlockingIOError:
        return []
