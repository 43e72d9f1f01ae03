"""Ties a socket to an account: the upstream's own WebSocket, or a bridge over HTTP where it has none, with a
translation where it speaks another dialect."""

from __future__ import annotations

import time

import msgspec

from pool_server.core.enums import CredentialKind
from pool_server.core.models import Fault
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.services import Services
from pool_server.gateway.upstream import HandshakeRefusedError, UpstreamError, upgrades_over
from pool_server.gateway.websocket.links import FRAME_CAP, HttpLink, Link, SocketLink, TranslatedLink
from pool_server.providers import Credential, network_fault, provider_module

_HTTP_ONLY_S = 3600.0  # how long a refused upgrade is remembered
_NO_SOCKET = frozenset({404, 405, 426, 501})
_HANDSHAKE_S = 30.0


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
        upgrades = credential.kind is not CredentialKind.API_KEY and upgrades_over(proxy_url)
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
