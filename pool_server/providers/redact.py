"""The pool's one redaction helper: what looks like a secret becomes `[hidden]`.

Each pattern runs only where a substring it needs occurs, because most texts hold nothing to hide. Every pattern
begins at a literal or behind a look-behind that cannot hold twice within a run of token characters, and its
repetitions are bounded where they could meet again, so that the time stays linear in the length of the text.
"""

from __future__ import annotations

import re

HIDDEN = "[hidden]"

_NAMES = (
    r"access[_-]?token|refresh[_-]?token|id[_-]?token|api[_-]?key|x-goog-api-key|client[_-]?secret"
    r"|proxy-authorization|authorization|passphrase|password|jwt[_-]?secret"
)
_SHORT_NAMES = r"key|token|secret|code_verifier|device_code"

# (substrings of the lower-case text of which one must occur, pattern, replacement)
_RULES: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    # scheme and credential: the scheme stays
    (("bearer", "basic"), re.compile(r"(\b(?:bearer|basic)\s{1,8})[^\s\"',;]{6,}", re.I), rf"\1{HIDDEN}"),
    # user and password of an address
    (("://",), re.compile(r"(://)[^\s/@:\"']{0,256}:[^\s/@\"']{1,256}@"), rf"\1{HIDDEN}@"),
    # cookies: whatever follows on the line
    (
        ("cookie",),
        re.compile(r"((?<![a-z0-9_])(?:set-)?cookie2?[\"']?\s{0,4}[:=]\s{0,4})[^\r\n]+", re.I),
        rf"\1{HIDDEN}",
    ),
    # name: value and name=value of names that only ever hold secrets
    (
        ("token", "key", "secret", "authorization", "pass"),
        re.compile(
            rf"((?<![a-z0-9_])(?:{_NAMES})\\?[\"']?\s{{0,4}}[:=]\s{{0,4}}\\?[\"']?(?:(?:bearer|basic)\s{{1,8}})?)"
            r"[^\s\"'&,;}\\]+",
            re.I,
        ),
        rf"\1{HIDDEN}",
    ),
    # short names only where they cannot be prose: key=value and "key":"value"
    (
        ("key", "token", "secret", "code"),
        re.compile(
            rf"((?<![\w-])(?:{_SHORT_NAMES})=|\"(?:{_SHORT_NAMES})\\?\"\s{{0,4}}:\s{{0,4}}\\?\")[^\s\"'&,;}}\\]+",
            re.I,
        ),
        rf"\1{HIDDEN}",
    ),
    # tokens that tell by their looks: JWTs, OpenAI's, Anthropic's, Google's, GitHub's
    (
        ("eyj", "sk-", "ya29.", "1//", "aiza", "gocspx-", "gh", "github_pat_", "rt_", "rt."),
        re.compile(
            r"(?<![\w-])(?:eyJ[\w-]{6,}(?:\.[\w-]*){1,4}|sk-[\w-]{6,}|ya29\.[\w.-]+|1//[\w-]{8,}|AIza[\w-]{12,}"
            r"|GOCSPX-[\w-]+|gh[opusr]_\w{8,}|github_pat_\w{8,}|rt[_.][\w.-]{16,})"
        ),
        HIDDEN,
    ),
    # e-mail addresses
    (
        ("@",),
        re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,8}", re.I),
        HIDDEN,
    ),
)

# Long opaque values of letters and digits, unless they are ids that occur on the wire.
_LONG = re.compile(r"(?<![\w-])[\w-]{40,}")
_ID = re.compile(r"(?:resp|msg|rs|fc|ctc|ws|req|call|item|conv|file|cmp)_")
_DIGIT, _LETTER = re.compile(r"[0-9]"), re.compile(r"[A-Za-z]")


def _hide_long(match: re.Match[str]) -> str:
    value = match.group()
    opaque = _DIGIT.search(value) and _LETTER.search(value) and not _ID.match(value)
    return HIDDEN if opaque else value


def redact(text: str) -> str:
    """`text` without tokens, keys, JWTs, passwords in URLs and e-mail addresses; anything else stays as it is."""
    lower = text.lower()
    for needles, pattern, replacement in _RULES:
        if any(needle in lower for needle in needles):
            text = pattern.sub(replacement, text)
    return _LONG.sub(_hide_long, text) if len(text) >= 40 else text


def short(text: str, limit: int = 300) -> str:
    """One redacted line of at most `limit` characters, fit to be shown to people.

    The text is cut well before redacting, so that a huge body costs nothing, and again after it; white space
    and control characters become single spaces.
    """
    window = text[: limit * 8]
    line = " ".join("".join(c if c.isprintable() else " " for c in window).split())
    line = redact(line)
    return line if len(line) <= limit else line[: limit - 1] + "…"
