"""Local mode on a machine that several people use: only whoever has the token is served."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from pool_server.core.settings import ConfigError, PoolUsers, Settings
from pool_server.core.settings_file import load
from pool_server.web.base.handler import Access
from pool_server.web.routes import TABLE
from tests.fakes import account
from tests.gateway.stack import Stack, messages, run
from tests.web.site import Site

TOKEN = "a-long-word-of-my-own"


pytestmark = pytest.mark.pool(Settings(local_token=TOKEN))


@pytest.fixture
def asking(site: Site) -> Site:
    return site


WITHOUT: tuple[dict[str, Any], ...] = (
    {},
    {"Authorization": "Bearer wrong"},
    {"Cookie": "pool_session=x.y"},
    {"Authorization": "Bearer local"},
)
WITH: tuple[dict[str, Any], ...] = ({"Authorization": f"Bearer {TOKEN}"}, {"X-Api-Key": TOKEN})


@pytest.mark.slow
def test_no_page_and_no_route_is_anybodys(asking: Site) -> None:
    for headers in WITHOUT:
        for path in ("/api/me", "/admin/accounts", "/metrics", "/status", "/accounts", "/analytics", "/settings"):
            assert asking.get(path, **headers).status == 401, path
        home = asking.get("/", **headers)
        assert (home.status, home.headers["Location"]) == (303, "/admin")
        assert asking.request("POST", "/admin/reload", **headers).status == 401
    for path, handler in TABLE:
        if handler.access is not Access.OPEN and not re.search(r"[(\[\\]", path):
            assert asking.get(path).status in (401, 405), path


def test_the_token_in_a_header_gives_all(asking: Site) -> None:
    for headers in WITH:
        assert asking.get("/admin/accounts", **headers).status == 200
        assert asking.get("/api/me", **headers).json()["user"]["id"] == "local"
        assert asking.request("POST", "/admin/reload", **headers).status == 200


def signed_in(site: Site) -> str:
    page = site.get("/admin")
    assert "local_token" in page.text
    token = page.cookies()["_xsrf"]
    body = urlencode({"_xsrf": token, "password": TOKEN}).encode()
    kind = "application/x-www-form-urlencoded"
    answer = site.request("POST", "/admin", body=body, Content_Type=kind, Cookie=f"_xsrf={token}")
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    return f"pool_session={answer.cookies()['pool_session']}"


def test_the_pages_are_entered_with_it(asking: Site) -> None:
    assert asking.post("/admin", {"password": "x"}).status == 401
    cookie = signed_in(asking)
    assert asking.get("/accounts", Cookie=cookie).status == 200
    assert asking.request("POST", "/admin/reload", Cookie=cookie).status == 403, "without the page's token"
    home = asking.get("/", Cookie=cookie)
    assert home.status == 200
    assert TOKEN in unescape(home.text), "the lines carry it"
    asking.run(lambda: setattr(asking.ctx, "settings", Settings(local_token="another")))
    asking.run(lambda: asking.ctx.users.reload(Settings(local_token="another", data_dir=str(asking.ctx.users._folder))))
    assert asking.get("/accounts", Cookie=cookie).status == 401, "a session ends with the token it was opened with"


def test_a_script_that_holds_the_token_is_had_by_a_ticket_of_the_page(asking: Site) -> None:
    assert TOKEN not in asking.get("/setup/local/claude").text
    home = unescape(asking.get("/", Cookie=signed_in(asking)).text)
    found = re.search(r"/setup/([A-Za-z0-9_-]{20,})/claude", home)
    assert found is not None
    assert TOKEN in asking.get(f"/setup/{found[1]}/claude").text
    now = asking.ctx.clock()
    asking.ctx.clock = lambda: now + 1201
    assert TOKEN not in asking.get(f"/setup/{found[1]}/claude").text


@pytest.mark.pool(Settings())
def test_without_a_token_this_machine_is_served_as_before(local: Site) -> None:
    assert local.get("/admin/accounts").status == 200
    assert local.get("/setup/local/claude").status == 200


def test_the_data_plane_asks_for_it_too(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")], local_token=TOKEN) as stack:
            for wrong in ({}, {"Authorization": "Bearer local"}, {"X_Api_Key": TOKEN[:-1]}):
                status, answer = await stack.post("/v1/messages", messages(), **wrong)
                assert status == 401
                assert "local_token" in json.loads(answer)["error"]["message"]
            assert stack.fakes.made() == []
            for right in ({"Authorization": f"Bearer {TOKEN}"}, {"X_Api_Key": TOKEN}, {"X_Goog_Api_Key": TOKEN}):
                assert (await stack.post("/v1/messages", messages(), **right))[0] == 200
            assert all(TOKEN not in str(call.headers) for call in stack.fakes.made())
            assert (await stack.post("/ps/mcp", {"method": "ping", "id": 1}))[0] == 200

    run(test)


def test_friends_mode_has_no_use_for_it() -> None:
    both = Settings(local_token=TOKEN, friend_code="swim")
    assert both.operator_password == ""
    assert Settings(local_token=TOKEN, pool_users=PoolUsers(admin_password="x")).operator_password == "x"
    assert Settings(local_token=TOKEN).operator_password == TOKEN
    assert TOKEN not in repr(Settings(local_token=TOKEN))


@pytest.mark.parametrize("bad", ["two words", "tab\there", "ümlaut", "$2b$10$hash", "x" * 201])
def test_a_token_that_no_header_carries_is_a_mistake(bad: str) -> None:
    assert load(None, {"POOL_LOCAL_TOKEN": TOKEN}).settings.local_token == TOKEN
    with pytest.raises(ConfigError) as told:
        load(None, {"POOL_LOCAL_TOKEN": bad})
    assert bad not in str(told.value)
