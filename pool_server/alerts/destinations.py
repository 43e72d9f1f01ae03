"""Where one person is told something: a mail address, an ntfy topic or another https address, or a chat. Pure.

The address is a friend's, who may not make the pool ask its own network: mail goes through the operator's server, an
https address is asked only where its name leads to the public internet, and of the chats those are taken whose service
alone decides where they are. No option can be given with an address.
"""

from __future__ import annotations

import re
from enum import StrEnum
from urllib.parse import urlsplit

LONGEST = 300
CHATS = ("discord", "tgram", "slack", "pover")  # in Apprise's words; each talks to the one host of its service
_MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,63}")
_CHAT = re.compile(r"[A-Za-z0-9._:#@/-]{3,}")


class TargetKind(StrEnum):
    MAIL = "mail"
    HTTPS = "https"
    CHAT = "chat"


def kind(target: str) -> TargetKind | None:
    """What an address is, None for one that is not taken."""
    if len(target) > LONGEST or not target.isascii() or not target.isprintable() or " " in target:
        return None
    scheme, found, rest = target.partition("://")
    if not found:
        return TargetKind.MAIL if _MAIL.fullmatch(target) else None
    if scheme == "https":
        try:
            parts = urlsplit(target)
            known = bool(parts.hostname) and parts.username is None and parts.password is None and not parts.fragment
            return TargetKind.HTTPS if known and (parts.port or 443) > 0 and "\\" not in target else None
        except ValueError:
            return None
    return TargetKind.CHAT if scheme in CHATS and _CHAT.fullmatch(rest) else None


def shown(target: str) -> str:
    """The address without what could be its secret, for its owner's page."""
    if kind(target) is TargetKind.MAIL:
        return target
    scheme, _found, rest = target.partition("://")
    host = (urlsplit(target).hostname or "") if scheme == "https" else ""
    return f"{scheme}://{host}{'/' if host and '/' in rest else ''}…"
