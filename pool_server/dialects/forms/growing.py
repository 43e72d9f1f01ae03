"""What grows with each event of a stream and is one value in the end: adding to it costs what is added, however long it
is by then."""

from __future__ import annotations

from typing import Any

_ONCE = frozenset({"role", "id", "type", "name", "index"})  # strings that are repeated, not continued


class GrowingText:
    """Pieces of a text."""

    __slots__ = ("pieces",)

    def __init__(self, first: str) -> None:
        self.pieces = [first]


class GrowingCalls:
    """A Chat message's tool calls, told apart by their index or else their id."""

    __slots__ = ("_at", "calls")

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self._at: dict[tuple[str, Any], int] = {}  # what tells a call apart → its place in the list

    def take(self, pieces: list[Any]) -> None:
        for piece in pieces:
            if isinstance(piece, dict):
                self._take({name: value for name, value in piece.items() if name != "index"}, piece.get("index"))

    def _take(self, piece: dict[str, Any], place: Any) -> None:
        ident = piece.get("id")
        told = [(kind, one) for kind, one in (("id", ident or None), ("index", place)) if isinstance(one, (str, int))]
        at = next((self._at[one] for one in told if one in self._at), None if told or not self.calls else -1)
        function = piece.get("function")
        named = isinstance(function, dict) and "name" in function
        if at is None or (ident and named and self.calls[at].get("id") not in (None, "", ident)):
            at = len(self.calls)
            self.calls.append({})
            self._at.update(dict.fromkeys(told, at))  # of several at one index, the last goes on
        for one in told:
            self._at.setdefault(one, at)
        grow(self.calls[at], piece)


def longer(before: str | GrowingText, more: str) -> GrowingText:
    """`before` with `more` at its end."""
    text = before if isinstance(before, GrowingText) else GrowingText(before)
    text.pieces.append(more)
    return text


def grow(known: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a delta of Chat's in place: texts and lists go on."""
    for name, value in delta.items():
        before = known.get(name)
        if value is None or (name in _ONCE and before):
            continue
        if isinstance(value, str) and isinstance(before, (str, GrowingText)):
            known[name] = longer(before, value)
        elif isinstance(value, dict) and isinstance(before, dict):
            grow(before, value)
        elif isinstance(value, list) and name == "tool_calls":
            if not isinstance(before, GrowingCalls):
                known[name] = calls = GrowingCalls()
                calls.take(before if isinstance(before, list) else [])
                before = calls
            before.take(value)
        elif isinstance(value, list) and isinstance(before, list):
            before += value
        else:
            known[name] = value


def grown(value: Any) -> Any:
    """What the encoder writes for these. Raises NotImplementedError for anything else."""
    if isinstance(value, GrowingText):
        return "".join(value.pieces)
    if isinstance(value, GrowingCalls):
        return value.calls
    raise NotImplementedError(type(value).__name__)
