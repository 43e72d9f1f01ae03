"""What a client of any kind is told: the base URL by dialect, and first what can work."""

from __future__ import annotations

import json
import shlex

import pytest

from pool_server.core.enums import Provider
from pool_server.providers import SPECS
from pool_server.texts.client_settings import QWEN_MODEL
from pool_server.web.onboarding import snippets
from tests.web.site import Site


def test_every_dialect_has_a_base_url_and_every_known_client_its_setting() -> None:
    found = {one.dialect: one for one in snippets.endpoints("http://pool")}
    assert {name: one.url for name, one in found.items()} == {
        "Chat Completions": "http://pool/v1",
        "Responses": "http://pool/v1",
        "Messages": "http://pool",
        "Gemini": "http://pool",
    }
    named = " ".join(f"{client} {setting}" for one in found.values() for client, setting in one.clients)
    for client in ("aider", "Cline", "Continue", "Copilot", "pi", "Node", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL"):
        assert client in named


def test_what_can_work_stands_first() -> None:
    clients = snippets.clients("http://pool", "k")
    names = [one.name for one in snippets.usable_first(clients, frozenset({"claude"}))]
    assert names[0] == "claude"
    assert {"claude", "anthropic-sdk"} == set(names[:2])
    assert sorted(names) == sorted(one.name for one in clients)
    assert snippets.usable_first(clients, frozenset()) == clients


@pytest.mark.parametrize(
    "name", ["aider", "cline", "continue", "copilot", "pi", "openai-sdk", "anthropic-sdk", "genai-sdk"]
)
def test_a_text_for_each_agent_and_sdk_holds_all_it_needs(name: str) -> None:
    base, key = "http://pool:4100", 'pk.it\'s "mine"'
    client = next(one for one in snippets.clients(base, key, "glm-4.6") if one.name == name)
    texts = " ".join(step.text for step in client.steps)
    assert base in texts and "mine" in texts
    assert name in ("anthropic-sdk", "genai-sdk") or "glm-4.6" in texts + client.then
    assert not name.endswith("-sdk") or [step.say for step in client.steps] == ["Python:", "Node:"]


@pytest.mark.parametrize("key", ["plain", 'pk.it\'s "mine"', "a: b # c", "\\n$(x)`y`"])
def test_the_files_of_agents_are_what_their_formats_say(key: str) -> None:
    found = {one.name: one.steps[0].text for one in snippets.clients("http://pool", key)}
    assert json.loads(found["pi"])["providers"]["pool"]["apiKey"] == key
    (line,) = [line for line in found["continue"].splitlines() if "apiKey" in line]
    assert json.loads(line.partition(": ")[2]) == key
    assert key in shlex.split(found["cline"])


def test_the_model_is_one_of_those_who_can_serve() -> None:
    assert snippets.usable_model(frozenset()) == QWEN_MODEL
    for provider in ("claude", "gemini", "codex"):
        assert snippets.usable_model(frozenset({provider})) in SPECS[Provider(provider)].shipped


def test_the_set_up_page_shows_the_table(local: Site) -> None:
    page = local.get("/", Accept="text/html").text
    assert "base URL by dialect" in page
    assert f"http://127.0.0.1:{local.port}/v1</td>" in page
