"""What a stranger learns at the door, and what a browser is told with every answer."""

from __future__ import annotations

import re
from urllib.parse import urlencode, urljoin, urlsplit

import bcrypt
import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pool_server.users import SERVER
from pool_server.web.base.handler import SECURITY_HEADERS
from tests.web.pool import ADMIN, CODE
from tests.web.site import Answer, Site
from tests.web.test_cross_site import routes

WORDS = "correct horse battery"


def enter(site: Site, **fields: str) -> Answer:
    return site.post("/api/friend/login", fields)


def test_a_name_that_is_known_costs_and_says_what_an_unknown_one_does(
    friends: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hash is computed for either, so that neither words nor time tell them apart."""
    assert enter(friends, code=CODE, name="Ada", passphrase=WORDS).status == 200
    bea = enter(friends, code=CODE, name="Bea", passphrase=WORDS).json()["user"]["id"]
    friends.run(lambda: friends.ctx.users.people.set_passphrase(bea, "", actor=SERVER))  # she comes by key alone
    checked: list[bytes] = []
    real = bcrypt.checkpw

    def counted(secret: bytes, kept: bytes) -> bool:
        checked.append(kept)
        return real(secret, kept)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    friends.ctx.settings.trusted_proxies.append("127.0.0.0/8")
    told = []
    for name in ("Ada", "Bea", "Nobody"):
        home = f"203.0.{ord(name[0])}.7"
        sent = {"name": name, "passphrase": "wrong horse battery"}
        answer = friends.request("POST", "/api/friend/login", json_body=sent, X_Forwarded_For=home)
        told.append((answer.status, answer.body, len(checked)))
        checked.clear()
        sent = {"name": name, "passphrase": WORDS, "code": "drown"}
        wrong_code = friends.request("POST", "/api/friend/login", json_body=sent, X_Forwarded_For=home)
        told.append((wrong_code.status, wrong_code.body, len(checked)))
        checked.clear()
    assert told[0][2] == 1 and told[:2] == told[2:4] == told[4:6]


def test_a_session_is_never_one_that_was_there_before(friends: Site) -> None:
    planted = "a" * 43
    before = enter(friends, code=CODE, name="Ada", passphrase=WORDS).cookies()["pool_session"]
    for cookie in (planted, before):
        answer = friends.request(
            "POST", "/api/friend/login", json_body={"name": "Ada", "passphrase": WORDS}, Cookie=f"pool_session={cookie}"
        )
        assert answer.cookies()["pool_session"] not in (planted, before)
        admin = friends.request("POST", "/admin", json_body={"password": ADMIN}, Cookie=f"pool_session={cookie}")
        assert admin.cookies()["pool_session"] not in (planted, before)
    assert friends.get("/api/me", Cookie=f"pool_session={planted}").status == 401
    assert friends.get("/admin/accounts", Cookie=f"pool_session={before}").status == 403, "no more rights than it had"


@pytest.mark.slow
def test_every_answer_of_every_route_is_for_no_frame_and_no_cache(friends: Site) -> None:
    """Refusals, redirects and mistakes too; whatever it sets is the session's alone to send."""
    friends.ctx.settings = msgspec.structs.replace(friends.ctx.settings, public_url="https://pool.example")
    session = f"__Host-pool_session={friends.post('/admin', {'password': ADMIN}).cookies()['__Host-pool_session']}"
    paths = [path for path in routes("get", "post") if not re.search("live|static|favicon", path)]
    assert len(paths) > 60
    for path in paths:
        for method, headers in (
            ("GET", {}), ("GET", {"Cookie": session, "Accept": "text/html"}), ("PUT", {}),
            ("POST", {"Content_Type": "text/plain"}), ("POST", {"Origin": "https://evil.example"}),
        ):  # fmt: skip
            answer = friends.request(method, path, body=b"x" if method != "GET" else None, **headers)
            assert answer.status < 500 or answer.status == 502, (method, path, answer.body)
            for name, value in SECURITY_HEADERS.items():
                told = answer.headers[name]
                assert told == value or (name == "Cache-Control" and "private" in told), (method, path, name, told)
            for line in answer.headers.get_all("Set-Cookie") or []:
                assert "Secure" in line and "Path=/" in line and "SameSite=" in line, (path, line)
                assert "HttpOnly" in line or not line.startswith("__Host-"), (path, line)


@pytest.fixture
def form(friends: Site) -> dict[str, str]:
    page = friends.get("/", Accept="text/html").cookies()["_xsrf"]
    return {"Content_Type": "application/x-www-form-urlencoded", "Cookie": f"_xsrf={page}", "X_XSRFToken": page}


_PIECES = st.sampled_from(
    ["/", "\\", "//", "evil.example", ".", "..", "@", ":", "?", "#", "\t", "\n", "%2f", "%5c", "https:", " "]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(_PIECES, min_size=1, max_size=5).map("".join))
@example("//evil.example")
@example("/\\evil.example")
@example("/\t/evil.example")
@example("https://evil.example")
@example("javascript:alert(1)")
def test_a_form_leads_back_into_the_pool_alone(friends: Site, form: dict[str, str], back: str) -> None:
    body = urlencode({"language": "en", "_back": back}).encode()
    answer = friends.request("POST", "/language", body=body, **form)
    assert answer.status == 303
    told = answer.headers["Location"]
    # as browsers read an address: backslashes are slashes, tabs and line ends are nothing
    read = told.replace("\\", "/").translate({9: None, 10: None, 13: None}).strip()
    assert urlsplit(urljoin("https://pool.example/x", read)).netloc == "pool.example"
