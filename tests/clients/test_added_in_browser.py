"""An account added on the page, and the real programs that then work on it: Codex, Claude Code, an SDK."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from selenium import webdriver

from tests.clients.cases import CLAUDE, CODEX, Case, missing
from tests.clients.jail import why_not
from tests.clients.stage import stage
from tests.fakes import account
from tests.web import browser
from tests.web.browser import find, text, wait
from tests.web.conftest import chrome  # noqa: F401

pytestmark = [pytest.mark.clis, pytest.mark.browser]


@pytest.mark.parametrize("case", [CLAUDE[0], CODEX[0]], ids=lambda case: case.name)
def test_a_program_works_on_an_account_added_in_a_browser(
    case: Case,
    tmp_path: Path,
    chrome: webdriver.Chrome,  # noqa: F811
) -> None:
    browser.need()
    if why := why_not() or missing(case.client):
        pytest.skip(why)
    with stage(case, tmp_path, only=[account("qwen:other")]) as made:
        new = made.fakes.add(account(f"{case.provider.value}:mine", used_5h=20, used_7d=10))
        chrome.get(f"{made.page}/admin")
        form = find(chrome, "form[action='/admin']")
        form.find_element("name", "password").send_keys("admin")
        form.submit()
        wait(chrome, lambda d: "/admin" not in d.current_url)
        chrome.get(f"{made.page}/accounts")
        if find(chrome, "#add").get_attribute("open") is None:
            find(chrome, "#add > summary").click()
        form = find(chrome, "form[data-call='POST /admin/accounts']")
        form.find_element("name", "credential").send_keys(json.dumps(new.file()))
        form.find_element("name", "consent").click()
        form.find_element("css selector", "button.primary").click()
        wait(chrome, lambda d: "was added and takes requests now." in text(d))
        before = len(made.fakes.made(new.id))
        ran = made.run(case.first)
        assert ran.code == 0 and f"Hello from {new.id}" in ran.out, made.told(ran)
        assert len(made.fakes.made(new.id)) > before
        if case.client == "claude":
            import anthropic  # a second to load, and the quick tests leave this file out

            with anthropic.Anthropic(base_url=made.page, api_key=made.key, max_retries=0) as client:
                said = client.messages.create(
                    model="claude-sonnet-5", max_tokens=5, messages=[{"role": "user", "content": "hi"}]
                )
            assert said.content
