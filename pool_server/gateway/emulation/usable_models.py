"""Which model somebody can be told to ask for now: what set-up lines and snippets name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pool_server.accounts import Accounts, SelectionRequest
from pool_server.core.enums import ChoiceReason, Dialect, Provider
from pool_server.core.settings import Limits, Settings
from pool_server.dialects import SPECS, ModelInfo, UsableModel, converses
from pool_server.providers import SPECS as PROVIDERS
from pool_server.providers import Knowledge, has_model, provider_module, providers_for
from pool_server.users import model_allowed, provider_allowed

MOST = 64  # models of a dialect that are asked for
UNNAMED = "any"  # a name that tells no vendor


class Lookup(NamedTuple):
    """Who asks (a user id), held to these limits, in which dialect."""

    accounts: Accounts
    settings: Settings
    user: str
    held_to: Sequence[Limits]
    dialect: Dialect

    def providers(self, model: str) -> tuple[Provider, ...]:
        found = providers_for(self.dialect, SPECS[self.dialect].asked_with, model, None)
        return tuple(one for one in found if all(provider_allowed(limits, one) for limits in self.held_to))

    def allowed(self, model: str) -> bool:
        return all(model_allowed(limits, model) for limits in self.held_to)

    def ask(self, name: str) -> tuple[str, float | None, bool]:
        """(account, when it returns, by translation); "" for nobody who would be asked for this name now. An account
        that is only tried again is no promise."""
        model = self.settings.models.aliases.get(name, name)
        providers = self.providers(model)
        if not providers or not (self.allowed(model) and self.allowed(name)):
            return "", None, False
        operation = SPECS[self.dialect].asked_with
        decision = self.accounts.select(SelectionRequest(providers, operation, self.dialect, model, self.user))
        if decision.account is None or decision.reason is ChoiceReason.PROBE:
            back = [one.until for one in decision.candidates if one.account == decision.account and one.until]
            return "", decision.retry_at or (min(back) if back else None), False
        return decision.account, None, decision.translated


def usable(lookup: Lookup, models: Iterable[ModelInfo]) -> UsableModel:
    """The best of these models that is served now, else the first that comes back: what the client's own dialect
    serves before what is translated, in the order given."""
    soonest = UsableModel()
    # A name is a word of a command: an endpoint must not tell one that is read as an option.
    fit = [one for one in models if converses(one.id) and one.id.isprintable() and not one.id.startswith("-")]
    for one in sorted(fit, key=_rank)[:MOST]:
        account, back, translated = lookup.ask(one.id)
        if account:
            return UsableModel(one.id, True, None, translated, _whole_range(lookup))
        if back is not None and (soonest.back is None or back < soonest.back):
            soonest = UsableModel(one.id, back=back)
    if soonest.model:
        return soonest
    account, back, _ = lookup.ask(UNNAMED)
    return UsableModel("", bool(account), back)


def _whole_range(lookup: Lookup) -> bool:
    name = SPECS[lookup.dialect].own_range
    account, _, translated = lookup.ask(name) if name else ("", None, False)
    if not account or translated:
        return False
    cred = lookup.accounts.credential(account)
    plain = not cred.models and not cred.base_url and has_model(cred, name) is Knowledge.HAS
    return plain and provider_module(cred.provider).plan_fits(cred, name)


def _rank(model: ModelInfo) -> tuple[bool, bool]:
    """OpenAI's list has no order, and names that answer to no conversation."""
    unordered = model.owner == Provider.OPENAI
    return model.translated, unordered and model.id != PROVIDERS[Provider.OPENAI].small_model
