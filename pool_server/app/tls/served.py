"""The certificate a worker serves with: read at the start, read again when its files change."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Callable
from pathlib import Path

from prometheus_client import Gauge

from pool_server.app.tls.pair import CertificatePair, load_pair
from pool_server.core.settings import ConfigError
from pool_server.core.tasks import PeriodicTasks

log = logging.getLogger(__name__)

EVERY_S = 10.0
_ends = Gauge(
    "pool_tls_certificate_end_timestamp_seconds",
    "When the TLS certificate that is served ends, unix time; infinite without TLS",
    multiprocess_mode="livemostrecent",
)
_ends.set(math.inf)
_refused = Gauge(
    "pool_tls_certificate_refused",
    "1 while the files hold a certificate or key that cannot be served, and the one before is",
    multiprocess_mode="livemax",
)

Signature = tuple[tuple[int, int, int] | None, ...]


class ServedCertificate:
    """Follows the files of `tls_cert` and `tls_key`. A new pair is for new connections; one that is no good changes
    nothing: `fault` says why, "" where the files are what is served. `clock`: unix seconds."""

    def __init__(self, cert: Path, key: Path, *, clock: Callable[[], float], leader: bool = True) -> None:
        """Reads the pair. Raises ConfigError with one line."""
        self._files = (cert, key)
        self._clock = clock
        self._leader = leader  # the one that tells the log
        self._looking = asyncio.Lock()
        self._signature = self._sign()
        self.pair = load_pair(cert, key)
        self.fault = ""
        self._told = ""
        self._tasks = PeriodicTasks()
        self._tasks.every(EVERY_S, self.look, "the look at the TLS certificate", at_once=True)

    async def start(self) -> None:
        """Begin to look at the files."""
        self._tasks.start()

    async def close(self) -> None:
        await self._tasks.close()

    def context(self) -> ssl.SSLContext:
        """For a new connection."""
        return self.pair.context

    @property
    def trouble(self) -> str:
        """What an operator must do something about, "" for nothing."""
        return self.fault or self.pair.trouble(self._clock())

    async def look(self) -> None:
        """Reads the files again if they have changed, and tells what is new of the certificate."""
        async with self._looking:
            signature = await asyncio.to_thread(self._sign)
            if signature != self._signature:
                self._signature = signature  # of before the reading: what changes meanwhile is read once more
                await self._reread()
        _ends.set(self.pair.ends)
        _refused.set(1.0 if self.fault else 0.0)
        if self._leader and (trouble := self.trouble) != self._told:
            self._told = trouble
            if trouble:
                log.warning("%s", trouble)

    async def _reread(self) -> None:
        try:
            found = await asyncio.to_thread(load_pair, *self._files)
            if (wrong := _worse(found, self.pair, self._clock())) is not None:
                raise ConfigError(wrong)
        except ConfigError as error:
            self.fault = f"the TLS certificate stays the one before, until {self.pair.until}: {error}"
            return
        self.pair, self.fault = found, ""
        if self._leader:
            log.info("the TLS certificate was read again: it ends at %s", found.until)

    def _sign(self) -> Signature:
        """What tells that the files have changed."""
        return tuple(_signed(path) for path in self._files)


def _worse(found: CertificatePair, served: CertificatePair, now: float) -> str | None:
    """Why a new pair is no replacement: its time is not now, and that of the served one is. None if it is one."""
    fits = found.begins <= now < found.ends
    return None if fits or not served.begins <= now < served.ends else found.trouble(now)


def _signed(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except (OSError, ValueError):
        return None
    return (seen.st_mtime_ns, seen.st_size, seen.st_ino)
