"""From an upstream's deltas, in any order, to whole blocks, one after the other.

The block in front is told as it comes; others are kept until it ends. Whatever the upstream does, a writer sees
`begin`, then blocks that open, continue and close one at a time, then `finish` or `fail`, each once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from hashlib import blake2b
from typing import Protocol

import msgspec

from pool_server.core.enums import Dialect
from pool_server.core.models import Usage
from pool_server.dialects.translation.answers.cuts import LivePieces, StopStrings, put_right
from pool_server.dialects.translation.answers.logprobs import TokenQueue, size
from pool_server.dialects.translation.conformance import Notes
from pool_server.dialects.translation.neutral import ErrorInfo, Family, Finish, TokenLogprob
from pool_server.dialects.translation.seals import seal_for
from pool_server.dialects.translation.tools import ToolNames, arguments_object, emulated_input, plain_id

HELD = 32 << 20  # characters of one answer that are kept; a larger one fails
_TEXT, _REASONING, _CALL, _MEDIA = range(4)
_CUT = (Finish.LENGTH, Finish.FILTER)
_BROKE_OFF = ErrorInfo(502, "The upstream's answer broke off before its end.", "api_error", "stream_cut")


class Writer(Protocol):
    """Tells an answer in one dialect. `json_arguments`: a call whose arguments are no JSON object cannot be told;
    `live_arguments`: pieces of arguments are told as they come, else only `close_call` tells them; `keeps`: the
    writer keeps what it is told, so the whole answer is bounded; `shows`: it has a word for sound and pictures. A call
    that is `cut` was never made: the answer ended within its arguments, and no client may take it for whole."""

    json_arguments: bool
    live_arguments: bool
    keeps: bool
    shows: bool

    def begin(self, ident: str, model: str) -> None: ...
    def open_text(self, refusal: bool) -> None: ...
    def logprobs(self, tokens: list[TokenLogprob]) -> None: ...  # of the text that is told next
    def text(self, piece: str) -> None: ...
    def close_text(self) -> None: ...
    def media(self, mime: str, data: str) -> None: ...
    def open_reasoning(self) -> None: ...
    def reasoning(self, piece: str) -> None: ...
    def close_reasoning(self, seal: str, redacted: bool) -> None: ...
    def open_call(self, ident: str, name: str, custom: bool) -> None: ...
    def arguments(self, piece: str) -> None: ...
    def close_call(self, arguments: str, cut: bool) -> None: ...
    def finish(self, reason: Finish, stop: str, usage: Usage) -> None: ...
    def fail(self, error: ErrorInfo) -> None: ...


class Terms(msgspec.Struct):
    """What the answer's side of a translation has to know of its request."""

    client: Dialect
    family: Family
    ident: str
    model: str
    names: ToolNames
    emulated: frozenset[str] = frozenset()
    stop: tuple[str, ...] = ()


class _Block:
    __slots__ = (
        "custom",
        "ended",
        "ident",
        "key",
        "kind",
        "live",
        "name",
        "opened",
        "order",
        "pieces",
        "redacted",
        "seal",
        "size",
        "tokens",
        "wrapped",
    )

    def __init__(self, kind: int, key: Hashable) -> None:
        self.kind = kind
        self.key = key
        self.pieces: list[str] = []  # not yet told; of a call all of them
        self.size = 0
        self.tokens: TokenQueue | None = None  # those whose text is not yet told
        self.ended = self.opened = False
        self.ident = self.name = self.seal = ""
        self.order: int | None = None
        self.custom = self.redacted = False
        self.live = LivePieces()
        self.wrapped = False  # a custom tool's text within an object: unwrapped when it is whole


class Sequencer:
    """The `Sink` in front of a writer."""

    def __init__(self, writer: Writer, terms: Terms, *, most: int = HELD) -> None:
        self._writer = writer
        self._most = most
        self._terms = terms
        self._blocks: dict[tuple[int, Hashable], _Block] = {}  # begun and not ended
        self._front: _Block | None = None
        self._ready: deque[_Block] = deque()
        self._ordered: dict[int, _Block] = {}  # calls that wait for those before them
        self._next = 0
        self._held = 0  # characters kept, here or by the writer; at most `most`
        self._ids: dict[str, int] = {}
        self._calls = 0
        self._ident, self._model = terms.ident, terms.model
        self._stops = StopStrings(terms.stop) if terms.stop else None
        self._met = ""  # the stop string the text ran into: nothing after it is told
        self._stop = ""
        self._reason: Finish | None = None
        self._said = False  # the upstream itself gave the reason
        self._usage = Usage()
        self._refused = False
        self.left_out = Notes()
        self.begun = False
        self.closed = False
        self.fault: ErrorInfo | None = None

    # What the upstream tells

    def start(self, ident: str, model: str) -> None:
        if not self.begun:
            self._ident, self._model = ident or self._ident, model or self._model

    def text(self, key: Hashable, piece: str, *, refusal: bool = False) -> None:
        front = self._front
        if front is not None and front.key == key and front.kind == _TEXT and not self._stops and self._reason is None:
            self._tell_text(piece)
            return
        if piece and self._goes():
            self._refused = self._refused or refusal
            block = self._block(_TEXT, key)
            block.custom = block.custom or refusal
            self._take(block, piece)

    def logprobs(self, key: Hashable, tokens: list[TokenLogprob], *, refusal: bool = False) -> None:
        if not (tokens and self._goes()):
            return
        block = self._block(_TEXT, key)
        block.custom = block.custom or refusal
        if block is self._front and self._stops is None:
            self._writer.logprobs(tokens)
        else:
            block.tokens = block.tokens or TokenQueue()
            block.tokens.add(tokens)
        if self._writer.keeps or block is not self._front:
            self._hold(size(tokens))

    def media(self, key: Hashable, mime: str, data: str) -> None:
        if not (data and self._goes()):
            return
        if not self._writer.shows:
            self.leave(mime.partition("/")[0])
            return
        block = _Block(_MEDIA, key)
        block.name, block.ended = mime, True
        self._take(block, data)

    def leave(self, what: str) -> None:
        self.left_out.drop(what)

    def reasoning(self, key: Hashable, piece: str) -> None:
        if piece and self._goes():
            self._take(self._block(_REASONING, key), piece)

    def call(self, key: Hashable, ident: str, name: str, *, custom: bool = False, order: int | None = None) -> None:
        if not self._goes():
            return
        block = self._block(_CALL, key)
        if not block.opened:
            block.ident, block.name = block.ident or ident, block.name or name
            block.custom = block.custom or custom
            if order is not None and block.order is None:
                block.order = order
                self._ordered.setdefault(order, block)
            self._advance(block)

    def arguments(self, key: Hashable, piece: str) -> None:
        if piece and self._goes():
            self._take(self._block(_CALL, key), piece)

    def end(self, key: Hashable, *, whole: str | None = None, seal: str = "", redacted: bool = False) -> None:
        if not self._goes():
            return
        for kind in (_TEXT, _REASONING, _CALL):
            block = self._blocks.pop((kind, key), None)
            if block is not None:
                if whole and not block.size:
                    self._take(block, whole)
                block.seal, block.redacted = seal, redacted
                self._end(block)
                return
        if seal:
            block = _Block(_REASONING, key)
            block.seal, block.redacted = seal, redacted
            self._end(block)

    @property
    def ended(self) -> bool:
        """Whether the upstream said why the answer ends."""
        return self._reason is not None

    def finish(self, reason: Finish, stop: str = "", *, said: bool = True) -> None:
        if self._reason is not None or self.closed:
            return
        self._said = said
        if self._met:
            reason, stop = Finish.STOP_STRING, self._met
        self._reason, self._stop = reason, stop
        left = list(self._blocks.values())
        self._blocks.clear()
        for block in sorted(left, key=lambda block: block.order if block.order is not None else -1):
            if block.kind == _CALL:
                block.order, block.name, block.ident = None, block.name or "unknown", block.ident or self._synthetic()
            self._end(block)
        self._settle()

    def usage(self, usage: Usage) -> None:
        self._usage = usage

    def fail(self, error: ErrorInfo) -> None:
        if self.closed:
            return
        self.closed, self.fault = True, error
        self._blocks.clear()
        self._ready.clear()
        self._front = None
        if self.begun:
            self._writer.fail(error)

    def close(self) -> None:
        if self.closed:
            return
        if self._reason is None:
            self.fail(_BROKE_OFF)
            return
        if self._reason is Finish.MALFORMED and self._terms.client is not Dialect.CHAT:
            self.fail(ErrorInfo(502, "The model wrote a tool call that cannot be read.", "api_error", "malformed_call"))
            return
        self.closed = True
        self._begin()
        self._writer.finish(self._told_reason(self._reason), self._stop, self._usage)

    # Blocks in order

    def _goes(self) -> bool:
        return self._reason is None and not self.closed and not self._met

    def _block(self, kind: int, key: Hashable) -> _Block:
        block = self._blocks.get((kind, key))
        if block is None:
            block = self._blocks[kind, key] = _Block(kind, key)
        return block

    def _take(self, block: _Block, piece: str) -> None:
        first = not block.size
        block.size += len(piece)
        if block is self._front:
            self._say(block, piece)
            return
        self._keep(block, piece)
        if block.kind != _CALL and first:
            self._queue(block)

    def _keep(self, block: _Block, piece: str) -> None:
        block.pieces.append(piece)
        self._hold(len(piece))

    def _advance(self, block: _Block) -> None:
        """A call joins the queue when its name is known and those before it have joined."""
        if block.order is None:
            if block.name and not block.opened:
                self._queue(block)
            return
        while (first := self._ordered.get(self._next)) is not None and first.name and first.ident:
            del self._ordered[self._next]
            self._next += 1
            self._queue(first)

    def _queue(self, block: _Block) -> None:
        block.opened = True
        self._ready.append(block)
        if self._front is None:
            self._settle()

    def _end(self, block: _Block) -> None:
        block.ended = True
        if not block.opened and (block.kind == _CALL or block.size or block.seal or block.redacted):
            if block.kind == _CALL and block.order is not None and self._reason is None:
                self._blocks[_CALL, block.key] = block  # its turn has not come
                return
            block.name = block.name or "unknown"
            self._queue(block)
        elif block is self._front:
            self._settle()

    def _settle(self) -> None:
        """Close and open blocks until the one in front is still being written."""
        while not self.closed:
            front = self._front
            if front is not None:
                if not (front.ended and self._close(front)):
                    return
                self._front = None
            if not self._ready:
                return
            self._open(self._ready.popleft())

    def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            self._writer.begin(self._ident, self._model)

    def _open(self, block: _Block) -> None:
        self._front = block
        self._begin()
        pieces, block.pieces = block.pieces, []
        self._held -= block.size
        if block.kind == _TEXT:
            self._writer.open_text(block.custom)
            if block.tokens is not None and self._stops is None:
                self._writer.logprobs(block.tokens.rest())
        elif block.kind == _REASONING:
            self._writer.open_reasoning()
        elif block.kind == _CALL:
            self._open_call(block)
        for piece in pieces:
            if block is self._front:
                self._say(block, piece)

    def _open_call(self, block: _Block) -> None:
        self._calls += 1
        block.name = self._terms.names.down(block.name)
        block.wrapped = block.name in self._terms.emulated
        block.custom = block.custom or block.wrapped
        self._writer.open_call(self._own_id(block.ident), block.name, block.custom)

    def _own_id(self, ident: str) -> str:
        """An id every client takes, and no other call of the answer has."""
        found = base = plain_id(ident) if ident else self._synthetic()
        while found in self._ids:
            self._ids[base] = count = self._ids.get(base, 1) + 1
            found = f"{base[:50]}_{count}"
        self._ids[found] = 1
        return found

    def _synthetic(self) -> str:
        seed = f"{self._terms.ident}/{self._ident}/{self._calls}"
        return "call_" + blake2b(seed.encode("utf-8", "replace"), digest_size=9).hexdigest()

    def _say(self, block: _Block, piece: str) -> None:
        if block.kind == _TEXT:
            met = ""
            if self._stops is not None:
                piece, met = self._stops.feed(piece)
            if piece:
                if block.tokens is not None:
                    self._writer.logprobs(block.tokens.take(piece))
                self._tell_text(piece)
            if met:
                self._end_at(met)
        elif block.kind == _REASONING:
            self._writer.reasoning(piece)
            if self._writer.keeps:
                self._hold(len(piece))
        elif block.kind == _MEDIA:
            self._writer.media(block.name, piece)
            if self._writer.keeps:
                self._hold(len(piece))
        else:
            tells = self._writer.live_arguments and not block.wrapped
            if tells and (block.custom or block.live.feed(piece, block.pieces)) and not self.closed:
                self._writer.arguments(piece)
            self._keep(block, piece)

    def _tell_text(self, piece: str) -> None:
        self._writer.text(piece)
        if self._writer.keeps:
            self._hold(len(piece))

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > self._most:
            said = f"The upstream's answer is larger than {self._most >> 20} MiB."
            self.fail(ErrorInfo(502, said, "api_error", "too_large"))

    def _end_at(self, met: str) -> None:
        """A stop string: the text ends here, and with it the answer."""
        self._met = met
        self._writer.close_text()
        self._front = None
        self._blocks.clear()
        self._ready.clear()

    def _close(self, block: _Block) -> bool:
        """Close the block in front; False where that has to wait for what comes."""
        if block.kind == _CALL:
            return self._close_call(block)
        if block.kind == _TEXT:
            if self._stops is not None and block.tokens is not None:
                self._writer.logprobs(block.tokens.rest())
            if self._stops is not None and (rest := self._stops.rest()):
                self._writer.text(rest)
            self._writer.close_text()
        elif block.kind == _REASONING:
            seal = seal_for(self._terms.client, self._terms.family, block.seal, redacted=block.redacted)
            self._writer.close_reasoning(seal, block.redacted)
        return True

    def _close_call(self, block: _Block) -> bool:
        whole = told = "".join(block.pieces)
        rest, cut = "", False
        if block.wrapped or not block.custom:
            whole = put_right(whole.lstrip())
            if not whole or not arguments_object(whole)[1]:
                if self._reason is None:
                    return False  # whether the answer was cut is not known yet
                cut = self._reason in _CUT and not (self._ready and not whole)
                if whole and not self._may_be_told(block, cut):
                    return False
            if block.wrapped:
                whole = rest = emulated_input(whole)
            else:
                rest = block.live.rest(told, whole)
        if self._writer.live_arguments and rest:
            self._writer.arguments(rest)
        if not self._writer.keeps:
            self._held -= block.size
        block.pieces = []
        self._writer.close_call(whole, cut)
        return True

    def _may_be_told(self, block: _Block, cut: bool) -> bool:
        """Whether arguments that are no object can be told; else the answer fails."""
        if not self._said:
            self.fail(_BROKE_OFF)
        elif not cut and self._writer.json_arguments and not block.wrapped:
            said = "The model wrote tool arguments that are no JSON."
            self.fail(ErrorInfo(502, said, "api_error", "bad_arguments"))
        return not self.closed

    def _told_reason(self, reason: Finish) -> Finish:
        if reason in (Finish.STOP, Finish.TOOLS) and self._refused:
            return Finish.REFUSAL
        if reason is Finish.STOP and self._calls:
            return Finish.TOOLS
        return Finish.STOP if reason is Finish.TOOLS and not self._calls else reason
