"""Responses answers in one piece: read from an account, written for a client."""

from __future__ import annotations

from typing import Any

from pool_server.core.models import Usage
from pool_server.dialects.responses import unasked
from pool_server.dialects.translation.answers.fold import WholeAnswer
from pool_server.dialects.translation.answers.logprobs import openai_tokens
from pool_server.dialects.translation.errors import read_error
from pool_server.dialects.translation.fields import arguments_text, obj, openai_usage, text
from pool_server.dialects.translation.neutral import Finish, Part, Reasoning, Sink, Text, ToolCall
from pool_server.dialects.types import says

_REASONS = {"max_output_tokens": Finish.LENGTH, "max_tokens": Finish.LENGTH, "content_filter": Finish.FILTER}


def read_finish(response: dict[str, Any], sink: Sink, kind: str = "") -> None:
    """Tell why the response ended."""
    if response.get("status") == "incomplete" or kind == "response.incomplete":
        reason = text(obj(response.get("incomplete_details")).get("reason"))
        if reason and reason not in _REASONS:
            sink.leave(f"incomplete_details {reason}")
        sink.finish(_REASONS.get(reason, Finish.LENGTH))
    else:
        sink.finish(Finish.STOP)


def read_answer(body: dict[str, Any], sink: Sink) -> None:
    """Tell a response; what is none ends as one that broke off."""
    if says(body.get("error")) or body.get("status") == "failed":
        sink.fail(read_error(0, body))
        return
    sink.start(text(body.get("id")), text(body.get("model")))
    output = body.get("output")
    for index, item in enumerate(output if isinstance(output, list) else ()):
        read_item(index, obj(item), sink)
    sink.usage(openai_usage(body.get("usage")))
    if body.get("status") in ("completed", "incomplete"):
        read_finish(body, sink)
    sink.close()


def read_item(index: Any, item: dict[str, Any], sink: Sink) -> None:
    """Tell one whole output item."""
    kind = item.get("type")
    if kind == "message":
        content = item.get("content")
        if isinstance(content, str):
            content = [{"type": "output_text", "text": content}]
        for number, part in enumerate(content if isinstance(content, list) else ()):
            shape = obj(part)
            refusal = shape.get("type") == "refusal"
            sink.text((index, number), text(shape.get("refusal" if refusal else "text")), refusal=refusal)
            sink.end((index, number))
        leave_untold(item, sink)
    elif kind == "reasoning":
        sink.reasoning(index, reasoning_text(item))
        sink.end(index, seal=text(item.get("encrypted_content")))
    elif kind in ("function_call", "custom_tool_call"):
        custom = kind == "custom_tool_call"
        sink.call(index, text(item.get("call_id")), text(item.get("name")), custom=custom)
        sink.end(index, whole=arguments_text(item.get("input" if custom else "arguments")))
    else:
        sink.leave(text(kind) or "output")


def leave_untold(message: dict[str, Any], sink: Sink) -> None:
    """Name what a message's parts hold beside text."""
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        shape = obj(part)
        if shape.get("annotations"):
            sink.leave("annotations")
        if shape.get("type") not in ("output_text", "refusal") and not shape.get("text"):
            sink.leave(text(shape.get("type")) or "content")


def reasoning_text(item: dict[str, Any]) -> str:
    """Summary parts and those of the raw text, which stand apart by an empty line."""
    fields = [item.get("summary"), item.get("content")]
    parts = [part for found in fields if isinstance(found, list) for part in found]
    return "\n\n".join(said for part in parts if (said := text(obj(part).get("text"))))


def write_usage(usage: Usage) -> dict[str, Any]:
    total = usage.input + usage.cache_read + usage.cache_write
    return {
        "input_tokens": total,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": total + usage.output,
    }


class Echo:
    """What an answer says besides its output: the request's own fields, once encoded, and the names of its items."""

    def __init__(self, created: int, echo: dict[str, Any], namespaces: dict[str, tuple[str, str]]) -> None:
        self._created = created
        self._fields = unasked() | echo
        self._namespaces = namespaces

    def response(self, ident: str, model: str, status: str, output: list[Any], **more: Any) -> dict[str, Any]:
        shape = {
            "id": response_id(ident),
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": output,
            "usage": None,
        }
        return shape | self._fields | more

    def item(self, part: Part, ident: str, number: int, status: str = "completed") -> dict[str, Any]:
        """An output item; its id is made of the answer's and its place."""
        mark = f"{ident.removeprefix('resp_')}_{number}"
        if isinstance(part, Reasoning):
            summary = [{"type": "summary_text", "text": part.text}] if part.text else []
            shape = {"id": f"rs_{mark}", "type": "reasoning", "summary": summary}
            return shape | ({"encrypted_content": part.seal} if part.seal else {})
        if isinstance(part, ToolCall):
            kind, prefix, field = (
                ("custom_tool_call", "ctc", "input") if part.custom else ("function_call", "fc", "arguments")
            )
            shape = {"id": f"{prefix}_{mark}", "type": kind, "call_id": part.id, **self._named(part.name)}
            arguments = part.arguments if part.custom or part.arguments or status != "completed" else "{}"
            told = "incomplete" if part.cut else status
            return shape | {field: arguments} | ({} if part.custom and not part.cut else {"status": told})
        content = [content_part(part)] if isinstance(part, Text) and (part.text or status == "completed") else []
        return {"id": f"msg_{mark}", "type": "message", "status": status, "role": "assistant", "content": content}

    def _named(self, name: str) -> dict[str, str]:
        if name in self._namespaces:
            space, inner = self._namespaces[name]
            return {"name": inner, "namespace": space}
        return {"name": name}


def content_part(part: Text) -> dict[str, Any]:
    if part.refusal:
        return {"type": "refusal", "refusal": part.text}
    return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": openai_tokens(part.logprobs)}


def ending(finish: Finish) -> tuple[str, dict[str, Any] | None]:
    """(status, incomplete_details)."""
    if finish is Finish.LENGTH:
        return "incomplete", {"reason": "max_output_tokens"}
    if finish is Finish.FILTER:
        return "incomplete", {"reason": "content_filter"}
    return "completed", None


def write_answer(answer: WholeAnswer, echo: Echo) -> dict[str, Any]:
    status, details = ending(answer.finish)
    output = [echo.item(part, answer.ident, number) for number, part in enumerate(answer.parts)]
    usage = write_usage(answer.usage)
    return echo.response(answer.ident, answer.model, status, output, incomplete_details=details, usage=usage)


def response_id(ident: str) -> str:
    return ident if ident.startswith("resp_") else f"resp_{ident}"
