"""Code Assist's set-up: which project an account works in, step by step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server.core.enums import FaultKind, Provider
from pool_server.core.models import Fault, HttpAnswer
from pool_server.core.settings import Settings, Upstreams
from pool_server.providers import Credential, OnboardingRejectedError, SetupDone, SetupStage, SetupStep, provider_module
from tests.providers.make import ACCESS, NOW, SENTINELS, SETTINGS, answered, cred, google_file

MODULE = provider_module(Provider.GEMINI)
BASE = "https://cloudcode-pa.googleapis.com/v1internal"
METADATA = {"ideType": "IDE_UNSPECIFIED", "platform": "PLATFORM_UNSPECIFIED", "pluginType": "GEMINI"}
FREE = {"id": "free-tier", "isDefault": True}


def account() -> Credential:
    return cred(Provider.GEMINI, google_file())


def first() -> SetupStep:
    step = MODULE.setup_request(account(), SETTINGS)
    assert step is not None
    return step


def after(step: SetupStep, body: object, status: int = 200) -> SetupStep | SetupDone:
    return MODULE.setup_answer(account(), step, answered(status, body), SETTINGS, now=NOW)


def going_on(step: SetupStep, body: object) -> SetupStep:
    result = after(step, body)
    assert isinstance(result, SetupStep)
    return result


def fault(step: SetupStep, answer: HttpAnswer) -> Fault:
    with pytest.raises(OnboardingRejectedError) as caught:
        MODULE.setup_answer(account(), step, answer, SETTINGS, now=NOW)
    assert str(caught.value) == caught.value.fault.message
    return caught.value.fault


def test_only_a_sign_in_without_a_project_is_set_up() -> None:
    assert MODULE.setup_request(cred(Provider.GEMINI), SETTINGS) is None
    assert MODULE.setup_request(cred(Provider.GEMINI, key=True), SETTINGS) is None
    for provider in (Provider.CODEX, Provider.CLAUDE, Provider.QWEN, Provider.OPENAI):
        assert provider_module(provider).setup_request(cred(provider), SETTINGS) is None
        done = provider_module(provider).setup_answer(cred(provider), first(), answered(200), SETTINGS, now=NOW)
        assert done == SetupDone({}, cred(provider))
    step = first()
    assert (step.request.url, step.stage) == (f"{BASE}:loadCodeAssist", SetupStage.LOAD)
    assert json.loads(step.request.body) == {"metadata": METADATA}
    assert dict(step.request.headers)["Authorization"] == f"Bearer {ACCESS}"
    assert not any(secret in repr(step) for secret in SENTINELS)


@pytest.mark.parametrize("project", ["proj-7", {"id": "proj-7"}])
def test_an_account_with_a_tier_has_its_project(project: object) -> None:
    done = after(first(), {"currentTier": {"id": "standard-tier"}, "cloudaicompanionProject": project})
    assert isinstance(done, SetupDone)
    assert done.updates == {"project_id": "proj-7", "tier_id": "standard-tier"}
    assert (done.credential.project, done.credential.plan) == ("proj-7", "standard-tier")
    again = cred(Provider.GEMINI, google_file(**done.updates))
    assert (again.project, again.plan) == ("proj-7", "standard-tier")


def test_a_paid_tier_names_the_plan() -> None:
    body = {"currentTier": {"id": "free-tier"}, "paidTier": {"id": "g1-pro"}, "cloudaicompanionProject": "p"}
    done = after(first(), body)
    assert isinstance(done, SetupDone) and done.credential.plan == "g1-pro"


def test_a_new_account_is_onboarded_and_asked_until_done() -> None:
    onboard = going_on(first(), {"allowedTiers": [{"id": "other"}, FREE], "cloudaicompanionProject": "mine"})
    assert (onboard.request.url, onboard.stage, onboard.wait_s) == (f"{BASE}:onboardUser", SetupStage.ONBOARD, 0.0)
    assert json.loads(onboard.request.body) == {"tierId": "free-tier", "metadata": METADATA}, (
        "the free tier refuses a project"
    )
    poll = going_on(onboard, {"name": "operations/abc", "done": False})
    assert (poll.request.method, poll.request.url) == ("GET", f"{BASE}/operations/abc")
    assert (poll.stage, poll.wait_s, poll.tries) == (SetupStage.POLL, 5.0, 1)
    more = going_on(poll, {"name": "operations/abc"})
    assert more.tries == 2
    done = after(more, {"done": True, "response": {"cloudaicompanionProject": {"id": "made-1", "name": "x"}}})
    assert isinstance(done, SetupDone)
    assert done.updates == {"project_id": "made-1", "tier_id": "free-tier"}


def test_an_operation_without_a_name_is_the_same_call_again() -> None:
    onboard = going_on(first(), {})
    assert json.loads(onboard.request.body)["tierId"] == "legacy-tier"
    assert going_on(onboard, {}).request == onboard.request


def test_a_tier_with_ones_own_project_is_onboarded_with_it() -> None:
    tiers = [{"id": "standard-tier", "isDefault": True, "userDefinedCloudaicompanionProject": True}]
    onboard = going_on(first(), {"allowedTiers": tiers, "cloudaicompanionProject": "mine"})
    assert json.loads(onboard.request.body)["cloudaicompanionProject"] == "mine"


def test_polling_ends() -> None:
    step = going_on(first(), {})
    for _ in range(24):
        step = going_on(step, {"name": "operations/abc"})
    assert fault(step, answered(200, {"name": "operations/abc"})).kind is FaultKind.TRANSIENT


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        ({"currentTier": {"id": "standard-tier"}}, 200, FaultKind.NEEDS_USER, "project_id"),
        (
            {"allowedTiers": [{"isDefault": True, "userDefinedCloudaicompanionProject": True}]},
            200,
            FaultKind.NEEDS_USER,
            "project_id",
        ),
        (
            {"ineligibleTiers": [{"reasonCode": "VALIDATION_REQUIRED", "reasonMessage": "Verify your account"}]},
            200,
            FaultKind.NEEDS_USER,
            "Verify your account",
        ),
        ({"ineligibleTiers": [None]}, 200, FaultKind.NEEDS_USER, "may not use Code Assist"),
        (
            {"error": {"message": "token expired", "status": "UNAUTHENTICATED"}},
            401,
            FaultKind.AUTH,
            "token expired",
        ),
        (
            {"error": {"details": [{"@type": "x/google.rpc.ErrorInfo", "reason": "SECURITY_POLICY_VIOLATED"}]}},
            403,
            FaultKind.NEEDS_USER,
            "project_id",
        ),
        (
            {"error": {"message": "stop", "details": [{"@type": "x.ErrorInfo", "reason": "TOS_VIOLATION"}]}},
            403,
            FaultKind.SUSPENDED,
            "stop",
        ),
        (b"", 500, FaultKind.TRANSIENT, "500"),
    ],
)
def test_what_stands_against_it_is_said(body: Any, status: int, kind: FaultKind, words: str) -> None:
    found = fault(first(), answered(status, body))
    assert found.kind is kind
    assert words in found.message


def test_onboarding_may_fail() -> None:
    step = going_on(first(), {})
    assert "refused" in fault(step, answered(200, {"error": {"message": "refused"}})).message
    assert "project_id" in fault(step, answered(200, {"done": True, "response": {}})).message
    assert fault(step, HttpAnswer(0, {}, b"", "cut")).kind is FaultKind.NETWORK


def test_the_base_can_be_moved() -> None:
    settings = Settings(upstreams=Upstreams(code_assist="http://127.0.0.1:9"))
    step = MODULE.setup_request(account(), settings)
    assert step is not None and step.request.url == "http://127.0.0.1:9/v1internal:loadCodeAssist"
