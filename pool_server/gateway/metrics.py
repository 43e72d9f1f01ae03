"""Counters of the data plane, made at import so that every label comes from a closed vocabulary."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

exchanges = Counter("pool_exchanges_total", "Exchanges ended", ["provider", "dialect", "outcome"])
upstream_faults = Counter("pool_upstream_faults_total", "Faults of upstream attempts", ["provider", "kind"])
refusals = Counter("pool_callers_refused_total", "Callers turned away at the door", ["denial"])
# `labels` locks and builds a key each time; an exchange needs the same few children over and over.
exchange_ended = lru_cache(maxsize=512)(exchanges.labels)
caller_refused = lru_cache(maxsize=64)(refusals.labels)
body_bytes = Gauge("pool_body_bytes", "Bytes of request bodies that are held", ["where"])
bodies_refused = Counter("pool_bodies_refused_total", "Request bodies there was no room for", ["why"])
body_refused = lru_cache(maxsize=8)(bodies_refused.labels)
sockets = Gauge("pool_sockets", "Client WebSockets open")
frame_bytes = Gauge("pool_frame_bytes", "Bytes of large WebSocket messages that are arriving or being served")
sockets_refused = Counter("pool_sockets_refused_total", "WebSockets and messages there was no room for", ["why"])
socket_refused = lru_cache(maxsize=8)(sockets_refused.labels)
live = Gauge("pool_exchanges_live", "Exchanges in flight", multiprocess_mode="livesum")
passive_health = Counter("pool_passive_health_total", "What was done about silent hosts", ["provider", "event"])
turns_waited = Counter("pool_turns_waited_total", "Requests that waited behind others of their own user")
first_byte = Histogram(
    "pool_first_byte_seconds",
    "Time from the request's headers to the first byte the client got",
    ["provider"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
)
first_byte_of = lru_cache(maxsize=16)(first_byte.labels)
