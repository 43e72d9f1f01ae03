"""Friends bring accounts of their own on an invitation, and take them out again; nobody else has a hand in them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.web.base.shared import public_address
from tests.fakes import account, key_account
from tests.fakes.openai_auth import FakeSignInService
from tests.web.server import Running, running
from tests.web.test_sign_ins import person, ticket

WORDS = "correct horse battery"


@pytest.fixture
def vendor() -> Iterator[FakeSignInService]:
    with FakeSignInService() as made:
        yield made


@pytest.fixture
def pool(tmp_path: Path, vendor: FakeSignInService) -> Iterator[Running]:
    cast = [account("claude:work", used_5h=20, used_7d=10), key_account("mistral:key"), key_account("openai:key")]
    with running(
        tmp_path, cast, sign_in=vendor.urls(), codex_tokens=vendor.origin, presets=("mistral",)
    ) as made:  # fmt: skip
        yield made


def invited(pool: Running, **more: Any) -> str:
    status, made = pool.ask("POST", "/admin/invitations", {"kind": "account", **more})
    assert status == 201 and made["url"].endswith(f"/?code={made['code']}"), made
    return str(made["code"])


def session(pool: Running, name: str, code: str) -> dict[str, Any]:
    """A friend who joins by a code: the headers of their browser."""
    connection = http.client.HTTPConnection("127.0.0.1", pool.ports[0], timeout=20)
    body = json.dumps({"name": name, "passphrase": WORDS, "code": code})
    connection.request("POST", "/api/friend/login", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    cookies = dict(
        line.partition(";")[0].split("=", 1) for line in answer.headers.get_all("Set-Cookie") or []
    )  # fmt: skip
    answer.read()
    connection.request("GET", "/api/me", headers={"Cookie": f"pool_session={cookies['pool_session']}"})
    answer = connection.getresponse()
    answer.read()
    cookies |= dict(line.partition(";")[0].split("=", 1) for line in answer.headers.get_all("Set-Cookie") or [])
    connection.close()
    return {
        "Authorization": "",
        "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        "X_XSRFToken": cookies["_xsrf"],
    }


def me(pool: Running, who: dict[str, Any]) -> str:
    return str(pool.ask("GET", "/api/me", **who)[1]["user"]["id"])


def test_an_invitation_lets_somebody_join_and_bring_one_account(pool: Running) -> None:
    ada = session(pool, "Ada", invited(pool, provider="claude"))
    file = pool.fakes.accounts["claude:work"].file()
    status, made = pool.ask("POST", "/api/accounts", {"name": "ada", "credential": file}, **ada)
    assert status == 422 and made["error"]["code"] == "consent"
    body = {"name": "ada", "credential": file, "consent": True}
    status, made = pool.ask("POST", "/api/accounts", body, **ada)
    assert status == 201 and made["id"] == "claude:ada", made
    assert pool.file("claude_ada.json")["owner"] == me(pool, ada)
    key = {"provider": "mistral", "api_key": pool.fakes.accounts["mistral:key"].access}
    assert pool.ask("POST", "/api/accounts", key, **ada)[0] == 403, "one account, of that vendor"
    rows = pool.ask("GET", "/api/accounts", **ada)[1]["accounts"]
    assert [row["id"] for row in rows] == ["claude:ada"] and "score" not in rows[0]
    audit = json.dumps(pool.ask("GET", "/admin/audit?action=account.add")[1])
    assert "Anthropic" in audit and pool.fakes.accounts["claude:work"].access not in audit


def test_who_is_in_already_takes_it_up_with_the_code(pool: Running) -> None:
    ada = session(pool, "Ada", "swim")
    key = {"provider": "mistral", "api_key": pool.fakes.accounts["mistral:key"].access, "name": "k"}
    assert pool.ask("POST", "/api/accounts", key, **ada)[0] == 403
    code = invited(pool)
    status, said = pool.ask("POST", "/api/invitations", {"code": "WRONG-WRONG-WRONG-WRONG"}, **ada)
    assert status == 401 and "no invitation has this code" in said["error"]["message"], "no name was asked for"
    assert pool.ask("POST", "/api/invitations", {"code": code}, **ada)[0] == 200
    bob = session(pool, "Bob", "swim")
    assert pool.ask("POST", "/api/invitations", {"code": code}, **bob)[0] == 401, "it is good once"
    assert pool.ask("POST", "/api/accounts", key, **bob)[0] == 403
    assert pool.ask("POST", "/api/accounts", key, **ada)[0] == 201


def test_a_code_for_the_door_invites_nobody_to_contribute(pool: Running) -> None:
    ada = session(pool, "Ada", "swim")
    made = pool.ask("POST", "/admin/invitations", {"kind": "person"})[1]
    assert pool.ask("POST", "/api/invitations", {"code": made["code"]}, **ada)[0] == 401
    assert pool.ask("DELETE", f"/admin/invitations/{made['id']}")[0] == 200


@pytest.mark.parametrize(
    "body",
    [{"kind": "account", "uses": None}, {"kind": "account", "expires_in": None}, {"kind": "account", "expires_in": -1},
     {"kind": "account", "expires_in": 1e12}, {"kind": "other"}, {"kind": "account", "provider": "acme"}],
)  # fmt: skip
def test_an_invitation_that_cannot_be(pool: Running, body: dict[str, Any]) -> None:
    assert pool.ask("POST", "/admin/invitations", body)[0] in (400, 422)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"provider": "openai", "api_key": "sk-123456", "base_url": "http://127.0.0.1:8989/v1"}, "https"),
        ({"provider": "openai", "api_key": "sk-123456", "base_url": "https://127.0.0.1/v1"}, "own network"),
        ({"provider": "openai", "api_key": "sk-123456", "base_url": "https://[::ffff:10.0.0.1]/v1"}, "own network"),
        ({"provider": "openai", "api_key": "sk-123456", "base_url": "https://169.254.169.254/v1"}, "own network"),
        ({"provider": "openai", "api_key": "sk-123456", "base_url": "https://localhost/v1"}, "own network"),
        ({"provider": "openai", "api_key": "sk-123456", "base_url": "https://printer.local/v1"}, "own network"),
        ({"provider": "openai", "api_key": "sk-123456", "base_url": "https://intranet/v1"}, "own network"),
        ({"provider": "ollama"}, "https"),
        ({"provider": "openai", "api_key": "sk-123456", "proxy_url": "http://10.0.0.1:3128"}, "operator alone"),
        ({"provider": "openai", "api_key": "sk-123456", "priority": 1}, "operator alone"),
        ({"credential": {"api_key": "sk-123456", "priority": 1}, "provider": "openai"}, "operator alone"),
        ({"credential": {"api_key": "sk-123456", "proxy_url": "http://h:1"}, "provider": "openai"}, "operator alone"),
    ],
)
def test_what_a_friend_may_not_bring(pool: Running, body: dict[str, Any], words: str) -> None:
    ada = session(pool, "Ada", invited(pool))
    status, said = pool.ask("POST", "/api/accounts?test=0", body, **ada)
    assert status == 422 and words in said["error"]["message"], said
    assert pool.fakes.calls == [] and list(pool.pool.glob("*.json")) == []


def test_a_friend_cannot_give_an_account_to_somebody_else_or_skip_the_test(pool: Running) -> None:
    bob = session(pool, "Bob", "swim")
    ada = session(pool, "Ada", invited(pool))
    file = {**pool.fakes.accounts["mistral:key"].file(), "owner": me(pool, bob)}
    body = {"provider": "mistral", "credential": file, "name": "k"}
    assert pool.ask("POST", "/api/accounts?test=0", body, **ada)[1]["test"]["ok"], "tried all the same"
    assert pool.file("mistral_k.json")["owner"] == me(pool, ada)


def test_only_the_owner_has_a_hand_in_it(pool: Running) -> None:
    ada, bob = session(pool, "Ada", invited(pool)), session(pool, "Bob", "swim")
    body = {"provider": "mistral", "api_key": pool.fakes.accounts["mistral:key"].access, "name": "k"}
    pool.ask("POST", "/api/accounts", body, **ada)
    one = "/api/accounts/mistral:k"
    for method, path, sent in (("PATCH", one, {"label": "x"}), ("DELETE", one, None), ("POST", f"{one}/test", {})):
        assert pool.ask(method, path, sent, **bob)[0] == 404
        assert pool.ask(method, path.replace(":k", ":none"), sent, **ada)[0] == 404
    status, said = pool.ask("PATCH", one, {"reserve": 0.4, "label": "Mine", "models": "devstral-*"}, **ada)
    assert status == 200 and said["account"]["reserve"] == 0.4 and said["account"]["label"] == "Mine"
    wrong: tuple[dict[str, Any], ...] = ({"owner": "Bob"}, {"priority": 1}, {"proxy_url": "http://h"}, {"reserve": 2})
    for changes in wrong:
        assert pool.ask("PATCH", one, changes, **ada)[0] in (400, 422)
    assert pool.ask("POST", f"{one}/test", {}, **ada)[1]["result"]["ok"]


def test_the_next_step_stands_on_its_owners_page_and_the_operators(pool: Running) -> None:
    ada = session(pool, "Ada", invited(pool))
    body = {"provider": "mistral", "api_key": pool.fakes.accounts["mistral:key"].access, "name": "k"}
    pool.ask("POST", "/api/accounts", body, **ada)
    assert pool.ask("GET", "/api/accounts", **ada)[1]["accounts"][0]["next"] == ""
    assert pool.ask("PATCH", "/api/accounts/mistral:k", {"disabled": True}, **ada)[0] == 200
    words = "Turn it on when it is to serve again."
    assert pool.ask("GET", "/api/accounts", **ada)[1]["accounts"][0]["next"] == words
    for path, who in (("/contribute", ada), ("/accounts?id=mistral:k", {})):
        assert words in str(pool.ask("GET", path, **{"Accept": "text/html", **who})[1]), path


def test_withdrawn_at_once_and_its_credential_is_gone(pool: Running) -> None:
    ada = session(pool, "Ada", invited(pool))
    secret = pool.fakes.accounts["mistral:key"].access
    pool.ask("POST", "/api/accounts", {"provider": "mistral", "api_key": secret, "name": "k"}, **ada)
    assert pool.ask("DELETE", "/api/accounts/mistral:k", **ada)[0] == 200
    assert pool.ask("GET", "/admin/accounts")[1]["accounts"] == []
    assert not any(secret.encode() in path.read_bytes() for path in pool.pool.rglob("*") if path.is_file())
    assert pool.ask("POST", "/admin/accounts/mistral:k/restore")[0] == 404
    body = {"model": "mistral-small", "messages": [{"role": "user", "content": "hi"}]}
    key = pool.ask("POST", "/admin/pool-users", {"name": "Cyd"})[1]["key"]
    assert pool.ask("POST", "/mistral/v1/chat/completions", body, Authorization=f"Bearer {key}")[0] in (404, 503)


def test_a_sign_in_of_ones_own_account(pool: Running, vendor: FakeSignInService) -> None:
    ada, bob = session(pool, "Ada", invited(pool, provider="codex")), session(pool, "Bob", invited(pool))
    assert pool.ask("POST", "/api/sign-ins", {"provider": "claude", "consent": True}, **ada)[0] == 403
    assert pool.ask("POST", "/api/sign-ins", {"provider": "codex"}, **ada)[0] == 422, "the words come first"
    asked = {"provider": "codex", "flow": "browser", "consent": True, "name": "ada"}
    status, made = pool.ask("POST", "/api/sign-ins", asked, **ada)
    assert status == 201, made
    who = pool.fakes.add(person("ada"))
    address = vendor.consent(made["url"], who)
    one = f"/api/sign-ins/{made['id']}"
    assert pool.ask("GET", one, **bob)[0] == 404 and pool.ask("POST", one, {"code": address}, **bob)[0] == 404
    after = pool.ask("POST", one, {"code": address}, **ada)[1]
    assert after["state"] == "done" and pool.file("codex_ada.json")["owner"] == me(pool, ada)
    assert pool.ask("POST", "/api/sign-ins", asked, **ada)[0] == 403, "the invitation is used up"
    again = {"provider": "codex", "flow": "browser", "consent": True, "account": "codex:ada"}
    assert pool.ask("POST", "/api/sign-ins", again, **ada)[0] == 201, "one's own may be signed in again"
    assert pool.ask("POST", "/api/sign-ins", again, **bob)[0] == 404


def test_another_persons_account_is_not_taken_by_a_sign_in(pool: Running, vendor: FakeSignInService) -> None:
    who = pool.fakes.add(person("ada", workspace="w", user="u"))
    pool.ask("POST", "/admin/accounts", {"name": "pools", "credential": who.file()})
    before = (pool.pool / "codex_pools.json").read_bytes()
    bob = session(pool, "Bob", invited(pool))
    made = pool.ask("POST", "/api/sign-ins", {"provider": "codex", "flow": "browser", "consent": True}, **bob)[1]
    again = pool.fakes.add(person("ada2", workspace="w", user="u", token=1))
    after = pool.ask("POST", f"/api/sign-ins/{made['id']}", {"code": vendor.consent(made["url"], again)}, **bob)[1]
    assert (after["state"], after["code"]) == ("failed", "not_yours"), after
    assert (pool.pool / "codex_pools.json").read_bytes() == before


def test_a_line_delivers_into_the_friends_name(pool: Running) -> None:
    ada = session(pool, "Ada", invited(pool, provider="claude"))
    made = pool.ask("POST", "/api/sign-ins", {"provider": "claude", "consent": True, "name": "ada"}, **ada)[1]
    file = json.dumps(pool.fakes.accounts["claude:work"].file()).encode()
    sent: dict[str, Any] = {"Authorization": "", "Content_Type": "text/plain"}
    assert pool.ask("POST", f"/contribute/{ticket(made)}", file, **sent)[0] == 201
    assert pool.file("claude_ada.json")["owner"] == me(pool, ada)


@pytest.mark.parametrize("address", ["https://8.8.8.8/v1", "https://[2001:4860:4860::8888]/v1"])
def test_a_public_address_is_nothing_to_refuse(pool: Running, address: str) -> None:
    assert pool.call(public_address.refusal(address)) == ""


def test_terms_are_the_owners(pool: Running) -> None:
    ada = session(pool, "Ada", invited(pool))
    body = {"provider": "mistral", "api_key": pool.fakes.accounts["mistral:key"].access, "name": "k"}
    pool.ask("POST", "/api/accounts", body, **ada)
    one = "/api/accounts/mistral:k"
    status, said = pool.ask("PATCH", one, {"terms": {"until": "2027-01-31"}}, **ada)
    assert status == 200 and said["account"]["terms"] == {
        "own_first": True, "until": 1801353600.0, "hours": [], "share": {},
    }  # fmt: skip
    said = pool.ask("PATCH", one, {"terms": {"own_first": False}}, **ada)[1]
    assert said["account"]["terms"] == {
        "own_first": False, "until": 1801353600.0, "hours": [], "share": {},
    }, "what is not given stays"  # fmt: skip
    said = pool.ask("PATCH", one, {"terms": {"hours": "22:00-07:00, 12:00-13:30"}}, **ada)[1]
    assert said["account"]["terms"]["hours"] == ["22:00-07:00", "12:00-13:30"]
    assert pool.ask("PATCH", one, {"terms": {"hours": ""}}, **ada)[1]["account"]["terms"]["hours"] == []
    assert pool.ask("PATCH", one, {"terms": {"share": "5h 60, 7d 30"}}, **ada)[1]["account"]["terms"]["share"] == {
        "5h": 60.0, "7d": 30.0,
    }  # fmt: skip
    page = pool.ask("GET", "/contribute", **ada, Accept="text/html")[1]
    assert "5h 60, 7d 30" in page and 'value="2027-01-31"' in page, "what is set can be seen, and taken away"
    assert pool.ask("PATCH", one, {"terms": {"until": ""}}, **ada)[1]["account"]["terms"]["until"] is None
    assert pool.ask("PATCH", one, {"terms": {"share": None}}, **ada)[1]["account"]["terms"]["share"] == {}
    for terms in ({"until": "soon"}, {"colour": 1}, {"share": "all"}, "x"):
        assert pool.ask("PATCH", one, {"terms": terms}, **ada)[0] in (400, 422)
    assert pool.row("mistral:k")["sharing"]["own_first"] is False


def test_who_gave_and_who_took_is_told_to_them_alone(pool: Running) -> None:
    ada, bob = session(pool, "Ada", invited(pool)), session(pool, "Bob", "swim")
    body = {"provider": "mistral", "api_key": pool.fakes.accounts["mistral:key"].access, "name": "k"}
    assert pool.ask("POST", "/api/accounts", body, **ada)[0] == 201
    keys = {name: pool.ask("POST", "/api/keys", {}, **who)[1]["key"] for name, who in (("ada", ada), ("bob", bob))}
    asked = {"model": "devstral-latest", "messages": [{"role": "user", "content": "hello"}]}
    for name in ("ada", "bob", "bob"):
        assert pool.ask("POST", "/v1/chat/completions", asked, Authorization=f"Bearer {keys[name]}")[0] == 200
    weeks = {name: pool.ask("GET", "/api/me/balance", **who)[1]["weeks"] for name, who in (("ada", ada), ("bob", bob))}
    assert [len(found) for found in weeks.values()] == [8, 8]
    counts = {
        name: [sum(week[part]["requests"] for week in found) for part in ("gave", "took", "own")]
        for name, found in weeks.items()
    }
    assert counts == {"ada": [2, 0, 1], "bob": [0, 2, 0]}
    assert weeks["ada"][0]["gave"]["total_tokens"] > 0
    row = pool.row("mistral:k")
    assert (row["gave"]["requests"], row["took"]["requests"]) == (2, 0)
    assert len(pool.ask("GET", "/api/me/balance?weeks=3", **bob)[1]["weeks"]) == 3
    assert pool.ask("GET", "/api/me/balance")[0] == 409, "the operator is nobody who takes"
