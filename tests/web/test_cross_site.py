"""Another site's page in a visitor's browser: nothing it can send changes anything or counts against anybody."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.web import RequestHandler

from pool_server.core.settings import Settings
from pool_server.web.base.cross_site import BodyKind, body_kind, is_foreign
from pool_server.web.routes import TABLE
from tests.web.pool import ADMIN, CODE
from tests.web.site import LiveSite, Site

PASSPHRASE = "correct horse battery"
FORM = {"Content_Type": "application/x-www-form-urlencoded"}
FOREIGN = (
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "file://"},
    {"Origin": "not an origin"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "something-new"},
)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("application/json", BodyKind.JSON),
        ("Application/JSON; charset=utf-8", BodyKind.JSON),
        ("application/x-www-form-urlencoded", BodyKind.FORM),
        ("application/x-www-form-urlencoded-not", BodyKind.OTHER),
        ("application/jsonp", BodyKind.OTHER),
        ("text/plain", BodyKind.OTHER),
        ("text/plain; application/json", BodyKind.OTHER),
        ("multipart/form-data; boundary=x", BodyKind.OTHER),
        ("application/json, text/plain", BodyKind.OTHER),
        ("", BodyKind.ABSENT),
        (None, BodyKind.ABSENT),
    ],
)
def test_a_body_is_what_its_type_says(said: str | None, kind: BodyKind) -> None:
    assert body_kind({} if said is None else {"Content-Type": said}) is kind


@pytest.mark.parametrize(
    ("origin", "own", "foreign"),
    [
        ("https://pool.example", ("pool.example",), False),
        ("https://pool.example:443", ("pool.example",), False),
        ("https://POOL.example", ("pool.example:443",), False),
        ("http://pool.example:8989", ("pool.example:8989",), False),
        ("https://pool.example", ("127.0.0.1:8989", "https://pool.example/"), False),
        ("https://pool.example:8443", ("pool.example",), True),
        ("https://pool.example.evil", ("pool.example",), True),
        ("https://evil.example", ("",), True),
        ("https://[::1", ("[::1]",), True),
        ("https://pool.example:99999", ("pool.example",), True),
    ],
)
def test_an_origin_is_foreign_unless_it_is_one_of_the_pool_s_own(
    origin: str, own: tuple[str, ...], foreign: bool
) -> None:
    assert is_foreign({"Origin": origin}, own) is foreign


@pytest.mark.parametrize(
    ("site", "origin", "foreign"),
    [
        ("same-origin", "null", False),
        ("none", None, False),
        ("same-origin", "https://evil.example", True),
        ("cross-site", "http://pool.example", True),
        ("cross-site", None, True),
        (None, "null", True),
        (None, None, False),
    ],
)
def test_fetch_metadata_vouches_for_an_origin_that_is_withheld(
    site: str | None, origin: str | None, foreign: bool
) -> None:
    given_headers = {"Sec-Fetch-Site": site, "Origin": origin}
    headers = {name: value for name, value in given_headers.items() if value is not None}
    assert is_foreign(headers, ("pool.example",)) is foreign


@given(st.text(max_size=40), st.text(max_size=20))
def test_no_origin_breaks_the_comparison(origin: str, own: str) -> None:
    assert is_foreign({"Origin": origin}, (own,)) in (True, False)


def changing_routes() -> list[str]:
    return routes("post", "put", "patch", "delete")


def routes(*verbs: str) -> list[str]:
    """A path of every route that takes one of these, with something for each of its groups."""
    fillers = {
        r"([^/]+)": "x",
        r"([0-9a-f]+)": "0",
        r"([a-z0-9_./-]+)": "app.js",
        r"([a-z]+)": "codex",
        r"([A-Za-z0-9_-]+)": "t",
    }
    paths = []
    for pattern, handler in TABLE:
        # Tornado's own methods are answered 405.
        if pattern != ".*" and any(getattr(handler, verb) is not getattr(RequestHandler, verb) for verb in verbs):
            path = pattern.replace("\\.", ".")
            for group, word in fillers.items():
                path = path.replace(group, word)
            while "(" in path:
                head, _, rest = path.partition("(")
                path = head + rest.partition(")")[0].split("|")[0] + rest.partition(")")[2]
            paths.append(path)
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("trace", FOREIGN)
def test_every_change_asked_for_by_another_site_is_refused(friends: Site, trace: dict[str, str]) -> None:
    entered = friends.post("/admin", {"password": ADMIN})
    cookie = {"Cookie": f"pool_session={entered.cookies()['pool_session']}"}
    paths = changing_routes()
    assert len(paths) > 15
    for path in paths:
        for method in ("POST", "PATCH", "DELETE"):
            answer = friends.request(method, path, body=b"{}", Content_Type="application/json", **trace, **cookie)
            assert answer.status in (403, 405), (method, path)
            assert answer.status == 405 or answer.json()["error"]["code"] == "cross_site"


@pytest.mark.slow
@pytest.mark.parametrize("body", [b"", b"a=b", b'{"a":1}', b"_xsrf=guessed"])
def test_a_form_without_the_page_s_token_changes_nothing_on_any_route(friends: Site, body: bytes) -> None:
    """A route that reads no body is no exception."""
    session = friends.post("/admin", {"password": ADMIN}).cookies()["pool_session"]
    form = {"Content_Type": "application/x-www-form-urlencoded", "Cookie": f"pool_session={session}"}
    for path in changing_routes():
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = friends.request(method, path, body=body, **form)
            assert answer.status in (403, 405), (method, path)
            assert answer.status == 405 or answer.json()["error"]["code"] == "xsrf", (method, path)


EVE = json.dumps({"code": CODE, "name": "Eve", "passphrase": PASSPHRASE}).encode()


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/jsonish", ""])
def test_nobody_is_signed_in_by_a_body_of_another_kind(friends: Site, kind: str) -> None:
    answer = friends.request("POST", "/api/friend/login", body=EVE, Content_Type=kind)
    assert answer.status == 415
    assert not answer.cookies().get("pool_session")


def test_nobody_is_signed_in_by_a_body_of_no_kind(live_friends: LiveSite) -> None:
    """Tornado's client always names one."""
    answer = live_friends.request("POST", "/api/friend/login", body=EVE)
    assert answer.status == 415
    assert not answer.cookies().get("pool_session")


def test_tries_made_through_a_visitor_s_browser_never_ban_the_visitor(friends: Site) -> None:
    for trace in FOREIGN * 3:
        assert friends.post("/admin", {"password": "wrong"}, **trace).status == 403
        assert (
            friends.post("/api/friend/login", {"code": "wrong", "name": "E", "passphrase": "x"}, **trace).status == 403
        )
    assert friends.post("/admin", {"password": ADMIN}).status == 200


def test_a_form_s_token_is_its_session_s_alone_and_never_taken_from_the_address(friends: Site) -> None:
    cookies = []
    for name in ("Ada", "Bea"):
        made = friends.post("/api/friend/login", {"code": CODE, "name": name, "passphrase": PASSPHRASE})
        cookies.append(made.cookies()["pool_session"])
    ada, bea = (f"pool_session={cookie}" for cookie in cookies)
    token = friends.get("/api/me", Cookie=ada).cookies()["_xsrf"]
    assert friends.post("/api/keys", {}, Cookie=ada, X_XSRFToken=token).status == 200
    assert friends.post("/api/keys", {}, Cookie=f"{bea}; _xsrf={token}", X_XSRFToken=token).status == 403
    assert friends.post(f"/api/keys?_xsrf={token}", {}, Cookie=ada).status == 403
    assert friends.post("/api/keys", {}, Cookie=ada).status == 403


def test_a_cookie_set_over_tls_is_the_host_s_own_and_secure(friends: Site) -> None:
    settings = friends.ctx.settings
    try:
        friends.ctx.settings = Settings(
            friend_code=settings.friend_code, pool_users=settings.pool_users, public_url="https://pool.example"
        )
        entered = friends.post("/admin", {"password": ADMIN})
        lines = entered.headers.get_all("Set-Cookie") or []
        assert any(line.startswith("__Host-pool_session=") for line in lines)
        assert all("Secure" in line and "Path=/" in line and "Domain" not in line for line in lines)
        value = entered.cookies()["__Host-pool_session"]
        assert friends.get("/admin/accounts", Cookie=f"__Host-pool_session={value}").status == 200
        assert friends.get("/admin/accounts", Cookie=f"pool_session={value}").status == 401
    finally:
        friends.ctx.settings = settings


def test_a_change_without_a_body_may_name_any_kind(local: Site) -> None:
    assert local.request("POST", "/admin/reload", body=b"", Content_Type="application/octet-stream").status == 200
