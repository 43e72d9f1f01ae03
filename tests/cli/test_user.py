"""`pool-server user …`, with and without a running server."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest

from pool_server.core.settings import Settings
from tests.cli.conftest import Shell
from tests.process import PoolProcess, until


def test_a_person_from_the_first_key_to_the_end(sh: Shell) -> None:
    made = sh("user", "add", "Ann", "--limit", "tokens_day=1000", "--limit", "providers=codex,claude", "--json").json
    assert set(made) == {"id", "name", "key"}
    assert jwt.decode(made["key"], options={"verify_signature": False})["sub"] == made["id"]
    (row,) = sh("user", "list", "--json").json
    assert (row["name"], row["state"], row["keys"]) == ("Ann", "active", 1)
    assert row["limits"] == {"tokens_day": 1000, "providers": ["codex", "claude"]}

    assert sh("user", "disable", "Ann").code == 0
    assert sh("user", "list", "--json").json[0]["state"] == "disabled"
    assert sh("user", "enable", made["id"]).code == 0
    assert sh("user", "rename", "Ann", "Anna").code == 0
    assert sh("user", "limit", "Anna", "cost_day=2.5", "tokens_day=none").code == 0
    assert sh("user", "list", "--json").json[0]["limits"] == {"cost_day": 2.5, "tokens_day": None}

    fresh = sh("user", "rotate", "Anna", "--json").json
    assert fresh["key"] != made["key"]
    assert sh("user", "delete", "Anna", stdin="n\n").code == 1
    assert sh("user", "delete", "Anna", "--yes").code == 0
    assert sh("user", "list", "--json").json == []


def test_keys_come_and_go(sh: Shell) -> None:
    sh("user", "add", "Ann")
    made = sh("user", "key", "add", "Ann", "--label", "laptop", "--days", "7", "--json").json
    assert made["label"] == "laptop"
    rows = sh("user", "key", "list", "Ann", "--json").json
    assert [row["label"] for row in rows] == ["first key", "laptop"]
    assert made["key"] not in json.dumps(rows)
    assert "laptop" in sh("user", "key", "list", "Ann").out
    assert sh("user", "key", "revoke", "Ann", made["id"]).code == 0
    assert len(sh("user", "key", "list", "Ann", "--json").json) == 1
    assert "no such key" in sh("user", "key", "revoke", "Ann", made["id"]).refused(1)


def test_a_key_has_its_requests_held(sh: Shell) -> None:
    sh("user", "add", "Ann")
    [key] = sh("user", "key", "list", "Ann", "--json").json
    assert key["wait"] == ""
    assert "held until 06:00" in sh("user", "key", "set", "Ann", key["id"], "--wait", "until=06:00").out
    assert "for=2h" in sh("user", "key", "set", "Ann", key["id"], "--wait", "soon").refused(1)
    assert "held" not in sh("user", "key", "set", "Ann", key["id"], "--wait", "").out
    assert sh("user", "key", "list", "Ann", "--json").json[0]["wait"] == ""


def test_codes_come_and_go(sh: Shell) -> None:
    assert "No personal codes" in sh("user", "code", "list").out
    made = sh("user", "code", "add", "--label", "Ben", "--uses", "0", "--limit", "tokens_day=5", "--json").json
    (row,) = sh("user", "code", "list", "--json").json
    assert (row["label"], row["uses_left"], row["limits"]) == ("Ben", None, {"tokens_day": 5})
    assert made["code"] not in json.dumps(row)
    assert "Ben" in sh("user", "code", "list").out
    assert len(sh("user", "code", "add", "--days", "1").out.splitlines()) == 1
    assert sh("user", "code", "revoke", row["id"]).code == 0
    assert len(sh("user", "code", "list", "--json").json) == 1


def test_one_person_is_shown_and_changed(sh: Shell) -> None:
    sh("user", "add", "Ann", "--limit", "cost_month=12.5", "--limit", "tokens_day=1000000")
    assert "nothing to set" in sh("user", "set", "Ann").refused(2)
    assert sh("user", "set", "Ann", "--note", "next door", "--weight", "2", "--forget-passphrase").code == 0
    row = sh("user", "show", "Ann", "--json").json
    assert (row["note"], row["weight"], row["standing"]["limits"]["cost_month"]) == ("next door", 2.0, 12.5)
    said = sh("user", "show", "Ann").out
    assert "12.50" in said
    assert "1,000,000" in said
    assert "weight" in sh("user", "set", "Ann", "--weight", "0").refused(1)


def test_the_key_alone_is_on_stdout(sh: Shell) -> None:
    done = sh("user", "add", "Ben")
    assert done.out.count(".") == 2
    assert len(done.out.splitlines()) == 1
    assert "not shown again" in done.err


def test_what_cannot_be_done_is_one_line(sh: Shell) -> None:
    sh("user", "add", "Ann")
    assert "taken" in sh("user", "add", "ann").refused(1)
    assert "no user" in sh("user", "disable", "Nobody").refused(1)
    assert "tokens_5h" in sh("user", "add", "Ben", "--limit", "token=1").refused(2)
    assert "number" in sh("user", "add", "Ben", "--limit", "tokens_day=many").refused(2)
    assert sh("user", "add", "Ben", "--limit", "providers=nobody").refused(1)


def test_an_empty_pool_says_how_to_begin(sh: Shell) -> None:
    assert "user add NAME" in sh("user", "list").out
    assert sh("user", "list", "--json").json == []


def test_a_running_server_hears_of_it(sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(listen_addr="127.0.0.1:0", friend_code="door")
    with PoolProcess(folder, settings) as pool:
        key = sh("user", "add", "Ann").out.strip()

        def status() -> int:
            return pool.call("GET", "/status", Authorization=f"Bearer {key}")[0]

        until(lambda: status() == 200, "the key works")
        sh("user", "disable", "Ann")
        until(lambda: status() == 403, "the key is locked out")
        sh("user", "enable", "Ann")
        until(lambda: status() == 200, "the key works again")


def test_a_key_is_given_limits_of_its_own_and_an_end(sh: Shell) -> None:
    sh("user", "add", "Ann")
    made = sh("user", "key", "add", "Ann", "--label", "ci", "--limit", "tokens_day=5000", "--json").json
    key = made["id"]
    (_, row) = sh("user", "key", "list", "Ann", "--json").json
    assert (row["standing"]["limits"]["tokens_day"], row["standing"]["used"]["tokens_day"]) == (5000, 0)
    assert "tokens_day 0 of 5,000" in sh("user", "key", "list", "Ann").out
    said = sh("user", "key", "limit", "Ann", key, "cost_week=2.5", "models=gpt-*,*haiku*").out
    assert said == "ci: cost_week 0 of 2.50, models gpt-*, *haiku*\n"
    assert "no limits of its own" in sh("user", "key", "limit", "Ann", key).out
    assert "ends never" in sh("user", "key", "set", "Ann", key, "--label", "build").out
    assert sh("user", "key", "set", "Ann", key, "--days", "7").code == 0
    (_, row) = sh("user", "key", "list", "Ann", "--json").json
    assert row["label"] == "build" and row["expires"] is not None
    assert sh("user", "key", "set", "Ann", key, "--forever").code == 0
    assert sh("user", "key", "list", "Ann", "--json").json[1]["expires"] is None
    assert "nothing to set" in sh("user", "key", "set", "Ann", key).refused(2)
    assert "not both" in sh("user", "key", "set", "Ann", key, "--forever", "--days", "1").refused(2)
    assert "no such key" in sh("user", "key", "limit", "Ann", "k_none", "tokens_day=1").refused(1)
    assert "tokens_year" in sh("user", "key", "limit", "Ann", key, "tokens_year=1").refused(2)
    assert "future" in sh("user", "key", "set", "Ann", key, "--days", "-1").refused(1)


def test_headroom_is_booked_listed_and_ended(sh: Shell) -> None:
    sh("user", "add", "Ann")
    assert "offers no bookings" in sh("booking", "add", "Ann", "claude", "10").refused(1)
    Path("config.toml").write_text("[bookings]\nmost_percent = 25.0\n")
    made = sh("booking", "add", "Ann", "claude", "10", "--hours", "2", "--json").json
    assert made["until"] - made["since"] == pytest.approx(7200)
    assert "15 %" in sh("booking", "add", "Ann", "claude", "20").refused(1)
    assert "no user" in sh("booking", "add", "Nobody", "claude", "1").refused(1)
    assert "Ann" in sh("booking", "list").out
    assert sh("booking", "list", "--json").json[0]["id"] == made["id"]
    assert sh("booking", "end", made["id"]).code == 0
    assert "no such booking" in sh("booking", "end", made["id"]).refused(1)
    assert "Nothing is booked" in sh("booking", "list").out
