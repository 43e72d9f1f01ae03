"""Who calls a page or an API route: a browser session, a pool key, the admin password, or this very machine."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from tornado.web import RequestHandler

from pool_server.core.enums import Denial, TokenScope
from pool_server.core.loopback import local_refusal
from pool_server.users import Denied, Principal, RefusedError, is_admin_token
from pool_server.users.identity.passwords import same
from pool_server.users.identity.sign_in import PROXY, Identity
from pool_server.web.base.context import WebContext

COOKIE = "pool_session"


def cookie_name(secure: bool) -> str:
    """The session cookie's name. A browser takes the prefix only over TLS, from this very host, for all its paths."""
    return f"__Host-{COOKIE}" if secure else COOKIE


class Caller(msgspec.Struct, frozen=True):
    """`rank` compares with `Access`; `via` is "local", "session", "key", "password", "token", "proxy" or "" for nobody.

    `scopes` is what an admin token may do, where its route is one of the API. `denied` holds why a credential that was
    shown is not accepted (throttled, disabled …).
    """

    rank: int = 0
    via: str = ""
    principal: Principal | None = None
    denied: Denied | None = None
    scopes: frozenset[TokenScope] = frozenset()


NOBODY = Caller()
NOT_ALONE = Denied(
    Denial.BAD_LOGIN,
    "with admin_totp the admin password alone works on the pool's own machine only; sign in on /admin",
    401,
)


def shown(headers: Mapping[str, str]) -> str:
    """The credential a program shows, from the headers the CLIs use; "" for none."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("X-Api-Key", "") or headers.get("X-Goog-Api-Key", "")


async def _local(ctx: WebContext, token: str, cookie: str) -> Caller:
    """Whoever is at this machine; where a token is asked for, whoever shows it or signed in with it."""
    wanted, here = ctx.settings.local_token, ctx.users.local_principal()
    if not wanted:
        return Caller(3, "local", here)
    if token:
        return Caller(3, "password", here) if same(token, wanted) else NOBODY
    session = await ctx.users.sessions.find(cookie) if cookie else None
    return Caller(3, "session", here) if session is not None and session.admin else NOBODY


async def _vouched(ctx: WebContext, name: str, peer: str) -> Caller:
    """Whom a trusted proxy names: it comes with every request, so that no session outlives what the proxy says."""
    try:
        found = await ctx.users.sign_in.vouched(Identity(PROXY, name, name), peer=peer)
    except RefusedError as refused:
        return Caller(denied=refused.denied)
    return Caller(3 if found.admin else 2, "proxy", found)


async def identify(
    ctx: WebContext, handler: RequestHandler, *, peer: str, cookie: str, wanted: int, named: str = ""
) -> Caller:
    """`_identify`, with how the limits of whoever it is stand ready to be read."""
    caller = await _identify(ctx, handler, peer=peer, cookie=cookie, wanted=wanted, named=named)
    if (who := caller.principal) is not None and not who.local:
        await ctx.users.limits.fetch([who.user], [who.key] if who.key else [])
    return caller


async def _identify(
    ctx: WebContext, handler: RequestHandler, *, peer: str, cookie: str, wanted: int, named: str
) -> Caller:
    """Who this request comes from, as far as a route that wants `wanted` must know. `named` is whom a trusted proxy
    says it is, "" for nobody.

    In local mode the guard has already turned away everyone but this machine. A credential in a header is a pool
    key or the admin password; what has a key's shape is never tried as the password, so that an old key bans nobody.
    """
    if is_admin_token(text := shown(handler.request.headers) if wanted else ""):
        holder = ctx.users.admin_tokens.find(text)
        if isinstance(holder, Denied):
            return Caller(denied=holder)
        return Caller(3, "token", holder.principal, scopes=holder.scopes)
    if ctx.local:
        return await _local(ctx, shown(handler.request.headers), cookie)
    token = shown(handler.request.headers) if wanted else ""
    if token:
        found = await ctx.users.recognise(token)
        if isinstance(found, Principal):
            return Caller(1, "key", found)
        if token.count(".") == 2:
            return Caller(denied=found)
        if ctx.settings.pool_users.admin_totp and local_refusal(peer, handler.request.headers):
            return Caller(denied=NOT_ALONE)
        admin = await ctx.users.sign_in.check_admin(token, peer=peer)
        if isinstance(admin, Principal):
            return Caller(3, "password", admin)
        return Caller(denied=admin if wanted > 1 or admin.status == 429 else found)
    if named:
        return await _vouched(ctx, named, peer)
    principal = await ctx.users.sessions.find(cookie) if cookie else None
    if principal is None:
        return NOBODY
    return Caller(3 if principal.admin else 2, "session", principal)
