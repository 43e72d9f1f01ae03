"""Gemini's events, each a whole answer's shape, as deltas."""

from __future__ import annotations

from typing import Any

from pool_server.dialects.translation.errors import read_error
from pool_server.dialects.translation.fields import arguments_object_text, google_usage, obj, text
from pool_server.dialects.translation.gemini.request import camel
from pool_server.dialects.translation.neutral import ErrorInfo, Finish, Sink

_FINISH = {
    "STOP": Finish.STOP,
    "MAX_TOKENS": Finish.LENGTH,
    "CONTINUATION": Finish.LENGTH,
    "TOO_MANY_TOOL_CALLS": Finish.PAUSE,
    "MALFORMED_FUNCTION_CALL": Finish.MALFORMED,
    "UNEXPECTED_TOOL_CALL": Finish.MALFORMED,
    "SAFETY": Finish.FILTER,
    "RECITATION": Finish.FILTER,
    "BLOCKLIST": Finish.FILTER,
    "PROHIBITED_CONTENT": Finish.FILTER,
    "SPII": Finish.FILTER,
    "LANGUAGE": Finish.FILTER,
    "IMAGE_SAFETY": Finish.FILTER,
    "IMAGE_PROHIBITED_CONTENT": Finish.FILTER,
    "IMAGE_RECITATION": Finish.FILTER,
    "ESCALATION": Finish.FILTER,
    "PUP_LIMITED_DISABLED": Finish.FILTER,
    "MODEL_ARMOR": Finish.FILTER,
}
# Reasons that are faults: what came before is no answer.
_FAULTS = frozenset({"MALFORMED_RESPONSE", "MISSING_THOUGHT_SIGNATURE"})
_BESIDE = ("citationMetadata", "groundingMetadata", "urlContextMetadata", "finishMessage", "continuationToken")
_TOLD = frozenset({"text", "inlineData", "functionCall", "thought", "thoughtSignature"})


class GeminiStreamReader:
    """Thoughts end where something else begins; a signature on that something seals them. The stream ends with the
    connection: nothing else says so, as some servers give a reason to stop with every event."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._block = ""
        self._reason = ""
        self._usage: Any = None  # every event repeats it: the latest is read at the end
        self._count = 0  # blocks begun, which are their keys

    def event(self, _name: str, event: Any) -> None:
        if isinstance(event, list):  # a stream asked for without alt=sse
            for each in event:
                self.event("", each)
            return
        if not isinstance(event, dict):
            return
        inner, usage = event.get("response"), event.get("usageMetadata")
        if isinstance(inner, dict):
            event = inner
        if event.get("error") is not None:
            self._sink.fail(read_error(0, event))
            return
        self._sink.start(text(event.get("responseId")), text(event.get("modelVersion")))
        self._usage = event.get("usageMetadata") or usage or self._usage
        candidates = event.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            if isinstance(candidate, dict) and candidate.get("index", 0) in (0, None):
                self._candidate(candidate)
        if obj(event.get("promptFeedback")).get("blockReason"):
            self._sink.finish(Finish.FILTER)

    def done(self) -> None:
        self.end()

    def end(self) -> None:
        if self._reason:
            self._into("")
            self._sink.finish(_FINISH.get(self._reason, Finish.FILTER if "SAFETY" in self._reason else Finish.STOP))
        self._sink.usage(google_usage(self._usage))
        self._sink.close()

    def _candidate(self, candidate: dict[str, Any]) -> None:
        parts = obj(candidate.get("content")).get("parts")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._part(camel(part))
        for name in _BESIDE:
            if candidate.get(name):
                self._sink.leave(name)
        reason = text(candidate.get("finishReason"))
        if reason and reason != "FINISH_REASON_UNSPECIFIED":
            self._ends(reason)

    def _ends(self, reason: str) -> None:
        if reason in _FAULTS:
            self._sink.fail(ErrorInfo(502, f"The model's answer ended with {reason}.", "api_error", reason.lower()))
            return
        if _FINISH.get(reason) in (None, Finish.MALFORMED):  # Chat has no word for the latter
            self._sink.leave(f"finishReason {reason}")
        if self._reason in ("", "STOP"):
            self._reason = reason

    def _part(self, part: dict[str, Any]) -> None:
        signature = text(part.get("thoughtSignature"))
        if part.get("thought") is True:
            if piece := text(part.get("text")):
                self._into("thought")
                self._sink.reasoning(self._count, piece)
            if signature:
                self._into("thought")
                self._seal(signature)
            return
        if signature:
            self._seal(signature)
        if piece := text(part.get("text")):
            self._into("text")
            self._sink.text(self._count, piece)
        elif isinstance(blob := part.get("inlineData"), dict):
            self._into("")
            self._count += 1
            self._sink.media(self._count, text(camel(blob).get("mimeType")), text(blob.get("data")))
        elif isinstance(call := part.get("functionCall"), dict):
            self._into("")
            self._count += 1
            self._sink.call(self._count, text(call.get("id")), text(call.get("name")))
            self._sink.end(self._count, whole=arguments_object_text(call.get("args")))
        else:
            for name in part.keys() - _TOLD:
                self._sink.leave(name)

    def _seal(self, signature: str) -> None:
        """Seal the thought that is open, else one without text."""
        if self._block != "thought":
            self._into("")
            self._count += 1
        self._sink.end(self._count, seal=signature)
        self._block = ""

    def _into(self, block: str) -> None:
        if block != self._block:
            if self._block:
                self._sink.end(self._count)
            if block:
                self._count += 1
            self._block = block
