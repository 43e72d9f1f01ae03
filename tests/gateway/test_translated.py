"""Any client on any account: what goes up, what comes down, what is counted, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.models import Usage
from pool_server.core.settings import Fallback, Models
from tests.fakes import FakeAccount, account, key_account, plays
from tests.gateway.stack import Stack, run

USAGE = Usage(input=70, cache_read=30, output=9, known=True)
CLAUDE, GPT, GEMINI, QWEN = "claude-sonnet-5-5", "gpt-6.1-sol", "gemini-3.8-flash", "qwen3-coder-plus"
ACCOUNTS: dict[str, tuple[Callable[[], FakeAccount], str]] = {
    "claude": (lambda: account("claude:a"), CLAUDE),
    "codex": (lambda: account("codex:a"), GPT),
    "code_assist": (lambda: account("gemini:a"), GEMINI),
    "gemini_key": (lambda: key_account("gemini:k"), GEMINI),
    "claude_key": (lambda: key_account("claude:k"), CLAUDE),
    "qwen": (lambda: account("qwen:a"), QWEN),
}
HOME = {"claude": "messages", "claude_key": "messages", "codex": "responses", "gemini_key": "gemini", "qwen": "chat"}


def ask(client: str, model: str, *, stream: bool, **more: Any) -> tuple[str, dict[str, Any]]:
    """(path, body) of a small request in a client's dialect."""
    says = [{"role": "user", "content": "Say hello."}]
    if client == "chat":
        return "/v1/chat/completions", {"model": model, "messages": says, "stream": stream, **more}
    if client == "messages":
        return "/v1/messages", {"model": model, "messages": says, "max_tokens": 99, "stream": stream, **more}
    if client == "responses":
        return "/v1/responses", {"model": model, "input": "Say hello.", "stream": stream, **more}
    verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
    body = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}], **more}
    return f"/v1beta/models/{model}:{verb}", body


def said(client: str, raw: bytes, *, stream: bool) -> str:
    """The text of an answer in a client's dialect."""
    if not stream:
        body = json.loads(raw)
        if client == "chat":
            return str(body["choices"][0]["message"]["content"])
        if client == "messages":
            return "".join(part.get("text", "") for part in body["content"])
        if client == "responses":
            parts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
            return "".join(part["text"] for part in parts)
        return "".join(part.get("text", "") for part in body["candidates"][0]["content"]["parts"])
    lines = raw.decode().replace("\r\n", "\n").split("\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    if client == "chat":
        return "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e.get("choices"))
    if client == "messages":
        return "".join(e["delta"].get("text", "") for e in events if e["type"] == "content_block_delta")
    if client == "responses":
        return "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    parts = [part for e in events for c in e.get("candidates", []) for part in c.get("content", {}).get("parts", [])]
    return "".join(part.get("text", "") for part in parts)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("client", ["chat", "messages", "responses", "gemini"])
@pytest.mark.parametrize("kind", ACCOUNTS)
def test_every_client_is_served_by_every_account(tmp_path: Path, kind: str, client: str, stream: bool) -> None:
    make, model = ACCOUNTS[kind]
    path, body = ask(client, model, stream=stream)

    async def main() -> None:
        one = make()
        async with Stack(tmp_path, [one], friend_code="swim") as stack:
            stack.fakes.always(one.id, plays.ok(USAGE, ["Hel", "lo", "."]))
            key = await stack.key()
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            async with stack.client.post(stack.url + path, data=json.dumps(body), headers=headers) as answer:
                raw = await answer.read()
                assert answer.status == 200, raw
                translated = answer.headers.get("X-Pool-Translation", "")
                assert ("event-stream" in answer.headers["Content-Type"]) is stream
            assert said(client, raw, stream=stream) == "Hello."
            native = HOME.get(kind) == client
            assert bool(translated) is (not native or translated == "responses>codex")
            await stack.idle()
            (record,) = stack.records()
            assert (record.outcome, record.account, record.model) == ("ok", one.id, model)
            assert (record.usage.input, record.usage.cache_read, record.usage.output) == (70, 30, 9)
            assert record.decision.get("translation", "") == translated

    run(main)


def test_an_account_of_the_client_s_own_dialect_comes_first_and_another_steps_in(tmp_path: Path) -> None:
    path, body = ask("chat", CLAUDE, stream=True)
    router = key_account("openai:router", base_url_path="/compat", models=[CLAUDE])

    async def main() -> None:
        async with Stack(tmp_path, [account("claude:a"), router], friend_code="swim") as stack:
            key = await stack.key()
            for number in range(4):
                assert (await stack.post(path, {**body, "user": str(number)}, token=key))[0] == 200
            await stack.idle()
            assert {record.account for record in stack.records()} == {"openai:router"}
            await stack.accounts.set_disabled("openai:router", True)
            status, raw = await stack.post(path, body, token=key)
            assert status == 200 and b"chat.completion.chunk" in raw
            await stack.idle()
            assert stack.records()[-1].account == "claude:a"

    run(main)


def test_translation_can_be_switched_off(tmp_path: Path) -> None:
    path, body = ask("chat", CLAUDE, stream=False)

    async def main() -> None:
        async with Stack(tmp_path, [account("claude:a")], friend_code="swim", models=Models(translate=False)) as stack:
            status, _ = await stack.post(path, body, token=await stack.key())
            assert status in (404, 503)
            assert stack.fakes.calls == []

    run(main)


@pytest.mark.parametrize(
    ("client", "more", "named"),
    [
        ("chat", {"n": 3}, "n"),
        ("chat", {"messages": [{"role": "oracle", "content": "?"}]}, "oracle"),
        ("responses", {"previous_response_id": "resp_1"}, "previous_response_id"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name_and_nothing_goes_up(
    tmp_path: Path, client: str, more: dict[str, Any], named: str
) -> None:
    path, body = ask(client, CLAUDE, stream=False, **more)

    async def main() -> None:
        async with Stack(tmp_path, [account("claude:a")], friend_code="swim") as stack:
            status, raw = await stack.post(path, body, token=await stack.key())
            assert status in (400, 404), raw
            assert named in raw.decode() or status == 404
            assert stack.fakes.calls == []

    run(main)


def test_before_anything_is_shown_another_account_answers(tmp_path: Path) -> None:
    path, body = ask("messages", GPT, stream=True)

    async def main() -> None:
        async with Stack(tmp_path, [account("codex:a"), account("codex:b")], friend_code="swim") as stack:
            stack.fakes.always("codex:a", plays.status(500, {"error": {"message": "try again"}}))
            stack.fakes.always("codex:b", plays.ok(USAGE, ["Hello."]))
            key = await stack.key()
            for number in range(3):
                status, raw = await stack.post(path, {**body, "metadata": {"user_id": str(number)}}, token=key)
                assert status == 200 and said("messages", raw, stream=True) == "Hello."

    run(main)


def test_an_alias_serves_another_model_and_says_so(tmp_path: Path) -> None:
    models = Models(aliases={"claude-sonnet": GPT, "fast": CLAUDE})

    async def main() -> None:
        async with Stack(
            tmp_path, [account("codex:a"), account("claude:a")], friend_code="swim", models=models
        ) as stack:
            key = await stack.key()
            for asked, client, served in (("claude-sonnet", "messages", GPT), ("fast", "messages", CLAUDE)):
                path, body = ask(client, asked, stream=False)
                headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
                async with stack.client.post(stack.url + path, data=json.dumps(body), headers=headers) as answer:
                    raw = await answer.read()
                    assert answer.status == 200, raw
                    assert answer.headers["X-Pool-Model"] == served
                call = stack.fakes.calls[-1]
                assert json.loads(call.body)["model"] == served
            await stack.idle()
            assert [record.model for record in stack.records()] == [GPT, CLAUDE]

    run(main)


def test_a_model_that_is_used_up_is_followed_by_the_next_of_its_chain(tmp_path: Path) -> None:
    chain = {CLAUDE: [Fallback(GPT, on=("quota",))]}

    async def main() -> None:
        async with Stack(
            tmp_path,
            [account("codex:a"), account("claude:a")],
            friend_code="swim",
            models=Models(fallbacks=chain),
        ) as stack:
            stack.fakes.always("claude:a", plays.status(429, {"type": "error", "error": {"type": "rate_limit_error"}}))
            stack.fakes.always("codex:a", plays.ok(USAGE, ["Hello."]))
            path, body = ask("messages", CLAUDE, stream=False)
            status, raw = await stack.post(path, body, token=await stack.key())
            assert status == 200 and said("messages", raw, stream=False) == "Hello."
            await stack.idle()
            assert stack.records()[-1].model == GPT

    run(main)


def test_tokens_are_estimated_where_the_account_has_no_counter(tmp_path: Path) -> None:
    body = {"model": GPT, "messages": [{"role": "user", "content": "word " * 300}]}

    async def main() -> None:
        async with Stack(tmp_path, [account("codex:a")], friend_code="swim") as stack:
            key = await stack.key()
            headers = {"Authorization": f"Bearer {key}"}
            async with stack.client.post(
                f"{stack.url}/v1/messages/count_tokens", data=json.dumps(body), headers=headers
            ) as answer:
                assert answer.status == 200
                assert answer.headers["X-Pool-Estimated"] == "input_tokens"
                assert 200 < json.loads(await answer.read())["input_tokens"] < 600
            assert stack.fakes.calls == []

    run(main)


def test_a_plain_client_s_stream_is_asked_again_by_the_backend_s_rules(tmp_path: Path) -> None:
    path, body = ask("responses", GPT, stream=True, temperature=0.5)

    async def main() -> None:
        async with Stack(tmp_path, [account("codex:a")], friend_code="swim") as stack:
            stack.fakes.then("codex:a", plays.status(400, {"detail": "Instructions are required"}))
            stack.fakes.always("codex:a", plays.ok(USAGE, ["Hello."]))
            status, raw = await stack.post(path, body, token=await stack.key())
            assert status == 200 and said("responses", raw, stream=True) == "Hello."
            first, second = (json.loads(call.body) for call in stack.fakes.calls)
            assert first == body
            assert second["store"] is False and "temperature" not in second
            await stack.idle()
            assert stack.records()[-1].decision["dropped"] == ["temperature"]

    run(main)
