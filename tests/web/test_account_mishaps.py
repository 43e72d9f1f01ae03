"""What goes wrong around accounts: two people at once, a browser closed in the middle, a vendor that is not there, and
more accounts than anybody looks through."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import account, key_account
from tests.fakes.openai_auth import FakeSignInService
from tests.web.server import Running, running
from tests.web.test_contributing import invited, me, session
from tests.web.test_sign_ins import person

MANY = 10_000
ASKED = {"provider": "codex", "flow": "browser", "consent": True}


@pytest.fixture
def vendor() -> Iterator[FakeSignInService]:
    with FakeSignInService() as made:
        yield made


@pytest.fixture
def pool(tmp_path: Path, vendor: FakeSignInService) -> Iterator[Running]:
    with running(tmp_path, [account("claude:work")], sign_in=vendor.urls(), codex_tokens=vendor.origin) as made:
        yield made


def test_two_people_who_sign_in_at_once_each_get_their_own(pool: Running, vendor: FakeSignInService) -> None:
    names = ("ada", "bob")
    people = {name: session(pool, name.title(), invited(pool, provider="codex")) for name in names}
    began = {name: pool.ask("POST", "/api/sign-ins", {**ASKED, "name": name}, **people[name])[1] for name in names}
    addresses = {name: vendor.consent(began[name]["url"], pool.fakes.add(person(name))) for name in names}
    vendor.gate = threading.Event()  # both codes are with the vendor at the same time
    ended: dict[str, Any] = {}

    def paste(name: str) -> None:
        one = f"/api/sign-ins/{began[name]['id']}"
        ended[name] = pool.ask("POST", one, {"code": addresses[name]}, **people[name])[1]

    threads = [threading.Thread(target=paste, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    while sum(path == "/oauth/token" for path, _ in list(vendor.calls)) < 2:
        threading.Event().wait(0.01)
    vendor.gate.set()
    for thread in threads:
        thread.join(30)
    for name in names:
        assert ended[name]["state"] == "done", ended
        file = pool.file(f"codex_{name}.json")
        assert file["owner"] == me(pool, people[name])
        assert file["tokens"]["access_token"] == pool.fakes.accounts[f"codex:{name}"].access


def test_a_browser_closed_in_the_middle_loses_nothing(pool: Running, vendor: FakeSignInService) -> None:
    ada = session(pool, "Ada", invited(pool, provider="codex"))
    made = pool.ask("POST", "/api/sign-ins", {**ASKED, "name": "ada"}, **ada)[1]
    address = vendor.consent(made["url"], pool.fakes.add(person("ada")))
    assert pool.ask("POST", "/api/friend/logout", {}, **ada)[0] in (200, 204, 303)
    one = f"/api/sign-ins/{made['id']}"
    assert pool.ask("POST", one, {"code": address}, **ada)[0] in (401, 403), "the old browser is nobody"
    back = session(pool, "Ada", "")
    assert pool.ask("GET", one, **back)[1]["state"] == "waiting"
    assert pool.ask("POST", one, {"code": address}, **back)[1]["state"] == "done"
    assert pool.file("codex_ada.json")["owner"] == me(pool, back)


def test_a_preset_whose_host_is_down_is_told_and_not_kept(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with running(tmp_path, [key_account("openai:key")], presets=("kimi",)) as pool:
        body = {"name": "home", "provider": "vllm", "models": "m"}  # this machine's port, where nothing listens
        status, said = pool.ask("POST", "/admin/accounts", body)
        assert (status, said["error"]["code"]) == (422, "test_failed"), said
        assert "refused" in said["error"]["message"] or "reachable" in said["error"]["message"]
        body = {
            "name": "gone",
            "provider": "openai",
            "api_key": "sk-somewhere-else",
            "base_url": nowhere,
            "models": "m",
        }
        assert pool.ask("POST", "/admin/accounts", body)[0] == 422
        assert list(pool.pool.glob("*.json")) == []
        body = {"provider": "openai", "api_key": pool.fakes.accounts["openai:key"].access, "name": "there"}
        assert pool.ask("POST", "/admin/accounts", body)[0] == 201, "others are not affected"


def test_ten_thousand_accounts(tmp_path: Path) -> None:
    """They are taken in, served from, listed page by page, and one more is added."""
    (tmp_path / "pool").mkdir()
    for number in range(MANY):
        data = {"api_key": f"sk-none-{number:05}", "base_url": "http://127.0.0.1:9/v1", "models": ["of-others"]}
        path = tmp_path / "pool" / f"openai_n{number:05}.json"
        path.write_text(json.dumps(data))
        path.chmod(0o600)
    with running(tmp_path, [account("claude:work", used_5h=20, used_7d=30)]) as pool:
        assert len(pool.ask("GET", "/admin/accounts")[1]["accounts"]) == MANY
        new = {"name": "w", "credential": pool.fakes.accounts["claude:work"].file(), "consent": True}
        assert pool.ask("POST", "/admin/accounts", new)[0] == 201
        key = pool.ask("POST", "/admin/pool-users", {"name": "Ada"})[1]["key"]
        body = {"model": "claude-sonnet-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
        assert pool.ask("POST", "/v1/messages", body, Authorization=f"Bearer {key}")[0] == 200
        status, page = pool.ask("GET", "/accounts", Accept="text/html")
        assert status == 200 and len(page) < 2_000_000, "a page, not all of them"
        page = pool.ask("GET", "/accounts?q=n04999", Accept="text/html")[1]
        assert "openai:n04999" in page and "openai:n05000" not in page
