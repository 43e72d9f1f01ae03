"""The pool's one redaction helper: what looks like a secret becomes `[hidden]`.

One pass of one pattern. Every alternative begins at a place that cannot occur twice in a run of token characters
(a look-behind or a literal), so that the time stays linear in the length of the text.
"""

from __future__ import annotations

import re

HIDDEN = "[hidden]"

_NAMES = (
    r"access[_-]?token|refresh[_-]?token|id[_-]?token|api[_-]?key|x-api-key|x-goog-api-key|client[_-]?secret"
    r"|proxy-authorization|authorization|set-cookie|cookie|passphrase|password|jwt[_-]?secret"
)
_SHORT_NAMES = r"key|token|secret|code_verifier|device_code"

_SECRET = re.compile(
    # scheme and credential: the scheme stays
    r"(?P<scheme>(?i:\b(?:bearer|basic)\s+))[^\s\"',;]{6,}"
    # scheme://user:password@host: the scheme stays
    r"|(?P<url>://)[^\s/@:\"']{0,256}:[^\s/@\"']{1,256}@"
    # name: value and name=value of names that only ever hold secrets
    rf"|(?P<name>(?i:(?<![\w-])\"?(?:{_NAMES})\\?\"?\s{{0,4}}[:=]\s{{0,4}}\\?\"?(?:(?:bearer|basic)\s+)?))[^\s\"'&,;}}\\]+"
    # short names are hidden only where they cannot be prose: key=value and "key":"value"
    rf"|(?P<short>(?i:(?<![\w-])(?:(?:{_SHORT_NAMES})=|\"(?:{_SHORT_NAMES})\"\s{{0,4}}:\s{{0,4}}\")))[^\s\"'&,;}}]+"
    # tokens that tell by their looks
    r"|(?<![\w-])eyJ[\w-]{6,}(?:\.[\w-]*){1,4}"  # JWT
    r"|(?<![\w-])sk-[\w-]{6,}"  # OpenAI, Anthropic and their imitators
    r"|(?<![\w.-])ya29\.[\w.-]+"  # Google access token
    r"|(?<![\w/])1//[\w-]{8,}"  # Google refresh token
    r"|(?<![\w-])AIza[\w-]{12,}|(?<![\w-])GOCSPX-[\w-]+"  # Google API key, client secret
    r"|(?<![\w-])gh[opusr]_\w{8,}|(?<![\w-])github_pat_\w{8,}"
    r"|(?<![\w-])rt[_.][\w.-]{16,}"  # OpenAI refresh token
    r"|(?<![\w-])(?!(?:resp|msg|rs|fc|ctc|ws|req|call|item|conv|file|cmp)_)"
    r"(?=[A-Za-z_-]*[0-9])(?=[0-9_-]*[A-Za-z])[\w-]{40,}"  # long opaque values that are no ids of the wire
    # e-mail addresses
    r"|(?<![\w.%+-])[\w.%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"
)


def _hide(match: re.Match[str]) -> str:
    kept = match.lastgroup
    return (match.group(kept) if kept else "") + HIDDEN + ("@" if kept == "url" else "")


def redact(text: str) -> str:
    """`text` without tokens, keys, JWTs, passwords in URLs and e-mail addresses; anything else stays as it is."""
    return _SECRET.sub(_hide, text)


def short(text: str, limit: int = 300) -> str:
    """One redacted line of at most `limit` characters, fit to be shown to people.

    The text is cut well before redacting, so that a huge body costs nothing, and again after it; white space
    and control characters become single spaces.
    """
    window = text[: limit * 8]
    line = " ".join("".join(c if c.isprintable() else " " for c in window).split())
    line = redact(line)
    return line if len(line) <= limit else line[: limit - 1] + "…"
