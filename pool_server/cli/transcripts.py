"""`pool-server transcripts list · show · export · purge`: what is kept in the data folder, beside a running server."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from pool_server.cli.common import config_option, emit, json_option, one_line, settings, table
from pool_server.cli.user import common
from pool_server.cli.user.common import SHELL
from pool_server.core.settings import Settings
from pool_server.storage import encrypted_stream, store_keys
from pool_server.transcripts import Transcripts, archive
from pool_server.users import Users

user_option = click.option("--user", "who", metavar="NAME", help="Of this person alone, by name or id.")
_SESSION = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
_DAY_S = 86_400.0


@click.group("transcripts", help="Transcripts: list, show, export, purge. Only shared ones can be read, or your own.")
def command() -> None:
    pass


def _folder(config: str | None) -> tuple[Settings, Path]:
    chosen = settings(config)
    return chosen, Path(chosen.data_dir) / archive.FOLDER


def _people(config: str | None, folder: Path, who: str | None) -> dict[str, str]:
    """The people asked for of whom there are transcripts: id → name."""
    ids = [kept.user for kept in archive.everybody(folder)]

    async def named(users: Users) -> dict[str, str]:
        wanted = "local" if who == "local" else common.found(users, who) if who else None
        found = {}
        for one in ids:
            if wanted in (None, one):
                found[one] = users.people.get(one)["name"] if one.startswith("u_") else one
        return found

    found: dict[str, str] = common.run(config, named)
    return found


def _rows(config: str | None, folder: Path, who: str | None) -> list[dict[str, Any]]:
    people = _people(config, folder, who)
    return [
        {"user": user, "name": name, **msgspec.to_builtins(one)}
        for user, name in people.items()
        for one in archive.conversations(folder, user)
    ]


@command.command("list", help="Conversations, each person's newest first.")
@user_option
@click.option(
    "--codex-sessions",
    metavar="DIR",
    type=click.Path(file_okay=False, exists=True),
    help="Name Codex's own file of each, from here; usually ~/.codex/sessions.",
)
@config_option
@json_option
def list_(who: str | None, codex_sessions: str | None, config: str | None, as_json: bool) -> None:
    chosen, folder = _folder(config)
    rows = _rows(config, folder, who)
    if codex_sessions is not None:
        files = _codex_files(Path(codex_sessions))
        for row in rows:
            row["codex_file"] = files.get(row["session"], "")
    if as_json:
        emit(rows)
        return
    cells = [
        (
            row["id"], row["name"], row["agent"], row["session"] or "—", row["exchanges"], row["bytes"] // 1000,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(row["last"])), "yes" if row["shared"] else "no",
            *([row["codex_file"]] if codex_sessions is not None else []),
        )
        for row in rows
    ]  # fmt: skip
    headings = ("ID", "PERSON", "PROGRAM", "CONVERSATION", "EXCHANGES", "KB", "LAST", "SHARED")
    empty = "No transcripts." if chosen.transcripts.enabled else "No transcripts: [transcripts] enabled is false."
    table((*headings, *(["CODEX FILE"] if codex_sessions is not None else [])), cells, empty)


def _codex_files(folder: Path) -> dict[str, str]:
    """Session id → the rollout file that Codex keeps of it."""
    return {found[-1]: str(path) for path in folder.rglob("*.jsonl") if (found := _SESSION.findall(path.name))}


def _readable(config: str | None, identifier: str, who: str | None) -> Path:
    """The folder of a conversation that may be read here."""
    chosen, folder = _folder(config)
    for user in _people(config, folder, who):
        place = archive.find(folder, user, identifier)
        if place is None:
            continue
        if archive.is_shared(place) or (not chosen.friends_mode and user == "local"):
            return place
        raise click.ClickException("its person has not shared this transcript; they can, on their page /transcripts")
    raise click.ClickException(f"there is no transcript {json.dumps(identifier)}; `pool-server transcripts list`")


@command.command("show", help="One conversation, its bytes as text.")
@click.argument("identifier", metavar="ID")
@user_option
@config_option
def show(identifier: str, who: str | None, config: str | None) -> None:
    place = _readable(config, identifier, who)
    with one_line():
        for line in _lines(archive.read(place)):
            fields = json.loads(line)
            data = fields.pop("data", None)
            click.echo(f"— {json.dumps(fields, ensure_ascii=False)}")
            if data is not None:
                click.echo(base64.b64decode(data).decode("utf-8", "replace"))


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
    if rest:
        yield rest


@command.command("export", help="One conversation as JSON lines, into a file that is yours alone.")
@click.argument("identifier", metavar="ID")
@click.argument("target", metavar="FILE", type=click.Path(dir_okay=False))
@user_option
@config_option
def export(identifier: str, target: str, who: str | None, config: str | None) -> None:
    place = _readable(config, identifier, who)
    with one_line(), open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for piece in archive.read(place):
            file.write(piece)
    click.echo(f"{target}: {Path(target).stat().st_size:,} bytes")


@command.command("decrypt", help="Open an encrypted copy from the mirror, with the key in POOL_STORE_KEY.")
@click.argument("source", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
@click.argument("target", metavar="TARGET", type=click.Path(dir_okay=False))
def decrypt(source: str, target: str) -> None:
    with one_line(), open(source, "rb") as file:
        keys = store_keys.from_environment()
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            try:
                for piece in encrypted_stream.decrypt(file.read, keys):
                    out.write(piece)
            except encrypted_stream.DecryptionError as error:
                os.unlink(target)
                raise click.ClickException(f"{source}: {error}") from None


@command.command("purge", help="Delete transcripts: of one person, of one conversation, or what is older than DAYS.")
@click.argument("identifier", metavar="[ID]", required=False)
@user_option
@click.option("--older-than", "days", type=click.FloatRange(min=0), metavar="DAYS", help="Only what is older.")
@click.option("--all", "everything", is_flag=True, help="Of everybody.")
@config_option
def purge(identifier: str | None, who: str | None, days: float | None, everything: bool, config: str | None) -> None:
    if not (identifier or who or days is not None or everything):
        raise click.UsageError("say what: an ID, --user NAME, --older-than DAYS or --all")
    chosen, folder = _folder(config)
    people = _people(config, folder, who)

    async def delete(users: Users) -> int:
        transcripts = Transcripts(chosen, users.consents, leader=False)
        removed = 0
        for user in people:
            removed += await transcripts.purge(user, identifier, older_than_s=None if days is None else days * _DAY_S)
        for user in people if removed else ():
            await users.audit(SHELL, "transcripts.delete", user, {"exchanges": removed})
        return removed

    removed = common.run(config, delete)
    click.echo(f"{removed} exchange{'' if removed == 1 else 's'} deleted")
