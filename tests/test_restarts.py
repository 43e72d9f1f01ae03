"""A server ended under load, by whichever signal, starts again and has what it answered: every record once, every token
of them, and the sign-ins that were rotated meanwhile.

The suite restarts a few times. `POOL_RESTARTS=50 pytest -q -s tests/test_restarts.py` does it fifty times with each
signal, with one worker and with two, and prints the figures.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.app.server import open_durable
from pool_server.core.models import Usage, UsageRecord
from pool_server.core.settings import Settings
from pool_server.ledger import Ledger
from tests.fakes import FakeProviders, account, fake_settings, plays
from tests.gateway.stack import messages
from tests.process import PATIENCE_S, PoolProcess

RESTARTS = int(os.environ.get("POOL_RESTARTS", "3"))
CLIENTS = 4
COUNTED = Usage(input=7, cache_read=30, output=5, known=True)
TOKENS = 7 + 30 + 5


class Load:
    """Clients that ask without a break until nobody answers."""

    def __init__(self, pool: PoolProcess) -> None:
        self._pool = pool
        self.answered: list[str] = []  # request ids
        self.refused: list[str] = []  # status and answer
        self.postponed = 0  # connected before the signal and asked after it
        self._failed = False
        self._some = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        self._failed = failed is not None  # then nobody ends the server that they ask
        for thread in self._threads:
            thread.join()

    def _ask(self, client: int) -> None:
        for n in range(100_000):
            if self._failed:
                return
            try:
                status, ident, text = ask(self._pool, f"s-{client}-{n}")
            except (OSError, http.client.HTTPException):
                return
            if "The pool is restarting; try again in a moment." in text:
                self.postponed += 1
                return
            if status != 200:
                self.refused.append(f"{status} {text}")
                return
            self.answered.append(ident)
            if len(self.answered) > 10:
                self._some.set()

    def wait(self) -> None:
        assert self._some.wait(PATIENCE_S), (self.refused, len(self.answered), self._pool.log()[-2000:])


def ask(pool: PoolProcess, session: str) -> tuple[int, str, str]:
    """Status, request id and text of one whole answer. Raises OSError and HTTPException."""
    host, port = pool.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
    try:
        body = json.dumps(messages(stream=False, session=session))
        connection.request("POST", "/v1/messages", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        return answer.status, answer.headers["X-Pool-Request-Id"], text
    finally:
        connection.close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_starts_again_and_has_what_it_answered(tmp_path: Path, how: signal.Signals, workers: str) -> None:
    rng = random.Random(RESTARTS)
    answered: list[str] = []
    refused: list[str] = []
    postponed = 0
    with FakeProviders([account("claude:one"), account("claude:two")]) as fakes:
        for one in fakes.accounts:
            fakes.always(one, plays.ok(COUNTED))
        settings = fake_settings(tmp_path, fakes)
        for number in range(RESTARTS):
            with PoolProcess(tmp_path, settings, "--workers", workers) as pool:
                for sign_in in fakes.accounts.values():
                    sign_in.revoke()  # its refresh token is rotated under the load
                with Load(pool) as load:
                    load.wait()
                    threading.Event().wait(rng.uniform(0, 0.2))  # a moment nobody chose
                    others = pool.children() if how == signal.SIGKILL and number % 2 == 0 else []
                    for pid in [*others, pool.process.pid]:  # by turns workers are left that nobody supervises
                        os.kill(pid, how)
                    pool.wait()
            answered += load.answered
            refused += load.refused
            postponed += load.postponed
        rotated = {name: len(one.spent) for name, one in fakes.accounts.items()}
        with PoolProcess(tmp_path, settings, "--workers", workers) as pool:
            answered.append(ask(pool, "last")[1])
            states = [row["state"] for row in pool.call("GET", "/admin/accounts")[1]["accounts"]]
    records, total = kept(settings)
    ids = [rec.id for rec in records]
    print(
        f"\n{how.name}, workers={workers}: {RESTARTS} restarts, 0 starts refused, {len(refused)} requests refused, "
        f"{postponed} asked to come back, "
        f"{len(answered)} answered, {len(set(answered) - set(ids))} of them without a record, "
        f"{len(ids) - len(set(ids))} records twice, {len(records) - len(answered)} of exchanges nobody saw end, "
        f"sign-ins rotated {rotated}, now {states}"
    )
    assert refused == []
    assert set(answered) <= set(ids) and len(ids) == len(set(ids))
    by_id = {rec.id: rec.usage for rec in records}
    assert {by_id[ident].total for ident in answered} == {TOKENS}
    assert sum(total[kind] for kind in ("input", "cache_read", "output")) == sum(one.total for one in by_id.values())
    assert states == ["ready", "ready"] and sum(rotated.values()) >= RESTARTS


def kept(settings: Settings) -> tuple[list[UsageRecord], dict[str, Any]]:
    """Every record, and what the rollups say of them together."""
    store = open_durable(Path(settings.data_dir))
    try:
        reservations = Ledger(store, settings)
        return list(reservations.log.scan(0, 1e11)), msgspec.structs.asdict(
            reservations.queries.total(0, 1e11).tokens()
        )
    finally:
        store.close()
