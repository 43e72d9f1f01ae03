"""One worker from start to end: its event loop, its signals, how it leaves and how it is handed over."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pool_server import __version__
from pool_server.app.lifecycle import service_manager
from pool_server.app.lifecycle.incumbent import Incumbent
from pool_server.app.lifecycle.successor import START_WITHIN_S
from pool_server.app.parent_watch import ParentWatch
from pool_server.app.server import Server
from pool_server.app.worker_state import Heartbeats, LeaderLock
from pool_server.core.settings import Settings
from pool_server.core.settings_file import LoadedSettings
from pool_server.core.tasks import PeriodicTasks

log = logging.getLogger(__name__)

_COLLECTED = (10_000, 20, 20)  # containers made between two collections: a request makes some hundred, and frees them
_SWITCH_S = 0.0005  # the committing thread gives up the interpreter at every write and must get it back soon
PREDECESSOR_S = 1.0  # so often a new server looks whether the old one has ended
ENDING_S = 0.1  # so often one looks whether a new server that failed has ended
NOTE_S = 5.0  # so often a server sees to the note that names it
BEAT_S = 2.0  # so often a worker says that its loop runs
ORPHAN_DRAIN_S = 1.0  # and they for their running answers: a new server may be there to take whoever comes again
HOPELESS = 78  # a worker's exit code when starting it again cannot help (EX_CONFIG)

Reread = Callable[[], LoadedSettings]


@dataclass
class Life:
    """What a worker is born with. `parent` is a pipe that ends when the supervisor does; `others` one that ends when
    the supervisor starts nothing any more and all other workers have ended: each that is no leader holds its other
    end, `own_end`. `lock` is the leader's as long as it lives; into `started` the worker says that it serves."""

    first: bool
    parent: int
    others: int
    lock: LeaderLock
    heartbeats: Heartbeats
    started: int
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

    def tell_started(self) -> None:
        """Tell the supervisor that this worker serves."""
        with contextlib.suppress(OSError):
            os.write(self.started, b"1")
        os.close(self.started)

    def tell_supervisor(self) -> None:
        """SIGHUP, for all workers to reread their settings. A supervisor that is gone is told nothing."""
        if os.getppid() == self.supervisor:
            os.kill(self.supervisor, signal.SIGHUP)


def banner(
    settings: Settings, sockets: list[socket.socket], accounts: tuple[int, int], rejected: Sequence[Mapping[str, str]]
) -> str:
    """The one line a start prints: address, mode, accounts (total, ready); without any, the first reason why."""
    mode = "friends mode" if settings.friends_mode else "local mode, this machine only"
    total, ready = accounts
    pool = f"{ready} of {total} accounts ready" if total else f"no accounts in {settings.pool_dir}/ yet"
    if rejected and not total:
        pool = f"no accounts: {rejected[0]['file']} {rejected[0]['reason']}"
    return f"pool-server {__version__} on {url_of(sockets, settings.scheme)} ({mode}; {pool})"


def url_of(sockets: list[socket.socket], scheme: str) -> str:
    host, port = sockets[0].getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def work(
    loaded: LoadedSettings,
    reread: Reread,
    sockets: list[socket.socket],
    *,
    number: int = 0,
    life: Life | None = None,
    watch: ParentWatch | None = None,
    incumbent: Incumbent | None = None,
) -> int:
    """One worker from start to end, in this process. `life` and `watch` are a supervised one's, `incumbent` is that of
    a process that is the whole server."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(loaded, reread, sockets, number, life, watch, incumbent))


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
    incumbent: Incumbent | None,
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
    if life is not None:
        loop.add_signal_handler(signal.SIGUSR2, leave.hand_over)
    await server.start(sockets)
    beating = PeriodicTasks()
    if life is not None:
        beating.every(BEAT_S, lambda: life.heartbeats.beat(number, time.monotonic()), "the heartbeat", at_once=True)
    beating.start()
    if watch is not None:
        watch.follow(lambda: leave.orphaned(server))
    async with _served(incumbent, life, leave, server):
        gc.collect()
        gc.freeze()  # what was built at the start stays: full collections need not walk it
        gc.set_threshold(*_COLLECTED)
        sys.setswitchinterval(_SWITCH_S)
        if number == 0 and (life is None or life.first):
            print(banner(loaded.settings, sockets, server.accounts.ready(), server.accounts.rejected()), flush=True)
        await leave.asked.wait()
        if leave.handed_over:
            await _until(leave.told, server.hand_over())
        if incumbent is not None:
            incumbent.stopping()
        await server.drain()
    await beating.close()
    return HOPELESS if server.lost else 0


@contextlib.asynccontextmanager
async def _served(
    incumbent: Incumbent | None, life: Life | None, leave: _Leaving, server: Server
) -> AsyncIterator[None]:
    """The worker serves for as long as the block lasts: whoever waits for that is told, and a server without a
    supervisor can be handed over."""
    if life is not None:
        life.tell_started()
    if incumbent is None:
        yield
        return
    loop = asyncio.get_running_loop()
    upgrade = _Upgrade(incumbent, leave.hand_over, server.stand_beside)
    loop.add_signal_handler(signal.SIGUSR2, upgrade.begin)
    beat = PeriodicTasks()
    if incumbent.predecessor:
        server.stand_beside(True)
        beat.every(PREDECESSOR_S, _Predecessor(incumbent.predecessor, server.stand_beside).look, "the old server's end")
    beat.every(NOTE_S, incumbent.keep_note, "the server's note")
    incumbent.ready()
    pause = service_manager.watchdog_s()
    if pause is not None:
        beat.every(pause, lambda: service_manager.notify("WATCHDOG=1"), "the service manager's watchdog", at_once=True)
    beat.start()
    try:
        yield
    finally:
        upgrade.cancel()
        await beat.close()


async def _until(told: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` to its end, or until somebody says that it is over."""
    doing = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(told.wait())
    await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not doing.done():
        doing.cancel()
        await asyncio.wait({doing})
    elif doing.exception() is not None:
        log.error("the hand-over was not clean", exc_info=doing.exception())


class _Predecessor:
    """The old server of an upgrade, this process's parent, for as long as it finishes its answers."""

    def __init__(self, pid: int, stand_beside: Callable[[bool], None]) -> None:
        self._pid = pid
        self._stand_beside = stand_beside

    def look(self) -> None:
        if self._pid and os.getppid() != self._pid:
            self._pid = 0
            self._stand_beside(False)


class _Upgrade:
    """An upgrade of a server without supervisor: the successor's pipe on the event loop. What is learnt of accounts and
    used of limits is shared with the successor from before it starts."""

    def __init__(
        self, incumbent: Incumbent, replaced: Callable[[], None], stand_beside: Callable[[bool], None]
    ) -> None:
        self._incumbent = incumbent
        self._replaced = replaced
        self._stand_beside = stand_beside
        self._pipe: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """SIGUSR2 has come."""
        self._stand_beside(True)
        successor = self._incumbent.begin_upgrade()
        if successor is None:
            self._stand_beside(False)
        else:
            loop = asyncio.get_running_loop()
            self._pipe = successor.fileno()
            loop.add_reader(self._pipe, self._judge)
            self._timer = loop.call_later(START_WITHIN_S, self._judge)

    def _judge(self) -> None:
        self.cancel()
        if self._incumbent.judge_successor():
            self._replaced()
        elif self._incumbent.successor is None:
            self._stand_beside(False)
        else:  # its pipe has ended, its process has not
            self._timer = asyncio.get_running_loop().call_later(ENDING_S, self._judge)

    def cancel(self) -> None:
        if self._pipe is not None:
            asyncio.get_running_loop().remove_reader(self._pipe)
            self._pipe = None
        if self._timer is not None:
            self._timer.cancel()


class _Leaving:
    """First signal to stop: leave well. Second: at once, unless there is a supervisor, who kills when it means that.

    A worker may be told several times over: by the supervisor, by a service manager that tells every process of the
    service, by what it finds itself.
    """

    def __init__(self, *, alone: bool) -> None:
        self.asked = asyncio.Event()
        self.told = asyncio.Event()  # by a signal, or for a reason that does not wait
        self.handed_over = False
        self._alone = alone
        self._signals = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def signal(self) -> None:
        """SIGTERM has come, or SIGINT."""
        self._signals += 1
        if self._alone and self._signals > 1:
            os._exit(1)
        self.ask()
        self.told.set()

    def ask(self) -> None:
        """Leave, however often it is asked."""
        if self._alone and not self.asked.is_set():
            log.info("leaving: running answers may finish, a second signal ends at once")
        self.asked.set()

    def orphaned(self, server: Server) -> None:
        """The supervisor is gone: leave soon, also where leaving has begun."""
        server.hurry(ORPHAN_DRAIN_S)
        self.ask()
        self.told.set()

    def hand_over(self) -> None:
        """Another server takes what is new; finish what is here, unless it leaves already."""
        if not self.asked.is_set():
            self.handed_over = True
            self.asked.set()

    def keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _nothing() -> None:
    """A worker leaves when its supervisor says so; Ctrl-C reaches both."""
