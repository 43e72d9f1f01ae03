"""Code Assist's calls around the model traffic, answered by the pool. Pure.

The CLI puts the project it is told here into each of its calls; the pool tells it a name of its own and writes
each account's real project in when a call goes up, so a conversation may change accounts unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from pool_server.gateway.emulation.quota_windows import QuotaWindow
from pool_server.gateway.emulation.types import Json, LocalAnswer, LocalRequest, answer

PROJECT = "pool-server"
_TIER: Json = {
    "id": "standard-tier",
    "name": "Gemini Code Assist",
    "description": "Served by this pool",
    "isDefault": True,
    "userDefinedCloudaicompanionProject": False,
}
_FIXED: dict[str, Json] = {
    "loadCodeAssist": {
        "currentTier": _TIER,
        "allowedTiers": [_TIER],
        "cloudaicompanionProject": PROJECT,
        "gcpManaged": False,
    },
    "listExperiments": {"experimentIds": [], "flags": []},
    "fetchAdminControls": {"adminControlsApplicable": False},
    "getCodeAssistGlobalUserSetting": {"cloudaicompanionProject": PROJECT, "freeTierDataCollectionOptin": False},
    "setCodeAssistGlobalUserSetting": {"cloudaicompanionProject": PROJECT, "freeTierDataCollectionOptin": False},
    "recordCodeAssistMetrics": {},
    "recordClientEvent": {},
    "fetchCodeAssistMetrics": {},
}
VERBS = frozenset(_FIXED) | {"onboardUser", "retrieveUserQuota"}


def verb_of(path: str) -> str:
    """`loadCodeAssist` of `/v1internal:loadCodeAssist`, "operations/…" of `/v1internal/operations/…`."""
    return path.removeprefix("/v1internal")[1:]


def code_assist(request: LocalRequest, room: Sequence[QuotaWindow], models: Iterable[str]) -> LocalAnswer:
    """The answer to `v1internal:VERB` or to `v1internal/operations/NAME`."""
    verb = verb_of(request.path)
    if verb == "retrieveUserQuota":
        return answer({"buckets": [bucket for model in models for bucket in _buckets(model, room)]})
    if verb == "onboardUser" or verb.startswith("operations/"):
        name = verb if verb.startswith("operations/") else "operations/pool-server"
        project = {"id": PROJECT, "name": PROJECT}
        return answer({"name": name, "done": True, "response": {"cloudaicompanionProject": project}})
    return answer(_FIXED[verb])


def _buckets(model: str, room: Sequence[QuotaWindow]) -> list[Json]:
    if not room:
        return []
    tightest = max(room, key=lambda one: one.used_percent)
    bucket: Json = {
        "remainingFraction": round(max(0.0, 1 - tightest.used_percent / 100), 4),
        "tokenType": "REQUESTS",
        "modelId": model,
    }
    if tightest.resets_at is not None:
        bucket["resetTime"] = datetime.fromtimestamp(tightest.resets_at, UTC).isoformat().replace("+00:00", "Z")
    return [bucket]
