"""Code Assist's one-time set-up: which project an account works in. Source: the vendor's open-source CLI."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.core.enums import FaultKind
from pool_server.core.models import OF_ACCOUNT, Fault, HttpAnswer, HttpRequest
from pool_server.core.settings import Settings
from pool_server.language import marked
from pool_server.providers.base import OnboardingRejectedError, SetupDone, SetupStage, SetupStep
from pool_server.providers.credential import Credential
from pool_server.providers.evidence.rules import network_fault
from pool_server.providers.gemini import faults
from pool_server.providers.json_fields import as_list, as_object, as_text, decode
from pool_server.providers.redact import short
from pool_server.providers.requests import bearer, join, own_get, own_post

METADATA = {"ideType": "IDE_UNSPECIFIED", "platform": "PLATFORM_UNSPECIFIED", "pluginType": "GEMINI"}
POLL_S = 5.0
MOST_POLLS = 24
_LEGACY = "legacy-tier"
_POLICY = "SECURITY_POLICY_VIOLATED"  # an organisation's perimeter: a standard-tier account, which has its own project


def load_request(cred: Credential, settings: Settings) -> HttpRequest:
    """`loadCodeAssist`: tier and project of the account."""
    return _post(cred, settings, "loadCodeAssist", {"metadata": METADATA})


def _post(cred: Credential, settings: Settings, method: str, body: dict[str, Any]) -> HttpRequest:
    url = join(settings.upstreams.code_assist, f"/v1internal:{method}")
    return own_post(url, body, bearer(cred.access_token))


def answer(
    cred: Credential, step: SetupStep, answer: HttpAnswer, settings: Settings, *, now: float
) -> SetupStep | SetupDone:
    """The step after `step` was answered. Raises SetupFault."""
    if answer.status == 0:
        raise OnboardingRejectedError(network_fault(answer.error))
    if not 200 <= answer.status < 300:
        fault = faults.of_gemini(answer.status, answer.headers, answer.body, now=now, model="")
        raise OnboardingRejectedError(_needs_project() if fault.code == _POLICY else fault)
    data = decode(answer.body)
    if step.stage is SetupStage.LOAD:
        return _loaded(cred, data, settings)
    return _onboarded(cred, step, data, settings)


def _loaded(cred: Credential, data: dict[str, Any], settings: Settings) -> SetupStep | SetupDone:
    project = _project(data)
    current = as_object(data.get("currentTier"))
    if current:
        tier = as_text(as_object(data.get("paidTier")).get("id")) or as_text(current.get("id"))
        if project:
            return _done(cred, project, tier)
        raise OnboardingRejectedError(_needs_project())
    tiers = [as_object(tier) for tier in as_list(data.get("allowedTiers"))]
    if not tiers and as_list(data.get("ineligibleTiers")):
        raise OnboardingRejectedError(_ineligible(data))
    chosen = next((tier for tier in tiers if tier.get("isDefault") is True), {})
    tier = as_text(chosen.get("id")) or _LEGACY
    if chosen.get("userDefinedCloudaicompanionProject") is True and not project:
        raise OnboardingRejectedError(_needs_project())
    body: dict[str, Any] = {"tierId": tier, "metadata": METADATA}
    if project and tier != "free-tier":  # the free tier refuses a project of one's own
        body["cloudaicompanionProject"] = project
    return SetupStep(_post(cred, settings, "onboardUser", body), SetupStage.ONBOARD, tier=tier)


def _onboarded(cred: Credential, step: SetupStep, data: dict[str, Any], settings: Settings) -> SetupStep | SetupDone:
    """`onboardUser` answers a long-running operation; it is asked again until it is done."""
    error = as_object(data.get("error"))
    if error:
        raise OnboardingRejectedError(_needs_user(as_text(error.get("message")) or "the account could not be set up"))
    if data.get("done") is True:
        project = _project(as_object(data.get("response")))
        if not project:
            raise OnboardingRejectedError(
                _needs_user("the account was set up without a project; write one as project_id in the file")
            )
        return _done(cred, project, step.tier)
    if step.tries >= MOST_POLLS:
        raise OnboardingRejectedError(
            Fault(FaultKind.TRANSIENT, OF_ACCOUNT, message=marked("the account's set-up takes too long"))
        )
    name = as_text(data.get("name"))
    request = own_get(join(settings.upstreams.code_assist, f"/v1internal/{name}"), bearer(cred.access_token))
    if not name:  # without a name the same call is repeated
        request = step.request
    return SetupStep(request, SetupStage.POLL, POLL_S, step.tries + 1, step.tier)


def _project(data: dict[str, Any]) -> str:
    """`cloudaicompanionProject`, a text or an object with `id`."""
    value = data.get("cloudaicompanionProject")
    project = as_text(value) or as_text(as_object(value).get("id"))
    return project if project.isascii() and project.isprintable() and len(project) <= 128 else ""


def _done(cred: Credential, project: str, tier: str) -> SetupDone:
    updates = {"project_id": project}
    plan = cred.plan
    if tier and not plan:
        updates["tier_id"] = plan = tier
    return SetupDone(updates, msgspec.structs.replace(cred, project=project, plan=plan))


def _needs_user(message: str) -> Fault:
    return Fault(FaultKind.NEEDS_USER, OF_ACCOUNT, code="setup", message=short(message))


def _needs_project() -> Fault:
    return _needs_user("this account needs a Google Cloud project; write its id as project_id in the file")


def _ineligible(data: dict[str, Any]) -> Fault:
    tier = as_object(as_list(data.get("ineligibleTiers"))[0])
    reason = as_text(tier.get("reasonCode"))
    message = as_text(tier.get("reasonMessage")) or "this account may not use Code Assist"
    return Fault(FaultKind.NEEDS_USER, OF_ACCOUNT, code=short(reason, 80), message=short(message))
