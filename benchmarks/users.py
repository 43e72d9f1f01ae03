"""What admission costs, and whether it depends on how many people and keys there are.

`python benchmarks/users.py [--users 100000] [--keys 3] [--logins 20] [--seconds 10]`. Everything runs on real
stores in a temporary folder: first with one user, then with all of them. CPU is this process's own.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pool_server.core.models import Usage
from pool_server.core.settings import Limits, Settings
from pool_server.storage import Store
from pool_server.users import LEDGER_TABLES, STATE_TABLES, AuditActor, Principal, RefusedError, Reservation, Users
from pool_server.users.identity.passwords import Hasher
from pool_server.users.models import KEYS, NAMES, PEOPLE, USER_KEYS, Key, User, encode, user_key_index
from pool_server.users.user_names import skeleton

SHELL = AuditActor("shell")
PASSPHRASE = "correct horse battery"
LIMITS = Limits(requests_per_minute=10**6, concurrent=10**5, tokens_5h=10**12, cost_month=10.0**9)
BATCH = 20_000


def fill(store: Store, people: int, keys: int, hashed: str) -> list[tuple[str, str]]:
    """Writes users and keys as the server does; (user id, key id) of some of them."""
    sample: list[tuple[str, str]] = []
    for start in range(0, people, BATCH):
        rows: dict[str, list[tuple[bytes, bytes]]] = {PEOPLE: [], NAMES: [], KEYS: [], USER_KEYS: []}
        for number in range(start, min(people, start + BATCH)):
            user = User(f"u_{number:016x}", f"friend {number}", 0.0, hashed)
            rows[PEOPLE].append((user.id.encode(), encode(user)))
            rows[NAMES].append((skeleton(user.name).encode(), user.id.encode()))
            for count in range(keys):
                key = Key(f"k_{number * keys + count:016x}", user.id, "key", 0.0)
                rows[KEYS].append((key.id.encode(), encode(key)))
                rows[USER_KEYS].append((user_key_index(user.id, key.id), b""))
            if number % max(1, people // 2000) == 0:
                sample.append((user.id, f"k_{number * keys:016x}"))
        for table, pairs in rows.items():
            store.write(lambda txn, table=table, pairs=pairs: txn.put_many(table, sorted(pairs)))  # type: ignore[misc]
    return sample


def micros(calls: int, call: Callable[[], object]) -> float:
    """Microseconds of CPU a call."""
    start = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - start) / calls * 1e6


def admission(users: Users, tokens: list[str]) -> Iterator[tuple[str, float]]:
    """What each step costs, in microseconds of CPU."""
    fresh = iter(tokens)
    yield "a key seen for the first time", micros(len(tokens), lambda: users.authenticate(next(fresh)))
    known = users.authenticate(tokens[0])
    assert isinstance(known, Principal)
    yield "a known key", micros(200_000, lambda: users.authenticate(tokens[0]))

    made: list[Reservation] = []

    def reserve() -> None:
        taken = users.admission.reserve(known, provider="codex", model="gpt-5", tokens=20_000, cost=0.1, headroom=50.0)
        assert isinstance(taken, Reservation)
        made.append(taken)

    reserve()
    yield "reserve", micros(5000, reserve)
    cooldown = iter(list(made))
    yield "progress", micros(2000, lambda: users.admission.progress(next(cooldown), 30_000, 0.2))
    cooldown = iter(made)
    yield "settle", micros(5000, lambda: users.admission.settle(next(cooldown), Usage(input=9000, output=300), 0.1))


def start(folder: Path, durable: Store, state: Store) -> tuple[Users, float]:
    """A worker, and how long it took to be ready in seconds."""
    began = time.perf_counter()
    users = Users(Settings(data_dir=str(folder), friend_code="code", limits=LIMITS), durable, state)
    users.load()
    return users, time.perf_counter() - began


def measure(people: int, keys: int) -> dict[str, float]:
    """One run with so many people: start-up in seconds, the rest in microseconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        durable = Store.open(folder / "ledger", tables=LEDGER_TABLES, durable=True)
        state = Store.open(folder / "state", tables=STATE_TABLES, durable=False)
        sample = fill(durable, people, keys, "")
        users, seconds = start(folder, durable, state)
        signer = users._signer  # the only way to many keys without making each
        tokens = [signer.key(user, key, 0.0, None) for user, key in sample]
        found = {"start-up, seconds": seconds, **dict(admission(users, tokens))}
        durable.close()
        state.close()
        return found


async def pauses(stop: asyncio.Event) -> list[float]:
    """How late a timer of one millisecond came, in milliseconds, until `stop`."""
    late: list[float] = []
    while not stop.is_set():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - began - 0.001) * 1e3)
    return late


async def sign_in(users: Users, number: int) -> bool:
    peer = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    try:
        await users.sign_in.friend_login(peer=peer, name=f"friend {number}", passphrase=PASSPHRASE)
    except RefusedError:
        return False
    return True


async def crowd(users: Users, rate: float, seconds: float) -> tuple[list[float], int, int]:
    """So many sign-ins a second: the loop's pauses, how many came in and how many were turned away."""
    stop = asyncio.Event()
    watch = asyncio.create_task(pauses(stop))
    tasks: list[asyncio.Task[bool]] = []
    for number in range(int(rate * seconds)):
        tasks.append(asyncio.create_task(sign_in(users, number)))
        await asyncio.sleep(1 / rate)
    if not tasks:
        await asyncio.sleep(seconds)
    results = await asyncio.gather(*tasks)
    stop.set()
    return await watch, sum(results), len(results) - sum(results)


def logins(rate: float, seconds: float) -> None:
    """The loop's pauses without and with people signing in."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        durable = Store.open(folder / "ledger", tables=LEDGER_TABLES, durable=True)
        state = Store.open(folder / "state", tables=STATE_TABLES, durable=False)

        async def main() -> None:
            fill(durable, int(rate * seconds) + 1, 1, await Hasher().hash(PASSPHRASE))
            users, _ = start(folder, durable, state)
            await users.start()
            for what, pace in (("nobody", 0.0), (f"{rate:g} a second", rate)):
                late, came, refused = await crowd(users, pace, seconds)
                late.sort()
                print(
                    f"signing in: {what:14} longest pause of the loop {late[-1]:6.1f} ms, "
                    f"p99.9 {late[int(len(late) * 0.999) - 1]:5.1f} ms, p50 {late[len(late) // 2]:4.2f} ms; "
                    f"in {came}, turned away {refused}"
                )
            await users.close()

        asyncio.run(main())
        durable.close()
        state.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=3, help="keys a user")
    parser.add_argument("--logins", type=float, default=20.0, help="sign-ins a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    few, many = measure(1, 1), measure(given.users, given.keys)
    print(f"{'':32}{'1 user':>12}{f'{given.users:,} users':>16}   (µs of CPU)")
    for step, value in few.items():
        print(f"{step:32}{value:12.2f}{many[step]:16.2f}")
    logins(given.logins, given.seconds)


if __name__ == "__main__":
    main()
