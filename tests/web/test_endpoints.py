"""What a client of any kind is told: the base URL by dialect, and first what can work."""

from __future__ import annotations

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


def test_the_set_up_page_shows_the_table(local: Site) -> None:
    page = local.get("/", Accept="text/html").text
    assert "base URL by dialect" in page
    assert f"http://127.0.0.1:{local.port}/v1</td>" in page
