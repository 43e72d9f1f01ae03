"""Signing accounts in: with a line, a device code and a pasted address, against a fake of the vendor's service."""

from __future__ import annotations

import json
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeAccount, account, plays
from tests.fakes.openai_auth import FakeSignInService
from tests.web.server import Running, running

PATIENCE_S = 20.0


def person(stem: str, *, workspace: str = "", user: str = "", token: int = 0) -> FakeAccount:
    """Somebody who signs in to Codex; `token` tells two sign-ins of the same person apart."""
    made = account(f"codex:{stem}", used_5h=10, used_7d=20)
    made.account_id, made.user_id = workspace or made.account_id, user or made.user_id
    made.generation = token
    made.access, made.refresh = made._access_token(), made._refresh_token()
    return made


@pytest.fixture
def vendor() -> Iterator[FakeSignInService]:
    with FakeSignInService() as made:
        yield made


@pytest.fixture
def pool(tmp_path: Path, vendor: FakeSignInService) -> Iterator[Running]:
    yield from _pool(tmp_path, vendor)


def _pool(folder: Path, vendor: FakeSignInService, **more: Any) -> Iterator[Running]:
    cast = [account("claude:work", used_5h=20, used_7d=10), account("gemini:work"), account("qwen:work")]
    with running(folder, cast, sign_in=vendor.urls(), codex_tokens=vendor.origin, **more) as made:
        yield made


def begin(pool: Running, provider: str = "codex", flow: str = "line", **more: Any) -> dict[str, Any]:
    status, made = pool.ask("POST", "/admin/sign-ins", {"provider": provider, "flow": flow, **more})
    assert status == 201, made
    found: dict[str, Any] = made
    return found


def state(pool: Running, made: dict[str, Any], **more: Any) -> dict[str, Any]:
    status, found = pool.ask("GET", f"/admin/sign-ins/{made['id']}", **more)
    assert status == 200, found
    row: dict[str, Any] = found
    return row


def until(pool: Running, made: dict[str, Any], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = state(pool, made)
        if wanted(found) or time.monotonic() > deadline:
            assert wanted(found), found
            return found
        time.sleep(0.05)


def over(row: dict[str, Any]) -> bool:
    return bool(row["state"] != "waiting")


def paste(pool: Running, made: dict[str, Any], text: str, **more: Any) -> tuple[int, Any]:
    return pool.ask("POST", f"/admin/sign-ins/{made['id']}", {"code": text}, **more)


def ticket(made: dict[str, Any]) -> str:
    return str(made["line"].split("/contribute/")[1].split("'")[0])


# -- the browser


def test_an_address_pasted_from_the_browser_makes_an_account(pool: Running, vendor: FakeSignInService) -> None:
    ada = pool.fakes.add(person("ada"))
    made = begin(pool, flow="browser", name="ada")
    status, after = paste(pool, made, vendor.consent(made["url"], ada))
    assert status == 200 and after["state"] == "done" and after["account"] == "codex:ada", after
    assert after["found"] == {"who": ada.email, "plan": "plus", "org": ada.account_id} and after["test"]["ok"]
    path = pool.pool / "codex_ada.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file = json.loads(path.read_text())
    assert file["auth_mode"] == "chatgpt" and file["tokens"]["account_id"] == ada.account_id and file["last_refresh"]
    told = json.dumps([state(pool, made), pool.ask("GET", "/admin/audit")[1]])
    assert ada.access not in told and ada.refresh not in told and "ac_0" not in told
    actions = [row["action"] for row in pool.ask("GET", "/admin/audit?action=sign_in")[1]["rows"]]
    assert actions == ["sign_in.done", "sign_in.start"]


SPELT: dict[str, Callable[[str], str]] = {
    "wrapped": lambda url: "  " + "\n   ".join(url[at : at + 40] for at in range(0, len(url), 40)) + "\r\n",
    "quoted": lambda url: f"“{url}”",
    "bracketed": lambda url: f"<{url}>",
    "escaped": lambda url: url.replace("&", "&amp;"),
    "invisible": lambda url: url.replace("code", "co\u200bde"),
    "labelled": lambda url: f"Address: {url}",
    "the other loopback": lambda url: url.replace("localhost:1455", "127.0.0.1:1457"),
    "no host": lambda url: url[url.index("?") :],
    "a fragment": lambda url: url.replace("?", "#"),
    "code and state": lambda url: f"{url.split('code=')[1].split('&')[0]}#{url.split('state=')[1]}",
    "the same, escaped": lambda url: f"{url.split('code=')[1].split('&')[0]}%23{url.split('state=')[1]}",
    "the code alone": lambda url: url.split("code=")[1].split("&")[0],
}


@pytest.mark.parametrize("how", SPELT)
def test_an_address_is_read_however_it_was_copied(pool: Running, vendor: FakeSignInService, how: str) -> None:
    ada = pool.fakes.add(person("ada"))
    made = begin(pool, flow="browser")
    status, after = paste(pool, made, SPELT[how](vendor.consent(made["url"], ada)))
    assert status == 200 and after["state"] == "done", after


WRONG: dict[str, tuple[Callable[[str], str], str]] = {
    "another host": (lambda url: url.replace("localhost:1455", "evil.example"), "another page"),
    "another port": (lambda url: url.replace(":1455", ":8080"), "another page"),
    "another path": (lambda url: url.replace("/auth/callback", "/other"), "another page"),
    "a user in the address": (lambda url: url.replace("localhost:1455", "localhost:1455@evil.example"), ""),
    "another state": (lambda url: url[:-4] + "AAAA", "earlier try"),
    "two codes": (lambda url: url + "&code=ac_1-0123456789", "twice"),
    "the tokens": (lambda url: "http://localhost:1455/success?id_token=a.b.c&needs_setup=false", "holds its tokens"),
    "a phone's code": (lambda url: "123 456", "e-mail or a phone"),
    "a file": (lambda url: '{"tokens": {}}', "credential file"),
    "a key": (lambda url: "sk-ant-oat01-abc", "as a credential"),
    "nothing": (lambda url: " \n ", "nothing was pasted"),
    "a novel": (lambda url: "x" * 9000, "too long"),
    "an e-mail link": (lambda url: "mailto:ada@example.com", "e-mail"),
    "no code": (lambda url: "http://localhost:1455/auth/callback?code=", "no code"),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_is_no_code_of_this_sign_in_is_said_and_nothing_sent(
    pool: Running, vendor: FakeSignInService, how: str
) -> None:
    ada = pool.fakes.add(person("ada"))
    made = begin(pool, flow="browser")
    good = vendor.consent(made["url"], ada)
    wrong, words = WRONG[how]
    status, said = paste(pool, made, wrong(good))
    assert status == 422 and words in said["error"]["message"], said
    assert [path for path, _ in vendor.calls if path == "/oauth/token"] == []
    assert state(pool, made)["state"] == "waiting"
    assert paste(pool, made, good)[1]["state"] == "done", "the right one still works"


def test_what_is_wrong_is_said_in_the_language_of_whoever_looks(pool: Running, vendor: FakeSignInService) -> None:
    ada = pool.fakes.add(person("ada"))
    for wrong, _words in WRONG.values():
        made = begin(pool, flow="browser")
        status, said = paste(pool, made, wrong(vendor.consent(made["url"], ada)), Accept_Language="de")
        told = {one: state(pool, made, Accept_Language=one)["message"] for one in ("en", "de", "zh")}
        assert status == 422 and said["error"]["message"] == told["de"]
        assert told["en"].isascii() and not told["zh"].isascii() and len(set(told.values())) == 3, told
    vendor.exchange.append((403, {"error": {"code": "unsupported_country_region_territory", "message": "no"}}))
    made = begin(pool, flow="browser")
    paste(pool, made, vendor.consent(made["url"], ada), Accept_Language="de")
    told = {one: state(pool, made, Accept_Language=one)["message"] for one in ("en", "de", "zh")}
    assert told["en"].startswith("the vendor refuses the place") and "Standort" in told["de"] and "出口" in told["zh"]


def test_ten_wrong_tries_end_it(pool: Running) -> None:
    made = begin(pool, flow="browser")
    for _ in range(10):
        paste(pool, made, "123456")
    assert state(pool, made)["code"] == "tries" and paste(pool, made, "123456")[0] in (409, 422)


def test_a_code_is_exchanged_once_however_often_it_is_pasted(pool: Running, vendor: FakeSignInService) -> None:
    ada = pool.fakes.add(person("ada"))
    made = begin(pool, flow="browser")
    address = vendor.consent(made["url"], ada)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(paste(pool, made, address)[0])) for _ in range(5)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert set(answers) <= {200, 409} and 200 in answers
    assert until(pool, made, over)["state"] == "done"
    assert [path for path, _ in vendor.calls].count("/oauth/token") == 1
    status, again = paste(pool, made, f"  {address}\n")
    assert status == 200 and again["account"] == state(pool, made)["account"], "as in a second tab"
    for other in ("ac_other-0123456789", "123456", "http://evil.example/?code=x", address.replace("code=", "none=")):
        status, said = paste(pool, made, other)
        assert status == 409 and "is over" in said["error"]["message"], other


def test_a_code_of_another_sign_in_of_ones_own_is_called_so(pool: Running, vendor: FakeSignInService) -> None:
    ada = pool.fakes.add(person("ada"))
    made = begin(pool, flow="browser")
    add(pool, person("old"))
    other = begin(pool, flow="browser", account="codex:old")
    status, said = paste(pool, other, vendor.consent(made["url"], ada))
    assert status == 422 and said["error"]["code"] == "other_sign_in"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("error=access_denied&error_description=missing_codex_entitlement", "no_entitlement"),
        ("error=access_denied", "cancelled"),
        ("error=server_error", "refused"),
    ],
)
def test_a_refusal_on_the_vendors_page_is_told(pool: Running, query: str, code: str) -> None:
    made = begin(pool, flow="browser")
    given = made["url"].split("state=")[1].split("&")[0]
    after = paste(pool, made, f"http://localhost:1455/auth/callback?{query}&state={given}")[1]
    assert (after["state"], after["code"]) == ("failed", code)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": "invalid_grant"}, "bad_code"),
        (401, {"error": {"code": "token_expired", "message": "x"}}, "bad_code"),
        (403, {"error": {"code": "unsupported_country_region_territory", "message": "no"}}, "country"),
        (403, "<html><title>Just a moment...</title></html>", "exchange"),
        (429, {"error": {"message": "slow"}}, "exchange"),
        (500, {}, "exchange"),
        (200, {"access_token": "only"}, "no_tokens"),
        (200, "not json", "exchange"),
    ],
)
def test_an_exchange_that_fails_is_not_sent_twice(
    pool: Running, vendor: FakeSignInService, status: int, body: Any, code: str
) -> None:
    vendor.exchange.append((status, body))
    made = begin(pool, flow="browser")
    after = paste(pool, made, vendor.consent(made["url"], person("ada")))[1]
    assert (after["state"], after["code"]) == ("failed", code), after
    assert "start again" in after["message"] and list(pool.pool.glob("*.json")) == []
    assert [path for path, _ in vendor.calls].count("/oauth/token") == 1


def test_a_first_request_that_is_refused_keeps_the_sign_in(pool: Running, vendor: FakeSignInService) -> None:
    ada = pool.fakes.add(person("ada"))
    pool.fakes.always("codex:ada", plays.status(403, {"error": {"code": "usage_not_included", "message": "no"}}))
    made = begin(pool, flow="browser", name="ada")
    after = paste(pool, made, vendor.consent(made["url"], ada))[1]
    assert after["state"] == "done" and not after["test"]["ok"] and (pool.pool / "codex_ada.json").exists()


# -- the device code


@pytest.mark.slow
def test_a_device_code_is_asked_for_until_it_is_allowed(pool: Running, vendor: FakeSignInService) -> None:
    ada = pool.fakes.add(person("ada"))
    pending = {"error": {"code": "deviceauth_authorization_pending"}}
    vendor.device += [(403, pending), (404, {}), (500, {}), (403, pending)]
    made = begin(pool, flow="device", name="ada")
    assert made["user_code"] == "ABCD-1234" and made["url"].endswith("/codex/device")
    vendor.person = ada
    after = until(pool, made, over)
    assert after["state"] == "done" and after["account"] == "codex:ada", after
    exchange = next(fields for path, fields in vendor.calls if path == "/oauth/token")
    assert exchange["redirect_uri"] == f"{vendor.origin}/deviceauth/callback"
    assert exchange["code_verifier"].startswith("device-verifier")


@pytest.mark.parametrize(("said", "seconds"), [("2", 2), (2, 2), (None, 5), (0, 5), ("nonsense", 5)])
def test_the_pause_between_two_looks_is_the_vendors(
    pool: Running, vendor: FakeSignInService, said: Any, seconds: float
) -> None:
    vendor.interval = said
    assert begin(pool, flow="device")["interval"] == seconds


def test_no_device_codes_offers_the_browser(pool: Running, vendor: FakeSignInService) -> None:
    vendor.usercode = (404, {"error": "not found"})
    made = begin(pool, flow="device")
    assert (made["state"], made["code"]) == ("failed", "device_off") and "browser" in made["message"]


@pytest.mark.slow
def test_five_looks_without_an_answer_end_it(pool: Running, vendor: FakeSignInService) -> None:
    vendor.device += [(500, {})] * 5
    assert until(pool, begin(pool, flow="device"), over)["code"] == "refused"


@pytest.mark.slow
def test_cancelled_while_it_is_asked_for(pool: Running, vendor: FakeSignInService) -> None:
    made = begin(pool, flow="device")
    deadline = time.monotonic() + PATIENCE_S
    while not any(path.endswith("deviceauth/token") for path, _ in vendor.calls):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert pool.ask("DELETE", f"/admin/sign-ins/{made['id']}")[0] == 200
    assert pool.ask("GET", f"/admin/sign-ins/{made['id']}")[0] == 404
    vendor.person = person("ada")
    assert until(pool, begin(pool, flow="device"), over)["state"] == "done"  # it is asked for after the other's turn
    assert [path for path, _ in vendor.calls].count("/oauth/token") == 1


# -- in place


def add(pool: Running, who: FakeAccount, name: str = "old", **more: Any) -> str:
    pool.fakes.add(who)
    status, made = pool.ask("POST", "/admin/accounts", {"name": name, "credential": who.file(), **more})
    assert status == 201, made
    return str(made["id"])


def test_the_same_person_and_workspace_is_replaced_in_place(pool: Running, vendor: FakeSignInService) -> None:
    before = person("ada", workspace="ws-1", user="u-1")
    ident = add(pool, before, label="Hers", priority=5)
    again = pool.fakes.add(person("ada2", workspace="ws-1", user="u-1", token=1))
    made = begin(pool, flow="browser", account=ident)
    after = paste(pool, made, vendor.consent(made["url"], again))[1]
    assert after["state"] == "done" and after["account"] == ident
    file = pool.file("codex_old.json")
    assert file["label"] == "Hers" and file["priority"] == 5 and file["tokens"]["access_token"] == again.access
    assert vendor.revoked == [before.refresh], "the sign-in before it is ended, once the new one is on disk"
    assert len(list(pool.pool.glob("*.json"))) == 1 and pool.row(ident)["state"] == "ready"


def test_without_a_target_the_same_person_is_recognised(pool: Running, vendor: FakeSignInService) -> None:
    ident = add(pool, person("ada", workspace="ws-1", user="u-1"))
    again = pool.fakes.add(person("ada2", workspace="ws-1", user="u-1", token=1))
    made = begin(pool, flow="browser", name="another")
    assert paste(pool, made, vendor.consent(made["url"], again))[1]["account"] == ident


@pytest.mark.parametrize(("workspace", "user"), [("ws-2", "u-1"), ("ws-1", "u-2")])
def test_another_workspace_or_seat_is_another_account(
    pool: Running, vendor: FakeSignInService, workspace: str, user: str
) -> None:
    add(pool, person("ada", workspace="ws-1", user="u-1"))
    other = pool.fakes.add(person("ada2", workspace=workspace, user=user, token=1))
    made = begin(pool, flow="browser", name="second")
    assert paste(pool, made, vendor.consent(made["url"], other))[1]["account"] == "codex:second"


@pytest.mark.parametrize("choice", ["replace", "new", "cancel"])
def test_another_persons_sign_in_waits_for_a_word(pool: Running, vendor: FakeSignInService, choice: str) -> None:
    ada = person("ada", workspace="ws-1", user="u-1")
    ident = add(pool, ada)
    before = (pool.pool / "codex_old.json").read_bytes()
    bob = pool.fakes.add(person("bob", workspace="ws-1", user="u-2", token=1))
    made = begin(pool, flow="browser", account=ident)
    after = paste(pool, made, vendor.consent(made["url"], bob))[1]
    assert (after["state"], after["step"]) == ("waiting", "confirm") and ident in after["message"]
    assert (pool.pool / "codex_old.json").read_bytes() == before
    if choice == "cancel":
        assert pool.ask("DELETE", f"/admin/sign-ins/{made['id']}")[0] == 200
        assert vendor.revoked == [bob.refresh] and (pool.pool / "codex_old.json").read_bytes() == before
        return
    after = pool.ask("POST", f"/admin/sign-ins/{made['id']}", {"confirm": choice})[1]
    assert after["state"] == "done", after
    assert (after["account"] == ident) is (choice == "replace")
    assert pool.file("codex_old.json")["tokens"]["access_token"] == (bob if choice == "replace" else ada).access


# -- who, how many, how long


def test_so_many_at_once(pool: Running) -> None:
    add(pool, person("one"), "one")
    add(pool, person("two"), "two")
    ids = [begin(pool, flow="browser", account=one)["id"] for one in ("codex:one", "codex:two", "")]
    begin(pool, flow="browser", account="codex:one")  # takes the place of the first
    assert pool.ask("GET", f"/admin/sign-ins/{ids[0]}")[0] == 404
    assert pool.ask("POST", "/admin/sign-ins", {"provider": "claude"})[0] == 429


def test_two_new_accounts_are_signed_in_beside_each_other(pool: Running) -> None:
    """Lines for two machines: the second leaves the first alone, unless it is for an account of the same name."""
    first, second = (begin(pool, flow="line", name=name)["id"] for name in ("ada", "bob"))
    again = begin(pool, flow="line", name="ada")["id"]
    found = [pool.ask("GET", f"/admin/sign-ins/{one}")[0] for one in (first, second, again)]
    assert found == [404, 200, 200]


@pytest.mark.parametrize(
    ("body", "status"),
    [({"provider": "claude", "flow": "browser"}, 422), ({"provider": "qwen", "flow": "device"}, 422),
     ({"provider": "mistral"}, 422), ({"provider": "acme"}, 422), ({"provider": "codex", "flow": "magic"}, 400),
     ({"provider": "codex", "account": "codex:none"}, 404), ({}, 400)],
)  # fmt: skip
def test_what_cannot_be_begun(pool: Running, body: dict[str, Any], status: int) -> None:
    assert pool.ask("POST", "/admin/sign-ins", body)[0] == status


def test_a_friend_sees_nothing_of_it(pool: Running) -> None:
    made = begin(pool, flow="browser")
    key = pool.ask("POST", "/admin/pool-users", {"name": "Ada"})[1]["key"]
    for who, status in ((f"Bearer {key}", 403), ("", 401)):
        assert pool.ask("GET", f"/admin/sign-ins/{made['id']}", Authorization=who)[0] == status
        assert paste(pool, made, "x", Authorization=who)[0] == status
