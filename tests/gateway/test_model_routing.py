"""Which model and account serve a request: a model two vendors have, chains with conditions, and who may use what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.settings import Choosing, Fallback, Models
from tests.fakes import FakeAccount, account, key_account, plays
from tests.gateway.sockets import create, socket
from tests.gateway.stack import ADMIN, Stack, run
from tests.gateway.test_translated import CLAUDE, GEMINI, GPT, USAGE, ask, said

SHARED = "glm-6.2"
FULL = plays.status(429, {"type": "error", "error": {"type": "rate_limit_error", "message": "used up"}})
BUSY = plays.status(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
NOW: dict[str, Any] = {"choosing": Choosing(wait_s=0)}  # nobody waits for a used up account
NATIVE = {"chat": "openai:chatty", "messages": "claude:third"}


def both() -> list[FakeAccount]:
    """Two endpoints of different dialects that have the same model."""
    return [
        key_account("openai:chatty", base_url_path="/a", models=[SHARED], dialects=["chat"]),
        key_account("claude:third", base_url_path="/b", models=[SHARED]),
    ]


async def call(
    stack: Stack, key: str, client: str, model: str, text: str = "Say hello.", **more: Any
) -> tuple[int, dict[str, str], bytes]:
    path, body = ask(client, model, stream=bool(more.pop("stream", False)), **more)
    name = {"responses": "input", "gemini": "contents"}.get(client, "messages")
    turn: Any = [{"role": "user", "content": text}]
    body[name] = text if client == "responses" else [{"parts": [{"text": text}]}] if client == "gemini" else turn
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with stack.client.post(stack.url + path, data=json.dumps(body), headers=headers) as answer:
        return answer.status, dict(answer.headers), await answer.read()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("client", ["chat", "messages", "responses", "gemini"])
def test_a_model_in_two_families_is_served_by_the_client_s_own_first(tmp_path: Path, client: str, stream: bool) -> None:
    async def main() -> None:
        async with Stack(tmp_path, both(), friend_code="swim") as stack:
            key = await stack.key()
            served = set()
            for number in range(5):
                status, headers, raw = await call(stack, key, client, SHARED, f"{client} {number}", stream=stream)
                assert status == 200, raw
                assert "X-Pool-Model" not in headers
                await stack.idle()
                record = stack.records()[-1]
                served.add(record.account)
                native = NATIVE.get(client) == record.account
                assert record.model == SHARED and bool(record.decision.get("translation")) is not native
                assert bool(record.decision.get("translated")) is not native
            if client in NATIVE:
                assert served == {NATIVE[client]}

    run(main)


@pytest.mark.parametrize("client", ["chat", "messages", "responses", "gemini"])
def test_a_model_whose_name_tells_no_vendor_goes_to_the_account_that_lists_it(tmp_path: Path, client: str) -> None:
    """Sign-ins of the client's own dialect may have it, for all anybody knows: they are asked where nobody lists it."""

    async def main() -> None:
        signed_in = [account("claude:a"), account("codex:a"), account("gemini:a")]
        async with Stack(tmp_path, [*signed_in, both()[0]], friend_code="swim") as stack:
            key = await stack.key()
            for number in range(3):
                status, _, raw = await call(stack, key, client, SHARED, str(number), stream=True)
                assert status == 200, raw
            assert {one.account for one in stack.fakes.made()} == {"openai:chatty"}
            await stack.accounts.set_disabled("openai:chatty", True)
            unlisted = {"messages": "claude:a", "responses": "codex:a"}.get(client)
            if unlisted is not None:
                assert (await call(stack, key, client, SHARED, "last", stream=True))[0] == 200
                assert stack.fakes.made()[-1].account == unlisted

    run(main)


@pytest.mark.parametrize("client", NATIVE)
def test_the_other_family_steps_in_where_the_client_s_own_fails(tmp_path: Path, client: str) -> None:
    own = NATIVE[client]
    (other,) = set(NATIVE.values()) - {own}

    async def main() -> None:
        async with Stack(tmp_path, both(), friend_code="swim") as stack:
            stack.fakes.always(own, plays.status(500, {"error": {"message": "broken"}}))
            stack.fakes.always(other, plays.ok(USAGE, ["Hel", "lo."]))
            status, headers, raw = await call(stack, await stack.key(), client, SHARED, stream=True)
            assert status == 200 and said(client, raw, stream=True) == "Hello."
            assert headers["X-Pool-Translation"] == f"{client}>{'chat' if client == 'messages' else 'messages'}"
            await stack.idle()
            record = stack.records()[-1]
            assert (record.account, record.usage.input, record.usage.output) == (other, 70, 9)

    run(main)


def test_a_model_in_two_families_is_listed_once_as_the_client_gets_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stack(tmp_path, both(), friend_code="swim") as stack:
            key = await stack.key()
            asked = (
                ({"Authorization": f"Bearer {key}"}, "/v1/models", "data", "openai", False),
                ({"x-api-key": key, "anthropic-version": "2023-06-01"}, "/v1/models", "data", "claude", False),
                ({"x-goog-api-key": key}, "/v1beta/models", "models", None, True),
            )
            for headers, path, name, family, translated in asked:
                async with stack.client.get(stack.url + path, headers=headers) as answer:
                    (row,) = json.loads(await answer.read())[name]
                assert row["translated"] is translated
                assert family is None or row["family"] == family, (path, row)

    run(main)


@pytest.mark.parametrize(
    ("on", "play", "followed"),
    [
        (("quota",), FULL, True),
        (("quota",), BUSY, False),
        (("overload",), BUSY, True),
        (("overload",), FULL, False),
        ((), FULL, False),
        (None, FULL, False),
        (None, BUSY, False),
    ],
)
def test_a_chain_is_followed_for_its_reason_alone_and_never_by_itself(
    tmp_path: Path, on: Any, play: plays.Play, followed: bool
) -> None:
    chain = {} if on is None else {CLAUDE: [Fallback(GPT, on=on)]}

    async def main() -> None:
        accounts = [account("claude:a"), account("codex:a")]
        async with Stack(tmp_path, accounts, friend_code="swim", models=Models(fallbacks=chain), **NOW) as stack:
            stack.fakes.always("claude:a", play)
            stack.fakes.always("codex:a", plays.ok(USAGE, ["Hello."]))
            status, headers, _ = await call(stack, await stack.key(), "messages", CLAUDE)
            await stack.idle()
            record = stack.records()[-1]
            if followed:
                assert (status, headers["X-Pool-Model"], record.model, record.account) == (200, GPT, GPT, "codex:a")
                assert record.decision["asked"] == CLAUDE
            else:
                assert status in (429, 503, 529) and "X-Pool-Model" not in headers
                assert not stack.fakes.made("codex:a")

    run(main)


def test_a_chain_ends_with_its_last_and_each_step_has_its_own_reason(tmp_path: Path) -> None:
    chain = {CLAUDE: [Fallback(GPT, on=("quota",)), Fallback(GEMINI, on=("overload",)), Fallback(SHARED)]}

    async def main() -> None:
        accounts = [account("claude:a"), account("codex:a"), account("gemini:a"), *both()[:1]]
        async with Stack(tmp_path, accounts, friend_code="swim", models=Models(fallbacks=chain), **NOW) as stack:
            stack.fakes.always("claude:a", FULL)
            stack.fakes.always("codex:a", plays.status(429, {"error": {"type": "usage_limit_reached", "message": "x"}}))
            stack.fakes.always("openai:chatty", plays.ok(USAGE, ["Hello."]))
            status, headers, raw = await call(stack, await stack.key(), "messages", CLAUDE)
            assert status == 200, raw
            assert headers["X-Pool-Model"] == SHARED
            assert [one.account for one in stack.fakes.made()] == ["claude:a", "codex:a", "openai:chatty"]

    run(main)


@pytest.mark.parametrize("order", ["bab", "aab", "aba", "bbbb"])
def test_a_chain_that_names_a_model_twice_ends(tmp_path: Path, order: str) -> None:
    """`a` is the model that is asked for; nobody has any of it."""
    chain = {CLAUDE: [Fallback(GPT if one == "b" else CLAUDE) for one in order]}

    async def main() -> None:
        accounts = [account("claude:a"), account("codex:a")]
        async with Stack(tmp_path, accounts, friend_code="swim", models=Models(fallbacks=chain), **NOW) as stack:
            stack.fakes.always("claude:a", FULL)
            stack.fakes.always("codex:a", plays.status(429, {"error": {"type": "usage_limit_reached", "message": "x"}}))
            key = await stack.key()
            for number in range(3):
                assert (await call(stack, key, "messages", CLAUDE, str(number)))[0] == 429
            assert len(stack.fakes.made()) <= 3 * stack.settings.max_attempts

    run(main, within_s=60)


def test_a_chain_leads_nobody_to_a_model_that_is_not_theirs(tmp_path: Path) -> None:
    chain = {CLAUDE: [Fallback(GPT), Fallback(SHARED)]}

    async def main() -> None:
        accounts = [account("claude:a"), account("codex:a"), *both()[:1]]
        async with Stack(tmp_path, accounts, friend_code="swim", models=Models(fallbacks=chain), **NOW) as stack:
            stack.fakes.always("claude:a", FULL)
            user = stack.user(await stack.key())
            for models, served in ((["claude-*"], ""), (["claude-*", SHARED], SHARED), (["claude-*", "gpt-*"], GPT)):
                made = await stack.users.people.create_key(user, models[-1], actor=ADMIN, limits={"models": models})
                status, headers, raw = await call(stack, str(made["key"]), "messages", CLAUDE)
                assert headers.get("X-Pool-Model", "") == served, raw
                assert (status == 200) is bool(served)

    run(main)


@pytest.mark.parametrize("client", ["chat", "messages", "responses", "gemini"])
@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        (["fast"], GPT),  # the name alone lets nobody to the model it stands for
        (["gpt-*"], "fast"),  # nor the model to a name that somebody else is meant to use
        (["claude-*"], "fast"),
        (["FAST", "gpt-*"], ""),
        (["*"], ""),
    ],
)
def test_limits_hold_the_name_asked_for_and_the_model_that_serves(
    tmp_path: Path, client: str, allowed: list[str], refused: str
) -> None:
    async def main() -> None:
        models = Models(aliases={"fast": GPT})
        async with Stack(tmp_path, [account("codex:a")], friend_code="swim", models=models) as stack:
            user = stack.user(await stack.key())
            made = await stack.users.people.create_key(user, "ci", actor=ADMIN, limits={"models": allowed})
            status, headers, raw = await call(stack, str(made["key"]), client, "fast")
            if refused:
                assert (status, stack.fakes.made()) == (403, []), raw
                assert f"your key “ci” does not include the model {refused}" in raw.decode()
            else:
                assert (status, headers["X-Pool-Model"]) == (200, GPT), raw

    run(main)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages/count_tokens", {"model": "fast", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/responses/input_tokens", {"model": "fast", "input": "x"}),
        ("/v1beta/models/fast:countTokens", {"contents": [{"parts": [{"text": "x"}]}]}),
    ],
)
@pytest.mark.parametrize(("allowed", "status"), [(["fast"], 403), (["gpt-*"], 403), (["fast", "gpt-*"], 200)])
def test_counting_tokens_is_held_to_both_names(
    tmp_path: Path, path: str, body: dict[str, Any], allowed: list[str], status: int
) -> None:
    async def main() -> None:
        models = Models(aliases={"fast": GPT})
        async with Stack(tmp_path, [account("codex:a")], friend_code="swim", models=models) as stack:
            user = stack.user(await stack.key())
            made = await stack.users.people.create_key(user, "ci", actor=ADMIN, limits={"models": allowed})
            answer = await stack.post(path, body, token=str(made["key"]))
            assert answer[0] == status, answer

    run(main)


@pytest.mark.parametrize(("allowed", "served"), [(["fast"], False), (["gpt-*"], False), (["fast", "gpt-*"], True)])
def test_a_socket_s_turn_is_held_to_both_names(tmp_path: Path, allowed: list[str], served: bool) -> None:
    async def main() -> None:
        models = Models(aliases={"fast": GPT})
        async with Stack(tmp_path, [account("codex:a")], friend_code="swim", models=models) as stack:
            user = stack.user(await stack.key())
            made = await stack.users.people.create_key(user, "ci", actor=ADMIN, limits={"models": allowed})
            async with socket(stack, Authorization=f"Bearer {made['key']}") as client:
                last = (await client.turn(create(model="fast")))[-1]
                assert (last["type"] == "response.completed") is served, last
                assert served or "does not include the model" in json.dumps(last)

    run(main)


def test_an_account_s_own_name_for_a_model_is_nobody_s_limit(tmp_path: Path) -> None:
    """The name asked for and the pool's own are what an operator writes; what an endpoint calls it is its file's."""
    router = key_account("openai:r", models=["vendor/x"], dialects=["chat"], renames={SHARED: "vendor/x"})

    async def main() -> None:
        models = Models(aliases={"fast": SHARED})
        async with Stack(tmp_path, [router], friend_code="swim", models=models) as stack:
            user = stack.user(await stack.key())
            for allowed, wanted in (([SHARED, "fast"], 200), (["vendor/*", "fast"], 403)):
                made = await stack.users.people.create_key(user, allowed[0], actor=ADMIN, limits={"models": allowed})
                for client in ("chat", "messages"):
                    assert (await call(stack, str(made["key"]), client, "fast"))[0] == wanted

    run(main)


@pytest.mark.parametrize("limits", [{"models": ["fast", "glm-*", "claude-*"]}, {}])
def test_an_alias_is_followed_by_the_chain_of_its_model(tmp_path: Path, limits: dict[str, Any]) -> None:
    """A chain of the alias's own name comes before that of the model it stands for."""
    fallbacks = {CLAUDE: [Fallback(GPT), Fallback(SHARED)], "slow": [Fallback(GPT)]}
    models = Models(aliases={"fast": CLAUDE, "slow": CLAUDE}, fallbacks=fallbacks)

    async def main() -> None:
        accounts = [account("claude:a"), account("codex:a"), both()[0]]
        async with Stack(tmp_path, accounts, friend_code="swim", models=models) as stack:
            stack.fakes.always("claude:a", FULL)
            user = stack.user(await stack.key())
            made = await stack.users.people.create_key(user, "ci", actor=ADMIN, limits=limits)
            status, headers, raw = await call(stack, str(made["key"]), "chat", "fast")
            assert (status, headers.get("X-Pool-Model")) == (200, SHARED if limits else GPT), raw
            status, headers, raw = await call(stack, str(made["key"]), "chat", "slow")
            assert (status, headers.get("X-Pool-Model")) == ((403, None) if limits else (200, GPT)), raw

    run(main)


def test_lists_name_aliases_as_what_they_are_called_and_whom_they_reach(tmp_path: Path) -> None:
    aliases = {"fast": GPT, "glm": SHARED, CLAUDE: SHARED, "nobody": "no-such-model"}

    async def main() -> None:
        accounts = [key_account("codex:k", models=[GPT]), key_account("claude:k", models=[CLAUDE]), both()[0]]
        async with Stack(tmp_path, accounts, friend_code="swim", models=Models(aliases=aliases)) as stack:
            first = await stack.key()
            user = stack.user(first)
            made = await stack.users.people.create_key(
                user, "ci", actor=ADMIN, limits={"models": ["fast", "gpt-*", "glm", CLAUDE]}
            )
            for key, names in ((first, {GPT, SHARED, "fast", "glm", CLAUDE}), (str(made["key"]), {GPT, "fast"})):
                bearer, old = {"Authorization": f"Bearer {key}"}, {"anthropic-version": "2023-06-01"}
                for path, more, rows, ident in (
                    ("/v1/models", {}, "data", "id"),
                    ("/v1/models", old, "data", "id"),
                    ("/v1beta/models", {}, "models", "name"),
                    ("/backend-api/codex/models?client_version=1.0.0", {}, "models", "slug"),
                ):
                    async with stack.client.get(stack.url + path, headers=bearer | more) as answer:
                        found = {row[ident].removeprefix("models/"): row for row in (await answer.json())[rows]}
                    assert found.keys() == names, (path, more)
                    for name, target in aliases.items():
                        if name in found and target in found:
                            marks = [(found[one]["family"], found[one]["translated"]) for one in (name, target)]
                            assert marks[0] == marks[1], (path, name)
                for name, known in (("fast", True), ("nobody", False), ("glm", key == first)):
                    async with stack.client.get(f"{stack.url}/v1/models/{name}", headers=bearer) as answer:
                        assert (answer.status == 200) is known, name

    run(main)


@pytest.mark.parametrize(
    ("client", "more", "named"),
    [
        ("chat", {"n": 2}, "n"),
        ("chat", {"logprobs": True}, "logprobs"),
        ("messages", {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}, "code_execution"),
    ],
)
def test_what_cannot_be_carried_goes_to_the_client_s_own_kind_where_that_is(
    tmp_path: Path, client: str, more: dict[str, Any], named: str
) -> None:
    own = NATIVE[client]

    async def main() -> None:
        async with Stack(tmp_path, both(), friend_code="swim", **NOW) as stack:
            key = await stack.key()
            await stack.accounts.set_disabled(own, True)
            assert (await call(stack, key, client, SHARED))[0] == 200, "the conversation lives with the other"
            await stack.idle()
            status, _, raw = await call(stack, key, client, SHARED, **more)
            assert status == 400 and named in raw.decode()
            await stack.accounts.set_disabled(own, False)
            before = len(stack.fakes.made())
            status, headers, raw = await call(stack, key, client, SHARED, **more)
            assert status == 200 and "X-Pool-Translation" not in headers, raw
            assert [one.account for one in stack.fakes.made()[before:]] == [own]
            await stack.idle()
            record = stack.records()[-1]
            assert [one.account for one in record.attempts] == [own], "nothing was sent to the other"
            assert record.decision["refused"] == {"not_carried": 1}
            stack.fakes.always(own, FULL)
            for _ in range(2):
                status, headers, raw = await call(stack, key, client, SHARED, **more)
                assert status == 429 and int(headers["Retry-After"]) > 0, (status, raw)
                await stack.idle()

    run(main)
