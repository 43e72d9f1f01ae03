"""Agents and SDKs set up with nothing but the texts of the set-up page, to the letter: the real client, an answer."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from pool_server.core.enums import Provider
from pool_server.dialects import UsableModel
from pool_server.web.onboarding import snippets
from pool_server.web.onboarding.steps import Client
from tests.clients.cases import DIRECTORY, QWEN, URL, Case, path
from tests.clients.jail import why_not
from tests.clients.stage import Stage, stage
from tests.fakes import account, key_account, plays
from tests.web.pool import usable

pytestmark = pytest.mark.clis

AGENTS = {
    "aider": "aider",
    "cline": "cline",
    "continue": "cn",
    "copilot": "copilot",
    "pi": "pi",
}  # name on the page → program
SDKS = ("openai-sdk", "anthropic-sdk", "genai-sdk")
SCRIPTS = {"Python:": ("x.py", [sys.executable]), "Node:": ("x.mjs", ["node"])}


SERVED = usable(
    chat=UsableModel("qwen3-coder-plus", True),
    messages=UsableModel("claude-sonnet-5-5", True),
    gemini=UsableModel("gemini-3.8-flash", True),
)


def as_case(name: str) -> Case:
    return dataclasses.replace(QWEN, name=name, files=lambda key: {}, env=lambda key: {"PATH": path()})


def printed(name: str, key: str) -> Client:
    return next(client for client in snippets.clients(URL, key, SERVED) if client.name == name)


def greeted(scene: Stage, argv: list[str]) -> None:
    """One turn, answered and recorded."""
    before = len(scene.answers())
    scene.turn(argv)
    made = scene.answers()[before:]
    assert made and {one.outcome for one in made} == {"ok"}, scene.told(scene.run(["true"]))


def possible(program: str) -> None:
    reason = why_not()
    if shutil.which(program, path=path()) is None:
        reason = f"{program} is missing (CLIENTS_DIR)"
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_works_as_the_page_says(name: str, tmp_path: Path) -> None:
    possible(AGENTS[name])
    with stage(as_case(name), tmp_path, accounts=1) as scene:
        for ident in scene.fakes.accounts:
            scene.fakes.always(ident, plays.ok(None, ["Hello", " from", " the fake."]))
        client, lines, home = printed(name, scene.key), "", tmp_path / "home"
        for step in client.steps:
            if place := re.search(r"~/(\S+?)[:,]", step.say):
                target = home / place[1]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(step.text)
            elif step.system == "posix" or "shell" in step.say:
                lines += step.text + "\n"
        greeted(scene, ["sh", "-ec", lines + client.then])


@pytest.mark.parametrize("language", SCRIPTS)
@pytest.mark.parametrize("name", SDKS)
def test_an_sdk_works_as_the_page_says(name: str, language: str, tmp_path: Path) -> None:
    file, program = SCRIPTS[language]
    possible(program[0])
    if language == "Node:" and not (DIRECTORY / "sdks").exists():
        pytest.skip("sdks is missing (CLIENTS_DIR)")
    only = [account("claude:a"), account("gemini:a"), key_account("qwen:a")]
    with stage(as_case(name), tmp_path, only=only) as scene:
        for one in only:
            scene.fakes.always(one.id, plays.ok(None, ["Hello", " from", " the fake."]))
        project = tmp_path / "home" / "project"
        os.symlink(DIRECTORY / "sdks" / "node_modules", project / "node_modules")
        text = next(step.text for step in printed(name, scene.key).steps if step.say == language)
        (project / file).write_text(text)
        greeted(scene, [*program, file])


def test_curl_works_as_the_page_says(tmp_path: Path) -> None:
    possible("curl")
    with stage(as_case("curl"), tmp_path, only=[key_account(f"{Provider.QWEN}:a")]) as scene:
        scene.fakes.always("qwen:a", plays.ok(None, ["Hello", " from", " the fake."]))
        greeted(scene, ["sh", "-ec", printed("curl", scene.key).steps[0].text])
