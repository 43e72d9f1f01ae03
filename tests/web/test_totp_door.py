"""The operator's sign-in with an authenticator app: each code once, and no way around it."""

from __future__ import annotations

import asyncio
import base64

import msgspec
import pytest

from pool_server.core.settings import PoolUsers, Settings
from pool_server.users.identity.passwords import totp
from tests.web.pool import ADMIN
from tests.web.site import Site

SECRET = base64.b32encode(b"12345678901234567890").decode()
WITH_APP = Settings(friend_code="swim", pool_users=PoolUsers(admin_password=ADMIN, admin_totp=SECRET))


def code(site: Site, near: int = 0) -> str:
    return totp(SECRET, int(site.ctx.clock() // 30) + near)


@pytest.mark.pool(WITH_APP)
def test_the_password_alone_opens_nothing_and_a_code_opens_once(site: Site) -> None:
    assert "authenticator app" in site.get("/admin").text
    for wrong in ({}, {"totp": ""}, {"totp": "12345"}):
        told = site.post("/admin", {"password": ADMIN, **wrong})
        assert (told.status, told.cookies().get("pool_session")) == (401, None)
    now = code(site)
    assert site.post("/admin", {"password": "another", "totp": now}).status == 401
    opened = site.post("/admin", {"password": ADMIN, "totp": now})
    assert opened.status == 200
    assert site.post("/admin", {"password": ADMIN, "totp": now}).status in (401, 429), "each code once"


@pytest.mark.pool(WITH_APP)
def test_as_a_bearer_the_password_works_on_this_machine_alone(site: Site) -> None:
    bearer = {"Authorization": f"Bearer {ADMIN}"}
    assert site.get("/admin/accounts", **bearer).status == 200
    for elsewhere in ({"X_Forwarded_For": "203.0.113.9"}, {"Host": "pool.example"}):
        refused = site.get("/admin/accounts", **bearer, **elsewhere)
        assert refused.status == 401
        assert "own machine only" in refused.text


def test_without_a_secret_nothing_is_asked(friends: Site) -> None:
    assert "authenticator" not in friends.get("/admin").text
    assert friends.post("/admin", {"password": ADMIN}).status == 200


def test_a_session_from_before_there_was_a_code_has_ended(friends: Site) -> None:
    cookie = {"pool_session": friends.post("/admin", {"password": ADMIN}).cookies()["pool_session"]}
    sign_in = friends.ctx.users.sign_in
    assert asyncio.run(friends.ctx.users.sessions.find(cookie["pool_session"])) is not None
    sign_in.settings = msgspec.structs.replace(sign_in.settings, pool_users=WITH_APP.pool_users)
    assert asyncio.run(friends.ctx.users.sessions.find(cookie["pool_session"])) is None
