"""Whether a pool is there at all, before a program is started whose own words for that are dark."""

from __future__ import annotations

import socket
import threading
import urllib.request
from urllib.parse import urlsplit

LOOK_S = 1.0  # longer than this nobody waits for a program to start


def why_not(url: str) -> str:
    """Why nothing answers there, in the system's words; "" where something does, where that is not known in time, and
    where a proxy stands between, which alone knows."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(f"{host}:{port}"):
        return ""
    found: list[str] = []
    looking = threading.Thread(target=_look, args=(host, port, found), daemon=True)  # a name may take long to look up
    looking.start()
    looking.join(LOOK_S)
    return found[0] if found else ""


def _look(host: str, port: int, found: list[str]) -> None:
    try:
        socket.create_connection((host, port), timeout=LOOK_S).close()
    except TimeoutError:
        return
    except (OSError, UnicodeError) as error:
        found.append(getattr(error, "strerror", None) or str(error))
