"""What every vendor's module offers, and the values it answers with. No I/O: requests are described, not made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from pool_server.core.enums import ApiFamily, CredentialKind, Dialect, Operation, Provider
from pool_server.core.models import ClientCall, Fault, HttpAnswer, HttpRequest, UpstreamRequest, WindowObservation
from pool_server.core.origins import PUBLIC_ONLY, origins
from pool_server.core.settings import Settings
from pool_server.language import LazyText, lazy
from pool_server.providers.credential import Credential, CredentialRejectedError, Fields
from pool_server.providers.keys import KeySpec, belongs_to, missing, read_key, refuse_addresses


class Refreshed(msgspec.Struct, frozen=True):
    """A refresh that went well. `updates` are the owned fields to write, nested as in the file; `credential` is
    the new one and knows more than a re-read of the file would (when the token was issued), so it is the one to
    keep. `warning` is one line for the log, "" for none."""

    updates: dict[str, Any]
    credential: Credential
    warning: str = ""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("fields", sorted(self.updates)), ("credential", self.credential)]

    def __repr__(self) -> str:
        return f"Refreshed(fields={sorted(self.updates)}, credential={self.credential!r})"


class RefreshRejectedError(Exception):
    """A refresh that failed. `reason` is one redacted line.

    `permanent`: the refresh token is dead and its owner must sign in again. `suspended`: the provider stopped the
    account. `retry_at`: unix seconds of the earliest further try, None = the caller's own back-off.
    """

    def __init__(
        self, reason: LazyText, *, permanent: bool = False, retry_at: float | None = None, suspended: bool = False
    ) -> None:
        super().__init__(reason)
        self.said, self.reason = reason, str(reason)
        self.permanent = permanent
        self.retry_at = retry_at
        self.suspended = suspended


class Credits(msgspec.Struct, frozen=True):
    """Paid credits beside the windows; `balance` as the provider writes it (a count or an amount), "" unknown."""

    has_credits: bool = False
    unlimited: bool = False
    balance: str = ""


class UsageAnswer(msgspec.Struct, frozen=True):
    """What a usage endpoint said. With `fault` set it said nothing, and `retry_at` is when to ask again at the
    earliest.

    `allowed` is the provider's own word whether the account may work now; None = not said.
    """

    windows: tuple[WindowObservation, ...] = ()
    plan: str | None = None
    credits: Credits | None = None
    allowed: bool | None = None
    reset_credits: int = 0
    fault: Fault | None = None
    retry_at: float | None = None


class SetupStage(StrEnum):
    LOAD = "load"
    ONBOARD = "onboard"
    POLL = "poll"


class SetupStep(msgspec.Struct, frozen=True):
    """The next call of an account's one-time set-up, to be made after `wait_s` seconds."""

    request: HttpRequest
    stage: SetupStage = SetupStage.LOAD
    wait_s: float = 0.0
    tries: int = 0
    tier: str = ""


class SetupDone(msgspec.Struct, frozen=True):
    """The set-up is complete: owned fields for the file and the completed credential."""

    updates: dict[str, Any]
    credential: Credential


class OnboardingRejectedError(Exception):
    """The set-up cannot go on; `fault` says what it means for the account."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class PromptCache(msgspec.Struct, frozen=True):
    """How a vendor caches prompts: a token read from the cache costs `share` of a fresh one; a prefix is kept for
    `life_s` seconds after its last use. `sealed`: conversations carry reasoning that only their account can read."""

    share: float
    life_s: float
    sealed: bool = False


class ProviderSpec(msgspec.Struct, frozen=True):
    """What the rest of the pool has to know of a vendor; tables of vendors are made from these.

    `label` is its name for people, `home` the dialect of its own clients, `models_path` where it lists its models (and
    in whose shape), `shipped` models that are generally offered where it cannot be asked. `missing` says what a
    credential file without a credential lacks, `owned` are the fields the pool writes into its files (dotted).
    `usage_least_s` is the shortest interval its usage endpoint bears, `refresh_needs` the environment variables
    without which its sign-ins cannot be refreshed, `notice` what people should know of its sign-in today. `unnamed`:
    files whose names say no vendor are this one's. `preset`: it is data of presets.toml.
    `small_model` is asked when an account is tried. `consent` is what somebody has to agree to who shares a
    sign-in, or a key of a plan that is sold to one person; "" for what is sold to be shared. `page_sign_in`: its terms
    tolerate a sign-in from another page than its own.
    `traced_as` is its name in OpenTelemetry's conventions, "" where they have none.
    `family` is whose API its paths belong to where vendors share one. `cache` is what it says of its prompt cache,
    None where it says nothing. `foreign_errors`: its refusals may be of another form than the dialect it was asked in
    has.
    """

    provider: Provider
    label: str
    home: Dialect
    keys: KeySpec
    missing: str
    family: ApiFamily = ApiFamily.OPENAI
    models_path: str = "/v1/models"
    shipped: tuple[str, ...] = ()
    owned: tuple[str, ...] = ()
    usage_least_s: float = 0.0
    refresh_needs: tuple[str, ...] = ()
    notice: str = ""
    unnamed: bool = False
    preset: bool = False
    small_model: str = ""
    consent: str = ""
    page_sign_in: bool = False
    cache: PromptCache | None = None
    foreign_errors: bool = False
    traced_as: str = ""


class ProviderModule(ABC):
    """One vendor. All methods are pure; only the documented errors leave them, whatever the provider sent."""

    spec: ProviderSpec

    def parse(self, data: object, account: str, *, now: float) -> Credential:
        """The credential in a file's JSON `data`. Raises CredentialRejectedError with one clear line."""
        fields = Fields(data)
        cred = self.sign_in(fields, account)
        if cred is not None:
            refuse_addresses(fields)
            return msgspec.structs.replace(cred, models=fields.texts("models"))
        cred = read_key(self.spec.provider, self.spec.keys, fields, account)
        if cred is None:
            other = belongs_to(fields.data, account.partition(":")[2])
            raise CredentialRejectedError(other or missing(self.spec.missing))
        return cred

    def sign_in(self, fields: Fields, account: str) -> Credential | None:
        """The sign-in or token in a file, None when it holds none. Raises CredentialRejectedError."""
        return None

    def prepare(self, cred: Credential, call: ClientCall, settings: Settings) -> UpstreamRequest:
        """The upstream request: address, authorization, the client's other headers in their order and case; and where
        it may go."""
        request = self.build(cred, call, settings)
        request.egress = self.egress(cred, settings)
        return request

    @abstractmethod
    def build(self, cred: Credential, call: ClientCall, settings: Settings) -> UpstreamRequest:
        """`prepare` without the bounds."""

    def egress(self, cred: Credential, settings: Settings) -> frozenset[str]:
        """The origins this account's secret may reach, by its file and the settings alone; with PUBLIC_ONLY where they
        must not lead into the pool's own network."""
        reach = origins(*self.addresses(cred, settings))
        return reach | {PUBLIC_ONLY} if cred.public_only else reach

    def addresses(self, cred: Credential, settings: Settings) -> tuple[str, ...]:
        """The addresses behind `egress`: where the account's calls go first, then where it is refreshed."""
        if cred.kind is CredentialKind.API_KEY:
            return (cred.base_url or self.spec.keys.upstream(settings),)
        return self.sign_in_addresses(cred, settings)

    def sign_in_addresses(self, cred: Credential, settings: Settings) -> tuple[str, ...]:
        """The addresses of a sign-in."""
        return ()

    @abstractmethod
    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
        """What an error answer means. `headers` are lower case; for a fault within a stream they may be {}."""

    @abstractmethod
    def serves(self, cred: Credential, operation: Operation, dialect: Dialect, model: str) -> bool:
        """Can this credential be asked that at all?"""

    @abstractmethod
    def test_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        """The smallest real call that shows whether the credential works; it spends nothing."""

    def models_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        """The call of the vendor's list of models; None where it has none for this credential."""
        return self.test_request(cred, settings)

    def identity(self, cred: Credential) -> str:
        """Whose sign-in it is: person and workspace, never an e-mail address. "" = not known."""
        return f"{cred.account_id}/{cred.user_id}" if cred.account_id and cred.user_id else ""

    def profile_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        """The call that tells whose sign-in it is, where the credential does not; None where there is none."""
        return None

    def profile_updates(self, cred: Credential, answer: HttpAnswer) -> dict[str, Any]:
        """What of the profile's answer the file keeps, nested as in the file; never raises."""
        return {}

    def revoke_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        """The call that ends a sign-in at its vendor; None where there is none."""
        return None

    def consent_for(self, cred: Credential) -> str:
        """What sharing this account breaks or may break, in words; "" for what is sold to be shared."""
        return self.spec.consent if cred.kind is not CredentialKind.API_KEY or self.spec.preset else ""

    @property
    def quota_proves(self) -> bool:
        """Whether an account is tried by its quota endpoint: a real request would be refused or against its terms."""
        return False

    def refreshable(self, cred: Credential, settings: Settings) -> bool:
        """Whether this credential can be refreshed under these settings."""
        return cred.can_refresh

    def refresh_request(self, cred: Credential, settings: Settings, *, now: float) -> HttpRequest | None:
        """The token refresh; None for what is not `refreshable`."""
        return None

    def refresh_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> Refreshed:
        """Reads the refresh's answer. Raises RefreshFault."""
        raise RefreshRejectedError(lazy("this credential has nothing to refresh"), permanent=True)

    def refresh_due_at(self, cred: Credential, *, now: float) -> float | None:
        """When to refresh (unix seconds, possibly past); None = never on a timer."""
        return None

    def quota_headers(self, headers: Mapping[str, str], *, now: float, model: str) -> list[WindowObservation]:
        """The quota windows an answer's headers (lower case) tell of."""
        return []

    def quota_event(self, raw: bytes, *, now: float, model: str) -> list[WindowObservation]:
        """The quota windows a stream event tells of."""
        return []

    def usage_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        """The call of the provider's usage endpoint; None where it has none for this credential."""
        return None

    def usage_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> UsageAnswer:
        """Reads the usage endpoint's answer; never raises."""
        return UsageAnswer()

    def plan_fits(self, cred: Credential, model: str) -> bool:
        """Is the model known to be in the account's plan? Unknown plans and models fit; faults teach the rest."""
        return True

    def model_family(self, model: str) -> str:
        """The scope name of windows and faults that bind this model beside the account-wide ones."""
        return model.lower()

    def websocket(self, cred: Credential) -> bool:
        """Does the upstream speak the Responses WebSocket for this credential?"""
        return False

    def setup_request(self, cred: Credential, settings: Settings) -> SetupStep | None:
        """The first call of a one-time set-up; None when there is nothing to set up."""
        return None

    def setup_answer(
        self, cred: Credential, step: SetupStep, answer: HttpAnswer, settings: Settings, *, now: float
    ) -> SetupStep | SetupDone:
        """The next call, or the end of the set-up. Raises SetupFault."""
        return SetupDone({}, cred)
