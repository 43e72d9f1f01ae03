"""The accounts as a command sees them: a running server's over its admin API, or the files themselves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import click
import msgspec

from pool_server.accounts import Accounts, NameTakenError, NewAccount, SameAccountError
from pool_server.app import run_file
from pool_server.app.server import CoreServices, open_services
from pool_server.cli.common import one_line
from pool_server.core.enums import Provider
from pool_server.core.settings import Settings
from pool_server.gateway import Upstream
from pool_server.language import lazy_of
from pool_server.ledger import Filters
from pool_server.providers import CredentialRejectedError
from pool_server.providers.keys.pasted import recognise
from pool_server.storage import lock_folder
from pool_server.users import Users

TIMEOUT_S = 90.0
UNKNOWN = "there is no such account; `pool-server account list` shows them"


class Pool(Protocol):
    """What commands ask of the accounts. An unknown account is a ClickException."""

    def accounts(self) -> list[dict[str, Any]]: ...

    def listing(self) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """The accounts, and the files that cannot be used."""
        ...

    def act(self, account: str, action: str) -> dict[str, Any]: ...

    def change(self, account: str, options: dict[str, Any]) -> None:
        """Sets options as `PATCH /admin/accounts/ID` does; None takes one away."""
        ...

    def remove(self, account: str) -> None: ...

    def restore(self, account: str) -> None: ...

    def add(self, body: dict[str, Any]) -> dict[str, Any]:
        """Adds an account as `POST /admin/accounts` does: "provider", "name", "credential" (text) → its answer."""
        ...

    def sign_in(self, body: dict[str, Any]) -> dict[str, Any]:
        """As `add`, but a sign-in of the same person takes the place of the one before it."""
        ...

    def used(self, account: str, frm: int, to: int) -> dict[str, Any]:
        """What an account was used for in a range of unix seconds, as `Sums.describe` tells it."""
        ...


@contextlib.contextmanager
def open_pool(settings: Settings) -> Iterator[Pool]:
    """The running server where there is one, else the files, which are held for as long as the block lasts."""
    folder = Path(settings.data_dir)
    if (server := asked(settings)) is not None:
        yield server
        return
    with one_line(), lock_folder(folder):
        yield Resting(settings)


def asked(settings: Settings) -> Running | None:
    """The running server, where there is one; asks a person for the password where nobody else knows it."""
    url = _url(settings)
    return None if url is None else Running(url, _password(settings))


def running(settings: Settings) -> Running | None:
    """The running server, where there is one and it can be asked without asking a person for the password."""
    url = _url(settings)
    password = settings.pool_users.admin_password
    if url is None or (settings.friends_mode and (not password or password.startswith("$2"))):
        return None
    return Running(url, _password(settings))


def _url(settings: Settings) -> str | None:
    with one_line():
        return run_file.find(Path(settings.data_dir))


def _password(settings: Settings) -> str:
    """What opens the admin API; local mode needs nothing. Where it is not known here, people are asked."""
    password = settings.pool_users.admin_password
    if not settings.friends_mode:
        return settings.local_token
    if password and not password.startswith("$2"):
        return password
    if not sys.stdin.isatty():
        known = "the settings hold a hash only" if password else "a pool runs, and no admin password is known here"
        raise click.ClickException(f"{known}: set POOL_ADMIN_PASSWORD to the running server's")
    typed: str = click.prompt("Admin password", hide_input=True, err=True)
    return typed


def _own_tls() -> urllib.request.HTTPSHandler:
    """TLS to the server of this machine's own data folder, at the address that it wrote there itself. Its certificate
    is for the name that friends use, never for that address, so that no name is compared."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return urllib.request.HTTPSHandler(context=context)


class Running:
    """A server's admin API."""

    def __init__(self, url: str, password: str) -> None:
        self._url = url
        self._password = password
        # A proxy from the environment has no business between a shell and its own machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _own_tls())

    def accounts(self) -> list[dict[str, Any]]:
        return self.listing()[0]

    def listing(self) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        found = self._call("GET", "/admin/accounts")
        return found["accounts"], found["rejected"]

    def status(self) -> dict[str, Any]:
        """The JSON of `/status`."""
        return self._call("GET", "/status")

    def latest_requests(self, most: int) -> list[dict[str, Any]]:
        """The newest finished requests, as the page of requests shows them."""
        found: list[dict[str, Any]] = self._call("GET", f"/admin/requests?limit={most}")["requests"]
        return found

    def act(self, account: str, action: str) -> dict[str, Any]:
        answer = self._call("POST", f"{_path(account)}/{action}")
        result: dict[str, Any] = answer.get("result") or {}
        return result

    def change(self, account: str, options: dict[str, Any]) -> None:
        self._call("PATCH", _path(account), options)

    def remove(self, account: str) -> None:
        self._call("DELETE", _path(account))

    def restore(self, account: str) -> None:
        self._call("POST", f"{_path(account)}/restore")

    def add(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._call("POST", "/admin/accounts", body)

    def sign_in(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = {"provider": body["provider"], "name": body["name"], "flow": "line", "consent": body["consent"]}
        begun = self._call("POST", "/admin/sign-ins", asked)
        where = re.search(r"/contribute/[\w-]+", begun["line"])
        done: dict[str, Any] = {}
        try:
            done = self._call("POST", where[0] if where else "", text=body["credential"])
        finally:
            if not done.get("account"):
                self._call("DELETE", f"/admin/sign-ins/{begun['id']}")
        if not done.get("account"):
            raise click.ClickException(str(done.get("message")))
        return {"id": done["account"], "test": done["test"]}

    def used(self, account: str, frm: int, to: int) -> dict[str, Any]:
        if account not in {row["id"] for row in self.accounts()}:
            raise click.ClickException(UNKNOWN)
        query = urlencode({"account": account, "from": frm, "to": to, "user": "all"})
        total: dict[str, Any] = self._call("GET", f"/api/usage/summary?{query}")["total"]
        return total

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, text: str | None = None
    ) -> dict[str, Any]:
        said = text if text is not None else json.dumps(body or {})
        data = said.encode() if method in ("POST", "PATCH") else None
        request = urllib.request.Request(self._url + path, method=method, data=data)
        request.add_header("Content-Type", "application/json" if text is None else "text/plain")
        request.add_header("Accept", "application/json")
        if self._password:
            request.add_header("Authorization", f"Bearer {self._password}")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                raw = answer.read()
                found: dict[str, Any] = json.loads(raw) if raw else {}
                return found
        except urllib.error.HTTPError as error:
            raise click.ClickException(_reason(error)) from None
        except (OSError, ValueError) as error:
            raise click.ClickException(f"the server at {self._url} cannot be reached: {error}") from None


def _with_ids(options: dict[str, Any], users: Users) -> dict[str, Any]:
    """Options with people by id. ClickException for somebody, and for a group, that is not there."""
    said = dict(options)
    for name in [one for one in ("owner", "people") if said.get(one) is not None]:
        asked = [said[name]] if name == "owner" else said[name]
        ids = [users.people.id_of(one) for one in asked]
        if "" in ids:
            raise click.ClickException(f"there is no person {json.dumps(asked[ids.index('')])}; add them first")
        said[name] = ids[0] if name == "owner" else ids
    there = users.groups.all() if said.get("groups") else {}
    if unknown := next((one for one in said.get("groups") or () if one not in there), ""):
        raise click.ClickException(f"nobody is in a group {json.dumps(unknown)}; add somebody to it first")
    return said


def _path(account: str) -> str:
    return f"/admin/accounts/{quote(account, safe='')}"


def _reason(error: urllib.error.HTTPError) -> str:
    with error:
        try:
            found = json.load(error)
        except (OSError, ValueError):
            found = {}
    told = found.get("error") if isinstance(found, dict) else None
    message = told.get("message") if isinstance(told, dict) else told
    return f"the server says: {message or error.reason} ({error.code})"


class Resting:
    """The files and the stored state, while no server runs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def accounts(self) -> list[dict[str, Any]]:
        return self.listing()[0]

    def listing(self) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        async def describe(pool: Accounts) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
            return msgspec.to_builtins(pool.describe_all()), pool.rejected()

        found: tuple[list[dict[str, Any]], list[dict[str, str]]] = self._with_pool(describe)
        return found

    def act(self, account: str, action: str) -> dict[str, Any]:
        async def work(pool: Accounts) -> dict[str, Any]:
            if action == "test":
                return await pool.test(account)
            await pool.set_disabled(account, action == "disable")
            return {}

        result: dict[str, Any] = self._with_pool(work)
        return result

    def change(self, account: str, options: dict[str, Any]) -> None:
        async def work(services: CoreServices) -> None:
            await services.accounts.change(account, _with_ids(options, services.users))

        self._with_services(work)

    def remove(self, account: str) -> None:
        self._with_pool(lambda pool: pool.remove(account))

    def restore(self, account: str) -> None:
        async def work(pool: Accounts) -> None:
            try:
                await pool.restore(account)
            except KeyError:
                raise click.ClickException(f"no removed account is called {account}") from None
            except FileExistsError:
                raise click.ClickException(f"another file has the name of {account} now") from None

        self._with_pool(work)

    def add(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._take(body, again=False)

    def sign_in(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._take(body, again=True)

    def _take(self, body: dict[str, Any], *, again: bool) -> dict[str, Any]:
        async def work(pool: Accounts) -> dict[str, Any]:
            provider = Provider(body["provider"])
            found = recognise(body["credential"], now=time.time())
            if found.provider not in (provider, None):
                raise CredentialRejectedError(lazy_of(f"this is no credential of {provider.value}"))
            try:
                return await pool.add(NewAccount(provider, dict(found.data), body["name"]))
            except SameAccountError as known:
                if again:
                    return await pool.replace(known.account, dict(found.data))
                raise click.ClickException(str(known)) from None
            except NameTakenError as taken:
                raise click.ClickException(str(taken)) from None

        made: dict[str, Any] = self._with_pool(work)
        return made

    def used(self, account: str, frm: int, to: int) -> dict[str, Any]:
        with one_line():
            services = open_services(self._settings, Upstream().send)
            try:
                services.accounts.load()
                if not services.accounts.knows(account):
                    raise click.ClickException(UNKNOWN)
                sums = services.ledger.queries.total(frm, to, Filters(account=account))
                return dict(msgspec.to_builtins(sums.describe()))
            finally:
                services.close_stores()

    def _with_pool(self, work: Callable[[Accounts], Awaitable[Any]]) -> Any:
        return self._with_services(lambda services: work(services.accounts))

    def _with_services(self, work: Callable[[CoreServices], Awaitable[Any]]) -> Any:
        async def opened() -> Any:
            upstream = Upstream()
            services = open_services(self._settings, upstream.send)
            try:
                services.accounts.load()
                return await work(services)
            except KeyError:
                raise click.ClickException(UNKNOWN) from None
            finally:
                await upstream.close()
                services.close_stores()

        with one_line():
            return asyncio.run(opened())
