"""Sealed reasoning on its way through a client that speaks another dialect.

A client returns what it was given. OpenAI's seals are Fernet tokens and tell themselves apart; Claude's do so among a
Responses client's items; all others carry the family in a base64 envelope, and so do all in Gemini's dialect, whose
SDK refuses a signature that is no base64. A seal is bound to the account that made it: which account that was is the
caller's affinity to know.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode

from pool_server.core.enums import Dialect
from pool_server.dialects.translation.neutral import Family, Reasoning

_FERNET = "gAAAA"
_MARK = b"pool-seal:"
_MARK_64 = b64encode(_MARK[:9]).decode()  # nine bytes are twelve whole characters
_OWN = {
    Dialect.RESPONSES: Family.OPENAI,
    Dialect.MESSAGES: Family.CLAUDE,
    Dialect.GEMINI: Family.GEMINI,
    Dialect.CODE_ASSIST: Family.GEMINI,
}


def seal_for(client: Dialect, family: Family, seal: str, *, redacted: bool = False) -> str:
    """The seal as the client is to keep it."""
    if not seal and family is not Family.CHAT:
        return ""
    if _OWN.get(client) is family:
        return seal
    google = _OWN.get(client) is Family.GEMINI
    if not redacted and not google and family is Family.OPENAI and seal.startswith(_FERNET):
        return seal
    if not redacted and family is Family.CLAUDE and client is Dialect.RESPONSES and seal.startswith("E"):
        return seal
    envelope = f"{family}:{'r' if redacted else 's'}:{seal}".encode("utf-8", "replace")
    return b64encode(_MARK + envelope).decode()


def read_seal(client: Dialect, text: str, seal: str) -> Reasoning:
    """Reasoning as a client returns it; `family` None where nobody can tell whose it is."""
    if seal.startswith(_MARK_64):
        try:
            family, kind, raw = b64decode(seal, validate=True).removeprefix(_MARK).decode().split(":", 2)
            return Reasoning(text, Family(family), raw, redacted=kind == "r")
        except (ValueError, binascii.Error):
            return Reasoning(text)
    if seal.startswith(_FERNET):
        return Reasoning(text, Family.OPENAI, seal)
    if client is Dialect.RESPONSES and seal.startswith("E"):
        return Reasoning(text, Family.CLAUDE, seal)
    return Reasoning(text, _OWN.get(client) if seal else None, seal)
