"""Vertex AI and Bedrock behind the whole server: tokens by signed assertions, signed requests, errors, quotas."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.core.settings import Settings
from tests.fakes import FakeProviders, fake_settings
from tests.fakes.clouds import FakeBedrock, FakeCloud, FakeRole, FakeVertex, Seen, google_error
from tests.web.pool import ADMIN
from tests.web.server import Running

SONNET, FLASH, GPT = "claude-sonnet-5", "gemini-2.5-flash", "openai.gpt-oss-120b-1:0"
HI = [{"role": "user", "content": "hi"}]


@contextmanager
def served(folder: Path, cloud: FakeCloud, name: str, files: dict[str, Any], *, workers: int = 1) -> Iterator[Running]:
    """A server in local mode whose pool has these files; the vendor is the fake."""
    with FakeProviders() as fakes:
        settings: Settings = fake_settings(folder, fakes)
        for file, data in files.items():
            (folder / "pool" / file).write_text(json.dumps(data))
            (folder / "pool" / file).chmod(0o600)
        settings = msgspec.structs.replace(
            settings,
            upstreams=msgspec.structs.replace(settings.upstreams, presets={name: cloud.origin}),
            token_urls=msgspec.structs.replace(settings.token_urls, vertex=f"{cloud.origin}/token"),
            workers=workers,
        )
        made = Running(settings, fakes, workers=workers)
        made.start()
        try:
            yield made
        finally:
            made.stop()


def ask(pool: Running, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    return pool.ask("POST", path, body, **{"Authorization": "", **headers})  # type: ignore[arg-type]


def asked(vertex: FakeVertex) -> list[Seen]:
    """What clients asked for and got: neither tokens nor the pool's own look at the account."""
    calls = [call for call in vertex.calls if call.path != "/token" and call.status == 200]
    return [call for call in calls if not call.path.endswith("flash-lite:countTokens")]


def message(**more: Any) -> dict[str, Any]:
    return {"model": SONNET, "max_tokens": 64, "messages": HI, **more}


def contents(**more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], **more}


@pytest.fixture
def vertex() -> Iterator[FakeVertex]:
    with FakeVertex() as fake:
        yield fake


@pytest.fixture
def pool(tmp_path: Path, vertex: FakeVertex) -> Iterator[Running]:
    with served(tmp_path, vertex, "vertex", {"vertex_one.json": vertex.file()}) as made:
        yield made


def test_a_claude_model_is_named_in_the_path_and_an_hour_needs_one_token(pool: Running, vertex: FakeVertex) -> None:
    for stream in (False, True):
        status, told = ask(pool, "/v1/messages", message(stream=stream), anthropic_beta="context-1m-2025-08-07")
        assert status == 200, told
        assert "Hello " in told if stream else told["content"][0]["text"] == "Hello world"
    assert ask(pool, "/v1/messages", message(model="claude-opus-4-5-20251101"))[0] == 200
    status, told = ask(pool, "/v1/messages/count_tokens", {"model": SONNET, "messages": HI})
    assert (status, told) == (200, {"input_tokens": 11})
    models = [call.path.rpartition("/")[2] for call in asked(vertex)]
    assert models == [
        "claude-sonnet-5@default:rawPredict", "claude-sonnet-5@default:streamRawPredict",
        "claude-opus-4-5@20251101:rawPredict", "count-tokens:rawPredict",
    ]  # fmt: skip
    assert len(vertex.granted) == 1
    sent = asked(vertex)[0].headers
    assert sent["anthropic-beta"] == "context-1m-2025-08-07" and "x-api-key" not in sent
    assert all("/locations/global/" in call.path for call in asked(vertex))


def test_other_bytes_of_the_body_stay_as_they_came(pool: Running, vertex: FakeVertex) -> None:
    raw = b'{ "max_tokens":64,  "model" : "claude-sonnet-5" , "messages":[ {"content":"h\\u00e4","role":"user"} ]}'
    assert pool.ask("POST", "/v1/messages", raw, Authorization="")[0] == 200
    rest = b'{ "max_tokens":64,"messages":[ {"content":"h\\u00e4","role":"user"} ]'
    assert asked(vertex)[-1].body == rest + b',"anthropic_version":"vertex-2023-10-16"}'


def test_a_gemini_model_and_its_count(pool: Running, vertex: FakeVertex) -> None:
    status, told = ask(pool, f"/v1beta/models/{FLASH}:generateContent", contents())
    assert status == 200 and told["candidates"][0]["content"]["parts"][0]["text"] == "Hello world"
    status, told = ask(pool, f"/v1beta/models/{FLASH}:streamGenerateContent?alt=sse", contents())
    assert status == 200 and "Hello " in told and asked(vertex)[-1].query == "alt=sse"
    assert ask(pool, f"/v1beta/models/{FLASH}:countTokens", contents())[1] == {"totalTokens": 7}


@pytest.mark.parametrize("model", [SONNET, FLASH])
@pytest.mark.parametrize("stream", [False, True])
def test_clients_of_other_dialects_are_translated(pool: Running, model: str, stream: bool) -> None:
    status, told = ask(pool, "/v1/chat/completions", {"model": model, "messages": HI, "stream": stream})
    assert status == 200 and "Hello " in json.dumps(told)
    status, told = ask(pool, "/v1/responses", {"model": model, "input": "hi", "stream": stream})
    assert status == 200 and "Hello " in json.dumps(told)


def test_what_is_used_is_counted_and_its_models_are_listed(pool: Running) -> None:
    assert ask(pool, "/v1/messages", message())[0] == 200
    row = pool.ask("GET", "/admin/accounts", Authorization="")[1]["accounts"][0]
    assert (row["id"], row["usage"]["input"], row["usage"]["output"]) == ("vertex:one", 20, 5)
    assert row["hosts"] and row["state"] == "ready"
    listed = {row["id"] for row in pool.ask("GET", "/v1/models", Authorization="")[1]["data"]}
    assert {"gemini-2.5-flash", "claude-sonnet-4-5"} <= listed


def test_a_token_that_is_refused_is_renewed_once_and_the_client_sees_nothing(
    pool: Running, vertex: FakeVertex, tmp_path: Path
) -> None:
    assert ask(pool, "/v1/messages", message())[0] == 200
    vertex.revoke()
    assert ask(pool, "/v1/messages", message())[0] == 200
    kept = json.loads((tmp_path / "pool/vertex_one.json").read_text())
    assert kept["access_token"] == vertex.good and kept["private_key"] == vertex.file()["private_key"]
    assert kept["expiry_date"] > time.time() * 1000


def test_the_token_is_kept_for_the_next_start(tmp_path: Path, vertex: FakeVertex) -> None:
    for _ in range(2):
        (tmp_path / "pool").mkdir(exist_ok=True)
        known = tmp_path / "pool/vertex_one.json"
        files = {} if known.exists() else {known.name: vertex.file()}
        with served(tmp_path, vertex, "vertex", files) as pool:
            assert ask(pool, "/v1/messages", message())[0] == 200
    assert len(vertex.granted) == 1


def test_a_token_is_renewed_by_the_clock_before_it_ends(tmp_path: Path, vertex: FakeVertex) -> None:
    vertex.life_s = 2
    with served(tmp_path, vertex, "vertex", {"vertex_one.json": vertex.file()}) as pool:
        deadline = time.monotonic() + 60
        while len(vertex.granted) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(vertex.granted) >= 3 and all(call.path == "/token" for call in vertex.calls)
        assert pool.ask("GET", "/admin/accounts", Authorization="")[1]["accounts"][0]["state"] == "ready"


def grant_refused(words: str) -> tuple[int, Any]:
    return 400, {"error": "invalid_grant", "error_description": words}


@pytest.mark.parametrize(
    ("refusal", "state", "words"),
    [
        (grant_refused("Invalid JWT Signature."), "needs_login", "key is refused"),
        (grant_refused("Invalid grant: account not found"), "needs_login", "key is refused"),
        (grant_refused("Token must be a short-lived token. Check your iat and exp values"), "ready", "clock"),
        ((503, "<html>down</html>"), "ready", ""),
        ((429, {"error": "rate_limit"}), "ready", "slow down"),
    ],
)
def test_what_the_token_endpoint_refuses(
    tmp_path: Path, vertex: FakeVertex, refusal: tuple[int, Any], state: str, words: str
) -> None:
    vertex.refusals = [refusal] * 5
    with served(tmp_path, vertex, "vertex", {"vertex_one.json": vertex.file()}) as pool:
        status, told = ask(pool, "/v1/messages", message())
        assert status in (429, 502, 503) and told["type"] == "error", told
        row = pool.ask("GET", "/admin/accounts", Authorization="")[1]["accounts"][0]
        assert row["state"] == state
        found = pool.ask("POST", "/admin/accounts/vertex:one/refresh", {}, Authorization="")[1]
        assert words in json.dumps([row, found])
        seen = json.dumps([told, row, found])
        assert "PRIVATE KEY" not in seen and "project-one.iam" not in json.dumps(told)


PLACE = "projects/project-one/locations/global"
UNKNOWN = f"Publisher Model `{PLACE}/publishers/anthropic/models/claude-sonnet-5@default` was not found or your project"
DENIED = f"Permission 'aiplatform.endpoints.predict' denied on resource '//aiplatform.googleapis.com/{PLACE}'"
REQUEST = "invalid_request_error"
ERRORS: list[tuple[int, Any, int, str]] = [
    (400, google_error(400, "INVALID_ARGUMENT", "Request contains an invalid argument."), 400, REQUEST),
    (404, google_error(404, "NOT_FOUND", UNKNOWN), 404, "not_found_error"),
    (429, google_error(429, "RESOURCE_EXHAUSTED", "Resource exhausted. Try again later."), 503, "api_error"),
    (403, google_error(403, "PERMISSION_DENIED", DENIED), 0, ""),
    (400, {"type": "error", "error": {"type": REQUEST, "message": "max_tokens: too large"}}, 400, REQUEST),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 0, ""),
]


@pytest.mark.parametrize(("status", "body", "client", "kind"), ERRORS)
def test_an_error_of_the_platform_comes_in_the_clients_dialect(
    pool: Running, vertex: FakeVertex, status: int, body: Any, client: int, kind: str
) -> None:
    vertex.next = [(status, {}, body)] * 8
    found, told = ask(pool, "/v1/messages", message())
    assert told["type"] == "error" and set(told["error"]) >= {"type", "message"}, told
    if client:
        assert (found, told["error"]["type"]) == (client, kind)
    assert "project-one" not in json.dumps(told), "nothing of the account goes down"
    status_of_row = pool.ask("GET", "/admin/accounts", Authorization="")[1]["accounts"][0]["state"]
    assert status_of_row == "ready" or status == 403


def test_capacity_that_all_share_rests_the_model_alone(pool: Running, vertex: FakeVertex) -> None:
    vertex.next = [(429, {}, google_error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted."))] * 3
    assert ask(pool, "/v1/messages", message())[0] == 503
    vertex.next.clear()
    assert ask(pool, f"/v1beta/models/{FLASH}:generateContent", contents())[0] == 200


def test_regions_have_hosts_of_their_own_and_secrets_go_nowhere_else(vertex: FakeVertex) -> None:
    from pool_server.core.enums import Provider
    from pool_server.providers import provider_module

    module, hosts = provider_module(Provider.VERTEX), {}
    for region in ("", "us", "eu", "europe-west4"):
        cred = module.parse(vertex.file(region=region), "vertex:one", now=0)
        hosts[region] = module.egress(cred, Settings())
    token = "https://oauth2.googleapis.com"
    assert hosts == {
        "": {"https://aiplatform.googleapis.com", token},
        "us": {"https://aiplatform.us.rep.googleapis.com", token},
        "eu": {"https://aiplatform.eu.rep.googleapis.com", token},
        "europe-west4": {"https://europe-west4-aiplatform.googleapis.com", token},
    }


@pytest.fixture
def bedrock() -> Iterator[FakeBedrock]:
    with FakeBedrock() as fake:
        yield fake


@pytest.mark.parametrize("session", ["", "a/session+token=="])
def test_every_request_is_signed(tmp_path: Path, bedrock: FakeBedrock, session: str) -> None:
    bedrock.session = session
    with served(tmp_path, bedrock, "bedrock", {"bedrock_one.json": bedrock.file()}) as pool:
        headers = {"X_Amz_Date": "19990101T000000Z", "X_Amz_Security_Token": "the clients own"}
        for stream in (False, True):
            status, told = ask(
                pool, "/v1/chat/completions", {"model": GPT, "messages": HI, "stream": stream}, **headers
            )
            assert status == 200, told
            status, told = ask(pool, "/v1/responses", {"model": GPT, "input": "hi", "stream": stream})
            assert status == 200, told
            body = message(model="anthropic.claude-sonnet-5", stream=stream)
            assert ask(pool, "/v1/messages", body)[0] == 200
        assert pool.ask("GET", "/v1/models", Authorization="")[0] == 200
        told = pool.ask("POST", "/admin/accounts/bedrock:one/test", {}, Authorization="")[1]["result"]
        assert told["ok"] and told["model"] == GPT, told
    assert all(call.status == 200 for call in bedrock.calls)
    shown = json.dumps([call.headers for call in bedrock.calls]) + "".join(str(call.body) for call in bedrock.calls)
    assert bedrock.secret not in shown and "1999" not in shown


def test_a_large_body_is_signed_as_it_goes_up(tmp_path: Path, bedrock: FakeBedrock) -> None:
    with served(tmp_path, bedrock, "bedrock", {"bedrock_one.json": bedrock.file()}) as pool:
        body = {"model": GPT, "messages": [{"role": "user", "content": "word " * 2_400_000}]}
        assert ask(pool, "/v1/chat/completions", body)[0] == 200
    assert len(bedrock.calls[-1].body) > 8 << 20


def test_a_wrong_signature_is_told_in_the_clients_dialect_and_an_api_key_needs_none(
    tmp_path: Path, bedrock: FakeBedrock
) -> None:
    wrong = bedrock.file(aws_secret_access_key="another/secret+that0is1not2the3one")
    with served(tmp_path / "a", bedrock, "bedrock", {"bedrock_one.json": wrong}) as pool:
        status, told = ask(pool, "/v1/chat/completions", {"model": GPT, "messages": HI})
        assert status >= 400 and told["error"]["message"] and "another/secret" not in json.dumps(told)
    with served(tmp_path / "b", bedrock, "bedrock",
                {"bedrock_one.json": {"api_key": bedrock.key, "region": bedrock.region}}) as pool:  # fmt: skip
        assert ask(pool, "/v1/chat/completions", {"model": GPT, "messages": HI})[0] == 200
        bedrock.next = [(400, {"x-amzn-errortype": "ValidationException"}, {"message": "The model is not a model."})]
        status, told = ask(pool, "/v1/chat/completions", {"model": GPT, "messages": HI})
        assert (status, told["error"]["message"]) == (400, "The model is not a model.")


def asks_bedrock(pool: Running) -> tuple[int, Any]:
    return ask(pool, "/v1/chat/completions", {"model": GPT, "messages": HI})


def spent(cloud: FakeCloud) -> int:
    return sum(call.path == "/" for call in cloud.calls)


@pytest.mark.parametrize("xml", [False, True])
def test_a_role_is_assumed_once_and_kept_for_the_next_start(tmp_path: Path, xml: bool) -> None:
    with FakeRole(xml=xml) as aws:
        files = {"bedrock_one.json": aws.file()}
        with served(tmp_path, aws, "bedrock", files) as pool:
            for _ in range(3):
                assert asks_bedrock(pool)[0] == 200
            told = pool.ask("POST", "/admin/accounts/bedrock:one/test", {}, Authorization="")[1]["result"]
            assert told["ok"], told
            row = pool.ask("GET", "/admin/accounts", Authorization="")[1]["accounts"][0]
            assert row["can_refresh"] and 3000 < row["expires_at"] - time.time() <= 3600
        assert spent(aws) == 1
        kept = json.loads((tmp_path / "pool/bedrock_one.json").read_text())
        assert kept["assumed"]["access_key_id"] == aws.sessions[0][0] and kept["role_arn"] == aws.arn
        with served(tmp_path, aws, "bedrock", {"bedrock_one.json": kept}) as pool:
            assert asks_bedrock(pool)[0] == 200
        assert spent(aws) == 1
        shown = json.dumps([call.headers for call in aws.calls]) + "".join(str(call.body) for call in aws.calls)
        assert aws.own[1] not in shown and aws.sessions[0][1] not in shown


def test_a_session_that_has_ended_is_renewed_once_and_the_client_sees_nothing(tmp_path: Path) -> None:
    with FakeRole() as aws, served(tmp_path, aws, "bedrock", {"bedrock_one.json": aws.file()}) as pool:
        assert asks_bedrock(pool)[0] == 200
        aws.expire()
        assert asks_bedrock(pool)[0] == 200
        assert spent(aws) == 2
        row = pool.ask("GET", "/admin/accounts", Authorization="")[1]["accounts"][0]
        assert row["state"] == "ready"


UNTRUSTED = {"Error": {"Code": "AccessDenied", "Message": "User: arn:aws:iam::1:user/x is not authorized"}}


@pytest.mark.parametrize(
    ("status", "body", "state", "words"),
    [
        (403, UNTRUSTED, "ready", "trust and permissions"),
        (403, {"Error": {"Code": "InvalidClientTokenId", "Message": "is invalid"}}, "needs_login", "new access keys"),
        (403, {"Error": {"Code": "SignatureDoesNotMatch", "Message": "Signature expired: x"}}, "ready", "clock"),
        (400, "<Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error>", "ready", "Rate exceeded"),
        (503, "<html>", "ready", "503"),
        (200, "{}", "ready", "no session"),
        (200, '{"AssumeRoleResponse":{"AssumeRoleResult":{"Credentials":{"AccessKeyId":7}}}}', "ready", "no session"),
    ],
)
def test_what_sts_refuses(tmp_path: Path, status: int, body: Any, state: str, words: str) -> None:
    with FakeRole() as aws, served(tmp_path, aws, "bedrock", {"bedrock_one.json": aws.file(disabled=True)}) as pool:
        aws.refusals = [(status, body)] * 9
        told = pool.ask("POST", "/admin/accounts/bedrock:one/refresh", {}, Authorization="")[1]
        assert words in told["error"]["message"], told
        assert aws.own[1] not in str(told)
        assert pool.ask("POST", "/admin/accounts/bedrock:one/enable", {}, Authorization="")[0] == 200
        row = pool.ask("GET", "/admin/accounts", Authorization="")[1]["accounts"][0]
        assert row["state"] == state, row
        assert asks_bedrock(pool)[0] in (429, 503)


def test_both_are_added_on_the_accounts_page(tmp_path: Path, vertex: FakeVertex, bedrock: FakeBedrock) -> None:
    with FakeProviders() as fakes:
        settings = fake_settings(tmp_path, fakes)
        presets = {"vertex": vertex.origin, "bedrock": bedrock.origin}
        settings = msgspec.structs.replace(
            settings,
            upstreams=msgspec.structs.replace(settings.upstreams, presets=presets),
            token_urls=msgspec.structs.replace(settings.token_urls, vertex=f"{vertex.origin}/token"),
            pool_users=msgspec.structs.replace(settings.pool_users, admin_password=ADMIN),
            friend_code="swim",
        )
        pool = Running(settings, fakes)
        pool.start()
        try:
            pasted = json.dumps(vertex.file(), indent=2)
            status, made = pool.ask("POST", "/admin/accounts", {"name": "g", "credential": pasted, "region": "eu"})
            assert (status, made["id"], made["test"]["ok"]) == (201, "vertex:g", True), made
            assert "/locations/eu/" in asked(vertex)[-1].path
            again = pool.ask("POST", "/admin/accounts", {"name": "h", "credential": vertex.file(region="eu")})
            assert again[0] == 409
            assert pool.ask("POST", "/admin/accounts", {"name": "h", "credential": vertex.file()})[0] == 201
            body = {"name": "a", "provider": "bedrock", "credential": bedrock.file()}
            status, made = pool.ask("POST", "/admin/accounts", body)
            assert (status, made["id"], made["test"]["ok"]) == (201, "bedrock:a", True), made
            wrong = {"name": "b", "credential": vertex.file(key=1), "region": "us"}
            status, told = pool.ask("POST", "/admin/accounts", wrong)
            assert status == 422 and "key is refused" in told["error"]["message"]
            assert not (tmp_path / "pool/vertex_b.json").exists()
        finally:
            pool.stop()
