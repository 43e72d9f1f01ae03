"""A caller's list calls: finds the accounts that hold something of theirs and asks them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pool_server.accounts import Accounts, RefreshError
from pool_server.core.enums import ErrorKind, Provider
from pool_server.core.models import ClientCall, ClientError, HttpAnswer, HttpRequest, Send
from pool_server.core.settings import Settings
from pool_server.gateway.objects.access import ObjectAccess, missing
from pool_server.gateway.objects.object_lists import Listing, ListRefusedError
from pool_server.gateway.routes import Route
from pool_server.providers import provider_module
from pool_server.storage import StoreError
from pool_server.users import Principal


class ListCalls:
    """Answers the list calls of people who may see their own alone."""

    def __init__(self, settings: Settings, *, accounts: Accounts, send: Send, access: ObjectAccess) -> None:
        self.settings = settings
        self._accounts = accounts
        self._send = send
        self._access = access

    async def answer(
        self, principal: Principal, route: Route, call: ClientCall, providers: Iterable[Provider]
    ) -> bytes | ClientError:
        """The JSON of the caller's own list, or why there is none."""
        assert route.lists is not None
        wanted = tuple(providers)
        owners = self._access.owners
        if owners.elsewhere:
            await owners.fetch_list(principal.user, route.family, route.lists)
        try:
            mine = owners.of_user(principal.user, route.family, route.lists)
        except StoreError:
            return ClientError(ErrorKind.NO_ACCOUNT, "The pool cannot look up whose objects these are.", 503)
        visible: dict[str, set[bytes] | None] = {
            account: ids
            for account, ids in mine.items()
            if Provider(account.partition(":")[0]) in wanted and self._accounts.knows(account)
        }
        visible |= dict.fromkeys(self._access.owned_by(principal, wanted))
        listing = Listing(route.family, route.lists, call.query, visible, lambda *ask: self._fetch(call, *ask))
        start_at = ""
        if listing.by_id and (cursor := listing.cursor()):
            if owners.elsewhere:
                await owners.fetch(route.family, [(route.lists, cursor)])
            claim = self._access.claim(principal, route.family, [(route.lists, cursor)], wanted)
            if claim.error is not None or claim.account not in visible:
                return claim.error or missing((route.lists, cursor))
            start_at = claim.account
        try:
            return await listing.answer(start_at)
        except ListRefusedError:
            message = "No account that keeps yours could be asked for its list; try again in a moment."
            return ClientError(ErrorKind.UNREACHABLE, message, 502)

    async def _fetch(self, call: ClientCall, account: str, query: str) -> bytes | None:
        answer = await self._ask(call, account, query)
        if answer.status == 401:
            try:
                credential = self._accounts.credential(account)
                await self._accounts.refresh(account, credential.secret, "rejected by the provider")
            except (KeyError, RefreshError):
                return None
            answer = await self._ask(call, account, query)
        return answer.body if answer.status == 200 else None

    async def _ask(self, call: ClientCall, account: str, query: str) -> HttpAnswer:
        try:
            credential = self._accounts.credential(account)
        except KeyError:
            return HttpAnswer(0, {}, error="the account is gone")
        asked = msgspec.structs.replace(call, query=query)
        request = provider_module(credential.provider).prepare(credential, asked, self.settings)
        own = HttpRequest(request.method, request.url, tuple(request.headers))
        try:
            answer = await self._send(self._accounts.bounded(account, own))
        except KeyError:
            return HttpAnswer(0, {}, error="the account is gone")
        return msgspec.structs.replace(answer, body=credential.hide(answer.body))
