"""The module of every vendor in `presets.toml`: an API key at the vendor's own hosts, nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pool_server.core.enums import ApiFamily, CredentialKind, Dialect, Operation, Provider
from pool_server.core.models import ClientCall, Fault, HttpAnswer, HttpRequest, UpstreamRequest, WindowObservation
from pool_server.core.settings import Settings
from pool_server.language import lazy
from pool_server.providers import keys
from pool_server.providers.base import ProviderModule, ProviderSpec, UsageAnswer
from pool_server.providers.credential import Credential, CredentialRejectedError, Fields, KeyAuth, model_listed
from pool_server.providers.keys import KeySpec
from pool_server.providers.keys.endpoint import ANTHROPIC_VERSION
from pool_server.providers.keys.reading import refuse_foreign, refuse_unread
from pool_server.providers.openai.faults import of_vendor
from pool_server.providers.presets.data import PLACE_VALUE, PLACES, Preset, filled
from pool_server.providers.presets.quota import READERS
from pool_server.providers.requests import own_get, own_post
from pool_server.providers.times import MINUTE
from pool_server.providers.usage_endpoint import usage_object
from pool_server.providers.windows import rate_windows

_FIXED = ("base_url", "auth", "dialects")
_OPERATIONS: dict[Dialect, frozenset[Operation]] = {
    Dialect.CHAT: frozenset((Operation.CHAT,)),
    Dialect.RESPONSES: frozenset((Operation.RESPONSES,)),
    Dialect.MESSAGES: frozenset((Operation.MESSAGES, Operation.COUNT_TOKENS)),
}
_SHARING = {
    "personal": "this plan is sold to one person: sharing it may break its terms; a pay-as-you-go key is the safe kind",
    "trial": "this key draws on a personal or trial allowance",
}
_CONSENT = {
    "personal": "This plan is sold to one person: sharing its key may break its terms, and the vendor may end it. "
    "A pay-as-you-go key is the safe kind."
}


class PresetModule(ProviderModule):
    """One preset. Its faults are read by the vendor's own rules, then as those of any OpenAI-compatible endpoint."""

    def __init__(self, provider: Provider, preset: Preset) -> None:
        self.preset = preset
        self._hosts = preset.hosts.by_dialect()
        dialects = preset.dialects
        self.spec = ProviderSpec(
            provider,
            preset.about.name,
            dialects[0],
            KeySpec(("api_key",), preset.use.auth, dialects, lambda _: self._hosts[dialects[0]]),
            missing="api_key",
            family=ApiFamily.ANTHROPIC if dialects[0] is Dialect.MESSAGES else ApiFamily.OPENAI,
            usage_least_s=float(preset.quota.every_s) if preset.quota is not None else 0.0,
            notice=_SHARING.get(preset.about.share, ""),
            preset=True,
            small_model=preset.use.test_model,
            consent=_CONSENT.get(preset.about.share, ""),
            foreign_errors=preset.use.foreign_errors,
            traced_as=preset.about.traced_as,
        )

    def parse(self, data: object, account: str, *, now: float) -> Credential:
        fields = Fields(data)
        key = fields.token("api_key")
        if not key and not self.preset.about.local:
            other = keys.belongs_to(fields.data, account.partition(":")[2])
            raise CredentialRejectedError(other or keys.missing("api_key"))
        return self._read(fields, account, key)

    def _read(self, fields: Fields, account: str, key: str) -> Credential:
        use = self.preset.use
        for name in _FIXED:
            if fields.given(name):
                raise CredentialRejectedError(
                    lazy(
                        "{name} cannot be given here: a key of {label} goes to its own hosts; for another address name "
                        "the file openai_…",
                        name=name,
                        label=self.spec.label,
                    )
                )
        refuse_unread(fields)
        if key:
            self._check(key)
        return Credential(
            self.spec.provider,
            account,
            CredentialKind.API_KEY,
            api_key=key,
            dialects=self.preset.dialects,
            guessed=() if use.models or fields.texts("models") else self.preset.dialects,
            auth=use.auth,
            places=self._places(fields),
            models=fields.texts("models") or use.models,
            plan=fields.text("plan_type").lower() or "api",
        )

    def _check(self, key: str) -> None:
        """A key of another kind is told before it is sent to anybody."""
        refuse_foreign(self.spec.provider, key)
        pattern = self.preset.use.key
        if pattern and not re.match(pattern, key):
            raise CredentialRejectedError(
                lazy("this is no key of {label}: its keys begin with {pattern}", label=self.spec.label, pattern=pattern)
            )

    def _places(self, fields: Fields) -> tuple[tuple[str, str], ...]:
        found = []
        for name in PLACES:
            value, needed = fields.text(name), name in self.preset.places
            if value and not needed:
                raise CredentialRejectedError(
                    lazy("{name} cannot be honoured here: {label} has one place", name=name, label=self.spec.label)
                )
            if not needed:
                continue
            known = self.preset.regions if name == "region" else {}
            if known:
                value = value or next(iter(known))
                if value not in known:
                    raise CredentialRejectedError(
                        lazy("{name} must be one of {known}", name=name, known=", ".join(known))
                    )
                found.append((name, known[value]))
            elif not PLACE_VALUE.fullmatch(value):
                raise CredentialRejectedError(
                    lazy("{name} must be given, in lower-case letters, digits and dashes", name=name)
                )
            else:
                found.append((name, value))
        return tuple(found)

    def _at(self, address: str, cred: Credential, settings: Settings) -> str:
        return filled(address, cred.places, settings.upstreams.presets.get(self.spec.provider.value, ""))

    def addresses(self, cred: Credential, settings: Settings) -> tuple[str, ...]:
        return tuple(self._at(address, cred, settings) for address in self.preset.addresses())

    def build(self, cred: Credential, call: ClientCall, settings: Settings) -> UpstreamRequest:
        host = self._hosts.get(call.dialect) or self._hosts[self.preset.dialects[0]]
        own = self._shown(cred, self._auth(cred, call.dialect))
        return keys.prepare_at(self._at(host, cred, settings), call, own)

    def serves(self, cred: Credential, operation: Operation, dialect: Dialect, model: str) -> bool:
        if dialect not in self._hosts or not model_listed(cred, model):
            return False
        embeds = dialect is Dialect.CHAT and operation is Operation.EMBEDDINGS and self.preset.hosts.embeddings
        return embeds or operation in _OPERATIONS[dialect]

    def quota_headers(self, headers: Mapping[str, str], *, now: float, model: str) -> list[WindowObservation]:
        return rate_windows(headers, now=now, scope=self.model_family(model))

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
        return of_vendor(self.spec.provider.value, status, headers, body, now=now, model=model)

    def usage_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        quota = self.preset.quota
        if quota is None:
            return None
        shown = self._shown(cred, KeyAuth.BEARER) if quota.auth == "bearer" else [("Authorization", cred.api_key)]
        return own_get(self._at(quota.url, cred, settings), *shown)

    def usage_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> UsageAnswer:
        data = usage_object(answer, self.classify, now=now, back_off=5 * MINUTE, limited_back_off=15 * MINUTE)
        if isinstance(data, UsageAnswer) or self.preset.quota is None:
            return data if isinstance(data, UsageAnswer) else UsageAnswer()
        found = READERS[self.preset.quota.reader](data, now)
        if found is None:  # an error within a 200
            fault = self.classify(answer.status, answer.headers, answer.body, now=now, model="")
            return UsageAnswer(fault=fault, retry_at=now + 5 * MINUTE)
        return found

    @property
    def quota_proves(self) -> bool:
        return self.preset.use.test == "quota"

    def models_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        return own_get(f"{self._base(cred, settings)}/models", *self._own(cred))

    def test_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        """One request of one token where a model is known, else the list of models."""
        model = self.preset.use.test_model
        if not model or not model_listed(cred, model):
            return self.models_request(cred, settings)
        dialect = self.preset.dialects[0]
        body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
        operation = "/messages" if dialect is Dialect.MESSAGES else "/chat/completions"
        return own_post(self._base(cred, settings) + operation, body, *self._own(cred))

    def _shown(self, cred: Credential, auth: KeyAuth) -> list[tuple[str, str]]:
        """The header that shows what the account has."""
        return keys.key_headers(cred, auth)

    def _auth(self, cred: Credential, dialect: Dialect) -> KeyAuth:
        """How the key is shown."""
        return cred.auth if cred.auth is KeyAuth.SIGNED else self.preset.auth(dialect)

    def _base(self, cred: Credential, settings: Settings) -> str:
        return self._at(self._hosts[self.preset.dialects[0]], cred, settings)

    def _own(self, cred: Credential) -> list[tuple[str, str]]:
        """The headers of the pool's own calls."""
        dialect = self.preset.dialects[0]
        own = self._shown(cred, self._auth(cred, dialect))
        return [*own, ANTHROPIC_VERSION] if dialect is Dialect.MESSAGES else own
