"""The recorded past replayed as it might have been, for the operator's page. The replay is a process of its own, so
that it takes nothing from those who are served; what it finds lies in a file of the data folder, where every worker
reads it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pool_server.core.disk import folder_held, write_private
from pool_server.core.settings import Settings
from pool_server.language import gettext as _
from pool_server.language import marked

Clock = Callable[[], float]

log = logging.getLogger(__name__)

FILE = "what-if.json"
MOST_CHANGES, LONGEST = 5, 200
MOST_DAYS = 400
SEEDS = 3
SILENT_S = 180.0  # a replay that has told nothing for so long is over, whatever the file says
PATIENCE_S = 1800.0
MOST_BYTES = 4 << 20
DAYS = (7, 30, 90)
_ROUND = re.compile(r"(.*) \((\d+) of (\d+)\)", re.DOTALL)
_PERCENT = re.compile(r"(\d{1,3})% (.+)")
_tasks: set[asyncio.Task[None]] = set()


class AskedReplay(msgspec.Struct, forbid_unknown_fields=True):
    """What a form or a program asks: days of the past, and changes, one a line."""

    days: int = 30
    changes: str = ""

    def lines(self) -> list[str]:
        """Raises ValueError."""
        found = [line.strip() for line in self.changes.splitlines() if line.strip()]
        if not 1 <= self.days <= MOST_DAYS:
            raise ValueError(_("days: 1 to {most}", most=MOST_DAYS))
        if len(found) > MOST_CHANGES or any(len(line) > LONGEST for line in found):
            raise ValueError(
                _("up to {most} changes of up to {longest} characters each", most=MOST_CHANGES, longest=LONGEST)
            )
        return found


class ReplayState(msgspec.Struct):
    """The last replay. `told_at`: when it was heard of last; `percent` and `doing` while it runs; then `found` (a
    study), or `error` in one line."""

    days: int = 30
    changes: list[str] = []
    began_at: float = 0.0
    told_at: float = 0.0
    percent: int = 0
    doing: str = ""
    found: dict[str, Any] | None = None
    error: str = ""

    def runs(self, now: float) -> bool:
        return self.found is None and not self.error and self.began_at > 0 and abs(now - self.told_at) < SILENT_S


class ReplayFile:
    """The state in the data folder; one that cannot be read is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE

    def read(self) -> ReplayState:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=ReplayState)
        except (OSError, msgspec.DecodeError):
            return ReplayState()

    def begin(self, state: ReplayState, now: float) -> bool:
        """Take the place of the last replay; False while one runs."""
        with folder_held(self._folder):
            if self.read().runs(now):
                return False
            self.write(state)
            return True

    def write(self, state: ReplayState) -> None:
        write_private(self._path, msgspec.json.encode(state))


def command(days: int, changes: Sequence[str]) -> list[str]:
    """The replay as a process, behind everything else that wants the processor."""
    nice = shutil.which("nice")
    asked = [f"--what-if={change}" for change in changes]
    run = [sys.executable, "-m", "pool_server", "simulate", "--from", "ledger", "--json", "--progress-lines"]
    return [*([nice, "-n", "10"] if nice else []), *run, "--days", str(days), "--seeds", str(SEEDS), *asked]


def start(here: Settings, config: Path | None, file: ReplayFile, state: ReplayState, clock: Clock) -> None:
    """Run a replay that has begun; `config` is the settings' file, None where there is none."""
    task = asyncio.create_task(_run(here, config, file, state, clock))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _run(here: Settings, config: Path | None, file: ReplayFile, state: ReplayState, clock: Clock) -> None:
    """Run the replay and keep the file up to date."""
    place = ["--config", str(config)] if config is not None else []
    env = {**os.environ, "POOL_DIR": os.path.abspath(here.pool_dir), "POOL_DATA_DIR": os.path.abspath(here.data_dir)}
    process = None
    try:
        process = await asyncio.create_subprocess_exec(
            *command(state.days, state.changes), *place, env=env,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            said, last = await asyncio.gather(
                process.stdout.read(MOST_BYTES), _follow(clock, file, state, process.stderr)
            )
            code = await process.wait()
        if code == 0:
            state.found = msgspec.json.decode(said, type=dict[str, Any])
        else:
            state.error = last.removeprefix("pool-server: ").removeprefix("Error: ") or f"the replay ended with {code}"
    except (OSError, TimeoutError, msgspec.DecodeError) as failed:
        log.warning("a replay of the ledger failed: %s", failed)
        late, never = marked("the replay took too long"), marked("the replay could not be run")
        state.error = late if isinstance(failed, TimeoutError) else never
    finally:
        if process is not None and process.returncode is None:
            process.kill()
    state.told_at = clock()
    await asyncio.to_thread(file.write, state)


async def _follow(clock: Clock, file: ReplayFile, state: ReplayState, lines: asyncio.StreamReader) -> str:
    """Keep what it says of its progress; returns the last line that was none."""
    last, written = "", 0.0
    while line := (await lines.readline()).decode("utf-8", "replace").strip():
        found = _PERCENT.fullmatch(line)
        if found is None:
            last = line[:500]
            continue
        state.percent, state.doing, state.told_at = int(found[1]), found[2], clock()
        if abs(state.told_at - written) >= 1.0:
            written = state.told_at
            await asyncio.to_thread(file.write, state)
    return last


def doing(state: ReplayState) -> str:
    """What the replay is at, as its process told it, in the reader's language."""
    found = _ROUND.fullmatch(state.doing)
    if found is None:
        return _(state.doing)
    return _("{what} ({round} of {rounds})", what=_(found[1]), round=found[2], rounds=found[3])


class ReplayedRow(NamedTuple):
    """A row of the table: sums by name, and between which a change's lay over several seeds."""

    what: str
    sums: Mapping[str, float]
    low: Mapping[str, float] | None = None
    high: Mapping[str, float] | None = None


def rows(state: ReplayState) -> list[ReplayedRow]:
    """What happened, its replay and each change, for the table."""
    found = state.found
    if found is None:
        return []
    return [
        ReplayedRow(_("What happened"), found["recorded"]),
        ReplayedRow(_("Replayed as it was"), found["replayed"]["sums"]),
        *(ReplayedRow(one["what"], one["sums"], one["low"], one["high"]) for one in found["what_ifs"]),
    ]
