"""What models the pool serves: asked of the providers now and then, the last good answer kept.

One question a kind of account (a Codex plan, an endpoint of compatible servers), not one an account: accounts of a
kind offer the same. No client waits long for it, and a provider that fails is left alone for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase

import msgspec

from pool_server import __version__
from pool_server.accounts import Accounts
from pool_server.core.enums import AccountState, ApiFamily, CredentialKind, Operation, Provider
from pool_server.core.models import ClientCall, HttpRequest, Send
from pool_server.core.settings import Settings
from pool_server.dialects import ModelInfo, ModelsShape
from pool_server.gateway.emulation.callable_models import Asker, callable_models, once_each
from pool_server.providers import SPECS, Credential, catalogue_request, provider_module

log = logging.getLogger("pool_server.gateway")

Key = tuple[Provider, str, str]

FRESH_S = 900.0  # seconds a catalogue is used without asking again
RETRY_S = 120.0  # seconds a source that failed is left alone
WAIT_S = 4.0  # seconds a client waits for the very first answer
MOST_SOURCES = 8  # of one provider
MOST_KEPT = 64  # answers in memory: kinds of account × client versions
_PLAN = "plan "
_OUT = frozenset({AccountState.NEEDS_LOGIN, AccountState.SUSPENDED, AccountState.DISABLED})

_SHAPES = {ApiFamily.ANTHROPIC: ModelsShape.ANTHROPIC, ApiFamily.GOOGLE: ModelsShape.GEMINI}

Ranked = tuple[float, ModelInfo]


class _Row(msgspec.Struct):
    """One entry of any vendor's list: Codex has slugs and priorities, the others ids or names."""

    slug: str = ""
    id: str = ""
    name: str = ""
    display_name: str = ""
    priority: float | None = None


class _List(msgspec.Struct):
    models: list[msgspec.Raw] = []
    data: list[msgspec.Raw] = []


class _Kept(msgspec.Struct):
    """The last word of one source: `models` None until one was good; `ask_at` = when to ask again."""

    models: list[Ranked] | None = None
    etag: str = ""
    ask_at: float = 0.0


class _Source(msgspec.Struct):
    """An account that is asked for the models of its kind. `patterns` they are limited to, None = all."""

    account: str
    cred: Credential
    patterns: set[str] | None


class Catalogue:
    """Asks, keeps and merges model lists. One a worker; all calls on the event loop."""

    def __init__(self, settings: Settings, *, accounts: Accounts, send: Send, clock: Callable[[], float]) -> None:
        self.settings = settings
        self._accounts = accounts
        self._send = send
        self._clock = clock
        self._kept: dict[Key, _Kept] = {}
        self._asking: dict[Key, asyncio.Task[None]] = {}

    async def codex(self, client_version: str) -> tuple[list[ModelInfo], str]:
        """What a Codex CLI of that version may choose from, each with its catalogue entry, and an ETag or "".

        The union over the plans of the pool's sign-ins, in the vendor's own order; empty when nobody could say.
        The ETag is the vendor's as long as there is one source, so that it fits the `x-models-etag` of answers.
        """
        sources = self._sources(Provider.CODEX) or {}
        answers = await self._ask(
            [
                ((Provider.CODEX, group, client_version[:40]), source.account)
                for group, source in sources.items()
                if group.startswith(_PLAN)
            ]
        )
        return _merged(answers), answers[0].etag if len(answers) == 1 else ""

    def codex_signed_in(self) -> bool:
        """Whether there are sign-ins whose plans have a catalogue, answered or not."""
        return any(group.startswith(_PLAN) for group in self._sources(Provider.CODEX) or ())

    async def models(
        self, providers: Iterable[Provider], asker: Asker, *, plans: bool = True, wait_s: float = WAIT_S
    ) -> list[ModelInfo]:
        """The models these providers serve here to this client, provider by provider, each once: untranslated if one
        of them serves it so. Without `plans` what `codex` has told is left out. A provider that was never heard of is
        waited for, at most `wait_s`."""
        asked = [self._models(provider, asker, plans, wait_s) for provider in providers]
        return once_each(model for models in await asyncio.gather(*asked) for model in models)

    async def _models(self, provider: Provider, asker: Asker, plans: bool, wait_s: float) -> list[ModelInfo]:
        sources = self._sources(provider)
        if sources is None:
            return []
        sources = {group: one for group, one in sources.items() if plans or not group.startswith(_PLAN)}
        answers = await self._ask([((provider, group, ""), one.account) for group, one in sources.items()], wait_s)
        known = _merged(
            [_limited(answer, source, asker) for answer, source in zip(answers, sources.values(), strict=True)]
        )
        shipped = SPECS[provider].shipped if sources and not any(answer.models for answer in answers) else ()
        plain = [ModelInfo(name, provider.value) for name in shipped]
        for source in sources.values():
            known += callable_models(source.cred, plain, asker)
        return known + self._declared(provider, asker)

    def _declared(self, provider: Provider, asker: Asker) -> list[ModelInfo]:
        """What the files of accounts name."""
        found: list[ModelInfo] = []
        for _, cred in self._alive(provider):
            own = {name for _, name in cred.renames}  # which are asked for by other names
            listed = {name for name in cred.models if not _is_pattern(name)} - own
            names = sorted(listed | {asked for asked, _ in cred.renames})
            found += callable_models(cred, [ModelInfo(name, provider.value) for name in names], asker)
        return sorted(found, key=lambda model: model.id)

    def _alive(self, provider: Provider) -> Iterator[tuple[str, Credential]]:
        """Accounts that could serve, of every kind one or more."""
        for account, state in self._accounts.samples(provider):
            if state in _OUT:
                continue
            try:
                cred = self._accounts.credential(account)
            except KeyError:
                continue  # taken away just now
            yield account, cred

    def _sources(self, provider: Provider) -> dict[str, _Source] | None:
        """An account for each kind of account to ask, and the patterns its models are limited to; accounts that declare
        their models by name need no asking.

        None when the provider has no account that could serve.
        """
        groups: dict[str, _Source] = {}
        any_account = False
        for account, cred in self._alive(provider):
            any_account = True
            patterns = {name for name in cred.models if _is_pattern(name)}
            if not cred.models or patterns:
                source = groups.setdefault(_group(cred), _Source(account, cred, patterns if cred.models else None))
                joined = source.patterns is not None and cred.models
                source.patterns = (source.patterns or set()) | patterns if joined else None
            if len(groups) == MOST_SOURCES:
                break
        return groups if any_account else None

    async def _ask(self, pairs: list[tuple[Key, str]], wait_s: float = WAIT_S) -> list[_Kept]:
        """What the sources last said, in their order; those that never said anything are waited for."""
        waited: list[asyncio.Task[None]] = []
        for key, account in pairs:
            kept = self._kept.get(key)
            if kept is None:
                if len(self._kept) >= MOST_KEPT:
                    self._kept.pop(next(iter(self._kept)))
                kept = self._kept[key] = _Kept()
            if kept.ask_at <= self._clock() and key not in self._asking:
                task = asyncio.create_task(self._fetch(key, account, kept))
                self._asking[key] = task
                task.add_done_callback(lambda _, key=key: self._asking.pop(key, None))  # type: ignore[misc]
            if kept.models is None and key in self._asking:
                waited.append(self._asking[key])
        if waited:
            await asyncio.wait(waited, timeout=wait_s)
        return [self._kept.get(key, _Kept()) for key, _ in pairs]

    async def _fetch(self, key: Key, account: str, kept: _Kept) -> None:
        kept.ask_at = self._clock() + RETRY_S
        request = self._request(key, account)
        if request is None:
            kept.ask_at = self._clock() + FRESH_S
            return
        answer = await self._send(request)
        models = _read(key, answer.body) if answer.status == 200 else None
        if not models:
            log.info("%s could not be asked for its models (status %d)", account, answer.status)
            return
        kept.models = models
        kept.etag = answer.headers.get("etag", "")
        kept.ask_at = self._clock() + FRESH_S

    def _request(self, key: Key, account: str) -> HttpRequest | None:
        """None where the provider has no list for this kind of credential."""
        provider, _, version = key
        cred = self._accounts.credential(account)
        if provider is Provider.CODEX:
            request = catalogue_request(cred, self.settings, version or "1.0.0")
        elif provider_module(provider).models_request(cred, self.settings) is None:
            return None
        else:
            dialect, path = SPECS[provider].home, SPECS[provider].models_path
            headers = [("User-Agent", f"pool-server/{__version__}"), ("Accept", "application/json")]
            if provider is Provider.CLAUDE:
                headers.append(("anthropic-version", "2023-06-01"))
            call = ClientCall(Operation.OTHER, dialect, "GET", path, headers=headers)
            prepared = provider_module(provider).prepare(cred, call, self.settings)
            shown = prepared.sign(b"") if prepared.sign is not None else ()
            request = HttpRequest("GET", prepared.url, (*prepared.headers, *shown))
        return msgspec.structs.replace(self._accounts.bounded(account, request), timeout_s=20.0)


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def _limited(kept: _Kept, source: _Source, asker: Asker) -> _Kept:
    """What of a source's models its accounts serve to this client."""
    if kept.models is None:
        return kept
    wanted = None if source.patterns is None else [pattern.lower() for pattern in source.patterns]
    models = [
        (rank, marked)
        for rank, model in kept.models
        if wanted is None or any(fnmatchcase(model.id.lower(), pattern) for pattern in wanted)
        for marked in callable_models(source.cred, [model], asker)
    ]
    return msgspec.structs.replace(kept, models=models)


def _group(cred: Credential) -> str:
    if cred.provider is Provider.CODEX and cred.kind is not CredentialKind.API_KEY:
        return _PLAN + cred.plan
    return f"{cred.kind} {cred.base_url}"


def _read(key: Key, body: bytes) -> list[Ranked] | None:
    """The models of a vendor's list with their rank; None when it is no list.

    Entries keep the vendor's own words where the list came in a client's shape that holds nothing of the account.
    """
    provider, group, _ = key
    shape = ModelsShape.CODEX if group.startswith(_PLAN) else _SHAPES.get(SPECS[provider].family)
    found: list[Ranked] = []
    try:
        rows = msgspec.json.decode(body, type=_List)
        for raw in rows.models or rows.data:
            row = msgspec.json.decode(raw, type=_Row)
            name = row.slug or row.id or row.name.removeprefix("models/")
            entries = {shape: msgspec.Raw(bytes(raw))} if shape is not None else {}
            if name:
                rank = float("inf") if row.priority is None else row.priority
                found.append((rank, ModelInfo(name, provider.value, row.display_name, entries=entries)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found


def _merged(answers: list[_Kept]) -> list[ModelInfo]:
    """Every model once, in the vendor's order: lower ranks first, those without one as they came."""
    ranked = sorted((pair for one in answers for pair in one.models or ()), key=lambda pair: pair[0])
    unique: dict[str, ModelInfo] = {}
    for _, model in ranked:
        unique.setdefault(model.id, model)
    return list(unique.values())
