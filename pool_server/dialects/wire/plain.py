"""Request bodies in the shapes that clients nearly always send, in which nothing can name an object of a provider.

A body that is written so is known to hold no reference after one pass of the decoder, where a search for all the
names that could hold one goes over it ten times. Each field of a shape is typed: text is text, and only what the walk
over references passes over as well (`arguments`, schemas, metadata) may be anything. A field that is not here, also as
the first of two that have the same name, makes the body one to be searched. So a field is added here only if it
is none that `references` knows.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import msgspec
from msgspec import Raw
from msgspec.json import Decoder

from pool_server.core.enums import Dialect

# msgspec resolves the annotations below, some of them recursive, when a decoder is made.
Scalar = str | int | float | bool | None
Word = str | None
_FREE = Raw()  # whatever it is, it is no reference where it stands

_OPTION = Literal[
    "approximate", "category", "context", "display", "edits", "effort", "enabled", "exclude_reasoning", "format",
    "generate_summary", "include_obfuscation", "include_usage", "includeThoughts", "keep", "level", "max_tokens",
    "mode", "name", "scope", "summary", "thinkingBudget", "thinkingLevel", "threshold", "ttl", "type", "value",
    "verbosity", "budget_tokens", "disable_parallel_tool_use",
]  # fmt: skip
Options = dict[_OPTION, Scalar] | None
Nested = dict[_OPTION, Scalar | dict[_OPTION, Scalar] | list[Scalar | dict[_OPTION, Scalar]]] | None


class _Shape(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Typed(_Shape, tag_field="type"):
    """One whose `type` says what it is: it may stand there once more, but not with another value."""


# -- Messages


class _Source(_Shape):
    type: Word = None
    media_type: Word = None
    data: Word = None
    url: Word = None


class _Text(_Typed, tag="text"):
    text: str = ""
    cache_control: Options = None
    citations: Raw = _FREE


class _Image(_Typed, tag="image"):
    source: _Source | None = None
    cache_control: Options = None


class _Document(_Typed, tag="document"):
    source: _Source | None = None
    title: Word = None
    context: Word = None
    citations: Raw = _FREE
    cache_control: Options = None


class _Thinking(_Typed, tag="thinking"):
    thinking: Word = None
    signature: Word = None


class _Redacted(_Typed, tag="redacted_thinking"):
    data: Word = None


class _ToolUse(_Typed, tag="tool_use"):
    id: Word = None
    name: Word = None
    input: Raw = _FREE
    caller: Options = None
    cache_control: Options = None


class _ToolResult(_Typed, tag="tool_result"):
    tool_use_id: Word = None
    content: str | list[_Text | _Image | _Document] | None = None
    is_error: bool | None = None
    cache_control: Options = None


class _Message(_Shape):
    role: Word = None
    content: str | list[_Text | _Image | _Document | _Thinking | _Redacted | _ToolUse | _ToolResult] | None = None
    output_config: Options = None


class _MessagesTool(_Shape):
    name: Word = None
    type: Word = None
    description: Word = None
    input_schema: Raw = _FREE
    cache_control: Options = None
    strict: Scalar = None
    defer_loading: Scalar = None
    eager_input_streaming: Scalar = None


class _Messages(_Shape):
    model: Word = None
    messages: list[_Message] | None = None
    system: str | list[_Text] | None = None
    tools: list[_MessagesTool] | None = None
    tool_choice: Options = None
    metadata: Raw = _FREE
    max_tokens: Scalar = None
    stream: Scalar = None
    temperature: Scalar = None
    top_p: Scalar = None
    top_k: Scalar = None
    stop_sequences: list[str] | None = None
    thinking: Options = None
    context_management: Nested = None
    output_config: Nested = None
    service_tier: Scalar = None
    speed: Scalar = None


# -- Responses


class _Part(_Shape):
    type: Word = None
    text: Word = None
    image_url: Word = None
    detail: Word = None
    refusal: Word = None
    annotations: Raw = _FREE
    logprobs: list[Scalar] | None = None


Parts = str | list[_Part] | None


class _Passed(_Shape):
    """What Codex notes of an item for its own backend."""

    turn_id: Scalar = None
    create_time: Scalar = None
    content_item_kinds: list[Scalar] | None = None
    content_item_metadata: (
        list[dict[Literal["provenance"], dict[Literal["type", "hook", "namespace"], Scalar]]] | None
    ) = None


Passed = _Passed | None


class _ItemMessage(_Typed, tag="message"):
    id: Word = None
    role: Word = None
    content: Parts = None
    status: Word = None
    internal_chat_message_metadata_passthrough: Passed = None
    phase: Word = None


class _Reasoning(_Typed, tag="reasoning"):
    id: Word = None
    summary: list[_Part] | None = None
    content: list[_Part] | None = None
    encrypted_content: Word = None
    status: Word = None
    internal_chat_message_metadata_passthrough: Passed = None


class _ItemCall(_Typed):
    id: Word = None
    call_id: Word = None
    name: Word = None
    namespace: Word = None
    status: Word = None
    internal_chat_message_metadata_passthrough: Passed = None


class _FunctionCall(_ItemCall, tag="function_call"):
    arguments: Raw = _FREE


class _CustomCall(_ItemCall, tag="custom_tool_call"):
    input: Word = None


class _Output(_Typed):
    id: Word = None
    call_id: Word = None
    output: Parts = None
    status: Word = None
    internal_chat_message_metadata_passthrough: Passed = None


class _FunctionOutput(_Output, tag="function_call_output"):
    pass


class _CustomOutput(_Output, tag="custom_tool_call_output"):
    pass


class _Search(_Typed, tag="web_search_call"):
    id: Word = None
    status: Word = None
    action: Raw = _FREE


class _MoreTools(_Typed, tag="additional_tools"):
    id: Word = None
    role: Word = None
    tools: list[_ResponsesTool] | None = None


Item = _ItemMessage | _Reasoning | _FunctionCall | _CustomCall | _FunctionOutput | _CustomOutput | _Search | _MoreTools


class _Format(_Shape):
    type: Word = None
    syntax: Word = None
    definition: Word = None
    name: Word = None
    description: Word = None
    strict: Scalar = None
    schema: Raw = _FREE


class _ResponsesTool(_Shape):
    type: Word = None
    name: Word = None
    description: Word = None
    strict: Scalar = None
    defer_loading: Scalar = None
    external_web_access: Scalar = None
    output_format: Scalar = None
    search_context_size: Scalar = None
    parameters: Raw = _FREE
    format: _Format | None = None
    tools: list[_ResponsesTool] | None = None


class _TextOptions(_Shape):
    verbosity: Scalar = None
    format: _Format | None = None


class _Responses(_Shape):
    type: Word = None  # of a WebSocket's frame
    model: Word = None
    generate: Scalar = None
    instructions: Word = None
    input: str | list[Item] | None = None
    tools: list[_ResponsesTool] | None = None
    tool_choice: Scalar | dict[_OPTION, Scalar] = None
    parallel_tool_calls: Scalar = None
    reasoning: Options = None
    store: Scalar = None
    stream: Scalar = None
    stream_options: Options = None
    include: list[str] | None = None
    service_tier: Scalar = None
    prompt_cache_key: Word = None
    prompt_cache_retention: Scalar = None
    safety_identifier: Word = None
    user: Word = None
    text: _TextOptions | None = None
    metadata: Raw = _FREE
    client_metadata: Raw = _FREE
    temperature: Scalar = None
    top_p: Scalar = None
    truncation: Scalar = None
    max_output_tokens: Scalar = None
    max_tool_calls: Scalar = None


# -- Chat


class _ImageUrl(_Shape):
    url: Word = None
    detail: Word = None


class _Sound(_Shape):
    data: Word = None
    format: Word = None


class _ChatPart(_Shape):
    type: Word = None
    text: Word = None
    refusal: Word = None
    image_url: str | _ImageUrl | None = None
    input_audio: _Sound | None = None
    cache_control: Options = None


class _Function(_Shape):
    name: Word = None
    description: Word = None
    strict: Scalar = None
    arguments: Raw = _FREE
    parameters: Raw = _FREE


class _ChatCall(_Shape):
    id: Word = None
    index: Scalar = None
    type: Word = None
    function: _Function | None = None


class _ChatMessage(_Shape):
    role: Word = None
    content: str | list[_ChatPart] | None = None
    name: Word = None
    refusal: Word = None
    reasoning: Word = None
    reasoning_content: Word = None
    tool_call_id: Word = None
    tool_calls: list[_ChatCall] | None = None
    cache_control: Options = None


class _ChatTool(_Shape):
    type: Word = None
    function: _Function | None = None
    cache_control: Options = None


class _ResponseFormat(_Shape):
    type: Word = None
    json_schema: Raw = _FREE


class _Chat(_Shape):
    model: Word = None
    messages: list[_ChatMessage] | None = None
    stream: Scalar = None
    stream_options: Options = None
    tools: list[_ChatTool] | None = None
    tool_choice: str | _ChatTool | None = None
    parallel_tool_calls: Scalar = None
    response_format: _ResponseFormat | None = None
    max_tokens: Scalar = None
    max_completion_tokens: Scalar = None
    temperature: Scalar = None
    top_p: Scalar = None
    top_k: Scalar = None
    n: Scalar = None
    stop: str | list[str] | None = None
    seed: Scalar = None
    user: Word = None
    store: Scalar = None
    metadata: Raw = _FREE
    logit_bias: Raw = _FREE
    logprobs: Scalar = None
    top_logprobs: Scalar = None
    presence_penalty: Scalar = None
    frequency_penalty: Scalar = None
    reasoning: Options = None
    reasoning_effort: Scalar = None
    verbosity: Scalar = None
    service_tier: Scalar = None
    prompt_cache_key: Word = None
    safety_identifier: Word = None
    vl_high_resolution_images: Scalar = None


# -- Gemini and Code Assist


class _Blob(_Shape):
    mimeType: Word = None
    data: Word = None


class _GeminiCall(_Shape):
    id: Word = None
    name: Word = None
    args: Raw = _FREE


class _GeminiAnswer(_Shape):
    id: Word = None
    name: Word = None
    response: Raw = _FREE


class _GeminiPart(_Shape):
    text: Word = None
    thought: Scalar = None
    thoughtSignature: Word = None
    inlineData: _Blob | None = None
    functionCall: _GeminiCall | None = None
    functionResponse: _GeminiAnswer | None = None


class _Content(_Shape):
    role: Word = None
    parts: list[_GeminiPart] | None = None


class _Declaration(_Shape):
    name: Word = None
    description: Word = None
    parameters: Raw = _FREE
    parametersJsonSchema: Raw = _FREE


class _GeminiTool(_Shape):
    functionDeclarations: list[_Declaration] | None = None


class _Generation(_Shape):
    temperature: Scalar = None
    topP: Scalar = None
    topK: Scalar = None
    candidateCount: Scalar = None
    maxOutputTokens: Scalar = None
    seed: Scalar = None
    stopSequences: list[str] | None = None
    responseMimeType: Word = None
    responseSchema: Raw = _FREE
    responseJsonSchema: Raw = _FREE
    thinkingConfig: Options = None


class _Gemini(_Shape):
    contents: list[_Content] | None = None
    systemInstruction: _Content | None = None
    tools: list[_GeminiTool] | None = None
    generationConfig: _Generation | None = None
    safetySettings: list[Options] | None = None
    labels: Raw = _FREE
    session_id: Word = None


class _CodeAssist(_Shape):
    model: Word = None
    project: Word = None
    user_prompt_id: Word = None
    request: _Gemini | None = None


_SHAPES: dict[Dialect, type[_Shape]] = {
    Dialect.MESSAGES: _Messages,
    Dialect.RESPONSES: _Responses,
    Dialect.CHAT: _Chat,
    Dialect.GEMINI: _Gemini,
    Dialect.CODE_ASSIST: _CodeAssist,
}


@functools.cache
def _decoder(dialect: Dialect) -> Decoder[Any] | None:
    shape = _SHAPES.get(dialect)
    return None if shape is None else Decoder(shape)


def plain(dialect: Dialect, data: bytes) -> bool:
    """Whether a body is in such a shape. One that is not may be anything, also no JSON."""
    decoder = _decoder(dialect)
    if decoder is None:
        return False
    try:
        decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
