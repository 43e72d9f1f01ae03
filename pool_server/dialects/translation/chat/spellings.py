"""What clients of Chat spell as other dialects do, told as Chat's own.

Cursor sends flat tools, Responses' parts and whole Responses bodies, LiteLLM's and OpenRouter's clients Claude's
`thinking`, Mistral's API `any`; a conversation that Mistral or Claude has begun holds their parts.
"""

from __future__ import annotations

from typing import Any

from pool_server.dialects.translation.fields import arguments_text, obj, text

_CHOICES = {"auto": "auto", "none": "none", "any": "required", "required": "required"}
_THOUGHTS = {"thinking": "thinking", "reasoning": "text", "redacted_thinking": "", "reference": ""}


def own_spelling(body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(the body in Chat's own spelling, names of what has none). What is spelt in no known way stays as it is."""
    told, left = dict(body), list[str]()
    if isinstance(tools := body.get("tools"), list):
        told["tools"] = [_tool(tool) if isinstance(tool, dict) else tool for tool in tools]
    if body.get("tool_choice") is not None:
        told["tool_choice"] = _choice(body["tool_choice"])
    if isinstance(messages := body.get("messages"), list):
        told["messages"] = [own for message in messages for own in _message(message, left)]
    _thinking(told)
    return told, left


def as_responses(body: dict[str, Any]) -> dict[str, Any] | None:
    """A Responses body that came as a Chat one; None for others."""
    if body.get("messages") or body.get("input") is None:
        return None
    told = {name: value for name, value in body.items() if name not in ("messages", "stream_options")}
    limit = told.pop("max_completion_tokens", None) or told.pop("max_tokens", None)
    if limit is not None:
        told.setdefault("max_output_tokens", limit)
    if (effort := told.pop("reasoning_effort", None)) is not None:
        told.setdefault("reasoning", {"effort": effort})
    if isinstance(tools := told.get("tools"), list):
        told["tools"] = [_flat(tool) if isinstance(tool, dict) else tool for tool in tools]
    return told


def _flat(tool: dict[str, Any]) -> dict[str, Any]:
    kind = text(tool.get("type")) or "function"
    inner = tool.get(kind)
    return {"type": kind, **inner} if isinstance(inner, dict) else tool


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    kind = tool.get("type")
    if isinstance(tool.get("function"), dict):
        return tool if kind is not None else {"type": "function", **tool}
    if not isinstance(tool.get("name"), str):
        return tool
    inner = {name: value for name, value in tool.items() if name in ("name", "description", "parameters", "strict")}
    if "input_schema" in tool:
        return {"type": "function", "function": inner | {"parameters": tool["input_schema"]}}
    if kind in (None, "function"):
        return {"type": "function", "function": inner}
    if kind != "custom" or "custom" in tool:
        return tool
    form = tool.get("format")
    if isinstance(form, dict) and form.get("type") == "grammar" and "grammar" not in form:
        form = {"type": "grammar", "grammar": {name: form[name] for name in form if name != "type"}}
    return {"type": "custom", "custom": inner | ({} if form is None else {"format": form})}


def _choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return _CHOICES.get(choice, choice)
    kind = obj(choice).get("type")
    if isinstance(kind, str) and kind in _CHOICES:
        return _CHOICES[kind]
    return {"type": "function", "function": {"name": choice.get("name")}} if kind == "tool" else choice


def _message(message: Any, left: list[str]) -> list[Any]:
    content = obj(message).get("content")
    if not isinstance(content, list) or message.get("role") not in ("user", "assistant"):
        return [message]
    parts: list[Any] = []
    calls: list[Any] = []
    results: list[Any] = []
    thoughts = ""
    for part in content:
        kind = text(obj(part).get("type"))
        if kind in _THOUGHTS:
            thought = _said(part.get(_THOUGHTS[kind]))
            thoughts += thought
            if not thought:
                left.append(f"messages[].content.{kind}")
        elif kind == "tool_use":
            function = {"name": part.get("name"), "arguments": arguments_text(part.get("input"))}
            calls.append({"id": part.get("id"), "type": "function", "function": function})
        elif kind == "tool_result":
            results.append({"role": "tool", "tool_call_id": part.get("tool_use_id"), "content": part.get("content")})
        else:
            parts.append(_part(part, kind))
    told: dict[str, Any] = {**message, "content": parts}
    if thoughts and not message.get("reasoning_content"):
        told["reasoning_content"] = thoughts
    if calls:
        known = message.get("tool_calls")
        told["tool_calls"] = [*known, *calls] if isinstance(known, list) else calls
    return [*results, told] if parts or calls or not results else results


def _said(value: Any) -> str:
    """A text, or Mistral's list of them."""
    if isinstance(value, list):
        return "".join(text(obj(one).get("text")) for one in value)
    return text(value)


def _part(part: Any, kind: str) -> Any:
    if kind in ("input_text", "output_text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part.get("detail")}}
    source = obj(obj(part).get("source"))
    if kind == "image" and source.get("type") == "base64":
        return {
            "type": "image_url",
            "image_url": {"url": f"data:{text(source.get('media_type'))};base64,{text(source.get('data'))}"},
        }
    if kind == "image" and source.get("type") == "url":
        return {"type": "image_url", "image_url": {"url": source.get("url")}}
    return part


def _thinking(body: dict[str, Any]) -> None:
    """Claude's and GLM's `thinking`, Qwen's `enable_thinking`, OpenRouter's `enabled`: off, or a budget of tokens."""
    if body.get("reasoning_effort") is not None or obj(body.get("reasoning")).get("effort") is not None:
        return
    thinking = obj(body.get("thinking"))
    off = thinking.get("type") == "disabled" or body.get("enable_thinking") is False
    budget = thinking.get("budget_tokens") if thinking.get("type") == "enabled" else None
    budget = body.get("thinking_budget") if budget is None and body.get("enable_thinking") is True else budget
    if off or obj(body.get("reasoning")).get("enabled") is False:
        body["reasoning_effort"] = "none"
    elif budget is not None:
        body["reasoning"] = {**obj(body.get("reasoning")), "max_tokens": budget}
    else:
        return
    for name in ("thinking", "enable_thinking", "thinking_budget"):
        body.pop(name, None)
    if isinstance(body.get("reasoning"), dict):
        body["reasoning"] = {name: value for name, value in body["reasoning"].items() if name != "enabled"}
