"""Friends mode: the door, keys, sessions, and who may do what."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest

from tests.web.pool import ADMIN, CODE, exchange
from tests.web.site import Answer, Site

WORDS = "correct horse battery"


def enter(site: Site, name: str = "Ada") -> Answer:
    return site.post("/api/friend/login", {"code": CODE, "name": name, "passphrase": WORDS})


class Browser:
    """A signed-in browser: cookies and the page's token go along."""

    def __init__(self, site: Site, entered: Answer) -> None:
        self.site, self.cookies = site, entered.cookies()
        page = self.get("/settings" if "admin" in entered.text else "/", Accept="text/html")
        self.cookies |= page.cookies()
        self.token = page.text.partition('name="xsrf" content="')[2].partition('"')[0]

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def get(self, path: str, **headers: str) -> Answer:
        return self.site.get(path, Cookie=self.cookie, **headers)

    def send(self, method: str, path: str, body: object = None) -> Answer:
        sent = {} if body is None else body
        return self.site.request(method, path, json_body=sent, Cookie=self.cookie, X_XSRFToken=self.token)


def test_the_first_entry_makes_a_person_a_session_and_a_key(friends: Site) -> None:
    answer = enter(friends)
    body = answer.json()
    assert (answer.status, body["is_new"], body["user"]["name"]) == (200, True, "Ada")
    assert friends.get("/status", Authorization=f"Bearer {body['key']}").status == 200
    cookie = next(line for line in answer.headers.get_all("Set-Cookie") or [] if line.startswith("pool_session="))
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    again = friends.post("/api/friend/login", {"name": "ada", "passphrase": WORDS}).json()
    assert (again["is_new"], again["user"]) == (False, body["user"])
    assert "key" not in again
    assert friends.post("/api/friend/login", {"key": body["key"]}).json()["user"] == body["user"]


def test_the_session_cookie_is_secure_only_behind_a_trusted_proxy_that_says_https(friends: Site) -> None:
    def flags(**headers: Any) -> str:
        sent = {"name": "Ada", "passphrase": WORDS}
        answer = friends.request("POST", "/api/friend/login", json_body=sent, **headers)
        return "; ".join(line for line in answer.headers.get_all("Set-Cookie") or [] if "pool_session" in line)

    enter(friends)
    assert "Secure" not in flags(X_Forwarded_Proto="https")
    friends.ctx.settings.trusted_proxies.append("127.0.0.0/8")
    assert "Secure" in flags(X_Forwarded_Proto="https")


def test_what_is_wrong_is_said_plainly_and_throttled(friends: Site) -> None:
    wrong = friends.post("/api/friend/login", {"code": "drown", "name": "Eve", "passphrase": WORDS})
    assert (wrong.status, wrong.json()["error"]["code"]) == (401, "bad_login")
    for _ in range(4):
        friends.post("/api/friend/login", {"code": "drown", "name": "Eve", "passphrase": WORDS})
    banned = friends.request(
        "POST",
        "/api/friend/login",
        json_body={"code": CODE, "name": "Eve", "passphrase": WORDS},
        X_Forwarded_For="203.0.113.7",
    )
    assert banned.status == 429
    assert int(banned.headers["Retry-After"]) > 0
    page = friends.get("/", Accept="text/html")
    cookie, token = page.cookies()["_xsrf"], re.findall(r'name="_xsrf" value="([^"]+)"', page.text)[0]
    form = f"_xsrf={token}&code={CODE}&name=Eve&passphrase=x".encode()
    headers = {"Content_Type": "application/x-www-form-urlencoded", "Cookie": f"_xsrf={cookie}"}
    door = friends.request("POST", "/api/friend/login", body=form, Accept="text/html", **headers)
    assert door.status == 429
    assert 'role="alert"' in door.text
    assert "You can try again" in door.text


def test_a_code_in_the_query_is_ignored(friends: Site) -> None:
    answer = friends.post(f"/api/friend/login?code={CODE}", {"name": "Eve", "passphrase": WORDS})
    assert answer.status == 401


def test_the_door_takes_a_plain_form_and_shows_the_first_key_once(friends: Site) -> None:
    page = friends.get("/", Accept="text/html")
    assert "Blue pool" in page.text
    assert "Swim at your own pace." in page.text
    cookie, token = page.cookies()["_xsrf"], re.findall(r'name="_xsrf" value="([^"]+)"', page.text)[0]
    form = f"_xsrf={token}&code={CODE}&name=Ada&passphrase=correct+horse+battery".encode()
    headers = {"Content_Type": "application/x-www-form-urlencoded", "Cookie": f"_xsrf={cookie}"}
    entered = friends.request("POST", "/api/friend/login", body=form, **headers)
    assert entered.status == 200
    key = re.search(r'id="first-key">([^<]+)<', entered.text)
    assert key is not None
    assert friends.get("/status", Authorization=f"Bearer {key[1]}").status == 200
    assert entered.text.count(key[1]) > 4  # it is in the lines to copy as well
    later = friends.get("/", Cookie=f"pool_session={entered.cookies()['pool_session']}")
    assert key[1] not in later.text
    forged = friends.request("POST", "/api/friend/login", body=form.replace(b"_xsrf", b"none"), **headers)
    assert forged.status == 403


def test_a_friend_sees_only_what_is_a_friends(friends: Site) -> None:
    ada = Browser(friends, enter(friends))
    me = ada.get("/api/me").json()
    assert (me["user"]["name"], [key["label"] for key in me["keys"]]) == ("Ada", ["first key"])
    api = ("/admin/accounts", "/admin/pool-users", "/admin/audit", "/metrics")
    for path in (*api, "/accounts", "/people", "/settings"):
        assert ada.get(path).status == 403, path
    assert ada.send("POST", "/admin/reload").status == 403
    home = ada.get("/", Accept="text/html").text
    assert "claude:work" not in home
    assert 'href="/people"' not in home


@pytest.mark.parametrize(
    "path",
    ["/api/me", "/api/me/requests", "/api/live", "/status", "/metrics", "/admin/accounts", "/admin/pool-users",
     "/admin/pool-users/u_1", "/admin/codes", "/admin/audit", "/accounts", "/people", "/audit", "/settings"],
)  # fmt: skip
def test_nobody_gets_nothing(friends: Site, path: str) -> None:
    assert friends.get(path).status == 401
    assert friends.get(path, Cookie="pool_session=forged").status == 401
    assert friends.get(path, Authorization="Bearer nonsense").status in (401, 429)


def test_a_pool_key_opens_the_status_and_nothing_of_the_pages(friends: Site) -> None:
    key = enter(friends).json()["key"]
    bearer = f"Bearer {key}"
    assert friends.get("/status", Authorization=bearer).status == 200
    for path in ("/api/me", "/admin/accounts", "/people"):
        assert friends.get(path, Authorization=bearer).status == 403, path
    assert friends.get("/", Accept="text/html", Authorization=bearer).text.count("Friend code") == 1


def test_keys_are_made_listed_and_revoked_by_their_owner_alone(friends: Site) -> None:
    ada, eve = Browser(friends, enter(friends)), Browser(friends, enter(friends, "Eve"))
    made = ada.send("POST", "/api/keys", {"label": "laptop"})
    assert (made.status, made.json()["label"]) == (200, "laptop")
    listed = ada.get("/api/me").text
    assert made.json()["key"] not in listed
    assert eve.send("DELETE", f"/api/keys/{made.json()['id']}").status == 404
    assert ada.send("DELETE", f"/api/keys/{made.json()['id']}").status == 200
    assert friends.get("/status", Authorization=f"Bearer {made.json()['key']}").status == 401


def test_every_change_by_session_needs_the_token(friends: Site) -> None:
    ada = Browser(friends, enter(friends))
    for method, path in (("POST", "/api/keys"), ("DELETE", "/api/keys/x"), ("POST", "/api/setup-tickets"),
                         ("POST", "/api/me/passphrase"), ("POST", "/api/friend/logout")):  # fmt: skip
        answer = friends.request(method, path, json_body={}, Cookie=ada.cookie)
        assert (answer.status, answer.json()["error"]["code"]) == (403, "xsrf"), path


def test_signing_out_ends_the_session(friends: Site) -> None:
    ada = Browser(friends, enter(friends))
    assert ada.send("POST", "/api/friend/logout").json() == {"signed_out": True}
    assert ada.get("/api/me").status == 401


def test_a_new_passphrase_signs_other_browsers_out(friends: Site) -> None:
    ada = Browser(friends, enter(friends))
    other = friends.post("/api/friend/login", {"name": "Ada", "passphrase": WORDS}).cookies()["pool_session"]
    changed = ada.send("POST", "/api/me/passphrase", {"current": WORDS, "new": "staple gun and paper"})
    assert changed.status == 200
    assert friends.get("/api/me", Cookie=f"pool_session={other}").status == 401
    assert friends.get("/api/me", Cookie=f"pool_session={changed.cookies()['pool_session']}").status == 200


def test_own_requests_come_with_what_to_do(friends: Site) -> None:
    entered = enter(friends)
    ada = Browser(friends, entered)
    user = entered.json()["user"]["id"]
    message = "every claude account is out of room"
    refused: dict[str, Any] = {"status": 429, "outcome": "exhausted", "message": message}
    for record in (exchange(user, 0), exchange(user, 1, **refused)):
        friends.run(partial(friends.ctx.ledger.record, record))
    friends.run(lambda: friends.ctx.ledger.record(exchange("somebody-else")))
    rows = ada.get("/api/me/requests").json()["requests"]
    assert [row["words"] for row in rows] == ["no headroom left", "answered"]
    assert "account" not in rows[0]
    home = ada.get("/", Accept="text/html").text
    assert message in home
    assert rows[0]["advice"] in home


def test_the_admin_comes_in_by_password_only(friends: Site) -> None:
    assert friends.get("/admin/accounts", Authorization=f"Bearer {ADMIN}").status == 200
    assert friends.get("/admin/accounts", Authorization="Bearer wrong").status == 401
    assert friends.post("/admin", {"password": "wrong"}).status == 401
    entered = friends.post("/admin", {"password": ADMIN})
    admin = Browser(friends, entered)
    assert admin.get("/people", Accept="text/html").status == 200
    home = admin.get("/", Accept="text/html")
    assert (home.status, "Set up your own client" in home.text) == (200, True)
    assert friends.get("/people", Accept="text/html").headers["Location"] == "/admin"


def test_the_admin_makes_limits_disables_and_deletes_people(friends: Site) -> None:
    admin = Browser(friends, friends.post("/admin", {"password": ADMIN}))
    made = admin.send("POST", "/admin/pool-users", {"name": "Linus", "limits": {"tokens_day": 5000}}).json()
    path = f"/admin/pool-users/{made['id']}"
    assert friends.get("/status", Authorization=f"Bearer {made['key']}").status == 200
    assert admin.send("PATCH", path, {"limits": {"tokens_day": None}, "note": "pays"}).json()["note"] == "pays"
    assert admin.send("PATCH", path, {"limits": {"tokens": 1}}).status == 400
    assert admin.send("PATCH", path, {"disabled": True}).json()["state"] == "disabled"
    assert friends.get("/status", Authorization=f"Bearer {made['key']}").status == 403
    assert admin.send("POST", f"{path}/enable").json()["state"] == "active"
    fresh = admin.send("POST", f"{path}/rotate").json()
    assert friends.get("/status", Authorization=f"Bearer {made['key']}").status == 401
    assert friends.get("/status", Authorization=f"Bearer {fresh['key']}").status == 200
    assert admin.send("DELETE", f"{path}/keys/{fresh['id']}").json() == {"revoked": fresh["id"]}
    assert admin.send("DELETE", path).json() == {"deleted": made["id"]}
    assert admin.send("DELETE", path).status == 404
    assert admin.get(f"/people/{made['id']}", Accept="text/html").status == 200
    actions = [row["action"] for row in admin.get(f"/admin/audit?target={made['id']}").json()["rows"]]
    assert actions == ["user.delete", "key.rotate", "user.enable", "user.disable", "user.change", "user.create"]
    assert made["key"] not in admin.get("/admin/audit").text


def test_a_personal_code_lets_in_as_many_as_it_says(friends: Site) -> None:
    admin = Browser(friends, friends.post("/admin", {"password": ADMIN}))
    made = admin.send("POST", "/admin/codes", {"label": "for Bob", "uses": 1}).json()
    come = {"code": made["code"], "passphrase": WORDS}
    assert friends.post("/api/friend/login", {**come, "name": "Bob"}).status == 200
    assert friends.post("/api/friend/login", {**come, "name": "Alice"}).status == 401
    listed = admin.get("/admin/codes").json()["codes"]
    assert [(code["label"], code["state"]) for code in listed] == [("for Bob", "used up")]
    assert made["code"] not in admin.get("/people", Accept="text/html").text
    assert admin.send("DELETE", f"/admin/codes/{made['id']}").status == 200


def test_a_disabled_friends_session_ends(friends: Site) -> None:
    ada = Browser(friends, enter(friends))
    user = ada.get("/api/me").json()["user"]["id"]
    friends.post(f"/admin/pool-users/{user}/disable", Authorization=f"Bearer {ADMIN}")
    assert ada.get("/api/me").status == 401
    assert "Friend code" in ada.get("/", Accept="text/html").text


def test_pages_of_the_operator_show_no_secret(friends: Site) -> None:
    admin = Browser(friends, friends.post("/admin", {"password": ADMIN}))
    for path in ("/accounts", "/people", "/audit", "/settings", "/status"):
        page = admin.get(path, Accept="text/html")
        assert page.status == 200, path
        for secret in (ADMIN, "FAKE", f">{CODE}<"):
            assert secret not in page.text, (path, secret)
        assert "style=" not in page.text
        assert "<script>" not in page.text


def test_the_settings_page_names_every_setting_and_where_it_is_from(friends: Site) -> None:
    page = friends.get("/settings", Authorization=f"Bearer {ADMIN}").text
    for key in ("listen_addr", "admin_password", "friends_see", "short_percent"):
        assert f">{key}</span>" in page, key
    row = (
        r'<span class="mono">(\w+)</span><br>.*?<span class="mono[^>]*>([^<]*)<.*?data-label="From"[^>]*><span>([^<]*)<'
    )
    rows = {name: (value, origin) for name, value, origin in re.findall(row, page, re.S)}
    assert rows["friend_code"] == ("set", "Changed: file")
    assert rows["jwt_secret"] == ("not set", "default")
    assert rows["friend_tagline"] == ("Swim at your own pace.", "Changed: set at the start")
