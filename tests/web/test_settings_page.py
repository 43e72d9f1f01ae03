"""The settings page: every setting in words, what is changed here, and the harmless ones written into the file."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core import settings_file
from pool_server.core.settings import ConfigError, Settings
from pool_server.texts.settings import SECTIONS, SETTINGS
from pool_server.web.admin.settings_edit import NotEditableError, changed
from pool_server.web.admin.settings_page import EDITABLE, rows, write
from tests.web.pool import ADMIN
from tests.web.site import Site
from tests.web.test_friends import Browser

EXAMPLE = (Path(__file__).parents[2] / "config.example.toml").read_text(encoding="utf-8")
SECRETS = ("password", "secret", "_token", "code", "url", "proxies", "dir", "addr", "path", "smtp", "mail", "folder")


def test_every_setting_has_words_and_none_that_matters_is_changed_by_a_page() -> None:
    found = rows(Settings(), {})
    assert not any(row.words.endswith(".") for row in found)
    assert not [key for key in EDITABLE if any(part in key for part in SECRETS) and key != "public_url"]
    assert not EDITABLE - set(SETTINGS)
    sections = {row.key.rpartition(".")[0] for row in rows(Settings(), {})}
    assert sections == set(SECTIONS)


def test_comments_and_everything_else_stay() -> None:
    made = changed(EXAMPLE, "max_attempts", 5)
    assert tomli.loads(made) == tomli.loads(EXAMPLE) | {"max_attempts": 5}
    differ = [(a, b) for a, b in zip(EXAMPLE.splitlines(), made.splitlines(), strict=True) if a != b]
    assert differ == [("max_attempts = 3", "max_attempts = 5")]
    named = changed(EXAMPLE, "friend_name", "Blue # pool")
    line = next(line for line in named.splitlines() if line.startswith("friend_name"))
    assert line.startswith('friend_name = "Blue # pool"') and line.endswith("FRIEND_NAME")
    assert changed(named, "friend_name", None).count("friend_name") == EXAMPLE.count("friend_name") - 1


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("", "max_attempts", 2),
        ("", "limits.tokens_day", 5000),
        ("# mine\n\n[limits]\n# a day\ntokens_day = 1\n[alerts]\n", "limits.tokens_day", 7),
        ("[alerts]\nroom_hours = 2", "limits.tokens_day", 7),
        ("[limits]  # of all\n", "limits.cost_day", 2.5),
        ("max_attempts = 2\n# about limits\n[limits]\n", "debug", True),
        ('friend_name = "a"\r\nmax_attempts = 2\r\n', "max_attempts", 4),
    ],
)
def test_a_key_is_put_where_it_belongs(text: str, key: str, value: Any) -> None:
    section, _, name = key.rpartition(".")
    made = changed(text, key, value)
    told = tomli.loads(made)
    assert (told[section] if section else told)[name] == value
    for line in text.splitlines():
        assert line.partition("=")[0] in made


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('friend_tagline = """\nmax_attempts = 1\n"""\n', "max_attempts"),
        ("limits = { tokens_day = 1 }\n", "limits.tokens_day"),
        ('"max_attempts" = 1\n', "max_attempts"),
        ("limits.tokens_day = 1\n", "limits.tokens_day"),
        ("not toml", "max_attempts"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, key: str) -> None:
    with pytest.raises(NotEditableError):
        changed(text, key, 3)


@given(st.text(max_size=60), st.sampled_from(["friend_name", "friend_tagline"]))
def test_any_text_comes_back_as_it_was_said(said: str, key: str) -> None:
    try:
        made = changed(EXAMPLE, key, said)
    except NotEditableError:
        assert any(ord(char) in range(0xD800, 0xE000) for char in said)
        return
    assert tomli.loads(made) == tomli.loads(EXAMPLE) | {key: said}


def test_an_invalid_value_leaves_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text("max_attempts = 2\n[limits\n")
    with pytest.raises(NotEditableError):
        write(file, "debug", True)
    file.write_text("no_such_setting = 1\n")
    with pytest.raises(ConfigError):
        write(file, "debug", True)
    assert file.read_text() == "no_such_setting = 1\n"
    file.write_text("\ufeffmax_attempts = 2  # two\n", encoding="utf-8")
    file.chmod(0o640)
    write(file, "max_attempts", 4)
    assert file.read_text() == "max_attempts = 4  # two\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["config.toml"]


def test_two_who_write_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    (tmp_path / f".config.toml.{os.getpid()}").write_text("left by a killed process")
    values = {"max_attempts": 4, "drain_s": 7.0, "debug": True, "friend_name": "us", "limits.concurrent": 3}
    with ThreadPoolExecutor(len(values)) as several:
        for done in [several.submit(write, file, key, value) for key, value in values.items()]:
            done.result()
    said = tomli.loads(file.read_text())
    assert said.pop("limits") == {"concurrent": 3}
    assert said == {key: value for key, value in values.items() if "." not in key}


def test_the_operator_changes_one_and_it_is_in_force(friends: Site, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("# ours\nmax_attempts = 2\n")
    friends.ctx.reread = lambda: settings_file.load(file, {})
    admin = Browser(friends, friends.post("/admin", {"password": ADMIN}))
    page = admin.get("/settings").text
    assert "Accounts one request may try" in page
    assert 'name="key" value="max_attempts"' in page
    assert 'name="key" value="friend_code"' not in page
    assert ADMIN not in page
    told = admin.send("PATCH", "/admin/settings", {"key": "max_attempts", "value": "5"})
    assert told.json()["value"] == 5
    assert file.read_text() == "# ours\nmax_attempts = 5\n"
    for key, value, status in (
        ("max_attempts", "none", 422), ("max_attempts", "99", 422), ("friend_code", "x", 403), ("no.such", "1", 403),
        ("upstreams.claude", "https://elsewhere", 403), ("friend_name", "x" * 501, 422),
    ):  # fmt: skip
        assert admin.send("PATCH", "/admin/settings", {"key": key, "value": value}).status == status, key
    assert file.read_text() == "# ours\nmax_attempts = 5\n"
    friends.ctx.sources["max_attempts"] = "environment (PROXY_MAX_ATTEMPTS)"
    assert admin.send("PATCH", "/admin/settings", {"key": "max_attempts", "value": "3"}).status == 403
    assert admin.send("PATCH", "/admin/settings", {"key": "choosing.strategy", "value": "priority"}).status == 200
    assert tomli.loads(file.read_text())["choosing"] == {"strategy": "priority"}


def test_the_list_is_searched_and_what_is_changed_stands_out(friends: Site) -> None:
    admin = Browser(friends, friends.post("/admin", {"password": ADMIN}))
    few = admin.get("/settings?changed=1").text
    assert "friend_code" in few
    assert "max_attempts" not in few
    assert "No setting matches" in admin.get("/settings?q=nothing-like-it").text
    assert "tokens_day" in admin.get("/settings?q=tokens+a+day").text
