"""Putting a conversation in the order every vendor takes: results right after their calls, in the calls' order.

Clients may speak between a call and its result, answer in another order, repeat a result, or never give one.
"""

from __future__ import annotations

from collections import deque

from pool_server.dialects.translation.conformance import Feature, Notes
from pool_server.dialects.translation.neutral import (
    Family,
    Media,
    Message,
    Part,
    Reasoning,
    Result,
    Role,
    Text,
    ToolCall,
)
from pool_server.dialects.translation.tools import plain_id

_SHOWN = "From the answer before:"
_GIVEN = "From the system text:"
_MISSING = "No result was recorded: the call was interrupted."


def arrange(messages: list[Message], notes: Notes, family: Family) -> list[Message]:
    """The conversation in order; what had to be left out or put in is noted.

    Every call gets an id of its own and every result its call's id and name. Reasoning another family than `family`
    made is left out. The order of what stays does not depend on what a later turn adds.
    """
    return _Arranger(notes, family).run(messages)


class _Arranger:
    def __init__(self, notes: Notes, family: Family) -> None:
        self._notes = notes
        self._family = family
        self._found: list[Message] = []
        self._pending: deque[Message] = deque()  # said between calls and their results
        self._open: set[int] = set()  # calls in `_found` whose results come later in the request
        self._result: dict[int, Result] = {}  # by call
        self._call: dict[int, int] = {}  # by result
        self._passed: set[int] = set()  # calls whose results were passed
        self._shown: list[Part] = []  # media that go into the user's next turn

    def run(self, messages: list[Message]) -> list[Message]:
        self._match(messages)
        for message in messages:
            if message.role is Role.TOOL:
                answered = [self._call.get(id(part), 0) for part in message.parts]
                self._passed.update(answered)
                self._open.difference_update(answered)
                self._release()
                continue
            parts = self._spoken(message)
            if not parts:
                continue
            if not self._open:
                self._add(Message(message.role, parts))
            elif message.role is Role.ASSISTANT and not self._pending:
                self._extend(parts)
            else:
                self._pending.append(Message(message.role, parts))
        self._open.clear()
        self._release()
        if self._shown:
            self._add(Message(Role.USER, self._shown))
        return self._found

    def _release(self) -> None:
        while self._pending and not self._open:
            self._add(self._pending.popleft())

    def _add(self, message: Message) -> None:
        self._found.append(message)
        calls = [part for part in message.parts if isinstance(part, ToolCall)]
        if calls:
            self._found.append(Message(Role.TOOL, self._results(calls)))

    def _extend(self, parts: list[Part]) -> None:
        """More of a turn whose calls still wait: vendors want parallel calls in one turn."""
        self._found[-2].parts += parts
        self._found[-1].parts += self._results([part for part in parts if isinstance(part, ToolCall)])

    def _results(self, calls: list[ToolCall]) -> list[Part]:
        results: list[Part] = []
        for call in calls:
            result = self._result.get(id(call))
            if result is None:
                self._notes.about(Feature.OPEN_CALL, "a stand-in result")
                result = Result(call.id, [Text(_MISSING)], call.name, failed=True, custom=call.custom)
            elif id(call) not in self._passed:
                self._open.add(id(call))
            results.append(result)
        return results

    def _spoken(self, message: Message) -> list[Part]:
        """A turn's parts. Media stand in the user's turns; only Gemini takes them in an assistant's, too."""
        if message.role is Role.USER:
            shown, self._shown = self._shown, []
            return [*shown, *message.parts] if shown else message.parts
        said = message.role is Role.ASSISTANT
        parts = self._readable(message.parts) if said else message.parts
        media: list[Part] = [part for part in parts if isinstance(part, Media)]
        if not media or (said and self._family is Family.GEMINI):
            return parts
        self._shown += [Text(_SHOWN if said else _GIVEN), *media]
        self._notes.about(Feature.SAID_MEDIA if said else Feature.SYSTEM_MEDIA, "in the next user turn")
        return [part for part in parts if not isinstance(part, Media)]

    def _readable(self, parts: list[Part]) -> list[Part]:
        kept = [part for part in parts if not isinstance(part, Reasoning) or part.family is self._family]
        if len(kept) < len(parts):
            self._notes.about(Feature.OTHER_REASONING, "left out")
        return kept

    def _match(self, messages: list[Message]) -> None:
        """Match results to calls by id, or by name in order where a result has none; the last of several counts."""
        waiting: dict[str, deque[ToolCall]] = {}
        latest: dict[str, ToolCall] = {}
        seen: dict[str, int] = {}
        for message in messages:
            for part in message.parts:
                if isinstance(part, ToolCall):
                    if part.id:
                        waiting.setdefault(f"#{part.id}", deque()).append(part)
                    waiting.setdefault(f"@{part.name}", deque()).append(part)
                    _name(part, seen)
                elif isinstance(part, Result):
                    self._pair(part, waiting, latest)

    def _pair(self, result: Result, waiting: dict[str, deque[ToolCall]], latest: dict[str, ToolCall]) -> None:
        key = f"#{result.call_id}" if result.call_id else f"@{result.name}"
        queue = waiting.get(key, deque())
        while queue and id(queue[0]) in self._result:
            queue.popleft()
        call = queue[0] if queue else latest.get(key)
        if call is None:
            self._notes.about(Feature.ORPHAN_RESULT, "left out")
            return
        latest[key] = call
        result.call_id, result.name, result.custom = call.id, call.name, call.custom
        self._result[id(call)] = result
        self._call[id(result)] = id(call)


def _name(call: ToolCall, seen: dict[str, int]) -> None:
    """Give a call an id every vendor takes and no call before it has: a call without one, an id that is repeated and
    one that shortens to another's get a number. It stays the same as the conversation grows."""
    own = call.id
    base = (
        plain_id(own) if own else "call_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in call.name)[:40]
    )
    count = seen[base] = seen.get(base, 0) + 1
    if count == 1 and own:
        call.id = base
        return
    while True:
        name = plain_id(f"{base}_{count}")
        if name not in seen:
            seen[name] = 1
            call.id = name
            return
        count += 1
        seen[base] = count
