"""Service accounts and AWS access keys as files hold them: what is taken, what is refused, where their secrets go."""

from __future__ import annotations

from typing import Any

import pytest

from pool_server.core.enums import CredentialKind, Dialect, Operation, Provider
from pool_server.core.settings import Settings
from pool_server.providers import CredentialRejectedError, provider_module
from pool_server.providers.bedrock import signing
from pool_server.providers.keys.pasted import recognise
from pool_server.providers.vertex.module import claude_name
from tests.providers.make import NOW, call, cred, service_account

AWS = {
    "aws_access_key_id": "AKIAFAKEFAKEFAKEFAKE",
    "aws_secret_access_key": "S3NTINEL/aws+secret0key",
    "region": "eu-central-1",
}


def rejected(provider: Provider, data: dict[str, Any]) -> str:
    with pytest.raises(CredentialRejectedError) as caught:
        provider_module(provider).parse(data, f"{provider}:x", now=NOW)
    words = str(caught.value)
    assert "PRIVATE KEY" not in words and "S3NTINEL" not in words and "\n" not in words
    return words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client_email": ""}, "client_email is missing"),
        ({"client_email": "a b@c"}, "client_email is not"),
        ({"project_id": None}, "project_id is missing"),
        ({"project_id": "../other"}, "project_id is not"),
        ({"project_id": "a/b"}, "project_id is not"),
        ({"private_key": ""}, "private_key"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"}, "no RSA key"),
        ({"private_key": 7}, "private_key must be a text"),
        ({"private_key": "x" * 20_000}, "private_key must be a text"),
        ({"token_uri": "https://attacker.example/token"}, "token_uri must be"),
        ({"token_uri": "http://oauth2.googleapis.com/token"}, "token_uri must be"),
        ({"region": "EU"}, "region is not"),
        ({"region": "evil.example/x"}, "region is not"),
        ({"base_url": "https://attacker.example"}, "base_url cannot be given"),
        ({"endpoint": "https://attacker.example"}, "endpoint is not read"),
        ({"api_key": "AIza"}, "api_key cannot be given"),
        ({"expiry_date": "soon"}, "expiry_date"),
    ],
)
def test_a_service_account_that_cannot_be_used_is_told_why(changes: dict[str, Any], words: str) -> None:
    assert words in rejected(Provider.VERTEX, service_account(**changes))


@pytest.mark.parametrize("kind", ["authorized_user", "", None])
def test_what_is_no_service_account_is_told(kind: str | None) -> None:
    data = {
        name: value for name, value in service_account(type=kind).items() if name not in ("access_token", "expiry_date")
    }
    assert "no usable credential: a service account" in rejected(Provider.VERTEX, data)


def test_a_key_of_another_kind_of_mathematics_is_refused() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert "no RSA key" in rejected(Provider.VERTEX, service_account(private_key=pem.decode()))


def test_a_service_account_in_another_vendors_file_is_told_its_name() -> None:
    assert "vertex_x.json" in rejected(Provider.GEMINI, service_account(access_token=None))
    assert recognise("\ufeff" + str(service_account()).replace("'", '"'), now=NOW).provider is Provider.VERTEX


def test_what_shows_and_hides_it() -> None:
    found = cred(Provider.VERTEX)
    assert found.kind is CredentialKind.SERVICE_ACCOUNT and found.can_refresh
    assert "PRIVATE" not in repr(found)
    assert found.private_key.encode() not in found.hide(b"echo " + found.private_key.encode())


def test_each_project_and_region_is_an_account_of_its_own() -> None:
    module = provider_module(Provider.VERTEX)
    one, same, other = (
        module.parse(service_account(region=region), "vertex:x", now=NOW) for region in ("us", "us", "eu")
    )
    assert module.identity(one) == module.identity(same) != module.identity(other)
    assert one.grant == same.grant != other.grant


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5@20250929"),
        ("claude-sonnet-5", "claude-sonnet-5@default"),
        ("claude-sonnet-5@20260101", "claude-sonnet-5@20260101"),
        ("anthropic/claude-haiku-4-5", "claude-haiku-4-5@default"),
        ("claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet-v2@20241022"),
    ],
)
def test_vertexs_name_of_a_claude_model(asked: str, name: str) -> None:
    assert claude_name(asked) == name


@pytest.mark.parametrize(
    "model", ["claude-x:predict?a=b", "claude-../../evil", "claude-x/../../../v1/y", "claude-%2e%2e"]
)
def test_a_models_name_leads_to_no_other_address(model: str) -> None:
    asked = call("/v1/messages", operation=Operation.MESSAGES, dialect=Dialect.MESSAGES, model=model)
    url = provider_module(Provider.VERTEX).prepare(cred(Provider.VERTEX), asked, Settings()).url
    head = "https://aiplatform.googleapis.com/v1/projects/project-one/locations/global/publishers/anthropic/models/"
    assert url.startswith(head) and url.endswith(":rawPredict")
    assert url.removeprefix(head).count("/") == url.removeprefix(head).count("?") == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"aws_access_key_id": ""}, "aws_access_key_id is missing"),
        ({"aws_access_key_id": "akia"}, "aws_access_key_id is not"),
        ({"aws_secret_access_key": None}, "aws_secret_access_key is missing"),
        ({"aws_secret_access_key": 5}, "aws_secret_access_key must be a text"),
        ({"region": ""}, "region must be given"),
        ({"region": "eu/../x"}, "region must be given"),
        ({"api_key": "both"}, "one of them must go"),
        ({"base_url": "https://attacker.example"}, "base_url cannot be given"),
        ({"aws_expiration": "later"}, "aws_expiration is not a moment"),
    ],
)
def test_access_keys_that_cannot_be_used_are_told_why(changes: dict[str, Any], words: str) -> None:
    assert words in rejected(Provider.BEDROCK, AWS | changes)


def test_without_botocore_the_file_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "available", lambda: False)
    assert "pip install 'pool-server[bedrock]'" in rejected(Provider.BEDROCK, AWS)
    key = provider_module(Provider.BEDROCK).parse({"api_key": "k-123456", "region": "eu-central-1"}, "bedrock:x", now=0)
    assert key.secret == "k-123456"


def test_the_secret_of_an_access_key_is_in_no_header() -> None:
    module = provider_module(Provider.BEDROCK)
    found = module.parse(AWS, "bedrock:x", now=NOW)
    asked = call("/v1/chat/completions", ("X-Amz-Target", "evil"), operation=Operation.CHAT, model="openai.gpt")
    prepared = module.prepare(found, asked, Settings())
    assert prepared.sign is not None
    headers = dict(prepared.headers) | dict(prepared.sign(b"{}"))
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAFAKEFAKEFAKEFAKE/")
    assert "S3NTINEL" not in str(headers) and "X-Amz-Target" not in headers
    assert prepared.egress == {"https://bedrock-runtime.eu-central-1.amazonaws.com"}
    assert dict(prepared.sign(b"{}"))["Authorization"] != dict(prepared.sign(b"[]"))["Authorization"]


def test_pasted_access_keys_are_known() -> None:
    assert recognise(str(AWS).replace("'", '"'), now=NOW).provider is Provider.BEDROCK


ROLE = "arn:aws:iam::123456789012:role/pool/Bedrock"


def test_a_role_is_asked_for_at_its_regions_sts_and_nowhere_else() -> None:
    module = provider_module(Provider.BEDROCK)
    found = module.parse({**AWS, "role_arn": ROLE}, "bedrock:x", now=NOW)
    assert found.can_refresh and found.expires_at == 0.0 and "S3NTINEL" not in repr(found)
    assert module.egress(found, Settings()) == {
        "https://bedrock-runtime.eu-central-1.amazonaws.com", "https://sts.eu-central-1.amazonaws.com",
    }  # fmt: skip
    asked = module.refresh_request(found, Settings(), now=NOW)
    assert asked is not None and asked.url == "https://sts.eu-central-1.amazonaws.com/"
    assert "S3NTINEL" not in str(asked.headers) and b"S3NTINEL" not in asked.body and b"ExternalId" not in asked.body
    assert found.hide(b"S3NTINEL/aws+secret0key") == module.parse(AWS, "bedrock:x", now=NOW).hide(
        AWS["aws_secret_access_key"].encode()
    )
    other = module.parse({**AWS, "role_arn": ROLE + "2"}, "bedrock:y", now=NOW)
    assert other.grant != found.grant and module.identity(other) != module.identity(found)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"role_arn": "Bedrock"}, "role_arn must be"),
        ({"role_arn": 7}, "role_arn must be a text"),
        ({"role_arn": ROLE + "?x"}, "role_arn must be"),
        ({"external_id": "x1"}, "external_id needs role_arn"),
        ({"role_arn": ROLE, "external_id": "a b"}, "external_id is not a usable value"),
        ({"role_arn": ROLE, "assumed": []}, ""),
        ({"role_arn": ROLE, "assumed": [1]}, "assumed is not a JSON object"),
        ({"role_arn": ROLE, "assumed": {"session_token": 7}}, "assumed.session_token"),
    ],
)
def test_a_role_that_cannot_be_is_told(more: dict[str, Any], words: str) -> None:
    if not words:
        assert provider_module(Provider.BEDROCK).parse({**AWS, **more}, "bedrock:x", now=NOW).can_refresh
        return
    assert words in rejected(Provider.BEDROCK, {**AWS, **more})
