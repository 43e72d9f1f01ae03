"""Who calls a page or an API route: a browser session, a pool key, the admin password, or this very machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pool_server.users import Denied, Principal
from pool_server.web.context import WebContext

if TYPE_CHECKING:
    from pool_server.web.base import BaseHandler

COOKIE = "pool_session"


class Caller(msgspec.Struct, frozen=True):
    """`rank` compares with `Access`; `via` is "local", "session", "key", "password" or "" for nobody.

    `denied` holds why a credential that was shown is not accepted (throttled, disabled …).
    """

    rank: int = 0
    via: str = ""
    principal: Principal | None = None
    denied: Denied | None = None


NOBODY = Caller()


def bearer(authorization: str) -> str:
    """The token of an `Authorization: Bearer …` header, "" when it is anything else."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def identify(ctx: WebContext, handler: BaseHandler, *, bearer_admin: bool) -> Caller:
    """Who this request comes from. A bearer is a pool key, or on admin routes the admin password.

    In local mode the guard has already turned away everyone but this machine.
    """
    if ctx.local:
        return Caller(3, "local", ctx.users.local_principal())
    headers = handler.request.headers
    token = bearer(headers.get("Authorization", ""))
    if token and bearer_admin:
        return _known(await ctx.users.check_admin(token, peer=handler.peer), "password", 3)
    if token:
        return _known(ctx.users.authenticate(token), "key", 1)
    session = handler.get_cookie(COOKIE)
    if session:
        principal = ctx.users.session(session)
        if principal is not None:
            return Caller(3 if principal.admin else 2, "session", principal)
    return NOBODY


def _known(found: Principal | Denied, via: str, rank: int) -> Caller:
    if isinstance(found, Denied):
        return Caller(denied=found)
    return Caller(rank, via, found)
