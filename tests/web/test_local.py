"""Local mode: this machine may do all, nobody and nothing else anything."""

from __future__ import annotations

import json
import sys
from html import unescape
from pathlib import Path

import msgspec
import pytest

from pool_server.accounts.credentials.scan import RejectedFile
from pool_server.accounts.credentials.store import ReloadReport
from pool_server.core.enums import Refusal
from pool_server.language import lazy, lazy_of
from pool_server.web.onboarding import snippets
from tests.web.pool import CODE, FAKE_TOKEN, exchange, friends_settings
from tests.web.site import Site


def test_healthz_says_who_and_how_much(local: Site) -> None:
    answer = local.get("/healthz")
    assert answer.status == 200
    body = answer.json()
    assert 100 <= body.pop("uptime_s") < 200
    assert body == {"status": "ok", "version": "0.0.test", "accounts": {"total": 2, "ready": 2}}


def test_healthz_fails_while_leaving_and_when_the_books_cannot_be_written(local: Site) -> None:
    local.ctx.draining = True
    assert (local.get("/healthz").status, local.get("/healthz").json()["status"]) == (503, "draining")
    local.ctx.draining = False
    local.ctx.ledger.healthy = False
    assert (local.get("/healthz").status, local.get("/healthz").json()["status"]) == (503, "store_failed")
    assert local.get("/healthz").json()["records"] == {"waiting": 0, "in_memory_only": 0}
    local.ctx.ledger.healthy = True


def test_readyz_says_whether_a_request_would_be_served(local: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (local.get("/readyz").status, local.get("/health").status) == (200, 200)
    for ready, status in (((2, 0), "no_account_ready"), ((0, 0), "no_accounts")):
        monkeypatch.setattr(local.ctx.accounts, "ready", lambda ready=ready: ready)
        answer = local.get("/readyz")
        assert (answer.status, answer.json()["status"], local.get("/healthz").status) == (503, status, 200)
    monkeypatch.setattr(local.ctx.accounts, "ready", lambda: (2, 1))
    local.ctx.draining = True
    assert (local.get("/readyz").status, local.get("/readyz").json()["status"]) == (503, "draining")
    local.ctx.draining = False
    assert local.get("/readyz").json() == {"status": "ok", "accounts": {"total": 2, "ready": 1}}


def test_a_pool_folder_that_cannot_be_written_is_told(local: Site) -> None:
    local.ctx.accounts._background.unwritable = lazy_of("cannot be written (Read-only file system): …")
    answer = local.get("/healthz")
    assert (answer.status, len(answer.json()["warnings"])) == (200, 1)
    assert "cannot be written (Read-only" in local.get("/accounts").text
    local.ctx.accounts._background.unwritable = None


def test_status_is_json_for_programs_and_names_no_account(local: Site) -> None:
    answer = local.get("/status", Accept="application/json")
    assert [row["provider"] for row in answer.json()["providers"]] == ["claude", "openai"]
    assert "work" not in answer.text
    page = local.get("/status", Accept="text/html")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "claude:work" not in page.text


def test_the_accounts_page_says_whose_host_is_silent_and_who_is_just_back(
    local: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = local.ctx.accounts
    whole = {"cooldown_until": None, "unreachable_until": None, "refusal": None}
    listed = [msgspec.structs.replace(row, **whole) for row in accounts.describe_all()]
    monkeypatch.setattr(accounts, "describe_some", lambda ids: [row for row in listed if row.id in ids])
    assert not any(words in local.get("/accounts").text for words in ("its host is silent", "just back"))
    listed[0] = msgspec.structs.replace(listed[0], unreachable_until=local.ctx.clock() + 30)
    listed[1] = msgspec.structs.replace(listed[1], refusal=Refusal.RETURNING)
    shown = local.get("/accounts").text
    assert shown.count("its host is silent, tried again") == 1
    assert shown.count("just back, takes a few requests at first") == 1


def test_accounts_are_listed_with_their_use_and_the_files_that_cannot_be_used(local: Site) -> None:
    local.run(lambda: local.ctx.ledger.record(exchange("local", model="house-model")))
    listed = local.get("/admin/accounts").json()
    claude, spare = listed["accounts"]
    assert (claude["id"], spare["id"]) == ("claude:work", "openai:spare")
    assert claude["usage"] == {
        "input": 1200, "cache_read": 40_000, "cache_write": 0, "output": 800, "reasoning": 0, "requests": 1,
        "unpriced": 1, "cost_usd": claude["usage"]["cost_usd"],
    }  # fmt: skip
    assert spare["usage"]["requests"] == 0
    assert [row["file"] for row in listed["rejected"]] == ["gemini_broken.json"]
    assert FAKE_TOKEN not in json.dumps(listed)


def test_an_account_is_acted_upon_and_the_audit_log_says_so(local: Site) -> None:
    assert local.post("/admin/accounts/claude:work/disable").json()["account"]["state"] == "disabled"
    assert local.post("/admin/accounts/claude%3Awork/enable").json()["account"]["state"] == "ready"
    assert local.post("/admin/accounts/claude:work/test").json()["result"]["ok"] is True
    assert local.post("/admin/accounts/claude:work/priority", {"priority": 7}).json()["account"]["priority"] == 7
    assert local.post("/admin/accounts/claude:work/lock").json()["account"]["locked"] is True
    assert local.post("/admin/accounts/claude:work/unlock").json()["account"]["locked"] is False
    assert local.post("/admin/accounts/claude:work/reset").status == 200
    rows = local.get("/admin/audit?action=account.").json()["rows"]
    assert [row["action"].partition(".")[2] for row in rows] == [
        "reset", "unlock", "lock", "priority", "test", "enable", "disable",
    ]  # fmt: skip
    assert {row["target"] for row in rows} == {"claude:work"}


def test_a_refresh_the_provider_refuses_is_one_plain_line(local: Site) -> None:
    answer = local.post("/admin/accounts/claude:work/refresh")
    assert answer.status == 502
    assert answer.json()["error"]["code"] == "refresh_failed"
    assert FAKE_TOKEN not in answer.text


def test_an_unknown_account_or_action_is_a_404_in_one_line(local: Site) -> None:
    answer = local.post("/admin/accounts/claude:nobody/test")
    assert answer.status == 404
    assert answer.json() == {"error": {"code": "not_found", "message": "there is no account claude:nobody"}}
    assert local.post("/admin/accounts/claude:work/explode").status == 404


def test_a_body_that_does_not_fit_is_a_400_in_one_line(local: Site) -> None:
    answer = local.post("/admin/accounts/claude:work/priority", {"priority": "high"})
    assert answer.status == 400
    assert "priority" in answer.json()["error"]["message"]
    assert answer.text.count("\n") == 1


def test_reload_answers_what_changed(local: Site) -> None:
    report = local.post("/admin/reload").json()
    assert (report["added"], report["unchanged"]) == ([], 2)
    assert report["rejected"] == local.get("/admin/accounts").json()["rejected"]
    (row,) = report["rejected"]
    assert (row["file"], set(row)) == ("gemini_broken.json", {"file", "reason"}) and "is missing" in row["reason"]


def test_a_file_that_cannot_be_read_is_told_like_one_that_is_rejected() -> None:
    found = RejectedFile("claude_x.json", lazy("no usable credential: {what} is missing", what="a key"))
    told = ReloadReport(rejected=[found], unread=[found], unchanged=1).told()
    row = {"file": "claude_x.json", "reason": "no usable credential: a key is missing"}
    assert told == {"added": [], "changed": [], "removed": [], "unchanged": 1, "rejected": [row], "unread": [row]}


def test_metrics_have_every_label_from_the_enums(local: Site) -> None:
    text = local.get("/metrics").text
    assert 'pool_accounts{provider="claude",state="ready"} 1.0' in text
    assert 'pool_accounts{provider="qwen",state="suspended"} 0.0' in text
    assert "pool_books_writable 1.0" in text
    assert f'python_info{{implementation="CPython",major="3",minor="{sys.version_info.minor}"' in text


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "pool.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"X_Forwarded_For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/healthz", "/admin/accounts", "/nothing"])
def test_what_may_come_from_elsewhere_is_refused_with_the_reason(
    local: Site, headers: dict[str, str], path: str
) -> None:
    answer = local.get(path, **headers)
    assert answer.status == 403
    assert "local mode" in answer.json()["error"]["message"]


def test_a_browser_needs_the_pages_token_for_a_change(local: Site) -> None:
    refused = local.post("/admin/reload", Origin=local.url)
    assert (refused.status, refused.json()["error"]["code"]) == (403, "xsrf")
    page = local.get("/", Accept="text/html")
    cookie = page.cookies()["_xsrf"]
    token = page.text.partition('name="xsrf" content="')[2].partition('"')[0]
    answer = local.post("/admin/reload", Origin=local.url, Cookie=f"_xsrf={cookie}", X_XSRFToken=token)
    assert answer.status == 200


def test_the_set_up_page_is_complete_without_a_script(local: Site) -> None:
    page = local.get("/", Accept="text/html")
    assert page.status == 200
    for text in (f"{local.url}/backend-api/codex", "ANTHROPIC_AUTH_TOKEN", "CODE_ASSIST_ENDPOINT", "OPENAI_MODEL"):
        assert text in page.text
    assert "<script>" not in page.text
    assert "style=" not in page.text


@pytest.mark.slow
def test_a_newcomer_without_an_account_is_told_the_lines_that_give_the_pool_one(site: Site, tmp_path: Path) -> None:
    for file in (tmp_path / "pool").iterdir():
        file.unlink()
    site.run(site.ctx.reload)
    for path in ("/", "/accounts"):
        page = unescape(site.get(path, Accept="text/html").text)
        for line in snippets.first_account(str(tmp_path / "pool")):
            assert line.text in page, path
        assert "2026-06-18" in page and "2026-04-15" in page, "sign-ins that their vendors have ended"
    analytics = site.get("/analytics", Accept="text/html").text
    assert "has no accounts yet" in analytics
    assert "Nothing needs a hand" not in analytics, "it does: there is no account"
    assert "No usage in the last 7 days." in site.get("/", Accept="text/html").text


@pytest.mark.slow
@pytest.mark.pool(friends_settings())
def test_a_friend_of_an_empty_pool_is_not_shown_the_operators_folders(site: Site, tmp_path: Path) -> None:
    for file in (tmp_path / "pool").iterdir():
        file.unlink()
    site.run(site.ctx.reload)
    entered = site.post("/api/friend/login", {"code": CODE, "name": "Ada", "passphrase": "a long passphrase"})
    cookie = f"pool_session={entered.cookies()['pool_session']}"
    page = site.get("/", Accept="text/html", Cookie=cookie).text
    assert "The operator has to add one" in unescape(page)
    assert str(tmp_path) not in page
