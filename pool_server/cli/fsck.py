"""`pool-server fsck`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pool_server.app.server import open_durable
from pool_server.cli.common import config_option, emit, json_option, one_line, settings, waiting
from pool_server.core.settings import Settings
from pool_server.ledger import Consistency, Ledger
from pool_server.storage import ENVIRONMENTS, StoreError, lock_folder, sweep_scratch, verify, wait_for_workers
from pool_server.storage.lmdb.integrity import DATA_FILE

_WORKERS_S = 5.0  # for workers of a server that was killed


@click.command("fsck", help="Read the whole store and see whether it agrees with itself. The server must be stopped.")
@click.option("--repair", is_flag=True, help="Put right what the records tell, and remove what killed processes left.")
@json_option
@config_option
def command(repair: bool, as_json: bool, config: str | None) -> int:
    here = settings(config)
    with one_line(), waiting("Reading the store"):
        answer = _look(here, repair=repair)
    if as_json:
        emit(answer)
    else:
        _say(answer)
    return 0 if answer["sound"] else 1


def _look(here: Settings, *, repair: bool) -> dict[str, object]:
    """What was found, and what is left of it after a repair."""
    folder = Path(here.data_dir)
    there = [name for name in ENVIRONMENTS if (folder / name / DATA_FILE).is_file()]
    if not there:
        raise StoreError(f"there is no store in {folder}")
    with lock_folder(folder):
        if not wait_for_workers(folder, _WORKERS_S):
            raise StoreError(f"a worker of a server that was killed still uses {folder}: try again in a minute")
        read = {name: verify(folder / name) for name in there}
        swept = sweep_scratch(folder) if repair else 0
        store = open_durable(folder)
        try:
            ledger = Ledger(store, here)  # takes in what killed processes had written ahead
            found = left = ledger.check()
            if repair and not found.sound:
                ledger.repair(found)
                left = ledger.check()
        finally:
            store.close()
    return {
        "sound": left.sound, "repaired": repair and not found.sound, "keys": read, "records": found.records,
        "swept": swept, "found": _described(found), "left": _described(left),
    }  # fmt: skip


def _described(found: Consistency) -> dict[str, object]:
    day = "%Y-%m-%d"
    return {
        "unreadable_records": len(found.unreadable),
        "missing_entries": len(found.missing),
        "astray_entries": len(found.astray),
        "wrong_days": [time.strftime(day, time.localtime(at)) for at in found.days],
        "wrong_days_without_records": [time.strftime(day, time.localtime(at)) for at in found.lost_days],
        "wrong_months": [time.strftime("%Y-%m", time.localtime(month.start)) for month in found.months],
        "changed_months": [time.strftime("%Y-%m", time.localtime(month.start)) for month in found.lost_months],
    }


_WORDS = {
    "unreadable_records": "usage records cannot be read (they stay in the sums, not in the request log)",
    "missing_entries": "entries of records are missing or wrong",
    "astray_entries": "entries lead to no record",
    "wrong_days": "days whose sums are not those of their records",
    "wrong_days_without_records": "days whose sums are wrong and whose records are not all there any more",
    "wrong_months": "months whose sums are not those of their days",
    "changed_months": "months of which a day was changed after its records were forgotten",
}


def _say(answer: dict[str, object]) -> None:
    found, left, keys = answer["found"], answer["left"], answer["keys"]
    assert isinstance(found, dict) and isinstance(left, dict) and isinstance(keys, dict)
    click.echo(
        f"{answer['records']} usage records read, " + ", ".join(f"{n} keys in {name}" for name, n in keys.items())
    )
    for name, words in _WORDS.items():
        if found[name]:
            many = found[name] if isinstance(found[name], int) else ", ".join(found[name])
            after = (
                "" if not answer["repaired"] else "; put right" if not left[name] else "; as far as the records tell"
            )
            click.echo(f"{many}: {words}{after}")
    if answer["sound"]:
        click.echo("the store agrees with itself")
    elif not answer["repaired"]:
        click.echo("`pool-server fsck --repair` puts right what the records tell; make a backup first")
