"""Which conversation a request belongs to: the first of many places a client may say so.

Order (facts about clients and comparable servers): the pool's own header; Claude Code's header and body; Codex's
`session-id`; other clients' session headers; body fields; and at last a hash of the conversation's opening.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b, sha256

from pool_server.dialects.types import RAW_FIELDS, TEXT, loads

_LONGEST = 200  # characters; a longer identifier is replaced by its hash
_PIECE = 4 << 10  # bytes hashed from each end of a long opening

# Headers that name a conversation, before and after the body's own Claude field.
_FIRST = ("x-pool-session", "x-claude-code-session-id")
_LATER = ("session-id", "session_id", "x-session-id", "x-session-affinity")

# metadata.user_id of older Claude Code: user_<hex>_account_<uuid>_session_<uuid>
_USER_ID = re.compile(r"^user_.*_session_([\w-]+)$")


def claude_session(user_id: str) -> str:
    """The session within `metadata.user_id`, which is a JSON string or user_…_account_…_session_…; "" if none."""
    if user_id.startswith("{"):
        found = loads(user_id.encode(), RAW_FIELDS)
        return (loads(found["session_id"], TEXT) or "") if found and "session_id" in found else ""
    match = _USER_ID.match(user_id)
    return match[1] if match else ""


def find_session(headers: Mapping[str, str], user_id: str, names: Iterable[tuple[str, str]]) -> tuple[str | None, str]:
    """(conversation id, where it came from), (None, "") when the request names none.

    `headers` have lower-case names; `user_id` is the body's `metadata.user_id`; `names` are what else the body calls
    the conversation, with where it says so, in order of trust; they are asked for only when needed.
    """
    for name in _FIRST:
        if name in headers and (value := headers[name].strip()):
            return _short(value), name
    if user_id and (value := claude_session(user_id)):
        return _short(value), "metadata.user_id"
    for name in _LATER:
        if name in headers and (value := headers[name].strip()):
            return _short(value), name
    for name, value in names:
        if value := value.strip():
            return _short(value), name
    if user_id:
        return _short(user_id), "metadata.user_id"
    if value := headers.get("conversation_id", headers.get("conversation-id", "")).strip():
        return _short(value), "conversation_id"
    return None, ""


def opening_hash(credential: str, pieces: Iterable[bytes]) -> str | None:
    """A conversation id made from how the conversation opens; the text itself is not kept.

    None when there is nothing to hash. The same opening under another credential is another conversation.
    """
    digest = sha256(b"pool-session\x1e%d\x1f%b" % (len(credential), credential.encode()))
    empty = True
    for data in pieces:
        if data:
            empty = False
            digest.update(b"\x1e%d\x1f" % len(data))
            digest.update(data if len(data) <= 2 * _PIECE else data[:_PIECE] + data[-_PIECE:])
    return None if empty else digest.hexdigest()[:32]


def _short(value: str) -> str:
    if len(value) <= _LONGEST:
        return value
    return blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
