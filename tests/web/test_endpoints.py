"""What a client of any kind is told: the base URL by dialect, and first what can work."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects import UsableModel
from pool_server.texts import client_settings
from pool_server.users import Principal
from pool_server.web.onboarding import scripts, snippets
from tests.web.pool import usable
from tests.web.site import Site
from tests.web.test_setup import signed_in


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
    here, there = UsableModel("claude-x", True), UsableModel("claude-x", True, translated=True)
    clients = snippets.clients("http://pool", "k", usable(there, messages=here))
    names = [one.name for one in snippets.usable_first(clients)]
    assert names[:2] == ["claude", "anthropic-sdk"]
    assert sorted(names) == sorted(one.name for one in clients)
    clients = snippets.clients("http://pool", "k", usable(UsableModel(), chat=there))
    assert {one.usable for one in snippets.usable_first(clients)[:9]} == {there}
    alike = snippets.clients("http://pool", "k", usable())
    assert snippets.usable_first(alike) == alike


@pytest.mark.parametrize(
    "name", ["aider", "cline", "continue", "copilot", "pi", "openai-sdk", "anthropic-sdk", "genai-sdk"]
)
def test_a_text_for_each_agent_and_sdk_holds_all_it_needs(name: str) -> None:
    base, key = "http://pool:4100", 'pk.it\'s "mine"'
    client = next(
        one for one in snippets.clients(base, key, usable(chat=UsableModel("glm-4.6", True))) if one.name == name
    )
    texts = " ".join(step.text for step in client.steps)
    assert base in texts and "mine" in texts
    assert ("glm-4.6" if name not in ("anthropic-sdk", "genai-sdk") else "house-model-1") in texts + client.then
    assert not name.endswith("-sdk") or [step.say for step in client.steps] == ["Python:", "Node:"]


@pytest.mark.parametrize("key", ["plain", 'pk.it\'s "mine"', "a: b # c", "\\n$(x)`y`"])
def test_the_files_of_agents_are_what_their_formats_say(key: str) -> None:
    found = {one.name: one.steps[0].text for one in snippets.clients("http://pool", key, usable())}
    assert json.loads(found["pi"])["providers"]["pool"]["apiKey"] == key
    (line,) = [line for line in found["continue"].splitlines() if "apiKey" in line]
    assert json.loads(line.partition(": ")[2]) == key
    assert key in shlex.split(found["cline"])


@pytest.mark.parametrize("model", ["", "glm-4.6", "org/it's $(x) `y`"])
def test_every_line_names_the_model_that_can_be_had_and_no_other(model: str) -> None:
    of_vendors = re.compile(r"(?:claude|gpt|gemini|qwen)[a-z0-9]*-[a-z0-9.-]*\d[a-z0-9.-]*")
    for client in snippets.clients("http://pool", "k", usable(UsableModel(model, True))):
        texts = " ".join((*(step.text for step in client.steps), client.then))
        found = (model or "YOUR-MODEL") in texts.replace("'\\''", "'").replace('\\"', '"').replace("''", "'")
        assert found or (client.chooses and not model), client
        assert not of_vendors.findall(texts), client


@pytest.mark.parametrize("cli", client_settings.CLIS)
def test_a_script_names_what_can_be_had_and_says_when_nothing_can(cli: str) -> None:
    def made(model: UsableModel, *, powershell: bool) -> str:
        values = usable(model)
        return scripts.script(cli, powershell=powershell, base="http://pool", key="k", pool="P", usable=values)

    for shell in (False, True):
        served = made(UsableModel("glm-4.6", True), powershell=shell)
        assert "glm-4.6" in served and "Careful: no account" not in served
        later = made(UsableModel("glm-4.6", back=9e9), powershell=shell)
        assert "Careful: no account of the pool serves glm-4.6 now" in later
        never = made(UsableModel(), powershell=shell)
        assert "Careful: no account of the pool serves anything" in never
        assert "knows no name of a model" in made(UsableModel("", True), powershell=shell)
        assert "qwen3" not in served + later + never


def test_the_set_up_page_shows_the_table(local: Site) -> None:
    page = local.get("/", Accept="text/html").text
    assert "base URL by dialect" in page
    assert f"http://127.0.0.1:{local.port}/v1</td>" in page


def test_a_page_with_nothing_to_use_says_so_and_offers_no_line(friends: Site) -> None:
    async def nothing(principal: Principal | None, dialect: Dialect) -> UsableModel:
        return UsableModel()

    me = signed_in(friends)
    assert "curl -fsSL" in friends.get("/", Accept="text/html", Cookie=me["Cookie"]).text
    friends.ctx.usable = nothing
    page = friends.get("/", Accept="text/html", Cookie=me["Cookie"]).text
    assert "No account of this pool can serve you now" in page
    assert "curl -fsSL" not in page and "data-setup" not in page and "YOUR-POOL-KEY" not in page


def test_a_client_that_is_not_served_says_so_beside_those_that_are(friends: Site) -> None:
    async def messages_alone(principal: Principal | None, dialect: Dialect) -> UsableModel:
        if dialect is Dialect.CHAT:
            return UsableModel("kimi-k2", back=friends.ctx.clock() + 7200)
        return UsableModel("claude-haiku-4-5", True) if dialect is Dialect.MESSAGES else UsableModel()

    me = signed_in(friends)
    friends.ctx.usable = messages_alone
    page = friends.get("/", Accept="text/html", Cookie=me["Cookie"]).text
    parts = dict(re.findall(r'id="client-([a-z-]+)"(.*?)(?=id="client-|</details>\n</section>)', page, re.S))
    assert "claude --model claude-haiku-4-5 -p" in parts["claude"] and "may not be served to you" in parts["claude"]
    assert "can serve Codex for you now" in parts["codex"] and "<pre" not in parts["codex"]
    assert (
        "No account can serve kimi-k2 now" in parts["qwen"] and "(in 2 h)" in parts["qwen"] and "<pre" in parts["qwen"]
    )
