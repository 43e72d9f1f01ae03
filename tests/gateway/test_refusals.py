"""A refusal of one request says nothing of the account that passed it on: through the whole data plane."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Outcome, Strategy
from pool_server.core.settings import Choosing
from pool_server.demo.fake_upstream import unauthorized
from tests.fakes import FakeAccount, Gate, account, faults, key_account, plays
from tests.fakes.plays import Play, status
from tests.gateway.stack import Stack, chat, messages, responses, run

BY_PRIORITY: dict[str, Any] = {"choosing": Choosing(strategy=Strategy.PRIORITY, wait_s=0)}
GEMINI = "/v1beta/models/gemini-2.5-pro:generateContent"


def claude(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


def google(code: int, state: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": state}}


def generate(text: str) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]}


def openai(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


CASES: list[tuple[str, str, Any, int, Any]] = [
    ("claude", "/v1/messages", messages, 401, claude("authentication_error", "OAuth is not supported for this call.")),
    ("claude", "/v1/messages", messages, 403, claude("permission_error", "Your request was refused by policy 7.")),
    ("claude", "/v1/messages", messages, 404, claude("not_found_error", "File not found: file_claude-sonnet-4-5")),
    ("gemini", GEMINI, generate, 403, google(403, "PERMISSION_DENIED", "You do not have permission to access it.")),
    ("gemini", GEMINI, generate, 404, google(404, "NOT_FOUND", "CachedContent not found: models of gemini-2.5-pro")),
    ("openai", "/v1/chat/completions", chat, 403, openai("m was flagged", code=403, metadata={"reasons": ["x"]})),
    ("openai", "/v1/chat/completions", chat, 403, openai("Your organization must be verified to use the model `m`.")),
    ("openai", "/v1/chat/completions", chat, 401, openai("You have insufficient permissions for this operation.")),
    ("openai", "/v1/chat/completions", chat, 403, openai("Blocked", code="blocked_by_guardrail")),
    ("openai", "/v1/chat/completions", chat, 404, openai("No such model file: file-m", code="not_found")),
    ("openai", "/v1/responses", responses, 403, openai("This prompt may not be answered.", code="policy")),
]
AFFORD = (
    "This request requires more credits, or fewer max_tokens. You requested up to 64000 tokens, but can only afford 9."
)
CASES += [
    ("openai", "/v1/chat/completions", chat, 402, openai(AFFORD, code=402)),
    ("openai", "/v1/chat/completions", chat, 402, openai("Prompt tokens limit exceeded: 9000 > 8000. See …", code=402)),
    ("claude", "/v1/messages", messages, 402, claude("billing_error", AFFORD)),
]


# What another plan, organisation or balance may include: all are asked.
ELSEWHERE = (
    "is not supported",
    "insufficient permissions",
    "must be verified",
    "more credits",
    "tokens limit exceeded",
)


def some(provider: str, number: int) -> list[FakeAccount]:
    make = key_account if provider in ("gemini", "openai") else account
    return [make(f"{provider}:{name}", priority=at) for at, name in enumerate(("one", "two", "three")[:number], 1)]


def two(provider: str) -> list[FakeAccount]:
    return some(provider, 2)


def marked(call: Any) -> bool:
    """Is it the request that is to be refused? (Its body has not come yet when the fakes decide.)"""
    return any(name.lower() == "x-note" for name, _ in call.headers)


def ask(make: Any, text: str) -> Any:
    return make(text) if make is generate else make(text=text, **({"model": "m"} if make is chat else {}))


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "path", "make", "code", "body"), CASES)
def test_a_refused_request_costs_nobody_else_anything(
    tmp_path: Path, provider: str, path: str, make: Any, code: int, body: Any
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, some(provider, 3), **BY_PRIORITY) as stack:
            stack.fakes.director = lambda _, call: status(code, body) if marked(call) else None
            for _ in range(2):
                told = await stack.post(path, ask(make, "flagged"), x_note="refuse")
                assert (told[0], json.loads(told[1])) == (code, body), "the provider's own words"
            asked = 3 if any(words in json.dumps(body) for words in ELSEWHERE) else 2
            assert len(stack.fakes.made()) <= 2 * asked, "one more account is asked, or those of other plans"
            assert (await stack.post(path, ask(make, "plain")))[0] == 200
            for row in stack.accounts.describe_all():
                assert (row.state, row.rests, row.terms.get("faults")) == ("ready", [], None)
            assert [r.outcome for r in stack.records()] == [Outcome.REQUEST_FAULT, Outcome.REQUEST_FAULT, Outcome.OK]

    run(test)


@pytest.mark.parametrize("code", [401, 403])
def test_an_account_whose_own_call_is_refused_too_rests(tmp_path: Path, code: int) -> None:
    async def test() -> None:
        one, good = (key_account(f"openai:{name}", priority=n) for n, name in enumerate(("one", "two")))
        async with Stack(tmp_path, [one, good], **BY_PRIORITY) as stack:
            refusal = status(code, openai("Access to this resource is denied."))
            stack.fakes.always(one.id, refusal)
            stack.fakes.always(one.id, refusal, on="models")
            assert (await stack.post("/v1/chat/completions", chat(model="m")))[0] == 200
            await stack.accounts.own_calls.settled(5.0)
            assert stack.accounts.describe(one.id).state == "cooling"
            stack.fakes.calls.clear()
            assert (await stack.post("/v1/chat/completions", chat(model="m")))[0] == 200
            assert [call.account for call in stack.fakes.made()] == [good.id]

    run(test)


def test_what_its_own_call_taught_of_an_account_is_taken_back_when_a_second_refuses_too(tmp_path: Path) -> None:
    """The provider refuses everybody: whoever was asked first is no worse than the others."""

    async def test() -> None:
        one, other = two("openai")
        async with Stack(tmp_path, [one, other], **BY_PRIORITY) as stack:
            refusal, gate = status(401, openai("Nobody is let in.")), Gate()
            for on in ("generate", "models"):
                stack.fakes.always(one.id, refusal, on=on)
            stack.fakes.always(other.id, replace(refusal, gate=gate, gate_at=-1))
            asking = asyncio.create_task(stack.post("/v1/chat/completions", chat(model="m")))
            await gate.reached()
            await stack.accounts.own_calls.settled(5.0)
            assert stack.accounts.describe(one.id).state == "cooling"
            gate.open()
            assert (await asking)[0] == 401
            assert stack.accounts.describe(one.id).state == "ready"

    run(test)


def test_an_account_that_alone_refuses_a_model_is_left_alone_for_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two("openai"), **BY_PRIORITY) as stack:
            stack.fakes.always("openai:one", status(403, openai("Not for you.")))
            for n in range(5):
                assert (await stack.post("/v1/chat/completions", chat(model="m", text=f"talk {n}")))[0] == 200
            assert len(stack.fakes.made("openai:one")) == 3, "three answers elsewhere are evidence"
            (rest,) = stack.accounts.describe("openai:one").rests
            assert (rest.scope, rest.kind) == ("chat:m", "permission")
            assert stack.accounts.describe("openai:one").state == "ready"

    run(test)


@pytest.mark.parametrize(
    ("path", "body", "play"),
    [
        ("/v1/files", b"multipart without a model", faults.retry_after(900)),
        ("/v1/messages/batches", b'{"requests":[]}', faults.bare_429()),
        ("/v1/messages/batches", b'{"requests":[]}', faults.server_error(500)),
        ("/v1/messages/count_tokens", messages(), faults.bare_429()),
    ],
)
def test_a_call_without_a_model_or_of_another_kind_rests_no_message(
    tmp_path: Path, path: str, body: Any, play: Play
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two("claude"), **BY_PRIORITY) as stack:

            def refuse(_: FakeAccount, call: Any) -> Play | None:
                return None if call.path.endswith("/v1/messages") else play

            stack.fakes.director = refuse
            for surface in ("count", "unknown"):
                for name in ("claude:one", "claude:two"):
                    stack.fakes.always(name, play, on=surface)
            assert (await stack.post(path, body, anthropic_version="2023-06-01"))[0] >= 400
            assert (await stack.post("/v1/messages", messages()))[0] == 200
            for row in stack.accounts.describe_all():
                assert row.state == "ready" and not [r for r in row.rests if r.scope in ("", "sonnet")]

    run(test)


def test_a_typo_is_told_in_the_providers_words_and_costs_nothing(tmp_path: Path) -> None:
    body = openai("The model `gpt-nope` does not exist", type="invalid_request_error", code="model_not_found")

    async def test() -> None:
        async with Stack(tmp_path, two("openai"), **BY_PRIORITY) as stack:
            stack.fakes.director = lambda _, call: status(404, body) if marked(call) else None
            told = await stack.post("/v1/chat/completions", chat(model="gpt-nope"), x_note="refuse")
            assert (told[0], json.loads(told[1])) == (404, body)
            for row in stack.accounts.describe_all():
                assert (row.state, row.rests, row.terms.get("faults")) == ("ready", [], None)

    run(test)


def test_a_model_that_one_account_lacks_is_asked_of_it_once(tmp_path: Path) -> None:
    body = openai("The model `m` does not exist", code="model_not_found")

    async def test() -> None:
        async with Stack(tmp_path, two("openai"), **BY_PRIORITY) as stack:
            stack.fakes.always("openai:one", status(404, body))
            for _ in range(3):
                assert (await stack.post("/v1/chat/completions", chat(model="m")))[0] == 200
            assert len(stack.fakes.made("openai:one")) == 1

    run(test)


def test_a_broken_request_that_breaks_every_provider_stops_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two("claude"), **BY_PRIORITY) as stack:
            play = faults.server_error(500)
            stack.fakes.director = lambda _, call: play if marked(call) else None
            for _ in range(4):
                assert (await stack.post("/v1/messages", messages(text="poison"), x_note="refuse"))[0] == 503
            assert (await stack.post("/v1/messages", messages(text="plain")))[0] == 200
            assert not [row.rests for row in stack.accounts.describe_all() if row.rests]

    run(test)


DEAF = {
    "closes": plays.closes(),
    "empty": status(200, ""),
    "a page": status(200, "<html>x</html>", content_type="text/html"),
    "leads elsewhere": status(307, "", location="http://elsewhere.invalid/"),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", DEAF)
@pytest.mark.parametrize("stream", [True, False])
def test_a_request_that_nobody_answers_makes_no_account_look_worse(tmp_path: Path, how: str, stream: bool) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two("claude"), **BY_PRIORITY) as stack:
            stack.fakes.director = lambda _, call: DEAF[how] if marked(call) else None
            for _ in range(3):
                assert (await stack.post("/v1/messages", messages(text="x", stream=stream), x_note="refuse"))[0] == 502
            assert [row.terms.get("faults") for row in stack.accounts.describe_all()] == [None, None]
            assert all(row.last_fault for row in stack.accounts.describe_all()), "the page still tells it"
            stack.fakes.director = None
            stack.fakes.always("claude:one", DEAF[how])
            assert (await stack.post("/v1/messages", messages(text="y", session="s-2")))[0] == 200
            assert stack.accounts.describe("claude:one").terms["faults"] < 0, "another account served the same"

    run(test)


VENDORS_OWN = ("bio_policy", "image_too_large", "failed_to_download_image", "invalid_base64_image", "image_parse_error")


@pytest.mark.parametrize("code", [*VENDORS_OWN, "something_new", ""])
def test_an_error_within_an_answer_is_the_requests_unless_it_speaks_of_the_account(tmp_path: Path, code: str) -> None:
    failed = {"id": "resp_1", "object": "response", "status": "failed", "output": [], "error": {"code": code}}

    async def test() -> None:
        async with Stack(tmp_path, two("openai"), **BY_PRIORITY) as stack:
            stack.fakes.director = lambda _, call: status(200, failed) if marked(call) else None
            told = await stack.post("/v1/responses", responses(text="flagged", stream=False), x_note="refuse")
            assert (told[0], json.loads(told[1])) == (200, failed)
            assert len(stack.fakes.made()) == 1
            assert (await stack.post("/v1/responses", responses(text="plain", stream=False)))[0] == 200
            assert not [row.rests for row in stack.accounts.describe_all() if row.rests]

    run(test)


@pytest.mark.parametrize("code", ["bio_policy", "server_error", "rate_limit_exceeded", "insufficient_quota"])
def test_an_object_that_failed_earlier_is_no_fault_of_looking_it_up(tmp_path: Path, code: str) -> None:
    failed = {"id": "resp_1", "object": "response", "status": "failed", "output": [], "error": {"code": code}}

    async def test() -> None:
        async with Stack(tmp_path, two("openai"), **BY_PRIORITY) as stack:
            for one in ("openai:one", "openai:two"):
                stack.fakes.always(one, plays.status(200, failed), on="unknown")
            for _ in range(3):
                async with stack.client.get(stack.url + "/v1/responses/resp_1") as answer:
                    assert (answer.status, json.loads(await answer.read())) == (200, failed)
            assert (await stack.post("/v1/responses", responses(text="plain", stream=False)))[0] == 200
            for row in stack.accounts.describe_all():
                assert (row.state, row.rests, row.last_fault) == ("ready", [], None)

    run(test)


@pytest.mark.parametrize("provider", ["claude", "codex"])
@pytest.mark.parametrize("lost", [1, 2])
def test_a_token_that_can_be_renewed_is_renewed_before_its_refusal_counts_as_a_second_opinion(
    tmp_path: Path, provider: str, lost: int
) -> None:
    """The first accounts are refused with new tokens too; the last one's token has merely ended."""
    path, make = {"claude": ("/v1/messages", messages), "codex": ("/v1/responses", responses)}[provider]
    accounts = [account(f"{provider}:{n}", priority=n) for n in range(1, lost + 2)]

    async def test() -> None:
        async with Stack(tmp_path, accounts, **BY_PRIORITY) as stack:
            vendor = {"claude": "claude", "codex": "chatgpt"}[provider]
            stack.fakes.always(accounts[0].id, status(401, unauthorized(vendor)))
            for one in accounts[1:]:
                one.revoke()
            told = await stack.post(path, make())
            assert told[0] == 200, told[1]
            assert stack.records()[-1].account == accounts[1].id

    run(test)


@pytest.mark.parametrize("code", [400, 404, 422])
def test_a_provider_that_says_nothing_is_told_in_a_sentence(tmp_path: Path, code: int) -> None:
    async def test() -> None:
        async with Stack(tmp_path, two("openai"), **BY_PRIORITY) as stack:
            stack.fakes.director = lambda _, call: status(code, "") if marked(call) else None
            got, raw = await stack.post("/v1/chat/completions", chat(model="gpt-nope"), x_note="refuse")
            wanted = f"openai refused this call (status {code}) and said no more."
            assert (got, json.loads(raw)["error"]["message"]) == (code, wanted)

    run(test)
