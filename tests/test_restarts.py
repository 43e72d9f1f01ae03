"""A server ended under load, by whichever signal, starts again and has what it answered.

The suite restarts a few times; POOL_RESTARTS=50 in the environment does it fifty times with each signal.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

import pytest

from pool_server.app.server import open_durable
from pool_server.core.settings import Settings
from pool_server.ledger import Ledger
from tests.fakes import FakeProviders, account, fake_settings, plays
from tests.gateway.stack import messages
from tests.process import PoolProcess

RESTARTS = int(os.environ.get("POOL_RESTARTS", "3"))
CLIENTS = 4


class Load:
    """Clients that ask without a break until nobody answers."""

    def __init__(self, pool: PoolProcess) -> None:
        self._pool = pool
        self._answered: list[int] = []
        self._some = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for thread in self._threads:
            thread.join()

    def _ask(self, client: int) -> None:
        n = 0
        while True:
            try:
                status, _ = self._pool.call("POST", "/v1/messages", messages(stream=False, session=f"s-{client}-{n}"))
            except OSError:
                return
            n += 1
            if status == 200:
                self._answered.append(client)
                if len(self._answered) > 10:
                    self._some.set()

    def wait(self) -> None:
        assert self._some.wait(30)

    @property
    def answered(self) -> int:
        return len(self._answered)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_starts_again_and_has_what_it_answered(tmp_path: Path, how: signal.Signals, workers: str) -> None:
    rng = random.Random(RESTARTS)
    answered = 0
    with FakeProviders([account("claude:one"), account("claude:two")]) as fakes:
        for one in fakes.accounts:
            fakes.always(one, plays.ok())
        settings = fake_settings(tmp_path, fakes)
        for _ in range(RESTARTS):
            with PoolProcess(tmp_path, settings, "--workers", workers) as pool, Load(pool) as load:
                load.wait()
                threading.Event().wait(rng.uniform(0, 0.2))  # a moment nobody chose
                pool.signal(how)
                pool.wait()
            answered += load.answered
        with PoolProcess(tmp_path, settings, "--workers", workers) as pool:
            assert pool.call("POST", "/v1/messages", messages(stream=False))[0] == 200
    assert recorded(settings) > answered


def recorded(settings: Settings) -> int:
    store = open_durable(Path(settings.data_dir))
    try:
        return int(Ledger(store, settings).total(0, 1e11)["requests"])
    finally:
        store.close()
