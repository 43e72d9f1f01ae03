"""What is wrong now, as it is noted: written by the one process that watches, read by every page."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pool_server.alerts.rules import Incident
from pool_server.ledger.ports import NotesPort

_PLACE = b"incidents"
_decode = msgspec.json.Decoder(dict[str, Incident]).decode


def remembered(notes: NotesPort) -> dict[str, Incident]:
    """Open incidents by their keys; none when a later version wrote them in another form."""
    raw = notes.get(_PLACE)
    try:
        return {} if raw is None else _decode(raw)
    except msgspec.MsgspecError:
        return {}


def open_incidents(notes: NotesPort) -> list[Incident]:
    """What is wrong now, oldest first: the page's banner. A few microseconds."""
    return sorted(remembered(notes).values(), key=lambda incident: incident.since)


async def remember(notes: NotesPort, incidents: Mapping[str, Incident]) -> None:
    """Keep the open incidents over a restart. Raises StoreError."""
    await notes.put(_PLACE, msgspec.json.encode(incidents))
