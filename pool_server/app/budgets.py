"""What a server may hold at once: connections and descriptors, from the settings and what the system allows."""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable

import msgspec
from prometheus_client import Counter, Gauge

from pool_server.core.loopback import is_loopback
from pool_server.core.settings import Settings
from pool_server.http1 import ConnectionLimits, ConnectionTable, ServerConnection, TooMany
from pool_server.users.identity.throttle import network
from pool_server.web.base.proxies import is_trusted, networks

log = logging.getLogger(__name__)

_MOST_DESCRIPTORS = 1 << 20
_EACH = 2  # descriptors an exchange needs: its client's connection and its upstream's

_open = Gauge("pool_connections", "Client connections open", multiprocess_mode="livesum")
_most = Gauge("pool_connections_limit", "Client connections that may be open", multiprocess_mode="livesum")
_ended = Counter("pool_connections_ended_total", "Client connections refused or ended by the server", ["what", "why"])

_REASONS = {
    TooMany.TOTAL: (503, "Service Unavailable", "This pool cannot take another connection now; try again in a moment."),
    TooMany.ADDRESS: (429, "Too Many Requests", "There are too many connections from your address; close some."),
    TooMany.DESCRIPTORS: (503, "Service Unavailable", "This pool is out of descriptors; try again in a moment."),
}


def raise_descriptor_limit() -> int:
    """Lets the process open as many files as it is allowed to at all; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (ValueError, OSError) as error:  # macOS allows less than it says
            log.warning("the limit of %d open files cannot be raised: %s", soft, error)
    return descriptor_limit()


def descriptor_limit() -> int:
    """How many descriptors the process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def connection_limits(settings: Settings, descriptors: int) -> ConnectionLimits:
    """What the settings ask for, as far as `descriptors` allow: some stay free for files, and each client may need an
    upstream connection too. Pure."""
    budgets = settings.budgets
    reserve = min(budgets.reserved_files, descriptors // 2)
    return ConnectionLimits(
        total=min(budgets.connections, (descriptors - reserve) // _EACH),
        per_address=budgets.connections_per_address,
        descriptor=descriptors - reserve,
        first_byte_s=budgets.first_byte_s,
    )


def connection_table(settings: Callable[[], Settings]) -> ConnectionTable[ServerConnection]:
    """The table of a worker's connections. Loopback and the proxies in front are many people at once."""

    def exempt(address: str) -> bool:
        return is_loopback(address) or is_trusted(address, networks(settings().trusted_proxies))

    limits = connection_limits(settings(), descriptor_limit())
    if limits.total < settings().budgets.connections:
        log.info("%d descriptors: %d client connections at most", descriptor_limit(), limits.total)
    table: ConnectionTable[ServerConnection] = ConnectionTable(limits, group=network, exempt=exempt)
    _open.set_function(lambda: len(table))
    _most.set_function(lambda: table.limits.total)
    return table


def told(what: str, why: str) -> None:
    """Counts a connection that was refused or ended; see `HttpServer`."""
    _ended.labels(what, why).inc()


def refusal(why: TooMany) -> bytes:
    """The answer to a connection that is one too many: which dialect its client speaks is not known yet, so the body
    is what most of them read."""
    status, reason, message = _REASONS[why]
    error = {"type": "overloaded_error", "code": f"too_many_connections_{why}", "message": message}
    body = msgspec.json.encode({"type": "error", "error": error})
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Retry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
