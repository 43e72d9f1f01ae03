"""What choosing costs: microseconds of CPU for a choice, a pinned choice and a whole exchange's bookkeeping.

python benchmarks/choosing.py [--pins N]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pool_server.accounts import STATE_TABLES, Accounts, SelectionRequest
from pool_server.core.enums import Dialect, FaultKind, Operation, Provider, Source
from pool_server.core.models import OF_ACCOUNT, Fault, HttpAnswer, HttpRequest, WindowObservation
from pool_server.core.settings import Settings, UsagePolling
from pool_server.storage import Store

DAY = 86400
MODEL = "claude-sonnet-4-5"
SIZES = (10, 100, 1000, 10_000)


async def no_calls(_: HttpRequest) -> HttpAnswer:
    return HttpAnswer(0, {}, b"", "the benchmark calls nobody")


def cpu(act: Callable[[int], object], rounds: int = 2000) -> float:
    """Microseconds of CPU for one `act`: the least mean of five runs."""
    means = []
    for _ in range(5):
        began = time.process_time()
        for n in range(rounds):
            act(n)
        means.append((time.process_time() - began) / rounds * 1e6)
    return min(means)


def choose(accounts: Accounts, asked: SelectionRequest, _: int) -> object:
    return accounts.select(asked)


def pool(folder: Path, size: int) -> tuple[Accounts, float]:
    """A pool of `size` sign-ins with windows, a fifth of them used up; and the seconds its files took to load."""
    files = folder / "pool"
    files.mkdir(parents=True)
    for n in range(size):
        login = {"accessToken": f"sk-ant-oat01-{n}", "refreshToken": "r", "expiresAt": int((time.time() + DAY) * 1000)}
        (files / f"claude_{n}.json").write_text(json.dumps({"claudeAiOauth": login, "plan_type": "max"}))
    store = Store.open(folder / "state", tables=STATE_TABLES, durable=False)
    settings = Settings(pool_dir=str(files), data_dir=str(folder), usage_polling=UsagePolling(0))
    accounts = Accounts(settings, store, send=no_calls)
    began = time.perf_counter()
    accounts.load()
    took = time.perf_counter() - began
    now = time.time()
    for n in range(size):
        seen = [
            WindowObservation("5h", 18000, n % 60, now + 1000 + n % 9000, Source.HEADERS, now),
            WindowObservation("7d", 7 * DAY, n % 97, now + DAY * (1 + n % 6), Source.HEADERS, now),
        ]
        accounts.observe(f"claude:{n}", seen)
        if n % 5 == 4:
            accounts.fail(f"claude:{n}", Fault(FaultKind.QUOTA, OF_ACCOUNT, now + 3000), MODEL, Operation.MESSAGES)
    return accounts, took


def exchange(accounts: Accounts, n: int) -> None:
    """All that one answered request asks of the accounts."""
    asked = ask(f"talk-{n}")
    account = accounts.select(asked).account
    if account is None:
        raise SystemExit("nobody could serve")
    accounts.begin(account, MODEL, Operation.MESSAGES)
    now = time.time()
    accounts.observe(account, [WindowObservation("5h", 18000, n % 50, now + 9000, Source.HEADERS, now)])
    accounts.bind(asked, account)
    accounts.succeed(account, MODEL, Operation.MESSAGES, 1.0)
    accounts.end(account)


def ask(session: str | None) -> SelectionRequest:
    return SelectionRequest((Provider.CLAUDE,), Operation.MESSAGES, Dialect.MESSAGES, MODEL, "user", session)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pins", type=int, default=100_000, help="pins that exist beside the one that is looked up")
    pins = options.parse_args().pins
    print(f"{'accounts':>9} {'load s':>8} {'choose':>8} {'pinned':>8} {'exchange':>9}   (microseconds of CPU)")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            accounts, took = pool(Path(folder), size)
            free, pinned = ask(None), ask("mine")
            chosen = accounts.select(free).account
            if chosen is None:
                raise SystemExit("nobody could serve")
            accounts.bind(pinned, chosen)
            if size == SIZES[-1]:
                for n in range(pins):
                    accounts.bind(ask(f"pin-{n}"), chosen)
            costs = (
                cpu(partial(choose, accounts, free)),
                cpu(partial(choose, accounts, pinned)),
                cpu(partial(exchange, accounts), 500),
            )
            print(f"{size:>9} {took:>8.2f} {costs[0]:>8.1f} {costs[1]:>8.1f} {costs[2]:>9.1f}")
    print(f"(the last row beside {pins} pins)")


if __name__ == "__main__":
    main()
