"""The operator's API: what its description says it does, and admin tokens never do more than their scopes."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.core.enums import TokenScope
from pool_server.core.settings import Limits
from pool_server.users import SERVER
from pool_server.web.api_shapes import LimitValues
from pool_server.web.base.handler import Access
from pool_server.web.openapi import BASE, ApiOperation, document
from pool_server.web.routes import API, TABLE
from tests.web.site import Answer, Site

ROOT = Path(__file__).resolve().parents[2]
ADMIN: dict[str, Any] = {"Authorization": "Bearer deep end"}


def token(site: Site, *scopes: str, expires: float | None = None) -> dict[str, Any]:
    made = site.run(
        lambda: site.ctx.users.admin_tokens.create(actor=SERVER, label="a script", scopes=scopes, expires=expires)
    )
    return {"Authorization": f"Bearer {made['token']}"}


def address(one: ApiOperation) -> str:
    """One that is routed there, of things that are not."""
    return BASE + re.sub(r"{(\w+)}", lambda found: one.choices.get(found[1], ("none",))[0], one.path)


def call(site: Site, one: ApiOperation, headers: dict[str, Any]) -> Answer:
    body: Any = None if one.method in ("GET", "DELETE") else {}
    return site.request(one.method, address(one), json_body=body, **headers)


SETS = [set(some) for size in range(1, 4) for some in combinations(TokenScope, size)]


@pytest.mark.parametrize("scopes", SETS, ids=lambda some: "+".join(sorted(some)))
def test_a_token_does_what_its_scopes_say_and_nothing_else(friends: Site, scopes: set[TokenScope]) -> None:
    headers = token(friends, *scopes)
    for one in API:
        found = call(friends, one, headers)
        if one.scope in scopes:
            assert found.status not in (401, 403), (one.method, one.path, found.text)
        else:
            assert found.status == 403, (one.method, one.path, found.text)
            assert set(found.json()["error"]) == {"code", "message"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_a_token_opens_no_route_outside_the_api(friends: Site, method: str) -> None:
    headers = token(friends, *TokenScope)
    for pattern, handler in TABLE:
        if handler.access is Access.OPEN:
            continue
        path = re.sub(r"\(\[.*?\)", "none", pattern)
        path = re.sub(r"\(([a-z-]+)\|[^)]*\)", r"\1", path).replace("\\", "")
        body: Any = None if method in ("GET", "HEAD", "DELETE") else {}
        found = friends.request(method, path, json_body=body, **headers)
        assert found.status in (403, 405), (method, path, found.status)


@pytest.mark.parametrize("field", ["PATCH", "DELETE"])
def test_a_form_s_field_asks_for_no_other_method(friends: Site, field: str) -> None:
    headers = token(friends, *TokenScope)
    for one in API:
        if one.method in ("PATCH", "DELETE"):
            posts = any(other.path == one.path and other.method == "POST" for other in API)
            form = f"_method={field}".encode()
            found = friends.request(
                "POST", address(one), body=form, Content_Type="application/x-www-form-urlencoded", **headers
            )
            assert posts or found.status == 405, one.path


def test_the_operator_may_do_all_and_friends_nothing(friends: Site) -> None:
    made = friends.request("POST", "/admin/pool-users", json_body={"name": "Bo"}, **ADMIN).json()
    for one in API:
        assert call(friends, one, ADMIN).status not in (401, 403, 405), (one.method, one.path)
        assert call(friends, one, {"Authorization": f"Bearer {made['key']}"}).status == 403, (one.method, one.path)
        found = call(friends, one, {"Accept": "text/html"})
        assert found.status == 401 and found.json()["error"]["code"] == "sign_in"


@pytest.mark.parametrize("path", ["", "/", "/nothing", "/people/x/y/z", "/accounts/"])
def test_what_is_not_there_is_json(friends: Site, path: str) -> None:
    found = friends.request("GET", BASE + path, Accept="text/html", **token(friends, "read"))
    assert found.status == 404
    assert found.json()["error"]["code"] == "not_found"


def test_a_method_that_is_not_of_the_api_is_not_served_by_it(friends: Site) -> None:
    found = friends.request("PUT", f"{BASE}/people", json_body={}, **ADMIN)
    assert found.status == 405
    assert found.headers["Allow"] == "GET, HEAD, POST"
    assert friends.request("GET", f"{BASE}/people/none/enable", **ADMIN).status == 405


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1], lambda text: text + "x", lambda text: text.replace("pst_", "pst_0"),
        lambda text: text[:17] + "A" * 43, lambda text: "pst_", lambda text: "pst_\u00e9",
    ],
)  # fmt: skip
def test_a_token_that_is_none_opens_nothing(friends: Site, spoil: Any) -> None:
    good = token(friends, *TokenScope)["Authorization"].removeprefix("Bearer ")
    assert friends.request("GET", f"{BASE}/people", Authorization=f"Bearer {good}").status == 200
    found = friends.request("GET", f"{BASE}/people", Authorization=f"Bearer {spoil(good)}")
    assert found.status == 401
    assert "not known" in found.json()["error"]["message"]


def test_tokens_are_made_listed_ended_and_revoked(friends: Site) -> None:
    path = f"{BASE}/tokens"
    made = friends.request("POST", path, json_body={"label": " my  script ", "scopes": ["people", "read"]}, **ADMIN)
    assert made.status == 201
    told = made.json()
    assert (told["label"], told["scopes"], told["expires"]) == ("my script", ["read", "people"], None)
    listed = friends.request("GET", path, **ADMIN)
    assert [row["id"] for row in listed.json()["tokens"]] == [told["id"]]
    assert told["token"][17:] not in listed.text
    bearer: dict[str, Any] = {"Authorization": f"Bearer {told['token']}"}
    person = friends.request("POST", f"{BASE}/people", json_body={"name": "Cy"}, **bearer).json()
    audit = friends.request("GET", f"{BASE}/audit?target={person['id']}", **bearer)
    assert "token my script" in audit.text
    assert friends.request("DELETE", f"{path}/{told['id']}", **ADMIN).json() == {"revoked": told["id"]}
    assert friends.request("GET", f"{BASE}/people", **bearer).status == 401
    assert friends.request("DELETE", f"{path}/{told['id']}", **ADMIN).status == 404
    ended = token(friends, "read", expires=friends.ctx.clock() + 0.01)
    until = friends.ctx.clock() + 0.02
    while friends.ctx.clock() < until:
        pass
    assert "expired" in friends.request("GET", f"{BASE}/people", **ended).json()["error"]["message"]
    acts = friends.request("GET", "/admin/audit", **ADMIN).text
    assert "token.create" in acts and "token.revoke" in acts and told["token"] not in acts


@pytest.mark.parametrize(
    "body",
    [
        {}, {"label": "x"}, {"label": "", "scopes": ["read"]}, {"label": "x", "scopes": []},
        {"label": "x", "scopes": ["all"]}, {"label": "x" * 81, "scopes": ["read"]},
        {"label": "x", "scopes": "read,people"},
        {"label": "x", "scopes": ["read"], "expires_in": -1}, {"label": "x", "scopes": ["read"], "expires_in": 1e300},
        {"label": "\u0007", "scopes": ["read"]}, {"label": "x", "scopes": ["read"], "more": 1},
    ],
)  # fmt: skip
def test_a_token_that_cannot_be_is_refused(friends: Site, body: dict[str, Any]) -> None:
    found = friends.request("POST", f"{BASE}/tokens", json_body=body, **ADMIN)
    assert found.status == 400, found.text
    assert friends.request("GET", f"{BASE}/tokens", **ADMIN).json() == {"tokens": []}


def test_local_mode_honours_what_a_token_may(local: Site) -> None:
    headers = token(local, "read")
    assert local.request("GET", f"{BASE}/people", **headers).status == 200
    assert local.request("POST", f"{BASE}/people", json_body={"name": "Cy"}, **headers).status == 403


def test_every_limit_is_a_field_of_the_description() -> None:
    assert LimitValues.__struct_fields__ == Limits.__struct_fields__


def test_the_description_is_what_is_served_and_what_is_kept(friends: Site) -> None:
    kept = (ROOT / "docs/openapi.json").read_text(encoding="utf-8")
    served = friends.request("GET", f"{BASE}/openapi.json", **token(friends, "read"))
    assert served.json() == document(API, friends.ctx.version)
    told = json.loads(kept)
    assert told["openapi"] == "3.1.0"
    names = [one["operationId"] for path in told["paths"].values() for one in path.values()]
    assert len(set(names)) == len(names) == len(API)
    for path, methods in told["paths"].items():
        for one in methods.values():
            assert re.findall(r"{(\w+)}", path) == [p["name"] for p in one["parameters"] if p["in"] == "path"]
    for found in re.findall(r'"#/components/schemas/(\w+)"', kept):
        assert found in told["components"]["schemas"]


@pytest.mark.parametrize("one", [one for one in API if one.method == "GET"], ids=lambda one: one.path)
def test_answers_have_the_shape_that_is_described(friends: Site, one: ApiOperation) -> None:
    person = friends.request("POST", "/admin/pool-users", json_body={"name": "Bo"}, **ADMIN).json()["id"]
    friends.request("POST", "/admin/codes", json_body={"label": "x"}, **ADMIN)
    token(friends, "read")
    if "{sign_in}" in one.path:
        begun = friends.request("POST", "/admin/sign-ins", json_body={"provider": "claude", "flow": "line"}, **ADMIN)
        person = begun.json()["id"]
    found = friends.request("GET", address(one).replace("none", person), **ADMIN)
    assert found.status == 200, found.text
    msgspec.convert(found.json(), one.answer)


def test_changes_answer_as_described(friends: Site) -> None:
    def did(method: str, path: str, body: Any = None) -> Any:
        at = next(one for one in API if one.method == method and re.fullmatch(one.pattern, BASE + path))
        found = friends.request(method, BASE + path, json_body=body, **ADMIN)
        assert found.status == at.status, found.text
        return msgspec.convert(found.json(), at.answer)

    person = did("POST", "/people", {"name": "Bo"}).id
    did("PATCH", f"/people/{person}", {"note": "hi"})
    did("POST", f"/people/{person}/disable", {})
    key = did("POST", f"/people/{person}/keys", {"label": "k"}).id
    did("PATCH", f"/people/{person}/keys/{key}", {"label": "m"})
    did("DELETE", f"/people/{person}/keys/{key}")
    did("DELETE", f"/people/{person}")
    did("DELETE", f"/codes/{did('POST', '/codes', {'label': 'x'}).id}")
    did("DELETE", f"/tokens/{did('POST', '/tokens', {'label': 'x', 'scopes': ['read']}).id}")


def test_the_page_lists_tokens_without_them_and_forms_make_and_revoke(friends: Site) -> None:
    assert "No tokens yet." in friends.request("GET", "/settings", Accept="text/html", **ADMIN).text
    body = {"label": "nightly", "scopes": "read people", "expires_in": 60}
    made = friends.request("POST", "/admin/tokens", json_body=body, **ADMIN).json()
    assert made["scopes"] == ["read", "people"]
    page = friends.request("GET", "/settings", Accept="text/html", **ADMIN).text
    assert "nightly" in page and "read, people" in page and made["token"][17:] not in page
    form = {"Content_Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
    path = f"/admin/tokens/{made['id']}"
    assert friends.request("POST", path, body=b"_method=DELETE&_back=/settings", **form, **ADMIN).status == 303
    assert "nightly" not in friends.request("GET", "/settings", Accept="text/html", **ADMIN).text


def test_a_token_tells_when_it_was_last_used(friends: Site) -> None:
    headers = token(friends, "read")
    rows = friends.ctx.users.admin_tokens.rows
    assert [row["last_used"] for row in friends.run(rows)] == [None]
    friends.request("GET", f"{BASE}/people", **headers)
    [seen] = [row["last_used"] for row in friends.run(rows)]
    friends.run(friends.ctx.users._write_what_waits)
    assert not friends.ctx.users.admin_tokens.last_used
    assert friends.run(rows)[0]["last_used"] == pytest.approx(seen, abs=1)


def test_a_script_rotates_keys_and_invites(friends: Site) -> None:
    headers = token(friends, "people", "read")
    bo = friends.request("POST", f"{BASE}/people", json_body={"name": "Bo"}, **headers).json()
    made = friends.request("POST", f"{BASE}/people/{bo['id']}/rotate", json_body={}, **headers).json()
    assert made["key"] != bo["key"]
    asked = {"kind": "person", "uses": 1, "expires_in": 3600}
    invited = friends.request("POST", f"{BASE}/invitations", json_body=asked, **headers)
    assert invited.status == 201 and invited.json()["code"] in invited.json()["url"]
    listed = friends.request("GET", f"{BASE}/invitations", **headers).json()["invitations"]
    assert friends.request("DELETE", f"{BASE}/invitations/{listed[0]['id']}", **headers).status == 200


_LOOSE = {
    "AuditEntry.detail", "SettingAnswer.value",  # as different as what was done, or set
    "SignInAnswer.found", "SignInAnswer.test",  # as different as the providers
}  # fmt: skip


def test_answers_are_described_to_their_leaves() -> None:
    found: set[str] = set()
    seen: set[Any] = set()

    def look(kind: Any, where: str) -> None:
        if isinstance(kind, msgspec.inspect.StructType):
            if kind.cls not in seen:
                seen.add(kind.cls)
                for field in kind.fields:
                    look(field.type, f"{kind.cls.__name__}.{field.encode_name}")
        elif isinstance(kind, msgspec.inspect.AnyType):
            found.add(where)
        elif isinstance(kind, msgspec.inspect.ListType):
            look(kind.item_type, where)
        elif isinstance(kind, msgspec.inspect.DictType):
            look(kind.value_type, where)
        elif isinstance(kind, msgspec.inspect.UnionType):
            for one in kind.types:
                look(one, where)

    for one in API:
        if one.path != "/openapi.json":
            look(msgspec.inspect.type_info(one.answer), one.path)
    assert found == _LOOSE
