"""Codex has a conversation compacted by its last input item and waits for one output item with a sealed content. Other
vendors have no such item: the summary is asked for in words and sealed by the pool."""

from __future__ import annotations

from typing import Any

from pool_server.core.models import Usage
from pool_server.dialects.translation.answers.fold import WholeAnswer
from pool_server.dialects.translation.conformance import Feature
from pool_server.dialects.translation.fields import choose, text
from pool_server.dialects.translation.neutral import (
    ErrorInfo,
    Finish,
    Message,
    NeutralRequest,
    Part,
    Role,
    Text,
)
from pool_server.dialects.translation.responses.answer import Echo, write_usage
from pool_server.dialects.translation.responses.stream_out import ResponsesStreamWriter
from pool_server.dialects.wire.sealed import seal_summary, summary_of, told_summary

TRIGGER = "compaction_trigger"
_ASKED = (
    "Stop here and write a summary of this conversation that will stand in its place. Whoever goes on with the work "
    "reads nothing else of what came before, so write down: what the user wants, every instruction that still holds; "
    "what was decided and why; what was found out; the files, commands, names and values that matter, exactly; what is "
    "done, what is under way and what comes next. Write the summary alone. Do not call tools."
)
_UNREADABLE = (
    "[The conversation before this point was compacted by another provider, which alone can read it. Ask or look again "
    "for what is needed of it.]"
)


def ask(request: NeutralRequest) -> None:
    """Ask for a summary in the conversation's place."""
    request.compacts = True
    request.ask(Feature.COMPACTION, "input")
    request.messages.append(Message(Role.USER, [Text(_ASKED)]))
    if request.tools:
        choose(request, "none", [], "input")
    request.format = None


def read(request: NeutralRequest, item: dict[str, Any], where: str) -> Message:
    """A compacted conversation as a message."""
    summary = summary_of(text(item.get("encrypted_content")))
    if summary is None:
        request.ask(Feature.COMPACTED, where)
    return Message(Role.USER, [Text(_UNREADABLE if summary is None else told_summary(summary))])


def item(parts: list[Part], mark: str) -> dict[str, Any] | None:
    """The output item; None where nothing was written."""
    said = "\n\n".join(part.text for part in parts if isinstance(part, Text) and not part.refusal and part.text)
    return {"id": f"cmp_{mark}", "type": "compaction", "encrypted_content": seal_summary(said)} if said else None


def write_answer(answer: WholeAnswer, echo: Echo) -> dict[str, Any]:
    """The same in one piece."""
    found = item(answer.parts, answer.ident.removeprefix("resp_"))
    output = [found] if found is not None else []
    return echo.response(answer.ident, answer.model, "completed", output, usage=write_usage(answer.usage))


class CompactionWriter(ResponsesStreamWriter):
    """Tells one item when the summary is whole, whatever else the model says."""

    live_arguments = False

    def __init__(self, echo: Echo) -> None:
        super().__init__(echo)
        self._parts: list[Part] = []

    def open_text(self, refusal: bool) -> None:
        self._parts.append(Text("", refusal))
        self._pieces = []

    def text(self, piece: str) -> None:
        self._pieces.append(piece)

    def close_text(self) -> None:
        part = self._parts[-1]
        if isinstance(part, Text):
            part.text = "".join(self._pieces)

    def open_reasoning(self) -> None:
        """Nobody is told."""

    def reasoning(self, piece: str) -> None:
        """Nobody is told."""

    def close_reasoning(self, seal: str, redacted: bool) -> None:
        """Nobody is told."""

    def open_call(self, ident: str, name: str, custom: bool) -> None:
        """None was asked for."""

    def close_call(self, arguments: str, cut: bool) -> None:
        """None was asked for."""

    def finish(self, reason: Finish, stop: str, usage: Usage) -> None:
        found = item(self._parts, f"{self._ident.removeprefix('resp_')}_0")
        if found is None:
            self.fail(ErrorInfo(502, "The model wrote no summary.", "api_error", "no_summary"))
            return
        self._event("response.output_item.added", output_index=0, item=found)
        self._event("response.output_item.done", output_index=0, item=found)
        told = self._echo.response(self._ident, self._model, "completed", [found], usage=write_usage(usage))
        self._event("response.completed", response=told)
