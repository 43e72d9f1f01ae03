"""The right name of a credential file whose name or place says another vendor than its content, or none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pool_server.core.enums import Provider
from pool_server.language import LazyText, lazy
from pool_server.providers.credential import CredentialRejectedError
from pool_server.providers.keys.reading import vendor_of

_KEY_FIELDS = {
    "ANTHROPIC_API_KEY": Provider.CLAUDE,
    "GEMINI_API_KEY": Provider.GEMINI,
    "GOOGLE_API_KEY": Provider.GEMINI,
    "DASHSCOPE_API_KEY": Provider.QWEN,
    "OPENAI_API_KEY": Provider.OPENAI,
}


def missing(what: str) -> LazyText:
    """What a file that holds no credential lacks."""
    return lazy("no usable credential: {what} is missing", what=lazy(what))


def refuse_unnamed(data: Mapping[str, Any], stem: str) -> None:
    """A file named `stem`.json, which says no vendor, is Codex's own or rejected with its right name: a vendor that is
    guessed would be sent another one's key. Raises CredentialRejectedError."""
    if "tokens" in data or "OPENAI_API_KEY" in data:
        return
    words = belongs_to(data, stem)
    if not words and data.get("api_key"):
        words = lazy(
            "it holds an API key and its name says no provider: name it claude_…, codex_…, gemini_…, qwen_…, a "
            "vendor's of docs/accounts.md or, with its base_url, openai_…; nothing is sent until then ({file})",
            file=_called(Provider.OPENAI, stem),
        )
    raise CredentialRejectedError(
        words or lazy("no usable credential: neither tokens nor OPENAI_API_KEY, and no name of a provider")
    )


def belongs_to(data: Mapping[str, Any], stem: str) -> LazyText | None:
    """What a file's content is and how it is named; None when it does not tell."""
    if data.get("type") == "service_account":
        return lazy("this is a Google service account; name the file {file}", file=_called(Provider.VERTEX, stem))
    if "claudeAiOauth" in data:
        return lazy("this is a Claude sign-in; name the file {file}", file=_called(Provider.CLAUDE, stem))
    if {"access_token", "refresh_token", "expires_at"} <= data.keys():
        return lazy("this looks like a Kimi sign-in; name the file {file}", file=_called(Provider.KIMI, stem))
    if "expiry_date" in data or ("access_token" in data and "refresh_token" in data):
        if data.get("resource_url"):
            return lazy("this is a Qwen sign-in; name the file {file}", file=_called(Provider.QWEN, stem))
        gemini, qwen = _called(Provider.GEMINI, stem), _called(Provider.QWEN, stem)
        if "google" in str(data.get("scope", ""))[:500]:
            return lazy("this looks like a Gemini sign-in; name the file {file}", file=gemini)
        return lazy(
            "this looks like a Gemini sign-in; name the file {file}, or {other} if it is Qwen's",
            file=gemini,
            other=qwen,
        )
    for field, provider in _KEY_FIELDS.items():
        if data.get(field):
            return lazy(
                "{field} is a key of {provider}; name the file {file}",
                field=field,
                provider=provider.value,
                file=_called(provider, stem),
            )
    key = data.get("api_key")
    found = vendor_of(key) if isinstance(key, str) else None
    if found is None:
        return None
    vendor, providers = found
    file = _called(providers[0], stem)
    return lazy("this is a key of {vendor}; name the file {file}", vendor=vendor, file=file)


def _called(provider: Provider, stem: str) -> str:
    """The file name for an account of `provider` called about as it is now."""
    rest = re.sub(rf"^{provider.value}(?:[-_. ]+|$)", "", stem, flags=re.IGNORECASE)
    return f"{provider.value}_{rest or 'work'}.json"
