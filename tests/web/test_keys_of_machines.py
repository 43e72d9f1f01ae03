"""Keys of the set-up line: named after the machine, one a machine; lists that show them at once."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selenium import webdriver

from pool_server.texts import client_settings
from pool_server.web.home.setup_script import MOST_NAME, machine_name
from pool_server.web.onboarding import scripts, snippets
from tests.web import browser
from tests.web.browser import find, text, wait
from tests.web.pool import ADMIN, usable
from tests.web.site import LiveSite, Site
from tests.web.test_friends import Browser, enter


def run_line(site: Site, ada: Browser, cli: str, machine: str) -> str:
    """The script behind one set-up line, fetched as that machine."""
    ticket = ada.send("POST", "/api/setup-tickets").json()["ticket"]
    return site.get(f"/setup/{ticket}/{cli}", X_Pool_Machine=machine).text


def labels(ada: Browser) -> list[str]:
    return [row["label"] for row in ada.get("/api/me").json()["keys"]]


def test_a_rerun_replaces_the_key_of_its_machine_and_no_other(friends: Site) -> None:
    ada = Browser(friends, enter(friends))
    for machine in ("my-laptop.local", "tower", "my-laptop"):
        run_line(friends, ada, "codex", machine)
    run_line(friends, ada, "claude", "my-laptop")
    assert sorted(labels(ada)) == ["Claude Code on my-laptop", "Codex on my-laptop", "Codex on tower", "first key"]


def test_machines_that_share_a_name_keep_their_keys(friends: Site) -> None:
    ada = Browser(friends, enter(friends))
    for machine in ("localhost", "", "localhost"):
        run_line(friends, ada, "gemini", machine)
    assert labels(ada).count("Gemini CLI") == 3


def test_another_friend_of_the_same_machine_keeps_the_key(friends: Site) -> None:
    ada, bob = Browser(friends, enter(friends)), Browser(friends, enter(friends, "Bob"))
    for who in (ada, bob):
        run_line(friends, who, "qwen", "family-pc")
    assert "Qwen Code on family-pc" in labels(ada)


@given(st.text())
def test_whatever_a_machine_says_its_name_is_plain(said: str) -> None:
    name = machine_name(said)
    assert len(name) <= MOST_NAME
    assert all(char.isascii() and (char.isalnum() or char in "-_") for char in name)


@pytest.mark.parametrize("cli", client_settings.CLIS)
@pytest.mark.parametrize("powershell", [False, True])
def test_the_undo_says_that_its_key_still_works_and_where_to_end_it(cli: str, powershell: bool) -> None:
    told: dict[str, Any] = {
        "powershell": powershell,
        "base": "http://pool",
        "key": "k",
        "pool": "the pool",
        "usable": usable(),
    }
    made = scripts.script(cli, named="Codex on my-laptop", **told)
    silent = scripts.script(cli, **told)
    assert len(made) > len(silent)
    if not powershell:
        assert "Codex on my-laptop, still works. To end it, open http://pool/#keys" in made
        assert "still works" not in silent


def test_the_lines_for_an_account_name_absolute_programs_and_files() -> None:
    steps = [*snippets.first_account("pool"), *snippets.sign_in_again("claude", "claude_work.json", "pool")]
    assert snippets.sign_in_again("openai", "openai_x.json", "pool") == ()
    for step in steps:
        words = shlex.split(step.text)
        if words[0] == "install":
            assert Path(words[-1]).is_absolute()
        if "account" in words:
            assert Path(words[words.index("&&") + 1]).is_absolute()
    assert steps[-2].text == "claude /login"


def says(driver: webdriver.Chrome, part: str, words: str) -> bool:
    return words in text(driver, part)


@pytest.mark.browser
def test_what_is_made_is_in_its_list_at_once(live_friends: LiveSite, chrome: webdriver.Chrome) -> None:
    friends = live_friends
    admin = friends.post("/admin", {"password": ADMIN}).cookies()["pool_session"]
    chrome.get(friends.url + "/healthz")
    chrome.add_cookie({"name": "pool_session", "value": admin, "path": "/"})
    chrome.get(friends.url + "/people")
    find(chrome, "#add summary").click()
    for call, field, words, part in (
        ("POST /admin/pool-users", "name", "Grace", "#people"),
        ("POST /admin/invitations", "label", "for Linus", "#codes"),
    ):
        form = find(chrome, f'form[data-call="{call}"]')
        form.find_element("name", field).send_keys(words)
        form.find_element("css selector", "button").click()
        wait(chrome, partial(says, part=part, words=words))
    shown = find(chrome, "#new-code")
    assert shown.find_element("css selector", "svg.qr").is_displayed()
    assert "The link works once, within 7 d" in shown.text
    assert browser.complaints(chrome) == []
