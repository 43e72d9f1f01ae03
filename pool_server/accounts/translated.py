"""Whether an account can serve a call in another dialect than the client's, and in which. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from pool_server.core.enums import CredentialKind, Dialect, Operation, Provider
from pool_server.dialects import SPECS
from pool_server.dialects.translation import DIALECT, UpstreamKind
from pool_server.providers import Credential, Knowledge, has_model, provider_module

_MODEL_CALL = {kind: SPECS[dialect].asked_with for kind, dialect in DIALECT.items()}
_TRANSLATED = frozenset({*_MODEL_CALL.values(), Operation.COUNT_TOKENS})
# In their order: the dialect nearest to all others comes first, which carries the most of what a client may say.
_BY_DIALECT = {dialect: UpstreamKind(dialect.value) for dialect in SPECS}

# Vendors whose own endpoints differ, by the hosts a file may name for them.
_VENDOR_HOSTS = {"api.openai.com": "openai", "api.groq.com": "groq", "api.mistral.ai": "mistral"}
# Vendors all of whose models have names that tell whose they are.
_NAMING = frozenset({Provider.CODEX, Provider.CLAUDE, Provider.GEMINI})
_HOME = {Provider.CODEX: provider_module(Provider.CODEX).spec.home}


def spoken(cred: Credential) -> tuple[UpstreamKind, ...]:
    """What the account speaks."""
    if cred.kind is CredentialKind.API_KEY:
        return tuple(kind for dialect, kind in _BY_DIALECT.items() if dialect in cred.dialects)
    if cred.provider is Provider.CODEX:
        return (UpstreamKind.CODEX,)
    if cred.provider is Provider.GEMINI:
        return (UpstreamKind.CODE_ASSIST,)
    if cred.provider is Provider.VERTEX:
        return (UpstreamKind.MESSAGES, UpstreamKind.GEMINI)
    return (UpstreamKind.MESSAGES,) if cred.provider is Provider.CLAUDE else (UpstreamKind.CHAT,)


def vendor_of(cred: Credential) -> str:
    """Whose own endpoint the account's calls go to, by its provider's name; "" where that is not known."""
    if cred.base_url:
        return _VENDOR_HOSTS.get((urlsplit(cred.base_url).hostname or "").lower(), "")
    return "openai" if cred.provider in (Provider.OPENAI, Provider.CODEX) else cred.provider.value


def serves_natively(
    cred: Credential, operation: Operation, dialect: Dialect, model: str, *, own_dialect: bool = False
) -> bool:
    """Whether the call may go up as it came. `own_dialect`: only if that is how the vendor itself is spoken to."""
    if own_dialect and operation in _TRANSLATED and dialect is not _HOME.get(cred.provider, dialect):
        return False
    served = provider_module(cred.provider).serves(cred, operation, dialect, model)
    return served and (operation not in _TRANSLATED or has_model(cred, model) is not Knowledge.LACKS)


def upstream_kind(cred: Credential, operation: Operation, dialect: Dialect, model: str) -> UpstreamKind | None:
    """The dialect in which the account can serve a call that does not go up as it came; None when it cannot. An
    endpoint of somebody's own may have any model."""
    if operation not in _TRANSLATED or not model:
        return None
    if not cred.base_url and has_model(cred, model) is not Knowledge.HAS:
        return None
    serves = provider_module(cred.provider).serves
    counts = operation is Operation.COUNT_TOKENS
    for kind in spoken(cred):
        # ChatGPT's backend counts for nobody: the pool does, for clients of its own dialect as for others.
        foreign = DIALECT[kind] is not dialect or (counts and kind is UpstreamKind.CODEX)
        if foreign and serves(cred, _MODEL_CALL[kind], DIALECT[kind], model):
            return kind
    return None


def doubts_model(cred: Credential, operation: Operation, model: str) -> bool:
    """Whether nothing says that the account's vendor has this model, though its models' names tell whose they are: it
    is asked where no account is known to."""
    if operation not in _TRANSLATED or not model or cred.base_url or cred.provider not in _NAMING:
        return False
    return has_model(cred, model) is Knowledge.UNTOLD
