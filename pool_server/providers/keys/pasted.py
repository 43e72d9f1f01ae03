"""What somebody pasted: a CLI's credential file, an API key, a setup token, or something that is none. Pure."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from pool_server.core.enums import Provider
from pool_server.language import LazyText, lazy
from pool_server.providers import CredentialRejectedError, provider_module, vendor_of
from pool_server.providers.json_fields import TOO_DEEP, named_twice

MAX_TEXT = 1 << 20
_UNSEEN = re.compile("[\u0000-\u0008\u000b-\u001f\u007f\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")
_ASSIGNED = re.compile(r"(?:export\s+|set\s+|\$env:)?([A-Z][A-Z0-9_]{2,60})\s*=\s*(.+)", re.DOTALL)
_LABEL = re.compile(r"^(?:api[ _-]?key|key|token)\s*[:=]\s*", re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]{6,65536}")
_VARIABLES = {
    "ANTHROPIC_API_KEY": Provider.CLAUDE,
    "ANTHROPIC_AUTH_TOKEN": Provider.CLAUDE,
    "CLAUDE_CODE_OAUTH_TOKEN": Provider.CLAUDE,
    "OPENAI_API_KEY": Provider.OPENAI,
    "GEMINI_API_KEY": Provider.GEMINI,
    "GOOGLE_API_KEY": Provider.GEMINI,
    "DASHSCOPE_API_KEY": Provider.QWEN,
    "AWS_BEARER_TOKEN_BEDROCK": Provider.BEDROCK,
}
SETUP_TOKEN_S = 365 * 86400.0  # the longest life of a setup token


class Recognised(NamedTuple):
    """A credential in the shape of a file; `provider` None = it does not tell whose it is."""

    provider: Provider | None
    data: dict[str, Any]


def recognise(text: str, *, now: float) -> Recognised:
    """The credential in a pasted text. Raises CredentialRejectedError with what the text is instead, and never with
    anything of it."""
    if len(text) > MAX_TEXT:
        raise CredentialRejectedError(lazy("that is larger than 1 MiB; a credential file is not"))
    text = _UNSEEN.sub("", text).strip()
    if not text:
        raise CredentialRejectedError(lazy("nothing was pasted"))
    if text[0] in "{[":
        return _of_json(text)
    return _of_words(text, now)


def _of_json(text: str) -> Recognised:
    try:
        data = msgspec.json.decode(text)
    except RecursionError:
        raise CredentialRejectedError(TOO_DEEP) from None
    except (msgspec.DecodeError, ValueError):
        raise CredentialRejectedError(
            lazy("it looks like JSON and is not whole: copy the whole file, from the first { to the last }")
        ) from None
    if not isinstance(data, dict):
        raise CredentialRejectedError(lazy("it is a list; one credential file is one JSON object"))
    if twice := named_twice(text):
        raise CredentialRejectedError(twice)
    return Recognised(_whose(data), data)


def _whose(data: dict[str, Any]) -> Provider | None:
    """The vendor whose CLI writes a file of this shape."""
    if "claudeAiOauth" in data:
        return Provider.CLAUDE
    if data.get("type") == "service_account":
        return Provider.VERTEX
    if data.get("aws_access_key_id"):
        return Provider.BEDROCK
    if isinstance(data.get("tokens"), dict) or data.get("OPENAI_API_KEY"):
        return Provider.CODEX
    for name, provider in _VARIABLES.items():
        if data.get(name):
            return provider
    if "expiry_date" in data and data.get("access_token"):
        if data.get("resource_url"):
            return Provider.QWEN
        return Provider.GEMINI if "google" in str(data.get("scope", ""))[:2000] else None
    if {"access_token", "refresh_token", "expires_at"} <= data.keys():
        return Provider.KIMI
    key = data.get("api_key")
    return _by_looks(key) if isinstance(key, str) else None


def _of_words(text: str, now: float) -> Recognised:
    assigned = _ASSIGNED.fullmatch(text)
    named = _VARIABLES.get(assigned[1]) if assigned else None
    value = _bare(assigned[2] if assigned else _LABEL.sub("", text, count=1))
    if words := _instead(value):
        raise CredentialRejectedError(words)
    if value.startswith("sk-ant-oat"):
        login = {"accessToken": value, "expiresAt": int((now + SETUP_TOKEN_S) * 1000), "scopes": ["user:inference"]}
        return Recognised(Provider.CLAUDE, {"claudeAiOauth": login})
    provider = _by_looks(value) or named
    field = provider_module(provider).spec.keys.fields[0] if provider else "api_key"
    return Recognised(provider, {field: value})


def _bare(value: str) -> str:
    """Without what terminals and pages put around and into a token."""
    return re.sub(r"\s+", "", value.strip().strip(";")).strip("\"'`<>,")


def _instead(value: str) -> LazyText | None:
    """What a value is that is no key, None for one that may be."""
    if "id_token=" in value:
        return lazy(
            "this address holds the tokens themselves: a sign-in that runs on that machine caught it; close it "
            "and start again"
        )
    if value.lower().startswith(("http://", "https://", "www.", "mailto:")) or "://" in value[:12]:
        return lazy("this is a web address; paste the credential file's content or the key")
    if value.isdigit() and len(value) <= 10:
        return lazy("this is a code from an e-mail or a phone: it belongs into the vendor's own page")
    if value.startswith("sk-ant-ort"):
        return lazy("this is a refresh token alone; paste the whole credential file")
    if value.startswith("eyJ") and value.count(".") == 2:
        return lazy("this is one token out of a file; paste the whole credential file")
    if value.startswith(("sk-ant-admin", "sk-admin-")):
        return lazy("this is an admin key, which no model can be asked with")
    if not _TOKEN.fullmatch(value):
        return lazy("this is neither a credential file nor a key")
    return None


def _by_looks(key: str) -> Provider | None:
    found = vendor_of(key)
    return found[1][0] if found is not None else None
