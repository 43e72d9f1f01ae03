"""How long the pool remembers whose a thing is: as long as its provider keeps it, seconds after it was last used.

Sources: the vendors' documentation. What lives until it is deleted is remembered for a year after its last use.
"""

from __future__ import annotations

from pool_server.core.enums import ApiFamily, ObjectKind

DAY = 86_400.0
_YEAR = 365 * DAY

_OPENAI = {
    ObjectKind.UPLOAD: DAY,  # an hour to add parts
    ObjectKind.BATCH: 90 * DAY,  # its files are kept for 30 days
    ObjectKind.RESPONSE: 30 * DAY,
    ObjectKind.ITEM: 30 * DAY,
    ObjectKind.COMPLETION: 30 * DAY,
    ObjectKind.CONTAINER: 7 * DAY,  # its content is gone after 20 idle minutes
    ObjectKind.VIDEO: 30 * DAY,
    ObjectKind.CALL: DAY,  # an hour at most
}
_ANTHROPIC = {
    ObjectKind.BATCH: 60 * DAY,  # its results are kept for 29 days
    ObjectKind.CONTAINER: 30 * DAY,
}
_GOOGLE = {
    ObjectKind.FILE: 3 * DAY,  # the vendor deletes after 48 hours
    ObjectKind.UPLOAD: 3 * DAY,
    ObjectKind.BATCH: 60 * DAY,
    ObjectKind.CACHE: 60 * DAY,  # its owner sets how long it lives
    ObjectKind.OPERATION: 7 * DAY,
}
_LIFETIMES = {ApiFamily.OPENAI: _OPENAI, ApiFamily.ANTHROPIC: _ANTHROPIC, ApiFamily.GOOGLE: _GOOGLE}


def lifetime(family: ApiFamily, kind: ObjectKind) -> float:
    """Seconds."""
    return _LIFETIMES[family].get(kind, _YEAR)
