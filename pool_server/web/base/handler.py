"""The handler every page and every API route is built on.

A handler cannot forget its access class: it is part of the class statement, and `prepare` enforces it before a
byte of the body is read.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import IntEnum
from functools import wraps
from typing import Any, ClassVar, TypeVar, cast
from urllib.parse import parse_qs

import msgspec
from tornado.iostream import StreamClosedError
from tornado.locale import GettextLocale
from tornado.web import HTTPError, RequestHandler, stream_request_body

from pool_server.core.enums import TokenScope
from pool_server.core.loopback import is_loopback_host, local_refusal
from pool_server.http1.tornado import TornadoConnection
from pool_server.language import gettext as _
from pool_server.language import speak
from pool_server.storage import StoreError
from pool_server.texts import languages
from pool_server.users import AuditActor, Denied, Principal, RefusedError
from pool_server.web.base import auth, forms
from pool_server.web.base.assets.localized import locale_of, look_up_of
from pool_server.web.base.context import WebContext
from pool_server.web.base.cross_site import JSON_OR_FORM, BodyKind, body_kind, has_body, is_foreign
from pool_server.web.base.proxies import real_peer, real_scheme, vouched

log = logging.getLogger("pool_server.web")

T = TypeVar("T")

_OWN = ("key", "password", "token")  # credentials in a header, which no other site's page can send
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
CHANGES = frozenset({"post", "put", "patch", "delete"})
OPEN_BODY_CAP = 16 * 1024  # bytes
HSTS_S = 365 * 86_400
STORE_S = 5.0  # when who was told that a store cannot be read may come again
TICKETED = frozenset({"setup", "contribute"})  # routes whose address holds a ticket
LANGUAGE = "language"  # the cookie that remembers what a visitor has chosen
VERBS = ("get", "post", "put", "patch", "delete")
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none a browser withholds the Origin of our own forms too
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Access(IntEnum):
    """Who may call a route; each class includes the ones after it."""

    OPEN = 0  # anybody; a set-up ticket or a password in the request is then the handler's own check
    KEY = 1  # whoever the pool knows: a pool key, a browser session, the admin
    FRIEND = 2  # a browser session, or the admin
    ADMIN = 3  # the admin password as bearer, or an admin's browser session


class ProblemError(HTTPError):
    """An answer that is not the one wanted: `message` is one line for people, `code` one word for programs."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(status, "%s", code)
        self.code = code
        self.message = message
        self.retry_after = retry_after


def _token_first(method: Callable[..., Awaitable[None] | None]) -> Callable[..., Awaitable[None]]:
    """`method` after the token of a browser's form was checked, whether or not it reads the form."""

    @wraps(method)
    async def checked(self: BaseHandler, *args: str) -> None:
        if self._form_needs_token:
            self.form()
        if self.sending is None and b"_once=" in self._chunks and self.is_form() and self.caller.via not in _OWN:
            await self._send_once(method, *args)
            return
        result = method(self, *args)
        if result is not None:
            await result

    return checked


@stream_request_body
class BaseHandler(RequestHandler):
    """Access, local-mode guard, XSRF, body cap, security headers and errors, once for all."""

    access: ClassVar[Access]
    body_cap: ClassVar[int] = 64 * 1024  # bytes …
    open_cap: ClassVar[int] = OPEN_BODY_CAP  # … and where the route is open to all
    takes: ClassVar[frozenset[BodyKind]] = frozenset({BodyKind.JSON})  # a form's token is checked in `form()`
    most_fields: ClassVar[int] = 64  # of a form
    asks: ClassVar[frozenset[str] | None] = None  # names of the query's parameters, where others are refused
    ctx: WebContext
    caller: auth.Caller

    def __init_subclass__(cls, *, access: Access | None = None, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "prepare" in cls.__dict__ and not abstract:
            raise TypeError(f"{cls.__name__} must not override prepare(): it enforces the access class")
        if access is None and not abstract:
            raise TypeError(f"{cls.__name__} must declare access=Access.…")
        if access is not None:
            cls.access = access
            if access is not Access.OPEN and "takes" not in cls.__dict__:
                cls.takes = JSON_OR_FORM
        for verb in CHANGES & cls.__dict__.keys():
            setattr(cls, verb, _token_first(cls.__dict__[verb]))

    def initialize(self, ctx: WebContext, scopes: Mapping[str, TokenScope | None] | None = None) -> None:
        """`scopes`: of a route of the API, method → what an admin token needs for it, None = no token may."""
        self.ctx = ctx
        self.scopes = scopes
        self.caller = auth.NOBODY
        self.body_kind = body_kind(self.request.headers)
        self._chunks = bytearray()
        self.request.arguments.pop("_xsrf", None)  # a token in the address could have been put there by anybody
        self._fields: dict[str, str] | None = None
        self._form_needs_token = False
        self.sending: forms.Sending | None = None  # of a form that has a name of its own

    # -- coming in ------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Turn away whoever may not call this, before the body is read."""
        if self.request.method not in self._allowed():
            raise HTTPError(405)
        self._cap_body()
        headers = self.request.headers
        speak(look_up_of(self.locale.code))
        connection_peer = self.request.remote_ip or ""
        if self.ctx.local:
            reason = local_refusal(connection_peer, headers)
            if reason:
                raise ProblemError(403, "not_local", reason)
        self.peer = real_peer(connection_peer, headers, self.ctx.trusted)
        self.scheme = real_scheme(self.request.protocol, connection_peer, headers, self.ctx.trusted)
        self._refuse_foreign()
        named = vouched(self.ctx.settings.single_sign_on.user_header, headers, connection_peer, self.ctx.trusted)
        if self.access > Access.OPEN and self.ctx.store is not None and self.ctx.store()[0] == "away":
            raise _unread()  # rather than wait for it
        self.caller = await auth.identify(
            self.ctx, self, peer=self.peer, cookie=self.session_cookie, wanted=self._wanted, named=named
        )
        self._admit()
        self._check_query()
        self._check_body_kind()
        if self.caller.rank > Access.OPEN:
            await self.ctx.ledger.fresh()  # what was recorded a moment ago is part of what a page shows

    def get_user_locale(self) -> GettextLocale:
        """The language chosen on a page, else the browser's; the operator's API speaks English."""
        if self.scopes is not None:
            return locale_of(languages.ENGLISH)
        accept = self.request.headers.get("Accept-Language", "")
        return locale_of(languages.chosen(self.get_cookie(LANGUAGE, "") or "", accept))

    def _check_query(self) -> None:
        """A misspelt filter must not seem to have found everything."""
        unknown = sorted(self.request.query_arguments.keys() - self.asks) if self.asks is not None else []
        if unknown:
            names = ", ".join(sorted(self.asks or ())) or "none"
            said = _("no parameter is called {name}; there are: {names}", name=repr(unknown[0][:60]), names=names)
            raise ProblemError(400, "bad_request", said)

    def _refuse_foreign(self) -> None:
        """A change that another site's page asks for ends here, before anybody's tries are counted."""
        own = (self.request.headers.get("Host", ""), self.ctx.settings.public_url)
        if self.request.method not in SAFE and is_foreign(self.request.headers, own):
            raise ProblemError(403, "cross_site", _("this was asked for by a page of another site"))

    def _cap_body(self) -> None:
        try:
            announced = int(self.request.headers.get("Content-Length", "0"))
        except ValueError:
            announced = 0
        cap = min(self.body_cap, self.open_cap) if self.access is Access.OPEN else self.body_cap
        if announced > cap:
            self.set_header("Connection", "close")
            raise ProblemError(413, "too_large", _("the body may hold at most {cap} KiB here", cap=cap // 1024))
        cast(TornadoConnection, self.request.connection).set_max_body_size(cap)

    @property
    def _wanted(self) -> Access:
        """Who may call this: the operator alone, where the API leads here."""
        return self.access if self.scopes is None or self.access is Access.OPEN else Access.ADMIN

    def _admit(self) -> None:
        if self.access is Access.OPEN:
            return
        if self.caller.denied is not None:
            raise denial(self.caller.denied, self.ctx.clock())
        if self.caller.via == "token":
            self._admit_token()
        if self.caller.rank < self._wanted:
            if self.caller.rank > Access.OPEN:
                raise ProblemError(403, "forbidden", _("this is not yours to see or to change"))
            raise ProblemError(401, "sign_in", _("sign in first"))

    def _admit_token(self) -> None:
        """An admin token opens the routes of the API that its scopes name, and no other."""
        method = "GET" if self.request.method == "HEAD" else self.request.method or ""
        needed = (self.scopes or {}).get(method)
        if needed is None:
            raise ProblemError(403, "forbidden", "no admin token may do this")
        if needed not in self.caller.scopes:
            raise ProblemError(403, "scope", f"this needs an admin token with the scope {needed.value}")

    def _check_body_kind(self) -> None:
        """JSON, or a form where one is taken; and the token of every change a browser could be tricked into.

        A call that carries its own credential in a header cannot be forged by another site's page; neither can one
        without any trace of a browser. JSON cannot be sent across sites without consent. A form's token is checked
        when its body is there, before the handler's method runs.
        """
        headers, kind = self.request.headers, self.body_kind
        if self.request.method in SAFE:
            return
        own_credential = self.caller.via in _OWN
        nothing = kind in (BodyKind.ABSENT, BodyKind.OTHER) and not has_body(headers)  # HTTP libraries name that too
        unnamed = nothing and self.access is not Access.OPEN
        from_program = own_credential and kind in (BodyKind.FORM, BodyKind.ABSENT)  # curl names every body a form
        if kind not in self.takes and not unnamed and not from_program:
            raise ProblemError(415, "json_only", "send application/json")
        if own_credential or self.access is Access.OPEN:
            return
        browser = "Cookie" in headers or "Origin" in headers or "Sec-Fetch-Site" in headers
        self._form_needs_token = browser and kind is BodyKind.FORM
        if browser and kind is not BodyKind.FORM:
            self.check_xsrf_cookie()

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach the pool over TLS, as far as the connection or the settings say."""
        scheme = getattr(self, "scheme", self.request.protocol)
        return scheme == "https" or self.ctx.settings.public_url.lower().startswith("https:")

    @property
    def session_cookie(self) -> str:
        """The session cookie's value, "" without one. Over TLS its name keeps neighbours from setting it."""
        return self.get_cookie(auth.cookie_name(self.is_secure), "") or ""

    @property
    def xsrf_token(self) -> bytes:
        """The token that a change must carry: of the session where there is one, else of the browser's own cookie."""
        if self.caller.via != "session":
            return super().xsrf_token
        token = self.ctx.users.page_token(self.session_cookie)
        if self.get_cookie("_xsrf") != token:
            self.set_cookie("_xsrf", token)
        return token.encode()

    def check_xsrf_cookie(self) -> None:
        try:
            if self.caller.via != "session":
                super().check_xsrf_cookie()
                return
        except HTTPError:
            raise ProblemError(403, "xsrf", _("the page is out of date: reload it and try again")) from None
        shown = self.request.headers.get("X-Xsrftoken") or self.get_argument("_xsrf", "")
        if not hmac.compare_digest(shown.encode(), self.ctx.users.page_token(self.session_cookie).encode()):
            raise ProblemError(403, "xsrf", _("the page is out of date: reload it and try again"))

    # -- the body -------------------------------------------------------------------------------------------

    def data_received(self, chunk: bytes) -> None:
        self._chunks += chunk

    def body_as(self, shape: type[T]) -> T:
        """The body as `shape`, a msgspec struct or dict. ProblemError 400 says in one line what is wrong with it.

        A program that names its JSON a form, as curl does, is read all the same: its credential is in a header.
        """
        try:
            if self.is_form() and not bytes(self._chunks).lstrip().startswith(b"{"):
                return msgspec.convert(forms.nested(self.form()), shape, strict=False)
            return msgspec.json.decode(bytes(self._chunks) or b"{}", type=shape)
        except (msgspec.DecodeError, ValueError, RecursionError) as wrong:
            raise ProblemError(400, "bad_request", str(wrong).splitlines()[0]) from None

    def is_form(self) -> bool:
        return self.body_kind is BodyKind.FORM

    def form(self) -> dict[str, str]:
        """The fields of a plain HTML form, after its XSRF token was checked."""
        if self._fields is not None:
            return self._fields
        try:
            fields = parse_qs(bytes(self._chunks).decode(), keep_blank_values=True, max_num_fields=self.most_fields)
        except ValueError:
            raise ProblemError(400, "bad_request", _("the form cannot be read")) from None
        self.request.arguments["_xsrf"] = [value.encode() for value in fields.get("_xsrf", [])]
        if self.caller.via not in _OWN:
            self.check_xsrf_cookie()
        self._fields = {name: values[-1] for name, values in fields.items()}
        return self._fields

    async def _send_once(self, method: Callable[..., Awaitable[None] | None], *args: str) -> None:
        """`method`, or the answer this very form got before. ProblemError 409 where that one has none yet."""
        tickets, name = self.ctx.users.tickets, self.form().get("_once", "")
        self.sending = forms.Sending(tickets, self.request.path, bytes(self._chunks), name)
        try:
            earlier = await self.sending.earlier()
        except TimeoutError:
            raise ProblemError(409, "sent_twice", _("this was sent before and is still being done")) from None
        if earlier is not None:
            earlier.give(self)
            return
        self.sending.kept = forms.KeptConnection(cast(TornadoConnection, self.request.connection))
        self.request.connection = self.sending.kept
        try:
            result = method(self, *args)
            if result is not None:
                await result
        finally:
            await self.sending.done()

    async def _by_form(self, *args: str) -> None:
        """A form cannot say PATCH or DELETE: it says so in a field."""
        method = self.form().get("_method", "") if self.is_form() else ""
        if method not in self._own_methods() & {"PUT", "PATCH", "DELETE"}:
            raise HTTPError(405)
        result = getattr(self, method.lower())(*args)
        if result is not None:
            await result

    post: Callable[..., Awaitable[None] | None] = _by_form

    @property
    def back(self) -> str:
        """Where a form leads afterwards: an address of ours, the home page where the form names none."""
        said = self.form().get("_back", "/")
        return said if said.startswith("/") and said[1:2] not in ("/", "\\") and said.isprintable() else "/"

    def form_done(self, value: Any) -> None:
        """The answer to a browser's form; `value` is what a program would get."""
        self.redirect(self.back, status=303)

    # -- going out ------------------------------------------------------------------------------------------

    @property
    def principal(self) -> Principal:
        """The known caller; only for routes that are not open."""
        if self.caller.principal is None:
            raise ProblemError(401, "sign_in", _("sign in first"))
        return self.caller.principal

    @property
    def actor(self) -> AuditActor:
        """The caller, for the audit log."""
        return AuditActor.of(self.principal, self.peer)

    @property
    def wants_page(self) -> bool:
        return self.scopes is None and "text/html" in self.request.headers.get("Accept", "")

    def set_default_headers(self) -> None:
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)
        if self._binds_to_tls():
            self.set_header("Strict-Transport-Security", f"max-age={HSTS_S}")
        self.clear_header("Server")

    def _binds_to_tls(self) -> bool:
        """Whether browsers are told to come over TLS alone from now on. That binds every port of the host: only where
        the pool itself speaks TLS on the usual port, and never this machine's own names."""
        host = self.request.headers.get("Host", "")
        return self.request.protocol == "https" and host.rpartition(":")[0] in ("", host) and not is_loopback_host(host)

    def set_cookie(self, name: str, value: str | bytes, *args: Any, **kwargs: Any) -> None:
        """Tornado's, with the flags no cookie of this house goes without."""
        kwargs.setdefault("path", "/")
        kwargs["samesite"] = "Strict"
        kwargs["secure"] = self.is_secure
        super().set_cookie(name, value, *args, **kwargs)

    def set_session(self, cookie: str, expires: float) -> None:
        """Sign this browser in until `expires` (unix seconds)."""
        self.set_cookie(auth.cookie_name(self.is_secure), cookie, expires=expires, httponly=True)

    def clear_session(self) -> None:
        """Sign this browser out."""
        self.clear_cookie(auth.cookie_name(self.is_secure))

    def answer(self, value: Any, status: int = 200) -> None:
        """Finish with JSON, or after a browser's form with the page that follows."""
        if self.is_form() and self.wants_page and self.request.method not in SAFE:
            self.form_done(value)
            return
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(msgspec.json.encode(value) + b"\n")

    async def stream(self, pieces: Iterator[bytes]) -> None:
        """Write what is read off the loop, piece by piece, until it ends or the caller is gone."""
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                self.write(piece)
                await self.flush()
        except StreamClosedError:
            return

    def head(self, *args: str, **kwargs: str) -> Any:
        return self.get(*args, **kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        problem = self._problem(status_code, kwargs.get("exc_info"))
        self.set_status(problem.status_code)
        if problem.retry_after is not None:
            self.set_header("Retry-After", str(max(1, round(problem.retry_after))))
        if status_code == 405:
            self.set_header("Allow", ", ".join(sorted(self._allowed())))
        if self.wants_page:
            self.write_error_page(problem)
        else:
            error = {"code": problem.code, "message": problem.message}
            self.set_header("Content-Type", "application/json; charset=utf-8")
            self.finish(msgspec.json.encode({"error": error}) + b"\n")

    def write_error_page(self, problem: ProblemError) -> None:
        """Overridden where pages are rendered."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(problem.message + "\n")

    def _allowed(self) -> set[str]:
        own = self._own_methods()
        by_form = {"POST"} if own & {"PUT", "PATCH", "DELETE"} and BodyKind.FORM in self.takes else set()
        if self.scopes is not None:
            own, by_form = own & self.scopes.keys(), set()
        return own | by_form | ({"HEAD"} if "GET" in own else set())

    def _own_methods(self) -> set[str]:
        inherited = (getattr(RequestHandler, verb) for verb in VERBS)
        own = {
            verb.upper() for verb, usual in zip(VERBS, inherited, strict=True) if getattr(type(self), verb) is not usual
        }
        return own if type(self).post is not BaseHandler._by_form else own - {"POST"}

    def _problem(self, status: int, exc_info: Any) -> ProblemError:
        error = exc_info[1] if exc_info else None
        if isinstance(error, ProblemError):
            return error
        if isinstance(error, RefusedError):
            return denial(error.denied, self.ctx.clock())
        if isinstance(error, StoreError):
            return _unread()
        if status == 404:
            return ProblemError(404, "not_found", _("there is nothing here"))
        if status == 405:
            return ProblemError(405, "method", _("{method} is not possible here", method=self.request.method))
        if 400 <= status < 500:
            return ProblemError(status, "bad_request", _("this request cannot be understood"))
        return ProblemError(status, "failed", _("something went wrong here; the server's log says what"))

    def _request_summary(self) -> str:
        """For the log: never a query, never a ticket."""
        first = self.request.path.split("/", 2)[1]
        path = self.request.path if first not in TICKETED else f"/{first}/…"
        return f"{self.request.method} {path} ({self.request.remote_ip})"

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, (HTTPError, RefusedError)):
            return
        if isinstance(value, StoreError):
            log.warning("%s: %s", self._request_summary(), value)
            return
        log.error("%s failed", self._request_summary(), exc_info=(typ, value, tb))


def _unread() -> ProblemError:
    return ProblemError(
        503, "store", _("the pool's records cannot be read just now; try again in a moment"), retry_after=STORE_S
    )


def denial(denied: Denied, now: float) -> ProblemError:
    """What the users' room refused, as an answer of the web's own."""
    wait = None if denied.retry_at is None else denied.retry_at - now
    return ProblemError(denied.status, denied.denial.value, denied.message, retry_after=wait)
