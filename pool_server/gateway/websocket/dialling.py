"""Ties a socket to an account: the upstream's own WebSocket, or a bridge over HTTP where it has none, with a
translation where it speaks another dialect; and a live conversation to the one that takes it."""

from __future__ import annotations

import asyncio
import time

import msgspec

from pool_server.core.enums import ApiFamily, CredentialKind
from pool_server.core.models import ClientCall, Fault
from pool_server.dialects import SPECS
from pool_server.dialects.live import refusal_in
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.services import Services
from pool_server.gateway.upstream import HandshakeRefusedError, UpstreamError
from pool_server.gateway.websocket.links import FRAME_CAP, HttpLink, Link, LinkClosedError, SocketLink, TranslatedLink
from pool_server.providers import Credential, network_fault, provider_module

_HTTP_ONLY_S = 3600.0  # how long a refused upgrade is remembered
_NO_SOCKET = frozenset({404, 405, 426, 501})
_HANDSHAKE_S = 30.0
_WELCOME_S = 30.0


class Dialler:
    """`http_only` is shared by all sockets: account → unix seconds until which no upgrade is tried."""

    def __init__(self, services: Services, http_only: dict[str, float]) -> None:
        self._services = services
        self._http_only = http_only

    async def dial(self, x: Exchange, account: str, credential: Credential) -> tuple[Link | None, Fault | None]:
        """A link to the account, or the fault that stands against it."""
        if not x.native(credential):
            return TranslatedLink(account), None
        settings = self._services.settings
        proxy_url = self._services.accounts.proxy_url(account)
        module = provider_module(credential.provider)
        upgrades = credential.kind is not CredentialKind.API_KEY
        if upgrades and self._http_only.get(account, 0.0) < time.time():
            try:
                opening = self._services.upstream.dial(
                    module.prepare(credential, x.client_call, settings),
                    proxy_url=proxy_url,
                    frame_cap=FRAME_CAP,
                    timeout_s=_HANDSHAKE_S,
                )
                socket, headers = await self._services.openings.watched(account, opening, x.another, hedged=True)
            except UpstreamError as error:
                return None, network_fault(str(error))
            except HandshakeRefusedError as refused:
                x.observe(account, credential, refused.headers)
                if refused.status not in _NO_SOCKET:
                    now = time.time()
                    return None, module.classify(refused.status, refused.headers, b"", now=now, model=x.peek.model)
                self._http_only[account] = time.time() + _HTTP_ONLY_S
            else:
                x.observe(account, credential, headers)
                return SocketLink(account, socket, headers), None
        client_call = msgspec.structs.replace(x.client_call, websocket=False, method="POST")
        client_call.headers = [
            *client_call.headers,
            ("Content-Type", "application/json"),
            ("Accept", "text/event-stream"),
        ]
        prepared = module.prepare(credential, client_call, settings)
        link = HttpLink(
            account,
            self._services.upstream,
            prepared,
            proxy_url=proxy_url,
            first_byte_s=settings.upstream_first_byte_s,
            watched=lambda opening: self._services.openings.watched(account, opening, x.another, hedged=True),
        )
        return link, None


async def dial_live(x: Exchange, account: str, credential: Credential, call: ClientCall) -> SocketLink | Fault:
    """A socket of the account's, or what stands against it."""
    services, module = x.services, provider_module(credential.provider)
    prepared = module.prepare(credential, call, services.settings)
    x.upstream_url = "http" + prepared.url.removeprefix("ws")
    opening = services.upstream.dial(
        prepared, proxy_url=services.accounts.proxy_url(account), frame_cap=FRAME_CAP, timeout_s=_HANDSHAKE_S
    )
    try:
        socket, headers = await services.openings.watched(account, opening, x.another, hedged=True)
    except UpstreamError as error:
        return network_fault(str(error))
    except HandshakeRefusedError as refused:
        return module.classify(refused.status, refused.headers, b"", now=time.time(), model=x.peek.model)
    x.observe(account, credential, headers)
    return SocketLink(account, socket, headers)


async def welcomed(x: Exchange, link: SocketLink, credential: Credential) -> str | bytes | Fault:
    """The provider's first message, or why it does not serve: what it has not begun another account may still do."""
    try:
        async with asyncio.timeout(_WELCOME_S):
            message = await link.receive()
    except TimeoutError:
        fault: Fault = network_fault("no word after the connection was made")
    except LinkClosedError as closed:
        status, body = closed_with(closed)
        fault = _judged(x, credential, status, body) if status else network_fault(closed.reason or str(closed))
    else:
        refused = refusal_in(message) if SPECS[x.route.dialect].family is ApiFamily.OPENAI else None
        if refused is None:
            return message
        fault = _judged(x, credential, *refused)
    await link.close()
    return fault


def closed_with(closed: LinkClosedError) -> tuple[int, bytes]:
    """The HTTP status and error body that the words of a close stand for, 0 where it says nothing."""
    words = closed.reason.lower()
    if not words:
        return 0, b""
    status = 400 if closed.code in (1002, 1003, 1007, 1008) else 503
    for mark, told in (("quota", 429), ("exhausted", 429), ("api key", 401), ("not found", 404), ("permission", 403)):
        if mark in words:
            status = told
            break
    return status, msgspec.json.encode({"error": {"code": status, "message": closed.reason}})


def _judged(x: Exchange, credential: Credential, status: int, body: bytes) -> Fault:
    module = provider_module(credential.provider)
    return module.classify(status, {}, credential.hide(body), now=time.time(), model=x.peek.model)
