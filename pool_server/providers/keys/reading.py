"""What a credential file says of an API key: the key, its address, how it is shown, the dialects and models.

A field that would decide where a secret goes is honoured or the file is rejected; it is never passed over.
"""

from __future__ import annotations

import re

from pool_server.core.enums import CredentialKind, Dialect, Provider
from pool_server.language import lazy
from pool_server.providers.credential import Credential, CredentialRejectedError, Fields, KeyAuth
from pool_server.providers.keys.endpoint import DIALECTS, KeySpec

# Keys that tell their vendor by their looks. Sent to another vendor's host they would be given away.
_FORMS: tuple[tuple[str, str, tuple[Provider, ...]], ...] = (
    ("sk-ant-", "Anthropic", (Provider.CLAUDE,)),
    ("AIza", "Google", (Provider.GEMINI,)),
    ("sk-proj-", "OpenAI", (Provider.OPENAI, Provider.CODEX)),
    ("sk-or-", "OpenRouter", (Provider.OPENROUTER,)),
    ("sk-kimi-", "Kimi Code", (Provider.KIMI,)),
    ("sk-sp-", "Alibaba's Coding Plan", (Provider.ALIBABA,)),
    ("gsk_", "Groq", (Provider.GROQ,)),
    ("xai-", "xAI", (Provider.XAI,)),
    ("nvapi-", "NVIDIA", (Provider.NVIDIA,)),
    ("hf_", "Hugging Face", (Provider.HUGGINGFACE,)),
    ("github_pat_", "GitHub", (Provider.GITHUB,)),
    ("ghp_", "GitHub", (Provider.GITHUB,)),
)

# The operation's own path, which people paste along with the address: what is before it is the base, as written.
_ENDPOINT = re.compile(
    r"/(?:chat/completions|completions|responses(?:/compact)?|messages(?:/count_tokens|/batches)?|embeddings"
    r"|models(?:/[^/]+(?::\w+)?)?)$"
)
_ADDRESS = re.compile(
    r"(?:[a-z0-9]+_)*(?:base_?ur[il]|api_?base(?:_?ur[il])?|api_?(?:ur[il]|host|endpoint))"
    r"|endpoint(?:_?ur[il])?|ur[il]|host(?:name)?|server",
    re.IGNORECASE,
)
_READ = frozenset(("base_url", "resource_url", "proxy_url"))
_KEYS_ALONE = ("base_url", "auth", "dialects", "region", "resource")


def read_key(provider: Provider, spec: KeySpec, fields: Fields, account: str) -> Credential | None:
    """The API key of a file; None when it holds none. Raises CredentialRejectedError."""
    key = fields.token(*spec.fields)
    if not key:
        return None
    refuse_unread(fields)
    for name in ("region", "resource"):
        if fields.given(name):
            raise CredentialRejectedError(
                lazy("{name} cannot be honoured here; write the address as base_url", name=name)
            )
    address = fields.url("base_url", scheme="https")
    base = _ENDPOINT.sub("", address)
    if not base:
        refuse_foreign(provider, key)
    said = _dialects(fields)
    models = fields.texts("models")
    spoken = said or spec.dialects
    return Credential(
        provider,
        account,
        CredentialKind.API_KEY,
        api_key=key,
        admin_key=_admin_key(provider, fields, base),
        base_url=base,
        exact_base=base != address,
        public_only=bool(base) and fields.data.get("public_only", False) is not False,
        dialects=spoken,
        guessed=spoken[1:] if base and not said and not models else (),
        auth=_auth(fields) or spec.auth,
        models=models,
        plan=fields.text("plan_type").lower() or "api",
    )


_ADMIN = {Provider.CLAUDE: "sk-ant-admin", Provider.OPENAI: "sk-admin-", Provider.CODEX: "sk-admin-"}


def _admin_key(provider: Provider, fields: Fields, base: str) -> str:
    """The key for the vendor's own books. Raises CredentialRejectedError for one of another kind or place."""
    key = fields.token("admin_key")
    form = _ADMIN.get(provider, "")
    if key and (not form or base):
        raise CredentialRejectedError(lazy("admin_key is for the vendor's own API of Claude and OpenAI"))
    if key and not key.startswith(form):
        raise CredentialRejectedError(lazy("admin_key must be an admin key: it begins with {form}", form=form))
    return key


def refuse_addresses(fields: Fields) -> None:
    """A sign-in goes to its vendor alone: fields that say otherwise reject the file."""
    for name in _KEYS_ALONE:
        if fields.given(name):
            raise CredentialRejectedError(
                lazy("{name} is for API keys; a sign-in goes to its provider alone", name=name)
            )
    refuse_unread(fields)


def refuse_unread(fields: Fields) -> None:
    """An address under another name than ours would be passed over, and the secret go elsewhere."""
    for name in fields.names():
        if name not in _READ and _ADDRESS.fullmatch(name) and fields.given(name):
            raise CredentialRejectedError(
                lazy("{name} is not read here; write the address as base_url", name=name[:40])
            )


def vendor_of(key: str) -> tuple[str, tuple[Provider, ...]] | None:
    """The vendor a key tells by its looks, and whose files it belongs into; None when it does not tell."""
    return next(((vendor, own) for form, vendor, own in _FORMS if key.startswith(form)), None)


def refuse_foreign(provider: Provider, key: str) -> None:
    if (found := vendor_of(key)) is not None:
        vendor, own = found
        if provider not in own:
            raise CredentialRejectedError(
                lazy(
                    "this is a key of {vendor} and would be sent to {provider}; name the file after its vendor, or "
                    "write the base_url it is for",
                    vendor=vendor,
                    provider=provider.value,
                )
            )


def _dialects(fields: Fields) -> tuple[Dialect, ...]:
    said = fields.texts("dialects")
    known = {dialect.value: dialect for dialect in DIALECTS}
    for name in said:
        if name not in known:
            raise CredentialRejectedError(lazy("dialects must be of {known}", known=", ".join(known)))
    if fields.given("dialects") and not said:
        raise CredentialRejectedError(lazy("dialects must name one of {known}", known=", ".join(known)))
    return tuple(dict.fromkeys(known[name] for name in said))


def _auth(fields: Fields) -> KeyAuth | None:
    said = fields.text("auth")
    allowed = (KeyAuth.X_API_KEY, KeyAuth.BEARER, KeyAuth.API_KEY)
    if said and said not in allowed:
        raise CredentialRejectedError(lazy("auth must be one of {known}", known=", ".join(allowed)))
    return KeyAuth(said) if said else None
