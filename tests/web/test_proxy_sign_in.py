"""People and the operator by a header of a trusted proxy: from it alone, once, and for no longer than it says."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from pool_server.core.settings import ConfigError, PoolUsers, Settings, SingleSignOn
from pool_server.core.settings_file import load
from tests.web.pool import ADMIN
from tests.web.site import Answer, Site

SSO = SingleSignOn(
    user_header="X-Forwarded-User", people=["*@example.org", "*@dept.example.org"], operators=["Boss@example.org"]
)
BEHIND = Settings(
    friend_code="swim", pool_users=PoolUsers(admin_password=ADMIN), trusted_proxies=["127.0.0.1"], single_sign_on=SSO
)
BEHIND_NOBODY = msgspec.structs.replace(BEHIND, trusted_proxies=["10.0.0.0/8"])
pool = pytest.mark.pool


def see(site: Site, who: str, path: str = "/api/me", **headers: Any) -> Answer:
    return site.get(path, X_Forwarded_User=who, **headers)


@pool(BEHIND)
def test_somebody_whom_the_settings_let_in_becomes_a_person_and_stays_the_same(site: Site) -> None:
    first = see(site, "ada@example.org").json()
    assert (first["user"]["name"], first["keys"]) == ("ada", [])
    assert see(site, "ada@example.org").json()["user"] == first["user"]
    other = see(site, "ada@dept.example.org").json()
    assert other["user"]["name"] == "ada 2" and other["user"]["id"] != first["user"]["id"]
    page = see(site, "ada@example.org", "/", Accept="text/html")
    assert page.status == 200 and "Your keys" in page.text
    assert see(site, "ada@example.org", "/people").status == 403
    boss = see(site, "boss@EXAMPLE.org", "/admin/audit?action=user.create").json()["rows"]
    assert {row["detail"]["via"] for row in boss} == {"single_sign_on"}


@pool(BEHIND)
def test_the_operator_is_named_whole(site: Site) -> None:
    assert see(site, "boss@example.org", "/admin/accounts").status == 200
    assert "accounts" in see(site, "boss@example.org", "/accounts", Accept="text/html").text
    for other in ("boss@example.or", "xboss@example.org", "*", "boss@example.org.evil.example"):
        assert see(site, other, "/admin/accounts").status in (401, 403)


@pool(BEHIND)
@pytest.mark.parametrize("who", ["eve@evil.example", "ada@example.org.evil.example", "admin", "local"])
def test_somebody_whom_they_do_not_is_told_so_and_no_person_is_made(site: Site, who: str) -> None:
    refused = see(site, who)
    assert (refused.status, "does not know you" in refused.text) == (403, True)
    assert site.ctx.users.people.list_users()[0] == []
    door = see(site, who, "/", Accept="text/html")
    assert (door.status, "does not know you" in door.text, "Friend code" in door.text) == (403, True, True)


@pool(BEHIND)
@pytest.mark.parametrize(
    "values",
    [[], [""], ["  "], ["ada@example.org", "boss@example.org"], ["ada@example.org,boss@example.org"], ["x" * 300]],
)
def test_a_header_that_is_absent_empty_or_doubled_signs_nobody_in(site: Site, values: list[str]) -> None:
    lines = "".join(f"X-Forwarded-User: {value}\r\n" for value in values)
    assert site.run(lambda: raw(site.port, lines)).startswith(b"HTTP/1.1 401")


@pool(BEHIND_NOBODY)
def test_from_anybody_else_the_header_says_nothing(site: Site) -> None:
    for who in ("ada@example.org", "boss@example.org"):
        assert see(site, who).status == 401
        assert see(site, who, "/admin/accounts", X_Forwarded_For="10.0.0.1").status == 401


def test_without_the_setting_no_header_counts(friends: Site) -> None:
    assert see(friends, "boss@example.org").status == 401


@pool(BEHIND)
def test_nothing_outlives_what_the_proxy_says(site: Site) -> None:
    answer = see(site, "ada@example.org", "/", Accept="text/html")
    cookies = "; ".join(f"{name}={value}" for name, value in answer.cookies().items())
    assert "pool_session" not in cookies
    assert site.get("/api/me", Cookie=cookies).status == 401


@pool(BEHIND)
def test_what_another_sites_page_asks_for_is_refused(site: Site) -> None:
    page = see(site, "ada@example.org", "/", Accept="text/html")
    token = page.text.partition('name="xsrf" content="')[2].partition('"')[0]
    cookies = "; ".join(f"{name}={value}" for name, value in page.cookies().items())
    asked = {"X_Forwarded_User": "ada@example.org", "Cookie": cookies}
    assert site.post("/api/keys", {"label": "x"}, **asked).status == 403
    assert (
        site.post("/api/keys", {"label": "x"}, **asked, X_XSRFToken=token, Origin="https://evil.example").status == 403
    )
    assert site.post("/api/keys", {"label": "x"}, **asked, X_XSRFToken=token).status == 200


@pool(BEHIND)
def test_a_name_taken_at_the_door_is_not_theirs_and_one_the_operator_made_is(site: Site) -> None:
    site.post("/api/friend/login", {"code": "swim", "name": "ada@example.org", "passphrase": "correct horse"})
    assert see(site, "ada@example.org").json()["user"]["name"] == "ada"
    bearer = {"Authorization": f"Bearer {ADMIN}"}
    made = site.post("/admin/pool-users", {"name": "bo.b@example.org", "limits": {"tokens_day": 5}}, **bearer).json()
    assert see(site, "bob@example.org").json()["user"]["id"] != made["id"]  # looks alike, and is another
    mine = see(site, "Bo.B@example.org").json()
    assert (mine["user"]["id"], mine["limits"]["tokens_day"]) == (made["id"], 5)


@pool(BEHIND)
def test_who_was_switched_off_stays_out_and_who_was_deleted_begins_anew(site: Site) -> None:
    user = see(site, "ada@example.org").json()["user"]["id"]
    boss = {"X_Forwarded_User": "boss@example.org"}
    place = f"/admin/pool-users/{user}"
    page = site.get("/people", Accept="text/html", **boss)
    asked: dict[str, Any] = {
        "Cookie": "; ".join(f"{name}={value}" for name, value in page.cookies().items()),
        "X_XSRFToken": page.text.partition('name="xsrf" content="')[2].partition('"')[0],
        **boss,
    }
    assert site.post(f"{place}/disable", **asked).status == 200
    assert see(site, "ada@example.org").status == 403
    assert site.request("DELETE", place, **asked).status == 200
    assert see(site, "ada@example.org").json()["user"]["id"] != user


@pool(BEHIND)
def test_a_key_stays_the_keys_own(site: Site) -> None:
    entered = site.post("/api/friend/login", {"code": "swim", "name": "Cy", "passphrase": "correct horse"}).json()
    answer = site.get("/status", Authorization=f"Bearer {entered['key']}", X_Forwarded_User="boss@example.org")
    assert answer.status == 200
    refused = site.get("/admin/accounts", Authorization=f"Bearer {entered['key']}", X_Forwarded_User="boss@example.org")
    assert refused.status == 403


@pytest.mark.parametrize(
    "name", ["Cookie", "Authorization", "host", "X-Forwarded-For", "Sec-Fetch-Site", "a b", "é", "X:"]
)
def test_a_header_that_says_something_else_cannot_be_it(tmp_path: Any, name: str) -> None:
    (tmp_path / "config.toml").write_text(f'[single_sign_on]\nuser_header = "{name}"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="user_header"):
        load(tmp_path / "config.toml", {})


async def raw(port: int, lines: str) -> bytes:
    """The first line of an answer to a request with these very header lines."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /api/me HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}Connection: close\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line
