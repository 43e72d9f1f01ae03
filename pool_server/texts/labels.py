"""What the closed vocabularies are called on a page. A test holds that no member is missing here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pool_server.core.enums import (
    AccountState,
    ChoiceReason,
    CredentialKind,
    Denial,
    FaultKind,
    Outcome,
    Provider,
    Refusal,
    SignInStep,
    Source,
)
from pool_server.core.settings import COUNTED_LIMITS
from pool_server.language import Words
from pool_server.language import gettext as _
from pool_server.providers import SPECS
from pool_server.texts import format

PROVIDERS = {provider: spec.label for provider, spec in SPECS.items()}

# The vendors of a form's list, in groups.
VENDORS = (
    ("Sign-ins and keys", [(one.value, spec.label) for one, spec in SPECS.items() if not spec.preset]),
    (
        "API keys",
        sorted(
            ((one.value, spec.label) for one, spec in SPECS.items() if spec.preset), key=lambda row: row[1].casefold()
        ),
    ),
)
SIGN_INS = [(one.value, spec.label) for one, spec in SPECS.items() if spec.consent and (spec.owned or not spec.preset)]
CONSENTS = [(spec.label, spec.consent) for spec in SPECS.values() if spec.consent]

SIGN_IN_STEPS = Words(
    {
        SignInStep.OPEN: "Waiting for the line to be run.",
        SignInStep.CODE: "Waiting for you at the vendor's.",
        SignInStep.EXCHANGE: "Getting the sign-in from the vendor…",
        SignInStep.CHECK: "Looking at the sign-in and sending one request…",
        SignInStep.CONFIRM: "Waiting for your decision.",
        SignInStep.TEST: "Sending one request…",
    }
)

STATES = Words(
    {
        AccountState.READY: "Ready",
        AccountState.DRAINING: "Draining",
        AccountState.COOLING: "Cooling down",
        AccountState.EXHAUSTED: "Used up",
        AccountState.NEEDS_LOGIN: "Signed out",
        AccountState.SUSPENDED: "Suspended",
        AccountState.DISABLED: "Off",
        AccountState.PROBING: "Being probed",
    }
)

# The same within a sentence, of any number of accounts: "2 cooling down".
OF_SEVERAL = Words({state: words[:1].lower() + words[1:] for state, words in STATES.items()})

# The three colours of state, and "quiet" for what is neither good nor bad.
TONES = {
    AccountState.READY: "good",
    AccountState.DRAINING: "quiet",
    AccountState.COOLING: "warn",
    AccountState.EXHAUSTED: "warn",
    AccountState.NEEDS_LOGIN: "bad",
    AccountState.SUSPENDED: "bad",
    AccountState.DISABLED: "quiet",
    AccountState.PROBING: "warn",
}

REFUSALS = Words(
    {
        Refusal.PROVIDER: "belongs to another provider",
        Refusal.DISABLED: "turned off by the operator",
        Refusal.NEEDS_LOGIN: "signed out",
        Refusal.SUSPENDED: "suspended by the provider",
        Refusal.DRAINING: "draining, takes no new requests",
        Refusal.EXPIRED: "its sign-in has expired and cannot be refreshed now",
        Refusal.COOLING: "cooling down after a fault",
        Refusal.EXHAUSTED: "a usage window is used up",
        Refusal.RATE_LIMITED: "rate limited",
        Refusal.RETURNING: "just back, takes a few requests at first",
        Refusal.MODEL_COOLING: "cooling down for this model",
        Refusal.MODEL_EXHAUSTED: "used up for this model",
        Refusal.MODEL_NOT_SERVED: "does not offer this model",
        Refusal.PLAN_UNFIT: "its plan does not include this model",
        Refusal.TRANSPORT: "cannot answer this kind of call",
        Refusal.TRIED: "already failed for this request",
        Refusal.NOT_FORCED: "another account was asked for",
        Refusal.NOT_OWNER: "the conversation belongs to another account",
        Refusal.RESERVED: "what is left is kept for its owner",
        Refusal.NOT_SHARED: "shared with other people",
        Refusal.NOT_CARRIED: "cannot be told what the request asks for",
        Refusal.LOCKED: "the pool is locked to another account",
        Refusal.PROBING: "one request is probing it",
    }
)

CHOICES = Words(
    {
        ChoiceReason.BEST: "had the most useful headroom",
        ChoiceReason.OWN: "belongs to whoever asked",
        ChoiceReason.PINNED: "the conversation was already there",
        ChoiceReason.HARD_PIN: "only this account knows the conversation",
        ChoiceReason.FORCED: "was asked for by name",
        ChoiceReason.LOCKED: "the pool is locked to it",
        ChoiceReason.BORROWED: "stood in while the conversation's own account cools down",
        ChoiceReason.PROBE: "was probed to see whether it works again",
    }
)

DENIALS = Words(
    {
        Denial.NO_KEY: "no key was sent",
        Denial.BAD_KEY: "the key is not one of this pool's",
        Denial.EXPIRED_KEY: "the key has expired",
        Denial.REVOKED_KEY: "the key was revoked",
        Denial.USER_DISABLED: "the operator has turned this user off",
        Denial.NOT_LOCAL: "the pool answers only its own machine",
        **{limit.denial: limit.words for limit in COUNTED_LIMITS},
        Denial.PROVIDER: "this provider is not open to this user",
        Denial.MODEL: "this model is not open to this user",
        Denial.FAIR_SHARE: "headroom is short and others have had less",
        Denial.BOOKED: "what is left is booked by others",
        Denial.STORE: "the pool cannot record usage right now",
        Denial.BAD_LOGIN: "name, code or passphrase is wrong",
        Denial.THROTTLED: "too many attempts",
        Denial.BAD_VALUE: "this cannot be accepted",
        Denial.NAME_TAKEN: "the name is taken",
        Denial.NOT_FOUND: "there is no such thing",
    }
)

FAULTS = Words(
    {
        FaultKind.REQUEST: "the provider refused the request itself",
        FaultKind.AUTH: "the provider did not accept the sign-in",
        FaultKind.PAYMENT: "the account has no credit left",
        FaultKind.PERMISSION: "the provider does not allow this",
        FaultKind.QUOTA: "a usage window is used up",
        FaultKind.RATE: "too many requests in a short time",
        FaultKind.CAPACITY: "the model is full at the provider",
        FaultKind.OVERLOAD: "the provider is overloaded",
        FaultKind.TRANSIENT: "the provider failed for a moment",
        FaultKind.NETWORK: "the provider could not be reached",
        FaultKind.CHALLENGE: "the provider's gate asked for a browser",
        FaultKind.NOT_FOUND: "the provider does not know the model",
        FaultKind.MODEL_UNSUPPORTED: "the plan does not include the model",
        FaultKind.PLAN: "the plan does not cover the request",
        FaultKind.CLIENT: "the provider does not serve this program",
        FaultKind.ENCRYPTED_CONTENT: "the conversation is sealed for another account",
        FaultKind.CONTINUATION: "the provider has forgotten the conversation",
        FaultKind.SUSPENDED: "the provider has stopped the account",
        FaultKind.NEEDS_USER: "the account's owner must act at the provider",
        FaultKind.CLIENT_GONE: "the client hung up",
    }
)

OUTCOMES = Words(
    {
        Outcome.OK: "answered",
        Outcome.CLIENT_GONE: "canceled by you",
        Outcome.REQUEST_FAULT: "refused by the provider",
        Outcome.DENIED: "denied",
        Outcome.EXHAUSTED: "no headroom left",
        Outcome.NO_ACCOUNT: "no account",
        Outcome.UPSTREAM: "provider failed",
        Outcome.CUT: "cut off",
        Outcome.REVOKED: "ended by the operator",
    }
)

# What a friend can do about it; an answered request needs nothing.
ADVICE = Words(
    {
        Outcome.OK: "",
        Outcome.CLIENT_GONE: "Nothing to do: your program hung up before the answer was complete.",
        Outcome.REQUEST_FAULT: "Change the request: the provider did not accept it; another account would not help.",
        Outcome.DENIED: "Check your key and your limits: your home page shows both.",
        Outcome.EXHAUSTED: "Wait until headroom returns, or use another provider.",
        Outcome.NO_ACCOUNT: "Tell the operator: the pool holds no working account for this provider.",
        Outcome.UPSTREAM: "Try again in a minute; the pool tried every account it could.",
        Outcome.CUT: "Send it again: the connection to the provider was lost.",
        Outcome.REVOKED: "Ask the operator: your key or your access was revoked.",
    }
)

SOURCES = Words(
    {
        Source.HEADERS: "reported with an answer",
        Source.STREAM: "reported in a stream",
        Source.USAGE_ENDPOINT: "asked from the provider",
        Source.ERROR: "reported with an error",
        Source.LOCAL: "counted by the pool",
    }
)

CREDENTIALS = Words(
    {
        CredentialKind.OAUTH: "subscription",
        CredentialKind.SETUP_TOKEN: "setup token",
        CredentialKind.SERVICE_ACCOUNT: "service account",
        CredentialKind.API_KEY: "API key",
    }
)

WINDOWS = Words(
    {"5h": "5 hours", "7d": "week", "30d": "month", "1d": "day", "1m": "minute", "credits": "extra credits"}
)


def window(name: str, scope: str = "") -> str:
    """ "5h" → "5 hours"; a window that binds one model family says so."""
    base = WINDOWS.get(name, name)
    return _("{window}, {scope} only", window=base, scope=scope) if scope and scope != name else base


def sharing(share: Mapping[str, float], hours: Sequence[str], until: float | None, *, own_first: bool) -> str:
    """What an owner gives, as "gives 60 % of 5 hours, 30 % of week, at 22:00-07:00"; "" = all of it, always."""
    parts = [
        _("{part} of {window}", part=format.percent(part), window=window(name) if name else _("each window"))
        for name, part in share.items()
    ]
    words = [_("gives {share}", share=", ".join(parts))] if parts else []
    if hours:
        words.append(_("at {time}", time=", ".join(hours)))
    if until:
        words.append(_("until {time}", time=format.end_day(until)))
    if not own_first:
        words.append(_("own requests are not first"))
    return ", ".join(words)


# The terms of an account's score; a higher sum is chosen first.
TERMS = Words(
    {
        "pace": "pace of its windows",
        "idle_window": "a short window that has not begun",
        "room": "little headroom left",
        "in_flight": "requests in flight",
        "faults": "recent faults",
        "latency": "slower than others of its kind",
        "api_key": "billed by use, so after subscriptions",
        "expired": "needs a refresh first",
        "translated": "speaks another dialect than the client, so after all that speak it",
        "doubted": "nothing says that its vendor has the model, so last",
    }
)

CODE_STATES = Words({"open": "open", "used up": "used up", "expired": "expired"})

ACTIONS = Words(
    {
        "user.create": "added",
        "user.disable": "turned off",
        "user.enable": "turned on again",
        "user.change": "changed the person",
        "user.delete": "deleted the person",
        "user.passphrase": "changed the passphrase of",
        "key.create": "created the key",
        "key.revoke": "revoked the key",
        "key.rotate": "replaced all keys of",
        "token.create": "made the admin token",
        "token.revoke": "revoked the admin token",
        "code.create": "created the code",
        "code.revoke": "revoked the code",
        "alerts.choose": "chose where to be told of limits:",
        "alerts.stop": "is told of limits no more:",
        "account.add": "added the account",
        "account.change": "changed the account",
        "account.remove": "removed the account",
        "account.restore": "brought back the account",
        "account.withdraw": "withdrew the account",
        "sign_in.start": "began a sign-in",
        "sign_in.done": "finished a sign-in of",
        "sign_in.failed": "failed a sign-in",
        "sign_in.cancel": "cancelled a sign-in",
        "sign_in.confirm": "decided about a sign-in of",
        "session.open": "signed in",
        "session.end": "signed out",
        "session.end_all": "signed out every browser of",
        "door.ban": "locked out after too many wrong attempts",
        "import.users": "took over the people of an older server",
        "import.skip": "could not take over",
        "secret.rotate": "replaced the secret that signs keys",
        "account.enable": "turned on the account",
        "account.disable": "turned off the account",
        "account.refresh": "refreshed the sign-in of",
        "account.test": "tested the account",
        "account.reset": "cleared faults and cooldowns of",
        "account.priority": "changed the priority of",
        "account.lock": "locked the pool to",
        "account.unlock": "ended the lock to",
        "pool.reload": "reread the accounts and settings",
        "settings.change": "changed the setting",
        "key.change": "changed the key",
        "booking.make": "booked headroom for",
        "booking.end": "ended a booking of",
        "transcripts.allow": "allowed transcripts to be kept of",
        "transcripts.withdraw": "let no more transcripts be kept of",
        "transcripts.share": "shared a transcript with the operator:",
        "transcripts.unshare": "shares a transcript no more:",
        "transcripts.read": "read the shared transcript",
        "transcripts.delete": "deleted transcripts of",
        "capture.order": "ordered a capture of",
        "capture.delete": "deleted a capture of",
    }
)


def action(name: str, actor: str) -> str:
    """What an entry of the audit log says was done; an action without words is shown by its name."""
    if name == "user.create" and actor == "user":
        return _("joined")
    return ACTIONS.get(name, name)


_LIMITS = Words({limit.name: limit.words for limit in COUNTED_LIMITS})

VIA = Words(
    {
        "friend_code": "the shared code",
        "admin": "the operator",
        "import": "an older server",
        "single_sign_on": "single sign-on",
    }
)


def via(text: str) -> str:
    """How somebody came: by which code, or who added them."""
    code = text.removeprefix("code:")
    return _("the code {code}", code=code) if code != text else VIA.get(text, text)


def detail(facts: dict[str, Any]) -> str:
    """The particulars of an entry of the audit log, as "label: laptop, tokens day: 500,000"."""
    words = []
    for name, value in facts.items():
        if isinstance(value, dict):
            words.append(detail(value))
        elif name == "via":
            words.append(_("by {whom}", whom=via(str(value))))
        elif isinstance(value, list):
            words.append(f"{name}: {len(value)}")
        elif value is None:
            words.append(_("{label}: none", label=_label(name)))
        elif name.startswith("cost_") and isinstance(value, int | float):
            words.append(f"{_label(name)}: {format.money(value)}")
        elif isinstance(value, float) and name == "until":
            words.append(_("until {time}", time=format.stamp(value)))
        else:
            shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
            words.append(f"{_label(name)}: {shown}")
    return ", ".join(word for word in words if word)


def _label(name: str) -> str:
    """ "tokens_week" → "tokens a week": a limit is called the same wherever it stands."""
    return _LIMITS.get(name) or name.replace("_", " ")


def provider_name(key: str) -> str:
    """A provider as people call it; one that is not known by its own name."""
    try:
        return PROVIDERS[Provider(key)]
    except ValueError:
        return key or _("no provider")


def account_name(key: str) -> str:
    """ "claude:work" → "work"; what never reached an account says so."""
    name, _colon, stem = key.partition(":")
    return stem or (_("{name}, no account", name=provider_name(name)) if name else _("no account"))
