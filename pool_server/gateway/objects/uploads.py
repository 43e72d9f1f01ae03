"""Google's resumable uploads, brought back to the pool.

The start of an upload is answered with the address the bytes are to go to, at Google. Clients send there no key: the
pool's address in its place carries a ticket, which stands for the caller and the account for as long as the upload may
take. Pure.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import msgspec

TICKET = "pool_upload"
_ADDRESSES = ("x-goog-upload-url", "x-goog-upload-control-url")
_PATH = "/upload/"

Headers = list[tuple[str, str]]


class Upload(msgspec.Struct):
    """One call of an upload. `ticket` is the one presented, or the new one of an upload that is started; `address` is
    where the pool takes the rest of it."""

    ticket: str
    started: bool
    address: str = ""


def concerned(path: str) -> bool:
    """Whether a call of this path may be about an upload."""
    return path.startswith(_PATH)


def upload_of(path: str, query: str, protocol: str, address: str) -> Upload | None:
    """The upload a call is about, None where it is none or comes in one piece. `protocol` is X-Goog-Upload-Protocol."""
    if not concerned(path):
        return None
    presented = ticket_in(query)
    if presented:
        return Upload(presented, started=False)
    if session := _value(query, "upload_id"):
        return Upload(session, started=False)  # an address of Google's own, which nobody was given here
    return Upload(secrets.token_urlsafe(24), started=True, address=address) if protocol == "resumable" else None


def ticket_in(query: str) -> str:
    """The ticket an upload's address carries, "" without one."""
    return _value(query, TICKET)


def without_ticket(query: str) -> str:
    """What goes up of the query."""
    if TICKET not in query:
        return query
    return "&".join(part for part in query.split("&") if part.partition("=")[0] != TICKET)


def brought_back(headers: Iterable[tuple[str, str]], upload: Upload) -> Headers:
    """An answer's headers with the pool's address in place of Google's; no other address of theirs."""
    kept: Headers = []
    for name, value in headers:
        lower = name.lower()
        if lower == _ADDRESSES[0] and upload.started:
            query = value.partition("?")[2].partition("#")[0]
            kept.append((name, f"{upload.address}?{query}{'&' if query else ''}{TICKET}={upload.ticket}"))
        elif lower not in _ADDRESSES:
            kept.append((name, value))
    return kept


def _value(query: str, name: str) -> str:
    fields = (part.partition("=") for part in query.split("&"))
    return next((value for key, _, value in fields if key == name), "")
