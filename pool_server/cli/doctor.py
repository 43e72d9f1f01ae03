"""`pool-server doctor`: looks at everything a pool needs, changes nothing, names the fix."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click

from pool_server.accounts.credentials import files, sealing
from pool_server.accounts.credentials.escrow import Escrow
from pool_server.accounts.credentials.look import doubles
from pool_server.accounts.credentials.scan import CredentialFile, scan, shown
from pool_server.accounts.credentials.source import PoolFolder
from pool_server.accounts.credentials.store import CredentialStore
from pool_server.app import run_file
from pool_server.app.composition.ports import check_shared
from pool_server.app.listening import StartError, listen
from pool_server.app.server import open_durable, open_people
from pool_server.app.tls.pair import is_for, load_pair, pair_files
from pool_server.cli.common import config_option, emit, json_option, one_printable_line
from pool_server.cli.pool import running
from pool_server.cli.service.manage import installed
from pool_server.core.disk import is_read_only
from pool_server.core.enums import AccountState, CredentialKind, Provider
from pool_server.core.origins import host_of, origin
from pool_server.core.origins import shown as shown_origin
from pool_server.core.settings import HIDDEN, ConfigError, Settings, bind_address
from pool_server.core.settings_file import LoadedSettings, config_path, load, rows
from pool_server.providers import SPECS, Credential, CredentialRejectedError, provider_module
from pool_server.providers.credential import KeyAuth
from pool_server.storage import StoreError
from pool_server.storage.postgres.connection import connected
from pool_server.storage.postgres.inspection import DatabaseFinding, inspect
from pool_server.storage.postgres.url import DatabaseUrl, parse

OK, WARNING, WRONG = "ok", "warning", "wrong"
AS_ITS_USER = "run this as the user who runs the pool"
READABLE = "let the user who runs the pool read it; until then its accounts stay as the server knew them"
GROUP = "put somebody into it on the people page, or change the account's groups"
OWNER = "pool-server user list shows the ids; pool-server user add NAME makes somebody"
TLS = "write the https address, if it has one"
KEY = f"start the pool, and this command, with the {sealing.ENVIRONMENT} that sealed it"
RENEW = "put a valid certificate and its key there; the server reads them within seconds, without a restart"
SIGN_IN = "sign in again with its CLI and copy the file anew"
BUILT = 1_790_000_000  # 2026-09-21: a clock before it is wrong


_LOST = {
    AccountState.NEEDS_LOGIN: "the running server needs a new sign-in",
    AccountState.SUSPENDED: "the provider stopped the account",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one look found. `fix` says what to do, "" where nothing needs doing."""

    check: str
    state: str
    message: str
    fix: str = ""


@click.command("doctor", help="Check settings, clock, port, store and accounts; exit 1 if something is wrong.")
@config_option
@json_option
def command(config: str | None, as_json: bool) -> int:
    findings = list(examine(config_path(config), dict(os.environ), time.time()))
    wrong = any(finding.state == WRONG for finding in findings)
    if as_json:
        emit({"ok": not wrong, "checks": [dataclasses.asdict(finding) for finding in findings]})
        return int(wrong)
    for finding in findings:
        click.echo(f"{finding.state:<8}{finding.check}: {one_printable_line(finding.message)}")
        if finding.fix:
            click.echo(f"{'':<8}→ {finding.fix}")
    return int(wrong)


def examine(path: Path | None, env: dict[str, str], now: float) -> Iterator[Finding]:
    """Every finding, in the order in which they matter. `now` is unix seconds."""
    try:
        loaded = load(path, env)
    except ConfigError as error:
        yield Finding("settings", WRONG, str(error), "correct it; config.example.toml explains every setting")
        return
    settings = loaded.settings
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        lambda: look_at_settings(loaded),
        lambda: look_at_clock(settings, now),
        lambda: look_at_port(settings),
        lambda: look_at_certificate(settings, now),
        lambda: look_at_data(settings),
        lambda: look_at_database(settings, env),
        look_at_service,
        lambda: look_at_accounts(settings, now),
    )
    for look in looks:
        try:
            yield from look()
        except OSError as error:  # what cannot be looked at hides nothing else
            yield Finding(error.filename or "files", WRONG, error.strerror or str(error), AS_ITS_USER)


def look_at_settings(loaded: LoadedSettings) -> Iterator[Finding]:
    """Where they come from, what mode they make, and who else may read the secrets in the file."""
    mode = "friends mode" if loaded.settings.friends_mode else "local mode: no keys, this machine only"
    source = str(loaded.path) if loaded.path else "no config.toml, defaults and environment"
    yield Finding("settings", OK, f"{source}; {mode}")
    if loaded.path is not None and _open_to_others(loaded.path):
        told = [key for key, value, origin in rows(loaded) if value == HIDDEN and origin == "file"]
        if told:
            yield _readable(loaded.path, f"holds {', '.join(told)}")


def look_at_clock(settings: Settings, now: float) -> Iterator[Finding]:
    """Tokens and windows are judged by it."""
    newest = max((_touched(path) for path in (Path(settings.pool_dir), Path(settings.data_dir))), default=0.0)
    fix = "set the clock (timedatectl set-ntp true)"
    if now < BUILT:
        yield Finding("clock", WRONG, f"says {_date(now)}, which is long past", fix)
    elif newest > now + 300:
        message = f"says {_date(now)}, but files were written at {_date(newest)}"
        yield Finding("clock", WARNING, message, fix)
    else:
        yield Finding("clock", OK, _date(now))


def look_at_port(settings: Settings) -> Iterator[Finding]:
    """Whether the server can listen, or does."""
    try:
        host, port = bind_address(settings)
    except ConfigError as error:
        yield Finding("port", WRONG, str(error), "set friend_code or an admin password, or listen on 127.0.0.1")
        return
    try:
        url = run_file.find(Path(settings.data_dir))
    except PermissionError:
        yield Finding(
            "port", WARNING, f"whether a server runs cannot be seen: {settings.data_dir}/ cannot be read", AS_ITS_USER
        )
        return
    if url is not None:
        yield Finding("port", OK, f"the server runs on {url}")
        return
    try:
        for bound in listen(host, port, friends_mode=settings.friends_mode):
            bound.close()
    except (StartError, ConfigError) as error:
        fix = "stop the other program, or choose another listen_addr"
        yield Finding("port", WRONG, str(error), fix)
    else:
        yield Finding("port", OK, f"{settings.listen_addr} is free")


def look_at_certificate(settings: Settings, now: float) -> Iterator[Finding]:
    """What the server speaks TLS with, where it does, and whether friends' address fits it."""
    try:
        files = pair_files(settings)
        if files is None:
            return
        pair = load_pair(*files)
    except ConfigError as error:
        yield Finding("tls", WRONG, f"{error}; a running server goes on with the one before", RENEW)
        return
    trouble = pair.trouble(now)
    valid = pair.begins <= now < pair.ends
    said = f"the certificate is for {', '.join(pair.names) or 'no name'}, until {pair.until}"
    yield Finding("tls", OK if not trouble else WARNING if valid else WRONG, trouble or said, RENEW if trouble else "")
    if _open_to_others(Path(settings.tls_key)):
        yield _readable(Path(settings.tls_key), "holds the certificate's private key")
    public = urlsplit(settings.public_url)
    if public.scheme == "http":
        yield Finding("tls", WARNING, f"public_url = {settings.public_url} is plain http", "write https:// there")
    elif public.hostname and not is_for(pair.names, public.hostname):
        message = f"the certificate is not for {public.hostname}, which public_url names: clients refuse it"
        yield Finding("tls", WARNING, message, "have it made for that name, or correct public_url")


def look_at_data(settings: Settings) -> Iterator[Finding]:
    """The data folder, its stores, the free space on its disk."""
    folder = Path(settings.data_dir)
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        yield Finding("store", WRONG, f"{folder}/ cannot be read", AS_ITS_USER)
        return
    if not (folder / "ledger").exists():
        yield Finding("store", OK, f"{folder}/ is filled at the first start")
        return
    if is_read_only(folder):
        fix = "mount it writable; until then what is there is served, and usage waits in memory"
        yield Finding("store", WRONG, f"{folder}/ cannot be written: its file system is read-only", fix)
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("store", WRONG, f"{folder}/ cannot be written", f"chown -R {os.getuid()} {folder}")
        return
    try:
        open_durable(folder).close()
    except StoreError as error:
        yield Finding("store", WRONG, str(error), "pool-server restore brings a backup back")
        return
    free_mb = shutil.disk_usage(folder).free >> 20
    if free_mb < settings.alerts.disk_free_mb:
        message = f"only {free_mb} MiB are free on its disk"
        yield Finding("store", WARNING, message, "free some space, or usage cannot be recorded")
    else:
        yield Finding("store", OK, f"{folder}/ opens, {free_mb} MiB free")
    secret = folder / "jwt_secret"
    if _open_to_others(secret):
        yield _readable(secret, "signs keys")


def look_at_database(settings: Settings, env: Mapping[str, str]) -> Iterator[Finding]:
    """The database of several machines, and whether this one can be one of them."""
    if not settings.store_url:
        return
    try:
        check_shared(settings)
        found = asyncio.run(_inspected(parse(settings.store_url, env)))
    except (ConfigError, StoreError) as error:
        yield Finding("database", WRONG, str(error), "docs/cluster.md names each line")
        return
    for one in found:
        yield Finding(f"database, {one.check}", one.state, one.message, one.fix)


async def _inspected(place: DatabaseUrl) -> list[DatabaseFinding]:
    async with connected(place) as connection:
        return await inspect(connection, place)


def look_at_service() -> Iterator[Finding]:
    """The units of systemd, where the pool is a service."""
    for unit, fault in installed():
        if fault:
            yield Finding("service", WARNING, f"{unit}: {fault}", "pool-server service install writes it anew")
        else:
            yield Finding("service", OK, str(unit))


def look_at_accounts(settings: Settings, now: float) -> Iterator[Finding]:
    """The pool folder, every credential file in it, and what the running server knows of their accounts."""
    folder = Path(settings.pool_dir)
    if not folder.is_dir():
        fix = f"mkdir {folder} and put credential files into it (pool/README.md says which)"
        yield Finding("accounts", WRONG, f"{folder}/ is not there", fix)
        return
    seen = scan(folder)
    credentials = CredentialStore(PoolFolder(folder), Escrow(Path(settings.data_dir)))
    credentials.items = credentials.look(now).items
    lost = _lost(settings)
    rows = ((item.found.account, item.found.name, item.credential) for item in credentials.items.values())
    copies = doubles(rows, now)
    for unusable in seen.rejected:
        yield Finding(unusable.file, WRONG, unusable.reason, "correct or remove the file")
    for name, reason in seen.unread.items():
        yield Finding(f"{folder}/{shown(name)}", WRONG, str(reason), READABLE)
    for file in seen.found:
        if file.account in copies:
            yield Finding(file.account, WRONG, f"{file.name}: the same sign-in as {copies[file.account]}", "remove one")
        else:
            yield from _look_at_file(file, settings, now, lost.get(file.account))
    yield from _look_whether_writable(credentials, folder)
    yield from _look_at_seals(seen.found)
    yield from _look_at_owners(credentials, settings)
    there = {
        (item.found.provider, item.credential.kind is CredentialKind.API_KEY) for item in credentials.items.values()
    }
    for provider, is_key in sorted(there):
        spec = SPECS[provider]
        if spec.notice and is_key is spec.preset:
            yield Finding(f"{spec.label} {'keys' if is_key else 'sign-ins'}", WARNING, spec.notice)
    if not (seen.found or seen.rejected or seen.unread):
        fix = f"put credential files into it, or try: pool-server account add-key {Provider.OPENAI}"
        yield Finding("accounts", WARNING, f"{folder}/ holds none", fix)


def _look_at_owners(credentials: CredentialStore, settings: Settings) -> Iterator[Finding]:
    """Whom the files name as owners and groups, and who is in the pool."""
    items = credentials.items.values()
    named = {item.found.account: item.options.owner for item in items if item.options.owner}
    grouped = {item.found.account: item.options.groups for item in items if item.options.groups}
    here = (Path(settings.data_dir) / "ledger").exists() and not settings.store_url
    if not (named or grouped) or not here:
        return
    try:
        with open_people(settings) as people:
            nobody = {account: said for account, said in named.items() if not people.people.owner_id(said.strip())}
            known = {said: people.people.named(said) for said in nobody.values()}
            there = people.groups.all() if grouped else {}
    except (StoreError, ValueError):
        return  # told by the look at the store
    for account, groups in grouped.items():
        for name in groups:
            if name not in there:
                yield Finding(account, WARNING, f"nobody is in the group {name!r}, which may use it", GROUP)
    for account, said in nobody.items():
        user = known[said]
        why = f"who came by a code; write the id {user['id']} instead, if it is them" if user else "who is nobody here"
        yield Finding(account, WARNING, f"its owner is {said!r}, {why}", OWNER)


def _look_whether_writable(credentials: CredentialStore, folder: Path) -> Iterator[Finding]:
    """New tokens are written into the files of sign-ins; API keys need no such thing."""
    if reason := credentials.unwritable():
        fix = "mount it without :ro, or give the user who runs the pool the right to write there"
        yield Finding(f"{folder}/", WARNING, str(reason), fix)


def _look_at_seals(found: Sequence[CredentialFile]) -> Iterator[Finding]:
    """Which files are sealed, and whether with the key that seals now."""
    try:
        names = sealing.environment_keys().names
    except sealing.SealError as error:
        yield Finding("seal", WRONG, str(error), "pool-server account seal --new-key prints one")
        return
    sealed = []
    for file in found:
        with contextlib.suppress(CredentialRejectedError):  # told of each file
            sealed.append(files.sealed_with(file.path))
    count = sum(key is not None for key in sealed)
    if not count and not names:
        return
    message = f"{count} of {len(sealed)} credential files are sealed"
    if names and any(key != names[0] for key in sealed):
        yield Finding("seal", WARNING, message, f"pool-server account seal seals all with key {names[0]}")
    else:
        yield Finding("seal", OK, message)


def _far_away(host: str) -> bool:
    """Is this a host beyond one's own machine and network?"""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".localhost", ".local", ".internal", ".lan"))


def _lost(settings: Settings) -> dict[str, str]:
    """The accounts a running server knows to be of no use until somebody acts, and why; a file does not tell that."""
    try:
        server = running(settings)
        rows = server.accounts() if server is not None else []
    except click.ClickException:
        return {}  # told by the look at the port, or by nobody: the files are judged alone
    return {
        row["id"]: f"{_LOST[row['state']]}{': ' + row['message'] if row['message'] else ''}"
        for row in rows
        if row["state"] in _LOST
    }


def _look_at_file(file: CredentialFile, settings: Settings, now: float, lost: str | None) -> Iterator[Finding]:
    try:
        data, _ = files.read(file.path)
        options = files.options(data)
        credential = files.parse(data, file, now=now)
    except files.UnreadFileError as error:
        sealed = isinstance(error.__cause__, sealing.SealError)
        yield Finding(file.account, WRONG, f"{file.name}: {error}", KEY if sealed else READABLE)
        return
    except CredentialRejectedError as error:
        yield Finding(file.account, WRONG, f"{file.name}: {error}", SIGN_IN)
        return
    state, message, fix = (WRONG, lost, SIGN_IN) if lost else _judge(credential, settings, now)
    addresses = provider_module(file.provider).addresses(credential, settings)
    hosts = list(dict.fromkeys(shown_origin(origin(address)) for address in addresses))
    through = f" through {host_of(options.proxy_url)}" if options.proxy_url else ""
    note = " (disabled)" if options.disabled else ""
    yield Finding(file.account, state, f"{message}; goes to {', '.join(hosts)}{through}{note}", fix)
    for host in hosts:
        if host.startswith("http://") and _far_away(urlsplit(host).hostname or ""):
            yield Finding(
                file.account, WARNING, f"{host} is reached in the clear: its secret can be read on the way", TLS
            )
    if _open_to_others(file.path):
        yield _readable(file.path, "holds a credential")


def _judge(credential: Credential, settings: Settings, now: float) -> tuple[str, str, str]:
    """State, message and fix of a readable credential."""
    ends = credential.expires_at
    if credential.kind is CredentialKind.SERVICE_ACCOUNT:
        return OK, "service account, whose tokens the pool renews", ""
    if credential.kind is CredentialKind.API_KEY:
        if credential.can_refresh:
            return OK, "access key whose role the pool assumes", ""
        if ends is not None and ends <= now:
            return WRONG, f"the session of its keys ended at {_date(ends)}", "write new keys into the file"
        return OK, "API key" if credential.auth is not KeyAuth.SIGNED else "access key that signs requests", ""
    valid = ends is None or ends > now
    until = "valid, no end known" if ends is None else f"{'valid until' if valid else 'ended at'} {_date(ends)}"
    if credential.kind is CredentialKind.SETUP_TOKEN or not credential.can_refresh:
        return OK if valid else WRONG, f"token {until}, cannot be refreshed", "" if valid else SIGN_IN
    if not provider_module(credential.provider).refreshable(credential, settings):
        fix = f"set {' and '.join(SPECS[credential.provider].refresh_needs)} (the vendor's installed-app client)"
        return WARNING if valid else WRONG, f"token {until}; the pool cannot refresh it", fix
    return OK, f"token {until}, refreshable", ""


def _open_to_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


def _readable(path: Path, why: str) -> Finding:
    return Finding(str(path), WARNING, f"{why}, and other users of this machine may read it", f"chmod 600 {path}")


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
