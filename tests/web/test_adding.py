"""Accounts added, changed, removed and brought back over the admin API, against fake vendors."""

from __future__ import annotations

import json
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import CredentialKind
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.providers.times import DAY, rfc3339
from tests.fakes import Surface, account, key_account, plays
from tests.web.server import Running, running

CAST = [
    account("claude:work", used_5h=20, used_7d=10),
    account("codex:work", used_5h=30, used_7d=40),
    account("gemini:work"),
    account("qwen:work"),
    account("claude:token", kind=CredentialKind.SETUP_TOKEN),
    key_account("claude:key"),
    key_account("gemini:key"),
    key_account("openai:key"),
    key_account("qwen:key"),
    key_account("codex:key"),
    key_account("deepseek:key"),
]


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, [account(one.id, kind=one.kind, used_5h=20, used_7d=30) for one in CAST],
                 presets=("deepseek", "kimi", "ollama")) as made:  # fmt: skip
        yield made


@pytest.mark.parametrize("ident", [one.id for one in CAST])
def test_an_account_of_every_kind_comes_in_after_one_real_request(pool: Running, ident: str) -> None:
    fake = pool.fakes.accounts[ident]
    body = {"name": "mine", "provider": fake.provider.value, "credential": fake.file()}
    status, made = pool.ask("POST", "/admin/accounts", body)
    assert status == 201, made
    assert made["id"] == f"{fake.provider.value}:mine" and made["test"]["ok"] and made["test"]["call"] == "request"
    assert made["hosts"][0].startswith("http://127.0.0.1:")
    assert len(pool.fakes.made(ident)) == 1, "one request that generates"
    path = pool.pool / f"{fake.provider.value}_mine.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = json.loads(path.read_text())
    assert kept.keys() >= fake.file().keys() and fake.access in path.read_text()
    assert pool.row(made["id"])["state"] == "ready"
    status, audit = pool.ask("GET", "/admin/audit?action=account.add")
    assert audit["rows"][0]["target"] == made["id"] and fake.access not in json.dumps(audit)


def test_the_request_fills_the_windows(pool: Running) -> None:
    for ident in ("claude:work", "codex:work"):
        pool.ask("POST", "/admin/accounts", {"name": "w", "credential": pool.fakes.accounts[ident].file()})
        row = pool.row(ident.replace("work", "w"))
        assert {window["window"]: window["used_percent"] for window in row["windows"]} == {"5h": 20.0, "7d": 30.0}


def test_what_was_pasted_is_recognised(pool: Running) -> None:
    by = pool.fakes.accounts
    pasted = {
        "claude:a": json.dumps(by["claude:work"].file(), indent=4),
        "codex:a": "\ufeff" + json.dumps(by["codex:work"].file()) + "\n\n",
        "claude:b": f"  '{by['claude:token'].access[:20]}\n   {by['claude:token'].access[20:]}'  ",
        "qwen:a": f"export DASHSCOPE_API_KEY={by['qwen:key'].access}",
        "openai:a": f'OPENAI_API_KEY="{by["openai:key"].access}"',
    }
    for ident, text in pasted.items():
        status, made = pool.ask("POST", "/admin/accounts", {"name": ident[-1], "credential": text})
        assert (status, made.get("id")) == (201, ident), made
    assert "refreshToken" not in pool.file("claude_b.json")["claudeAiOauth"]


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "nothing": ({}, 422, "paste a credential"),
    "a key of nobody": ({"api_key": "sk-unknown-1"}, 422, "choose the vendor"),
    "a key the vendor refuses": ({"provider": "openai", "api_key": "sk-wrong-123"}, 422, "Incorrect API key"),
    "an unknown vendor": ({"provider": "acme", "api_key": "sk-123456"}, 422, "no vendor"),
    "half a file": ({"credential": '{"claudeAiOauth": {"accessToken": "sk-ant'}, 422, "copy the whole file"),
    "a list": ({"credential": "[1]"}, 422, "one JSON object"),
    "an address": ({"credential": "https://claude.ai/oauth/code/callback?code=x"}, 422, "web address"),
    "tokens in an address": ({"credential": "http://localhost:1455/success?id_token=e.y.z"}, 422, "holds the tokens"),
    "a code from a phone": ({"credential": "123 456"}, 422, "e-mail or a phone"),
    "a refresh token": ({"credential": "sk-ant-ort01-abc"}, 422, "whole credential file"),
    "an admin key": ({"credential": "sk-ant-admin01-abc"}, 422, "admin key"),
    "a service account": ({"provider": "gemini", "credential": {"type": "service_account"}}, 422, "service account"),
    "another vendor's file": ({"provider": "claude", "credential": {"tokens": {"access_token": "x"}}}, 422, ""),
    "another vendor's key": ({"provider": "groq", "api_key": "sk-ant-api03-x"}, 422, "Anthropic"),
    "a place in the name": ({"name": "../x", "provider": "openai", "api_key": "sk-123456"}, 422, "a name is"),
    "a dot file": ({"name": ".x", "provider": "openai", "api_key": "sk-123456"}, 422, "a name is"),
    "a hidden prefix": ({"name": "a:b", "provider": "openai", "api_key": "sk-123456"}, 422, "a name is"),
    "a proxy of another kind": (
        {"provider": "openai", "api_key": "sk-123456", "proxy_url": "ftp://h:1"}, 422, "proxy_url"),
    "a proxy that is not there": (
        {"provider": "openai", "api_key": "sk-123456", "proxy_url": "http://127.0.0.1:9"}, 422, "proxy not reachable"),
    "an owner nobody knows": ({"provider": "openai", "api_key": "sk-123456", "owner": "bob"}, 422, "no person"),
    "an unknown field": ({"colour": "red"}, 400, "colour"),
    "a number that is none": ({"provider": "openai", "api_key": "sk-123456", "priority": "x"}, 400, "priority"),
    "a share above one": ({"provider": "openai", "api_key": "sk-123456", "reserve": 2}, 422, "reserve"),
    "an address of a preset": ({"preset": "kimi", "api_key": "sk-kimi-1", "base_url": "https://h"}, 422, "base_url"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_sentence_and_nothing_is_kept(pool: Running, case: str) -> None:
    body, wanted, words = WRONG[case]
    status, said = pool.ask("POST", "/admin/accounts", body)
    assert status == wanted, said
    message = said["error"]["message"]
    assert words in message and "\n" not in message and len(message) < 400
    secret = str(body.get("api_key") or body.get("credential") or "-")
    assert len(secret) < 12 or secret not in message
    assert list(pool.pool.iterdir()) == [] and pool.ask("GET", "/admin/accounts")[1]["accounts"] == []


def test_a_body_without_end_is_refused(pool: Running) -> None:
    status, _ = pool.ask("POST", "/admin/accounts", {"credential": "x" * (1 << 21)})
    assert status == 413 and list(pool.pool.iterdir()) == []


def test_without_a_test_nothing_is_asked(pool: Running) -> None:
    body = {"provider": "openai", "api_key": "sk-not-yet-good", "name": "later"}
    status, made = pool.ask("POST", "/admin/accounts?test=0", body)
    assert status == 201 and made["test"] is None and pool.fakes.calls == []


def test_names_that_collide(pool: Running) -> None:
    body = {"provider": "openai", "api_key": pool.fakes.accounts["openai:key"].access, "name": "Work"}
    assert pool.ask("POST", "/admin/accounts", body)[0] == 201
    for name in ("Work", "work", "WORK"):
        status, said = pool.ask("POST", "/admin/accounts", {**body, "name": name})
        assert (status, said["error"]["code"]) == (409, "name_taken"), name
    (pool.pool / "openai_dropped.json").write_text("{ being written")  # a file dropped while the form is open
    assert pool.ask("POST", "/admin/accounts", {**body, "name": "dropped"})[0] == 409
    assert (pool.pool / "openai_dropped.json").read_text() == "{ being written"
    made = [pool.ask("POST", "/admin/accounts", {**body, "name": ""})[1]["id"] for _ in range(2)]
    assert made == ["openai:key", "openai:key-2"]


def test_one_sign_in_is_one_account(pool: Running) -> None:
    file = pool.fakes.accounts["claude:work"].file()
    assert pool.ask("POST", "/admin/accounts", {"name": "a", "credential": file})[0] == 201
    status, said = pool.ask("POST", "/admin/accounts", {"name": "b", "credential": file})
    assert (status, said["error"]["code"]) == (409, "same_account") and "claude:a" in said["error"]["message"]


def test_two_who_send_the_same_sign_in_at_once(pool: Running) -> None:
    file = pool.fakes.accounts["codex:work"].file()
    answers: list[int] = []

    def send(name: str) -> None:
        answers.append(pool.ask("POST", "/admin/accounts", {"name": name, "credential": file})[0])

    threads = [threading.Thread(target=send, args=(f"n{number}",)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(answers) == [201, 409, 409, 409]
    assert len(list(pool.pool.glob("codex_*.json"))) == 1


def test_a_sign_in_whose_token_has_ended_is_renewed_and_not_lost(pool: Running) -> None:
    fake = account("claude:late", life_s=-60)
    pool.fakes.add(fake)
    old = fake.file()
    pool.fakes.then("claude:late", plays.status(500, {"error": {"message": "down"}}))
    status, _ = pool.ask("POST", "/admin/accounts", {"name": "late", "credential": old})
    assert status == 422 and fake.spent, "its refresh token was traded, and the request then failed"
    fake.life_s = 3600
    status, _ = pool.ask("POST", "/admin/accounts", {"name": "late", "credential": old})
    assert status == 201, "the same file still works: what came after its token was kept"
    assert pool.file("claude_late.json")["claudeAiOauth"]["refreshToken"] == fake.refresh


def test_no_headroom_is_no_refusal(pool: Running) -> None:
    body = {"error": {"type": "usage_limit_reached", "message": "The usage limit has been reached", "resets_at": 4e9}}
    pool.fakes.then("codex:work", plays.status(429, body))
    file = pool.fakes.accounts["codex:work"].file()
    status, made = pool.ask("POST", "/admin/accounts", {"name": "full", "credential": file})
    assert status == 201 and made["test"]["fault"] == "quota" and not made["test"]["ok"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (plays.status(200, "<html><body>Welcome</body></html>", content_type="text/html"), "web page"),
        (plays.status(200, {"error": {"message": "no credit left", "code": 402}}), "no credit"),
        (plays.status(200, {"hello": "there"}), "no answer of the"),
        (plays.status(200, b""), "no answer of the"),
        (plays.status(403, {"error": {"message": "Request not allowed"}}), "not allowed"),
    ],
)
def test_a_success_that_is_none(pool: Running, answer: plays.Play, words: str) -> None:
    pool.fakes.always("openai:key", answer)
    body = {"provider": "openai", "api_key": pool.fakes.accounts["openai:key"].access, "models": ["m"]}
    status, said = pool.ask("POST", "/admin/accounts", body)
    assert status == 422 and words in said["error"]["message"]


def test_an_endpoint_of_ones_own_is_asked_for_a_model_it_lists(pool: Running) -> None:
    key = pool.fakes.accounts["openai:key"].access
    body = {"provider": "openai", "api_key": key, "base_url": f"{pool.fakes.origin}/openai/v1", "name": "own"}
    status, made = pool.ask("POST", "/admin/accounts", body)
    assert status == 201 and made["test"]["model"] == "gpt-5.1"
    assert [call.surface for call in pool.fakes.calls] == [Surface.MODELS, Surface.CHAT]


# -- change, remove, bring back


def add(pool: Running, ident: str, name: str, **more: Any) -> str:
    fake = pool.fakes.accounts[ident]
    body = {"name": name, "provider": fake.provider.value, "credential": fake.file(), **more}
    status, made = pool.ask("POST", "/admin/accounts", body)
    assert status == 201, made
    return str(made["id"])


def test_options_are_set_and_taken_away(pool: Running) -> None:
    ada = pool.ask("POST", "/admin/pool-users", {"name": "Ada"})[1]["id"]
    made = add(pool, "claude:work", "w", label="Home")
    changes = {"label": "Office", "priority": 7, "weight": 2.5, "models": "claude-haiku-*, claude-opus-*",
               "proxy_url": "http://user:secret@10.0.0.1:8080", "plan_type": "max", "owner": "Ada", "reserve": 0.5,
               "people": ["Ada"], "disabled": True}  # fmt: skip
    status, said = pool.ask("PATCH", f"/admin/accounts/{made}", changes)
    assert status == 200, said
    row = said["account"]
    assert (row["label"], row["priority"], row["weight"], row["reserve"]) == ("Office", 7, 2.5, 0.5)
    assert row["disabled"] and row["owner"] == ada and row["proxy"] == "10.0.0.1:8080"
    file = pool.file("claude_w.json")
    assert file["models"] == ["claude-haiku-*", "claude-opus-*"] and file["people"] == [ada]
    assert "secret" not in json.dumps(pool.ask("GET", "/admin/audit?action=account.change")[1])
    assert file["claudeAiOauth"].items() >= pool.fakes.accounts["claude:work"].file()["claudeAiOauth"].items()
    status, said = pool.ask("PATCH", f"/admin/accounts/{made}", dict.fromkeys(changes, None))
    row = said["account"]
    assert status == 200 and not row["disabled"] and row["owner"] == "" and row["proxy"] == ""
    assert (row["priority"], row["weight"], row["label"]) == (100, 1.0, "")


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"weight": 0}, 422), ({"proxy_url": "nonsense"}, 422), ({"owner": "nobody"}, 422), ({"people": ["x"]}, 422),
     ({"priority": 1.5}, 400), ({"api_key": "sk-1"}, 400), ({"base_url": "https://h"}, 400), ({"reserve": -1}, 422)],
)  # fmt: skip
def test_a_change_that_cannot_be_changes_nothing(pool: Running, changes: dict[str, Any], status: int) -> None:
    made = add(pool, "openai:key", "k")
    before = (pool.pool / "openai_k.json").read_bytes()
    assert pool.ask("PATCH", f"/admin/accounts/{made}", changes)[0] == status
    assert (pool.pool / "openai_k.json").read_bytes() == before


def test_an_account_s_own_proxy_fails_closed(pool: Running) -> None:
    made = add(pool, "openai:key", "k")
    pool.ask("PATCH", f"/admin/accounts/{made}", {"proxy_url": "http://127.0.0.1:9"})
    asked = len(pool.fakes.calls)
    result = pool.ask("POST", f"/admin/accounts/{made}/test")[1]["result"]
    assert not result["ok"] and result["message"] == "proxy not reachable" and len(pool.fakes.calls) == asked


def test_removed_and_brought_back(pool: Running) -> None:
    made = add(pool, "claude:work", "w", label="Home")
    before = pool.file("claude_w.json")
    assert pool.ask("DELETE", f"/admin/accounts/{made}")[0] == 200
    assert not (pool.pool / "claude_w.json").exists()
    assert [path.name for path in pool.pool.rglob("*.json")] == ["claude_w.json"], "it lies in .removed/"
    found = pool.ask("GET", "/admin/accounts")[1]
    assert found["accounts"] == [] and [row["account"] for row in found["removed"]] == [made]
    assert pool.call(trouble(pool)) == {}, "a file that was removed on purpose is no alarm"
    status, said = pool.ask("POST", f"/admin/accounts/{made}/restore")
    assert status == 200 and said["account"]["label"] == "Home" and pool.file("claude_w.json") == before
    assert pool.ask("POST", f"/admin/accounts/{made}/restore")[0] == 404
    assert pool.ask("DELETE", "/admin/accounts/claude:none")[0] == 404
    actions = [row["action"] for row in pool.ask("GET", "/admin/audit?action=account.")[1]["rows"]]
    assert actions == ["account.restore", "account.remove", "account.add"]


def test_a_file_that_somebody_took_out_meanwhile_is_gone(pool: Running) -> None:
    made = add(pool, "openai:key", "k")
    (pool.pool / "openai_k.json").unlink()
    assert pool.ask("DELETE", f"/admin/accounts/{made}")[0] == 404
    found = pool.ask("GET", "/admin/accounts")[1]
    assert found["accounts"] == [] and found["removed"] == []
    assert not [path for path in pool.pool.rglob("*") if path.name != ".removed"]


async def trouble(pool: Running) -> dict[str, str]:
    return {name: str(why) for name, why in pool.server.accounts.folder_trouble().items()}


def test_a_file_of_the_name_is_not_replaced_by_the_old_one(pool: Running) -> None:
    made = add(pool, "openai:key", "k")
    pool.ask("DELETE", f"/admin/accounts/{made}")
    add(pool, "openai:key", "k", label="new")
    assert pool.ask("POST", f"/admin/accounts/{made}/restore")[0] == 409
    assert pool.file("openai_k.json")["label"] == "new"


def test_an_account_in_a_folder_comes_back_to_its_folder(pool: Running) -> None:
    (pool.pool / "openai").mkdir()
    (pool.pool / "openai" / "k.json").write_text(json.dumps(pool.fakes.accounts["openai:key"].file()))
    assert pool.ask("POST", "/admin/reload")[1]["rejected"] == []  # added by it, or by the watch before it
    assert pool.ask("DELETE", "/admin/accounts/openai:k")[0] == 200
    assert pool.ask("POST", "/admin/accounts/openai:k/restore")[0] == 200
    assert (pool.pool / "openai" / "k.json").exists()


def test_only_those_it_is_shared_with_are_served(pool: Running) -> None:
    keys = {}
    for name in ("Ada", "Bob", "Cyd"):
        made = pool.ask("POST", "/admin/pool-users", {"name": name})[1]
        keys[name] = made["key"]
    add(pool, "claude:work", "w", people=["Ada"], owner="Cyd")
    body = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    told = {name: pool.ask("POST", "/v1/messages", body, Authorization=f"Bearer {key}") for name, key in keys.items()}
    assert {name: status for name, (status, _) in told.items()} == {"Ada": 200, "Bob": 403, "Cyd": 200}
    assert "shared with you" in told["Bob"][1]["error"]["message"]


def test_a_friend_has_no_hand_in_it(pool: Running) -> None:
    key = pool.ask("POST", "/admin/pool-users", {"name": "Ada"})[1]["key"]
    made = add(pool, "openai:key", "k")
    one = f"/admin/accounts/{made}"
    for method, path in (("POST", "/admin/accounts"), ("PATCH", one), ("DELETE", one), ("POST", f"{one}/restore")):
        assert pool.ask(method, path, {}, Authorization=f"Bearer {key}")[0] == 403
        assert pool.ask(method, path, {}, Authorization="")[0] == 401
    assert pool.row(made)["state"] == "ready"


def test_an_admin_key_is_told_of_and_never_shown(pool: Running) -> None:
    key = "sk-ant-admin01-of-the-organisation"
    made = {"name": "paid", "provider": "claude", "credential": {"api_key": "sk-ant-api03-paid"}}
    assert pool.ask("POST", "/admin/accounts?test=0", made)[0] == 201
    one = "/admin/accounts/claude:paid"
    assert pool.ask("GET", f"{one}/spend")[0] == 409
    assert pool.ask("PATCH", one, {"admin_key": "sk-ant-api03-wrong-kind"})[0] == 422
    status, told = pool.ask("PATCH", one, {"admin_key": key})
    assert status == 200 and told["account"]["admin_key"] is True
    status, said = pool.ask("GET", f"{one}/spend?days=3")
    assert status == 502 and "report" in said["error"]["message"], "this vendor keeps no books"
    seen = [pool.ask("GET", path)[1] for path in ("/admin/accounts", "/admin/audit", "/accounts?id=claude:paid")]
    assert key not in json.dumps([told, said, seen])
    assert pool.ask("PATCH", one, {"admin_key": None})[1]["account"]["admin_key"] is False
    assert pool.ask("GET", "/admin/accounts/claude:none/spend")[0] == 404


@pytest.mark.parametrize("part", [False, True], ids=["whole", "a part"])
def test_a_part_of_the_vendors_books_is_told_as_a_part(
    pool: Running, part: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"name": "paid", "provider": "claude", "credential": {"api_key": "sk-ant-api03-paid"}}
    assert pool.ask("POST", "/admin/accounts?test=0", made)[0] == 201
    one = "/admin/accounts/claude:paid"
    assert pool.ask("PATCH", one, {"admin_key": "sk-ant-admin01-books"})[0] == 200
    today = int(time.time()) // DAY * DAY
    days = [
        {"starting_at": rfc3339(today - back * DAY), "results": [{"amount": "250", "currency": "USD"}]}
        for back in (3, 2, 1)
    ]
    told = {"data": days[part:], "has_more": False, "next_page": None}

    async def books(_: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, {}, json.dumps(told).encode())

    monkeypatch.setattr(pool.server.accounts.vendor_spend.__self__, "_send", books)  # type: ignore[attr-defined]
    status, said = pool.ask("GET", f"{one}/spend?days=3")
    assert status == 200
    page = pool.ask("GET", f"{one}/spend?days=3", Accept="text/html")[1]
    if part:
        assert (said["vendor_usd"], said["difference_usd"]) == (5.0, None)
        assert said["partial"] == ["1 of 3 days is not in it"]
        assert "The vendor tells a part: $5.00" in page and "1 of 3 days is not in it" in page and "Unknown" in page
    else:
        assert (said["vendor_usd"], said["difference_usd"], said["partial"]) == (7.5, 7.5, [])
        assert "$7.50 by the vendor" in page and "tells a part" not in page


def test_an_account_is_shared_with_a_group_and_with_nobody_else(pool: Running) -> None:
    people = {}
    for name in ("Ada", "Bob"):
        made = pool.ask("POST", "/admin/pool-users", {"name": name})[1]
        people[name] = made
    body = {"model": "claude-sonnet-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}

    def status(name: str) -> int:
        return pool.ask("POST", "/v1/messages", body, Authorization=f"Bearer {people[name]['key']}")[0]

    new = {"name": "g", "credential": pool.fakes.accounts["claude:work"].file(), "consent": True}
    status_said, said = pool.ask("POST", "/admin/accounts", new | {"groups": "family"})
    assert (status_said, said["error"]["code"]) == (422, "unknown_group")
    one = f"/admin/pool-users/{people['Ada']['id']}"
    assert pool.ask("PATCH", one, {"groups": "Family"})[1]["groups"] == ["family"]
    assert pool.ask("POST", "/admin/accounts", new | {"groups": "family"})[0] == 201
    assert pool.file("claude_g.json")["groups"] == ["family"] and pool.row("claude:g")["groups"] == ["family"]
    assert status("Ada") == 200 and status("Bob") in (403, 503)
    assert pool.ask("PATCH", one, {"groups": []})[0] == 200
    assert status("Ada") in (403, 503), "a group that nobody is in is nobody"
    assert pool.ask("PATCH", "/admin/accounts/claude:g", {"groups": ["no such"]})[0] == 422
    assert pool.ask("PATCH", "/admin/accounts/claude:g", {"groups": None})[1]["account"]["groups"] is None
    assert status("Ada") == status("Bob") == 200
