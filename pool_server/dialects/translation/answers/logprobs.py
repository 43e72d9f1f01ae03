"""Log probabilities of an answer's tokens: read from Chat, kept in step with the text, written for a client."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

from pool_server.dialects.translation.fields import obj, text
from pool_server.dialects.translation.neutral import TokenLogprob

MOST_TOP = 20  # of the likeliest tokens at one place
_ENTRY = 48  # characters an entry counts for beside its token


def read_choice(told: Any, said: str) -> tuple[list[TokenLogprob], list[TokenLogprob]]:
    """The tokens of a choice's text and of its refusal, from its `logprobs`. Some endpoints write them as the old
    completions did, in lists side by side, and in a stream as the one number of `said`."""
    if isinstance(told, (int, float)) and not isinstance(told, bool):
        return ([TokenLogprob(said, told)] if said else []), []
    found = obj(told)
    if isinstance(found.get("tokens"), list):
        return _old_form(found), []
    return read_tokens(found.get("content")), read_tokens(found.get("refusal"))


def _old_form(told: dict[str, Any]) -> list[TokenLogprob]:
    numbers, likeliest = told.get("token_logprobs"), told.get("top_logprobs")
    numbers = numbers if isinstance(numbers, list) else []
    likeliest = likeliest if isinstance(likeliest, list) else []
    found = []
    for token, number, top in zip_longest(told["tokens"][: len(numbers)], numbers, likeliest[: len(numbers)]):
        one = _read({"token": token, "logprob": number})
        if one is not None:
            others = [_read({"token": name, "logprob": value}) for name, value in list(obj(top).items())[:MOST_TOP]]
            one.top = [other for other in others if other is not None]
            found.append(one)
    return found


def read_tokens(value: Any) -> list[TokenLogprob]:
    """The tokens of Chat's `logprobs.content` or `.refusal`; what has not that form is passed over."""
    if not isinstance(value, list):
        return []
    found = []
    for entry in value:
        token = _read(obj(entry))
        if token is not None:
            top = obj(entry).get("top_logprobs")
            likeliest = [_read(obj(one)) for one in top[:MOST_TOP]] if isinstance(top, list) else []
            token.top = [one for one in likeliest if one is not None]
            found.append(token)
    return found


def _read(entry: dict[str, Any]) -> TokenLogprob | None:
    logprob, raw = entry.get("logprob"), entry.get("bytes")
    if not isinstance(entry.get("token"), str) or isinstance(logprob, bool) or not isinstance(logprob, (int, float)):
        return None
    whole = isinstance(raw, list) and all(type(byte) is int and 0 <= byte < 256 for byte in raw)
    return TokenLogprob(text(entry["token"]), logprob, raw if whole else None)


def size(tokens: Iterable[TokenLogprob]) -> int:
    """What tokens count for against the bound of an answer, in characters."""
    return sum(len(one.token) + _ENTRY for token in tokens for one in (token, *token.top))


def openai_tokens(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    return [_openai(token) | {"top_logprobs": [_openai(one) for one in token.top]} for token in tokens]


def _openai(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "bytes": _bytes(token), "logprob": token.logprob}


def _bytes(token: TokenLogprob) -> list[int]:
    return token.bytes if token.bytes is not None else list(token.token.encode("utf-8", "replace"))


def google_tokens(tokens: list[TokenLogprob]) -> dict[str, Any]:
    """Gemini's `logprobsResult`."""
    told: dict[str, Any] = {"chosenCandidates": [_google(token) for token in tokens]}
    if any(token.top for token in tokens):
        told["topCandidates"] = [{"candidates": [_google(one) for one in token.top]} for token in tokens]
    return told


def _google(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logProbability": token.logprob}


class TokenQueue:
    """Tokens that wait for their text: where the end of a text is kept back, they are too."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()  # (bytes of text to its end, token)
        self._added = self._told = 0

    def add(self, tokens: Iterable[TokenLogprob]) -> None:
        for token in tokens:
            self._added += len(_bytes(token))
            self._waiting.append((self._added, token))

    def take(self, piece: str) -> list[TokenLogprob]:
        """The tokens that end within the next piece of text that is told."""
        self._told += len(piece.encode("utf-8", "replace"))
        found = []
        while self._waiting and self._waiting[0][0] <= self._told:
            found.append(self._waiting.popleft()[1])
        return found

    def rest(self) -> list[TokenLogprob]:
        found = [token for _, token in self._waiting]
        self._waiting.clear()
        return found
