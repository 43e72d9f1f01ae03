"""A process that records as fast as it can and says what was acknowledged, until it is killed.

Arguments: store folder, a name for its ids, its first number, whether it writes ahead (1 or 0). Each
acknowledged number is one line on stdout.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from pool_server.core.settings import Settings
from pool_server.ledger import TABLES, Ledger
from pool_server.storage import Store
from tests.ledger.ledger_kit import NOW, Clock, exchange

LANES = 16


async def main(folder: Path, name: str, first: int, write_ahead: bool) -> None:
    store = Store.open(folder, tables=TABLES, durable=True)
    ledger = Ledger(store, Settings(), clock=Clock(), write_ahead=write_ahead)
    numbers = iter(range(first, 1 << 60))

    async def lane() -> None:
        for number in numbers:
            rec = exchange(
                f"{name}-{number}", at=NOW - number % 7200, user=f"user{number % 3}", input=1, output=number % 5
            )
            assert await ledger.record(rec)
            os.write(1, b"%d\n" % number)

    await asyncio.gather(*(lane() for _ in range(LANES)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1"))
