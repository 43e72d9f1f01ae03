"""Documents that are no PDF, what Google alone opens, and Google's own words in schemas, as other vendors take them."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import Target, TranslationContext, TranslationError, UpstreamKind
from pool_server.dialects.translation.token_counts import translate_count
from tests.dialects.translation.kit import up

OTHERS = [UpstreamKind.CHAT, UpstreamKind.RESPONSES, UpstreamKind.MESSAGES]


def asked(part: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [part, {"text": "?"}]}], **more}


@pytest.mark.parametrize(
    ("mime", "name"),
    [
        ("text/csv", "document.csv"),
        ("text/plain; charset=x", "document.txt"),
        ("application/json", "document.json"),
    ],
)
def test_a_document_of_text_is_no_pdf(mime: str, name: str) -> None:
    body = asked({"inlineData": {"mimeType": mime, "data": b64encode("Mond,é".encode()).decode()}})
    (said, _) = up(Dialect.GEMINI, UpstreamKind.CHAT, body)["messages"][0]["content"]
    assert said == {"type": "text", "text": "Mond,é"}
    (said, _) = up(Dialect.GEMINI, UpstreamKind.MESSAGES, body)["messages"][0]["content"]
    assert said["source"] == {"type": "text", "media_type": "text/plain", "data": "Mond,é"}
    (said, _) = up(Dialect.GEMINI, UpstreamKind.RESPONSES, body)["input"][0]["content"]
    assert said["filename"] == name and said["type"] == "input_file"


def test_a_named_text_and_a_pdf_keep_what_they_are_called() -> None:
    file = {"filename": "moon.md", "file_data": "data:text/markdown;base64," + b64encode(b"# Moon").decode()}
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "file", "file": file}]}]}
    (said,) = up(Dialect.CHAT, UpstreamKind.RESPONSES, body)["input"][0]["content"]
    assert said["filename"] == "moon.md"
    (said,) = up(Dialect.CHAT, UpstreamKind.MESSAGES, body)["messages"][0]["content"]
    assert (said["title"], said["source"]["data"]) == ("moon.md", "# Moon")
    pdf = asked({"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}})
    (said, _) = up(Dialect.GEMINI, UpstreamKind.CHAT, pdf)["messages"][0]["content"]
    assert said["file"] == {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("uri", ["https://www.youtube.com/watch?v=x", "https://youtu.be/x"])
def test_a_video_that_google_opens_is_no_document(kind: UpstreamKind, uri: str) -> None:
    with pytest.raises(TranslationError, match="video"):
        up(Dialect.GEMINI, kind, asked({"fileData": {"fileUri": uri}}))


@pytest.mark.parametrize("kind", OTHERS)
def test_words_of_google_s_schemas_that_say_nothing_are_left_away(kind: UpstreamKind) -> None:
    schema = {
        "type": "OBJECT",
        "properties": {
            "any": {"type": "TYPE_UNSPECIFIED", "description": "d"},
            "one": {"type": "STRING", "format": "enum", "enum": ["a"]},
            "at": {"type": "STRING", "format": "date-time"},
            "format": {"type": "STRING"},
        },
    }
    tools = [{"functionDeclarations": [{"name": "f", "parameters": schema}]}]
    told = json.dumps(up(Dialect.GEMINI, kind, asked({"text": "!"}, tools=tools)))
    assert "unspecified" not in told.lower() and '"format": "enum"' not in told
    assert '"format": "date-time"' in told and '"format": {"type": "string"}' in told and '"enum": ["a"]' in told


@pytest.mark.parametrize("kind", [UpstreamKind.CHAT, UpstreamKind.RESPONSES])
@pytest.mark.parametrize("name", ["responseJsonSchema", "_responseJsonSchema", "response_json_schema"])
def test_a_schema_is_read_under_each_of_its_names(kind: UpstreamKind, name: str) -> None:
    schema = {"type": "object", "properties": {"moon": {"type": "string"}}}
    config = {"responseMimeType": "application/json", name: schema}
    assert "moon" in json.dumps(up(Dialect.GEMINI, kind, asked({"text": "!"}, generationConfig=config)))


@pytest.mark.parametrize("name", ["generateContentRequest", "generate_content_request"])
def test_what_is_to_be_counted_may_be_a_request_of_its_own(name: str) -> None:
    inner = {
        "model": "models/g",
        **asked({"text": "Full moon."}),
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
    }
    context = TranslationContext("x", 1_795_000_000.0, session="s", stream=False, model="claude-sonnet-4-5")
    target = Target(UpstreamKind.MESSAGES, "claude-sonnet-4-5")
    told = json.dumps(json.loads(translate_count(Dialect.GEMINI, target, {name: inner}, context).body or b""))
    assert "Full moon." in told and "Be brief." in told
