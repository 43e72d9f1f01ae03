"""What a request names and a dialect has no word for: which accounts that keeps it from, and what is told of it."""

from __future__ import annotations

from pool_server.accounts import upstream_kind
from pool_server.core.models import ClientCall
from pool_server.dialects.translation import TranslationError, UpstreamKind
from pool_server.providers import Credential


class Uncarried:
    """One exchange's: the dialects into which it could not be translated, and `why` it could not at first."""

    __slots__ = ("kinds", "why")

    def __init__(self) -> None:
        self.kinds: frozenset[UpstreamKind] = frozenset()
        self.why: TranslationError | None = None

    def by(self, credential: Credential, call: ClientCall, wrong: TranslationError) -> bool:
        """Notes that accounts like this one cannot be asked; False where that was known, and changes nothing."""
        kind = upstream_kind(credential, call.operation, call.dialect, credential.own_name(call.model))
        if kind is None or kind in self.kinds:
            return False
        self.kinds |= {kind}
        self.why = self.why or wrong
        return True
