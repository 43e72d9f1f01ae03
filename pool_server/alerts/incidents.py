"""What is wrong now, as the store remembers it: written by the one process that watches, read by every page."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pool_server.alerts.rules import Incident
from pool_server.ledger.records import layout
from pool_server.storage import Store

_PLACE = b"incidents"
_decode = msgspec.json.Decoder(dict[str, Incident]).decode


def remembered(store: Store) -> dict[str, Incident]:
    """Open incidents by their keys; none when a later version wrote them in another form."""
    raw = store.get(layout.NOTES, _PLACE)
    try:
        return {} if raw is None else _decode(raw)
    except msgspec.MsgspecError:
        return {}


def open_incidents(store: Store) -> list[Incident]:
    """What is wrong now, oldest first: the page's banner. A few microseconds."""
    return sorted(remembered(store).values(), key=lambda incident: incident.since)


async def remember(store: Store, incidents: Mapping[str, Incident]) -> None:
    """Keep the open incidents over a restart. Raises StoreError."""
    raw = msgspec.json.encode(incidents)
    await store.submit(lambda txn: txn.put(layout.NOTES, _PLACE, raw))
