"""What an endpoint takes otherwise than others of its dialect: fields it refuses, forms it insists on.

Compatible servers check a request more or less strictly, and say in a refusal what they miss. A translated request was
written here, so it is written anew and sent again; what an answer proves right is remembered for the account's model.
"""

from __future__ import annotations

import msgspec

_MOST_KEPT = 1024  # models of accounts

# Forms; a field that is to be left out is its path behind a minus.
COMPLETION_TOKENS = "max_completion_tokens"  # in place of max_tokens
MAX_TOKENS = "max_tokens"
REASONING_KEPT = "reasoning_content"  # in every assistant turn
NINE_LETTER_IDS = "call ids of nine letters"
ASSISTANT_AFTER_TOOL = "an assistant turn between a result and what follows"
ONE_SYSTEM = "one system turn, the first"
ALTERNATING_ROLES = "turns that alternate"


class ModelConstraints(msgspec.Struct, frozen=True):
    """What is known of a model of `account`: how many tokens it writes at most (0: not known), and what is demanded."""

    account: str = ""
    most_output: int = 0
    demands: frozenset[str] = frozenset()


class KnownConstraints:
    """What was learnt of accounts' models."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], ModelConstraints] = {}

    def of(self, account: str, model: str, tried: ModelConstraints) -> ModelConstraints:
        """With what this exchange has heard so far."""
        known = self._known.get((account, model), ModelConstraints(account))
        if tried.account != account:
            return known
        return ModelConstraints(account, tried.most_output or known.most_output, tried.demands | known.demands)

    def limited(self, account: str, model: str, tokens: int) -> None:
        """The model never writes more."""
        self._keep(
            account, model, ModelConstraints(account, tokens, self.of(account, model, ModelConstraints()).demands)
        )

    def proved(self, account: str, model: str, tried: ModelConstraints) -> None:
        """A request that met the demands is answered: they are no misreading, nor words that a client put there."""
        if tried.account == account and tried.demands:
            known = self.of(account, model, ModelConstraints())
            self._keep(account, model, ModelConstraints(account, known.most_output, tried.demands | known.demands))

    def _keep(self, account: str, model: str, constraints: ModelConstraints) -> None:
        if len(self._known) < _MOST_KEPT or (account, model) in self._known:
            self._known[account, model] = constraints
