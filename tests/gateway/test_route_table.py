"""The route table as a whole: every call is named, every id in a path is asked for, and nothing else passes."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import ApiFamily, Dialect, ObjectKind, Operation, Provider
from pool_server.gateway.routes import FAMILIES, TABLES, Route, Row, anthropic, google, match, openai
from pool_server.gateway.routes.normal import normal
from tests.fakes import key_account
from tests.gateway.stack import Stack, run
from tests.gateway.test_objects import ANTHROPIC, FRIENDS, GOOGLE, send

HEADERS: dict[ApiFamily, dict[str, str]] = {
    ApiFamily.OPENAI: {},
    ApiFamily.ANTHROPIC: {"Anthropic-Version": "2023-06-01"},
    ApiFamily.GOOGLE: {"X-Goog-Api-Client": "google-genai-sdk/3"},
}
ROWS = [
    (family, base, row)
    for family, parts in (
        (ApiFamily.OPENAI, ((openai.BASES, openai.ROWS), (openai.CODEX_BASES, openai.CODEX_ROWS))),
        (ApiFamily.ANTHROPIC, ((anthropic.BASES, anthropic.ROWS),)),
        (
            ApiFamily.GOOGLE,
            ((google.BASES, google.ROWS), (google.UPLOAD_BASES, google.UPLOAD_ROWS), (("",), google.CODE_ASSIST_ROWS)),
        ),
    )
    for bases, rows in parts
    for base in bases
    for row in rows
]
WITH_IDS = [(family, base, row) for family, base, row in ROWS if "{" in row.path.replace("{model}", "")]
ROOT = Path(__file__).resolve().parents[2]
PLACE = re.compile(r"\{(\w+)\}")


def filled(path: str, ident: str) -> str:
    return PLACE.sub(lambda found: "m-1" if found[1] == "model" else ident, path)


def told(method: str, path: str, headers: dict[str, str]) -> Route:
    route = match(method, path, headers)
    assert route is not None
    return route


@pytest.mark.parametrize("family", list(ApiFamily))
def test_every_row_is_found_and_says_what_it_does(family: ApiFamily) -> None:
    rows = [(base, row) for one, base, row in ROWS if one is family]
    assert rows
    for base, row in rows:
        check_row(family, base, row)


def check_row(family: ApiFamily, base: str, row: Row) -> None:
    headers = HEADERS[family] | ({"Upgrade": "websocket"} if row.method == "GET" and row.works else {})
    route = told(row.method, base + filled(row.path, "id-1"), headers)
    assert route.model_call and not route.refused, row
    assert (route.operation, route.makes, route.lists, route.deletes, route.works) == (
        row.operation,
        row.makes,
        row.lists,
        row.deletes,
        row.works,
    ), row
    assert FAMILIES[route.dialect] is family
    names = [name for name in PLACE.findall(row.path) if name not in ("model", "_")]
    assert [kind.value for kind, _ in route.ids] == names and all(ident == "id-1" for _, ident in route.ids)


def test_what_is_made_can_be_fetched_and_ended() -> None:
    """What makes an object is served only together with what reads it; what can be listed can be fetched."""
    for table_family in ApiFamily:
        rows = [row for family, _, row in ROWS if family is table_family]
        named = {name for row in rows if row.method == "GET" for name in PLACE.findall(row.path)}
        made = {row.makes for row in rows if row.makes} | {row.lists for row in rows if row.lists}
        by_socket = {ObjectKind.CALL.value}  # `GET /realtime?call_id=…`
        assert {kind.value for kind in made} - {ObjectKind.UPLOAD.value} - by_socket <= named


@pytest.mark.slow
@pytest.mark.parametrize("family", list(ApiFamily))
def test_no_route_with_an_id_lets_a_foreign_one_pass(tmp_path: Path, family: ApiFamily) -> None:
    provider = {ApiFamily.OPENAI: "openai", ApiFamily.ANTHROPIC: "claude", ApiFamily.GOOGLE: "gemini"}[family]

    async def test() -> None:
        async with Stack(tmp_path, [key_account(f"{provider}:a")], **FRIENDS) as stack:
            anna, bert = await stack.key("anna"), await stack.key("bert")
            every = [(kind, "foreign-1") for kind in ObjectKind]
            await stack.gateway.owners.keep(stack.user(anna), family, every, f"{provider}:a")
            headers = {ApiFamily.ANTHROPIC: ANTHROPIC, ApiFamily.GOOGLE: GOOGLE}.get(family, {})
            asked = 0
            for one, base, row in WITH_IDS:
                if one is family:
                    for ident in ("foreign-1", "foreign%2D1", "nobody-has-it"):
                        body: dict[str, Any] | None = None if row.method in ("GET", "DELETE") else {}
                        status, answer = await send(
                            stack, bert, row.method, base + filled(row.path, ident), body, headers
                        )
                        assert status == 404 and "error" in json.dumps(answer), (row, status, answer)
                        asked += 1
            assert asked >= 12 and not stack.fakes.calls

    run(test)


KNOWN_VERBS = {row.path.rpartition(":")[2] for _, _, row in ROWS if ":" in row.path}


@given(st.sampled_from(["/v1beta", "/v1", "/v1alpha"]), st.from_regex(r"[a-zA-Z]{3,24}", fullmatch=True))
def test_a_method_nobody_named_does_not_pass(base: str, verb: str) -> None:
    for collection in ("models/gemini-3", "files/f", "cachedContents/c", "batches/b", "tunedModels/t"):
        route = match("POST", f"{base}/{collection}:{verb}", HEADERS[ApiFamily.GOOGLE])
        assert route is not None
        assert not route.model_call or verb in KNOWN_VERBS


@given(
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]),
    st.text(alphabet=st.sampled_from("/abv1.:%2eF?{}\\-_~é"), max_size=40).map(lambda text: "/" + text),
    st.sampled_from(list(ApiFamily)),
)
def test_any_path_is_a_row_of_the_table_or_no_call(method: str, path: str, family: ApiFamily) -> None:
    route = match(method, path, HEADERS[family])
    if route is not None and route.model_call:
        assert TABLES[FAMILIES[route.dialect]].find(method, route.path) is not None
        assert normal(route.path) == route.path


OPEN_FAMILIES = ("images", "audio", "responses", "files", "videos", "realtime", "conversations", "backend-api/codex")


@given(st.sampled_from(OPEN_FAMILIES), st.from_regex(r"[a-z_]{3,20}(/[a-z_]{3,20}){1,3}", fullmatch=True))
def test_what_stands_below_a_family_passes_only_as_a_row(family: str, rest: str) -> None:
    base = "" if family.startswith("backend") else "/v1"
    route = match("POST", f"{base}/{family}/{rest}", {})
    assert route is not None
    if route.model_call:
        assert TABLES[FAMILIES[route.dialect]].find("POST", route.path) is not None


ALL_REFUSED = [
    *((ApiFamily.OPENAI, words) for words in openai.REFUSED),
    *((ApiFamily.ANTHROPIC, words) for words in anthropic.REFUSED),
    *((ApiFamily.GOOGLE, words) for words in google.REFUSED),
]


@pytest.mark.parametrize(("family", "words"), ALL_REFUSED)
def test_what_acts_on_the_whole_account_is_refused(family: ApiFamily, words: str) -> None:
    prefix = {ApiFamily.OPENAI: "/openai", ApiFamily.ANTHROPIC: "/claude", ApiFamily.GOOGLE: "/gemini"}[family]
    version = "/v1beta" if family is ApiFamily.GOOGLE else "/v1"
    paths = (
        f"{version}/{words}",
        f"{version}/{words}/x/y",
        f"/{version}//{words}",
        f"{prefix}{version}/{words}/x",
    )
    for method, path in itertools.product(("GET", "POST", "DELETE", "PATCH", "PUT"), paths):
        route = told(method, path, HEADERS[family])
        assert route.refused and not route.model_call, (method, path)
        assert FAMILIES[route.dialect] is family


def test_the_page_about_calls_names_what_is_refused_and_what_is_owned() -> None:
    page = (ROOT / "docs/calls.md").read_text(encoding="utf-8")
    for _, words in ALL_REFUSED:
        assert all(word in page for word in words.split("/")), words
    for _, _, row in ROWS:
        assert not row.makes or row.makes.value.replace("_", " ").split()[0] in page.lower()


@pytest.mark.parametrize("words", ["tunedModels/t:generateContent", "tunedModels/t:transferOwnership", "corpora/c/x"])
def test_a_method_does_not_hide_a_refused_family(words: str) -> None:
    assert told("POST", f"/v1beta/{words}", {}).refused


@pytest.mark.parametrize("base", ["/backend-api/codex", "/api/codex", "/v1"])
def test_calls_that_hand_out_credentials_never_pass(base: str) -> None:
    path = f"{base}/realtime/client_secrets"
    for variant in (path, path + "/", "/" + path, path.replace("/realtime", "//realtime"), f"/codex{path}"):
        assert told("POST", variant, {}).refused, variant


@pytest.mark.parametrize("method", ["DELETE", "PATCH"])
@pytest.mark.parametrize("model", ["m", "ft:gpt-6:org::id", "vendor%2Fm", "vendor/m"])
def test_models_are_not_changed(method: str, model: str) -> None:
    assert told(method, f"/v1/models/{model}", {}).refused


@pytest.mark.parametrize("hidden", ["%2F", "%2f", "%5C", "%3A", "%00", "\\", "#", "\t", " "])
def test_an_id_has_no_second_reading(hidden: str) -> None:
    for family, base, row in WITH_IDS:
        route = match(row.method, base + filled(row.path, f"own{hidden}foreign"), HEADERS[family])
        assert route is None or not route.model_call, row
    for path in (f"/v1beta/models/tunedModels{hidden}t:generateContent", f"/v1beta/files/f{hidden}download"):
        assert not told("POST", path, {}).model_call


def test_refusals_are_told_in_the_callers_shape(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("openai:a")], **FRIENDS) as stack:
            anna = await stack.key("anna")
            for path, headers, field in (
                ("/v1/organization/users", {}, "code"),
                ("/v1/skills", ANTHROPIC, "type"),
                ("/v1beta/tunedModels", GOOGLE, "status"),
                ("/backend-api/codex/realtime/client_secrets", {}, "code"),
            ):
                status, answer = await send(stack, anna, "POST", path, {}, headers)
                assert status == 403 and field in answer["error"]
                assert "ask the operator" in answer["error"]["message"]
                assert (await send(stack, "", "POST", path, {}, headers))[0] == 401
            assert not stack.fakes.calls

    run(test)


@pytest.mark.parametrize(
    ("pasted", "path"),
    [
        ("/v1/chat/completions/chat/completions", "/chat/completions"),
        ("/v1/messages/v1/messages", "/v1/messages"),
        ("/v1/messages/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/v1/responses/responses", "/responses"),
        ("/v1/v1/responses", "/v1/responses"),
        ("//v1//chat///completions/", "/v1/chat/completions"),
        ("/v1beta/v1beta/models/g:generateContent", "/v1beta/models/g:generateContent"),
        ("/v1/v1beta/models/g:generateContent", "/v1beta/models/g:generateContent"),
        ("/v1beta/upload/v1beta/files", "/upload/v1beta/files"),
        ("/v1beta/openai/chat/completions", "/chat/completions"),
        ("/openai/v1/v1/embeddings", "/v1/embeddings"),
        ("/claude//v1/messages", "/v1/messages"),
        ("/anthropic/v1/messages", "/v1/messages"),
        ("/api/anthropic/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/compatible-mode/v1/chat/completions", "/v1/chat/completions"),
        ("/api/paas/v4/chat/completions", "/chat/completions"),
        ("/api/coding/paas/v4/chat/completions", "/chat/completions"),
        ("/inference/v1/embeddings", "/v1/embeddings"),
        ("/v1beta/models/models/g:generateContent", "/v1beta/models/g:generateContent"),
    ],
)
def test_a_base_url_that_is_one_part_too_long_is_understood(pasted: str, path: str) -> None:
    route = told("POST", pasted, {})
    assert route.model_call and route.path == path


@pytest.mark.parametrize("spelt", ["/v1{}", "/v1beta/v1{}", "/{}", "{}/", "//v1/{}//"])
@pytest.mark.parametrize(
    "plain", ["/v1/messages", "/v1/responses", "/v1beta/models/g:nonsense", "/v1/whatever", "/v2/x", "/upload/v1beta/x"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_is_no_call_is_answered_alike_however_it_is_spelt(method: str, plain: str, spelt: str) -> None:
    assert match(method, spelt.format(plain), {}) == match(method, plain, {})


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/litellm/v1/messages", Dialect.MESSAGES),
        ("/my-gateway/x/v1/messages/count_tokens/", Dialect.MESSAGES),
        ("/V1/Chat/Completions", Dialect.CHAT),
        ("/router/deployments/gpt/chat/completions", Dialect.CHAT),
        ("/relay/v1/responses", Dialect.RESPONSES),
        ("/relay/models/gemini-3:streamGenerateContent", Dialect.GEMINI),
    ],
)
def test_a_model_call_behind_an_unknown_base_is_answered_in_its_dialect(path: str, dialect: Dialect) -> None:
    route = told("POST", path, {})
    assert (route.dialect, route.model_call) == (dialect, False)
    assert match("POST", path.rstrip("/") + "x", {}) is None, "anything else belongs to the pages"


def test_a_pasted_base_is_no_way_around_a_refusal() -> None:
    for path in ("/v1/chat/completions/v1/organization/users", "/v1/v1/fine_tuning/jobs", "/v1/messages/v1/skills"):
        assert not told("POST", path, {}).model_call


def test_a_forced_vendor_keeps_its_own_calls() -> None:
    assert told("GET", "/gemini/v1/files", {}).dialect is Dialect.GEMINI
    assert told("GET", "/openai/v1/files", {"X-Goog-Api-Key": "k"}).forced is Provider.OPENAI
    assert told("POST", "/v1/images/edits", {}).operation is Operation.IMAGES


K = ObjectKind
MINTED: dict[ApiFamily, dict[str, ObjectKind]] = {
    ApiFamily.ANTHROPIC: {"/messages/batches": K.BATCH, "/files": K.FILE},
    ApiFamily.GOOGLE: {
        "/models/{model}:batchGenerateContent": K.BATCH,
        "/models/{model}:asyncBatchEmbedContent": K.BATCH,
        "/models/{model}:predictLongRunning": K.OPERATION,
        "/cachedContents": K.CACHE,
        "/files": K.FILE,
    },
    ApiFamily.OPENAI: {
        "/conversations": K.CONVERSATION,
        "/files": K.FILE,
        "/uploads": K.UPLOAD,
        "/uploads/{upload}/complete": K.FILE,
        "/batches": K.BATCH,
        "/vector_stores": K.VECTOR_STORE,
        "/containers": K.CONTAINER,
        "/videos": K.VIDEO,
        "/videos/{video}/remix": K.VIDEO,
        "/videos/edits": K.VIDEO,
        "/videos/extensions": K.VIDEO,
        "/videos/characters": K.CHARACTER,
        "/realtime/calls": K.CALL,
    },
}


@pytest.mark.parametrize("family", list(ApiFamily))
def test_whose_an_object_is_is_written_for_every_call_that_mints_one(family: ApiFamily) -> None:
    """By the vendors' documentation, not by the table: a row that forgets it would make what nobody can fetch."""
    assert {row.path: row.makes for one, _, row in ROWS if one is family and row.makes is not None} == MINTED[family]
