"""Signing in through OpenID Connect: one browser, one code, and only what the issuer's own key says."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import Settings, SingleSignOn
from pool_server.gateway import Upstream
from pool_server.web.home.openid import OpenId, OpenIdError, PendingSignIn
from tests.fakes.identity_provider import CLIENT, SECRET, FakeIdentityProvider
from tests.fakes.rsa_keys import rsa_key
from tests.web.pool import friends_settings
from tests.web.site import Answer, Site

CALLBACK = "/sign-in/openid/callback"


class Visitor:
    """A browser that keeps its cookies, the issuer's site left out."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cookies: dict[str, str] = {}

    def get(self, path: str) -> Answer:
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items() if value)}
        answer = self.site.get(path, Accept="text/html", **(sent if self.cookies else {}))
        self.cookies |= answer.cookies()
        return answer

    def begin(self) -> str:
        """To the issuer: the address the browser is sent to."""
        answer = self.get("/sign-in/openid")
        assert answer.status == 303, answer.text
        return str(answer.headers["Location"])

    def sign_in(self, idp: FakeIdentityProvider) -> Answer:
        return self.get(f"{CALLBACK}?{idp.agree(self.begin())}")

    @property
    def me(self) -> Any:
        sent = "; ".join(f"{name}={value}" for name, value in self.cookies.items() if value)
        return self.site.get("/api/me", Cookie=sent).json()


@pytest.fixture
def idp(friends: Site) -> Iterator[FakeIdentityProvider]:
    """An identity provider that `friends` trusts."""
    found = FakeIdentityProvider()
    friends.run(found.start)
    upstream: list[Upstream] = []

    def trust() -> None:
        upstream.append(Upstream())
        friends.ctx.send = upstream[0].send
        sso = SingleSignOn(
            issuer=found.issuer, client_id=CLIENT, client_secret=SECRET,
            people=["*@example.org", "sub:known-*"], operators=["boss@example.org"],
        )  # fmt: skip
        settings: Settings = msgspec.structs.replace(friends.ctx.settings, single_sign_on=sso)
        friends.ctx.settings = friends.ctx.users.sign_in.settings = settings

    friends.run(trust)
    yield found
    friends.run(upstream[0].close)
    friends.run(found.close)


def test_somebody_signs_in_becomes_a_person_and_comes_back(friends: Site, idp: FakeIdentityProvider) -> None:
    assert "/sign-in/openid" in friends.get("/", Accept="text/html").text
    ada = Visitor(friends)
    answer = ada.sign_in(idp)
    assert (answer.status, "Continue" in answer.text) == (200, True)
    (kept,) = [line for line in answer.headers.get_all("Set-Cookie") or [] if line.startswith("pool_session=")]
    assert "HttpOnly" in kept and "SameSite=Strict" in kept
    assert ada.me["user"]["name"] == "ada"
    again = Visitor(friends)
    again.sign_in(idp)
    assert again.me["user"] == ada.me["user"]
    idp.claims = {"email": "lovelace@example.org"}  # a new address, the same subject
    third = Visitor(friends)
    third.sign_in(idp)
    assert third.me["user"] == ada.me["user"]


def test_the_operator_signs_in_and_a_new_list_of_operators_ends_it(friends: Site, idp: FakeIdentityProvider) -> None:
    idp.claims = {"sub": "boss-1", "email": "Boss@example.org"}
    boss = Visitor(friends)
    assert boss.sign_in(idp).status == 200
    assert boss.get("/accounts").status == 200
    sso = msgspec.structs.replace(friends.ctx.settings.single_sign_on, operators=["other@example.org"])
    settings = msgspec.structs.replace(friends.ctx.settings, single_sign_on=sso)
    friends.ctx.settings = friends.ctx.users.sign_in.settings = settings
    assert boss.get("/accounts").status != 200


OTHER_KEY = rsa_key(1)


def unsigned(idp: FakeIdentityProvider, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, "", algorithm="none")


def by_the_public_key(idp: FakeIdentityProvider, claims: dict[str, Any]) -> str:
    """HS256 with what everybody knows as the secret (CVE-2016-10555 and its like)."""
    pem = idp.key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": idp.kid}).encode()).rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    mac = base64.urlsafe_b64encode(hmac.new(pem, head + b"." + body, hashlib.sha256).digest()).rstrip(b"=")
    return b".".join((head, body, mac)).decode()


def by_the_client_secret(idp: FakeIdentityProvider, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, SECRET.ljust(32, "x"), algorithm="HS256", headers={"kid": idp.kid})


def by_another_key(idp: FakeIdentityProvider, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, OTHER_KEY, algorithm="RS256", headers={"kid": idp.kid})


def by_an_unknown_key(idp: FakeIdentityProvider, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, OTHER_KEY, algorithm="RS256", headers={"kid": "second"})


def no_token(idp: FakeIdentityProvider, claims: dict[str, Any]) -> str:
    return "no.such.token"


@pytest.mark.parametrize(
    "sign", [unsigned, by_the_public_key, by_the_client_secret, by_another_key, by_an_unknown_key, no_token]
)
def test_a_token_that_the_issuers_key_has_not_signed_signs_nobody_in(
    friends: Site, idp: FakeIdentityProvider, sign: Any
) -> None:
    idp.sign = lambda claims: sign(idp, claims)
    refused(friends, Visitor(friends).sign_in(idp))


NOW = time.time()  # of the collection, which may be most of an hour before a test


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": [CLIENT, "another-client"]},
        {"aud": [CLIENT, "another-client"], "azp": "another-client"},
        {"azp": "another-client"},
        {"aud": None},
        {"exp": NOW - 3600},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"iat": NOW + 86_400},
        {"iat": None},
        {"nbf": NOW + 86_400},
        {"nonce": "of-another-sign-in"},
        {"nonce": None},
        {"nonce": ["x"]},
        {"sub": None},
        {"sub": ""},
        {"email": "boss@example.org", "email_verified": False},
        {"email": "boss@example.org", "email_verified": None},
        {"email": "boss@example.org", "email_verified": "false"},
        {"email": "boss@example.org", "email_verified": "true"},
        {"email": "ada@example.org.evil.example"},
        {"email": None},
        {"email": ["ada@example.org"]},
        {"sub": "boss@example.org", "email": None},
    ],
)  # fmt: skip
def test_a_token_that_is_not_for_this_client_browser_and_time_signs_nobody_in(
    friends: Site, idp: FakeIdentityProvider, claims: dict[str, Any]
) -> None:
    idp.claims = claims
    refused(friends, Visitor(friends).sign_in(idp))


def refused(site: Site, answer: Answer) -> None:
    assert answer.status in (401, 403), answer.text
    assert not answer.cookies().get("pool_session")
    assert 'role="alert"' in answer.text and SECRET not in answer.text
    assert site.ctx.users.people.list_users()[0] == []


def test_a_known_subject_without_a_mail_is_somebody(friends: Site, idp: FakeIdentityProvider) -> None:
    idp.claims = {"sub": "known-7", "email": None}
    visitor = Visitor(friends)
    assert visitor.sign_in(idp).status == 200 and visitor.me["user"]["name"]


def test_a_code_and_a_sign_in_serve_once_and_this_browser_alone(friends: Site, idp: FakeIdentityProvider) -> None:
    ada = Visitor(friends)
    query = idp.agree(ada.begin())
    pending = dict(ada.cookies)
    refused(friends, Visitor(friends).get(f"{CALLBACK}?{query}"))  # another browser, as a link somebody sent
    assert ada.get(f"{CALLBACK}?{query}").status == 200
    replay = Visitor(friends)
    replay.cookies = pending
    assert replay.get(f"{CALLBACK}?{query}").status == 401  # the code and the cookie of before
    fresh = Visitor(friends)
    state = parse_qs(urlsplit(fresh.begin()).query)["state"][0]
    code = parse_qs(query)["code"][0]
    assert fresh.get(f"{CALLBACK}?code={code}&state={state}").status == 401  # the code of before, a new sign-in


def test_what_comes_back_wrong_signs_nobody_in(friends: Site, idp: FakeIdentityProvider) -> None:
    for query in ("", "code=x", "state=x&code=x", "error=access_denied", "code=x&state=" + "s" * 3000):
        visitor = Visitor(friends)
        visitor.begin()
        refused(friends, visitor.get(f"{CALLBACK}?{query}"))
    visitor = Visitor(friends)
    state = parse_qs(urlsplit(visitor.begin()).query)["state"][0]
    assert "signed nobody in" in visitor.get(f"{CALLBACK}?state={state}&error=access_denied").text
    late = Visitor(friends)
    query = idp.agree(late.begin())
    clock = friends.ctx.clock
    friends.ctx.clock = lambda: clock() + 601
    refused(friends, late.get(f"{CALLBACK}?{query}"))
    deep = base64.urlsafe_b64encode(b'{"x":' + b"[" * 3000).decode()
    for cookie in ("%%%", deep):
        broken = Visitor(friends)
        broken.cookies = {"pool_openid": cookie}
        refused(friends, broken.get(f"{CALLBACK}?code=x&state=x"))


def test_an_answer_nested_without_end_is_told_in_one_line() -> None:
    async def send(_: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, {}, b'{"issuer":' + b"[" * 100_000)

    openid = OpenId(SingleSignOn(issuer="https://idp.example", client_id=CLIENT), send, time.time)
    with pytest.raises(OpenIdError, match="cannot be read"):
        asyncio.run(openid.address(PendingSignIn.new(0.0), "https://pool.example/x"))


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "ftp://x"},
        {"jwks_uri": 5},
        {"authorization_endpoint": None},
    ],
)
def test_an_issuer_that_is_another_is_not_asked(friends: Site, idp: FakeIdentityProvider, said: dict[str, Any]) -> None:
    idp.discovery = said
    assert Visitor(friends).get("/sign-in/openid").status == 502


def test_an_issuer_that_fails_is_told_in_one_line(friends: Site, idp: FakeIdentityProvider) -> None:
    visitor = Visitor(friends)
    query = idp.agree(visitor.begin())
    idp.status = 500
    refused(friends, visitor.get(f"{CALLBACK}?{query}"))


@pytest.mark.parametrize("keys", [[], [{"kty": "oct", "k": "c2VjcmV0", "kid": "first"}], [{"kty": "RSA"}], ["x"]])
def test_keys_that_are_none_believe_nobody(friends: Site, idp: FakeIdentityProvider, keys: list[Any]) -> None:
    idp.keys = keys
    refused(friends, Visitor(friends).sign_in(idp))


def test_a_new_key_is_fetched_and_not_at_every_token(friends: Site, idp: FakeIdentityProvider) -> None:
    assert Visitor(friends).sign_in(idp).status == 200
    idp.key, idp.kid = OTHER_KEY, "second"
    assert Visitor(friends).sign_in(idp).status == 401  # within a minute of the last look
    clock = friends.ctx.clock
    friends.ctx.clock = lambda: clock() + 61
    friends.ctx.open_id._clock = friends.ctx.clock
    idp.claims = {"exp": NOW + 86_400}
    assert Visitor(friends).sign_in(idp).status == 200
    assert idp.asked.count("/keys") == 2


def test_without_an_issuer_there_is_nothing(friends: Site) -> None:
    assert friends.get("/sign-in/openid", Accept="text/html").status == 404
    assert friends.get(f"{CALLBACK}?code=x&state=x", Accept="text/html").status == 404
    assert "/sign-in/openid" not in friends.get("/", Accept="text/html").text
    assert friends_settings().single_sign_on.issuer == ""
