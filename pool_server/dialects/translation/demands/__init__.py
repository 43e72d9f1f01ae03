"""What an endpoint takes otherwise than others of its dialect: fields it refuses, forms it insists on.

Compatible servers check a request more or less strictly, and say in a refusal what they miss. A translated request was
written here, so it is written anew and sent again; what an answer proves right is remembered for the account's model.
"""

from __future__ import annotations

import msgspec

_MOST_KEPT = 1024  # models of accounts

# Forms; a field that is to be left out is its path behind a minus.
NEWER_LIMIT = "max_completion_tokens"  # in place of max_tokens
OLDER_LIMIT = "max_tokens"
THOUGHTS = "reasoning_content"  # in every assistant turn
NINE = "call ids of nine letters"
ANSWERED = "an assistant turn between a result and what follows"
ONE_SYSTEM = "one system turn, the first"
ALTERNATE = "turns that alternate"


class Fit(msgspec.Struct, frozen=True):
    """What is known of a model of `account`: how many tokens it writes at most (0: not known), and what is demanded."""

    account: str = ""
    most_output: int = 0
    demands: frozenset[str] = frozenset()


class Fits:
    """What was learnt of accounts' models."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Fit] = {}

    def of(self, account: str, model: str, tried: Fit) -> Fit:
        """With what this exchange has heard so far."""
        known = self._known.get((account, model), Fit(account))
        if tried.account != account:
            return known
        return Fit(account, tried.most_output or known.most_output, tried.demands | known.demands)

    def limited(self, account: str, model: str, tokens: int) -> None:
        """The model never writes more."""
        self._keep(account, model, Fit(account, tokens, self.of(account, model, Fit()).demands))

    def proved(self, account: str, model: str, tried: Fit) -> None:
        """A request that met the demands is answered: they are no misreading, nor words that a client put there."""
        if tried.account == account and tried.demands:
            known = self.of(account, model, Fit())
            self._keep(account, model, Fit(account, known.most_output, tried.demands | known.demands))

    def _keep(self, account: str, model: str, fit: Fit) -> None:
        if len(self._known) < _MOST_KEPT or (account, model) in self._known:
            self._known[account, model] = fit
