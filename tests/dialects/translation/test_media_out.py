"""Sound and pictures of an answer: asked for where an account has them, told where the client's dialect has a word."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.genai.types import GenerateContentResponse
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import TranslationError, UpstreamKind
from pool_server.dialects.translation.chat.media import SoundPieces
from tests.dialects.streams import sse
from tests.dialects.translation.grammar import hear
from tests.dialects.translation.kit import PAIRS, request, translate, up

CHAT = UpstreamKind.CHAT
GOOGLE = (Dialect.GEMINI, Dialect.CODE_ASSIST)
PCM, PNG = base64.b64encode(bytes(range(240))).decode(), "iVBORw0KGgo="
L16 = "audio/L16;codec=pcm;rate=24000"
HEAD = {"id": "chatcmpl-4", "object": "chat.completion.chunk", "created": 1, "model": "gpt-audio-2"}
USAGE = {
    "prompt_tokens": 50,
    "completion_tokens": 9,
    "total_tokens": 59,
    "completion_tokens_details": {"audio_tokens": 7},
}


def asked(client: Dialect, **config: Any) -> dict[str, Any]:
    body = request(client, [("user", "Say it.")])
    body.get("request", body)["generationConfig"] = config
    return body


def speech(voice: str) -> dict[str, Any]:
    return {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": voice}}}


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return sse({**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


SPOKEN = [
    chunk({"role": "assistant", "content": None, "refusal": None}),
    chunk({"audio": {"id": "audio_1", "transcript": "High "}}),
    chunk({"audio": {"data": PCM[:101]}}),
    chunk({"audio": {"transcript": "tide."}}),
    chunk({"audio": {"data": PCM[101:]}}),
    chunk({"audio": {"expires_at": 5}}),
    chunk({}, "stop"),
    sse({**HEAD, "choices": [], "usage": USAGE}),
    sse("[DONE]"),
]
WHOLE = {
    "id": "chatcmpl-4",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-audio-2",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "audio": {"id": "audio_1", "data": PCM, "expires_at": 5, "transcript": "High tide."},
            },
        }
    ],
    "usage": USAGE,
}


def parts_of(client: Dialect, raw: bytes, *, stream: bool) -> list[dict[str, Any]]:
    events = [json.loads(line[6:]) for line in raw.decode().split("\n") if line.startswith("data: ")]
    found = []
    for event in events if stream else [json.loads(raw)]:
        inner = event["response"] if client is Dialect.CODE_ASSIST else event
        GenerateContentResponse.model_validate(inner)
        found += [part for candidate in inner["candidates"] for part in candidate["content"]["parts"]]
    return found


# ---------------------------------------------------------------- what goes up


@pytest.mark.parametrize(
    ("config", "modalities", "voice"),
    [
        ({"responseModalities": ["AUDIO"], "speechConfig": speech("Kore")}, ["text", "audio"], "alloy"),
        ({"responseModalities": ["AUDIO"], "speechConfig": speech("marin")}, ["text", "audio"], "marin"),
        ({"responseModalities": ["audio", "TEXT"]}, ["text", "audio"], "alloy"),
        ({"response_modalities": ["TEXT", "AUDIO"], "speech_config": {
            "voice_config": {"prebuilt_voice_config": {"voice_name": "Coral"}}}}, ["text", "audio"], "coral"),
        ({"responseModalities": ["AUDIO"], "speechConfig": {"voiceConfig": {}}}, ["text", "audio"], "alloy"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("client", GOOGLE)
def test_sound_is_asked_for(client: Dialect, config: dict[str, Any], modalities: list[str], voice: str) -> None:
    found = translate(client, CHAT, asked(client, **config), stream=True)
    body = json.loads(found.body)
    assert (body["modalities"], body["audio"]) == (modalities, {"voice": voice, "format": "pcm16"})
    assert found.approximated == {"sound out": "in a voice the endpoint has"} and not found.dropped


@pytest.mark.parametrize("modes", [None, [], ["TEXT"], ["MODALITY_UNSPECIFIED"]])
def test_text_alone_is_asked_for_by_saying_nothing(modes: Any) -> None:
    found = translate(
        Dialect.GEMINI, CHAT, asked(Dialect.GEMINI, responseModalities=modes, speechConfig=speech("Kore"))
    )
    assert "modalities" not in json.loads(found.body) and b"audio" not in found.body
    assert "speechConfig" in found.approximated["unknown field within another"]


def test_pictures_are_asked_for() -> None:
    body = up(Dialect.GEMINI, CHAT, asked(Dialect.GEMINI, responseModalities=["TEXT", "IMAGE"]))
    assert body["modalities"] == ["image", "text"] and "audio" not in body


def test_what_is_said_of_the_voice_beside_its_name_is_in_the_record() -> None:
    config = {"responseModalities": ["AUDIO"], "speechConfig": {**speech("Puck"), "languageCode": "fi-FI"}}
    told = translate(Dialect.GEMINI, CHAT, asked(Dialect.GEMINI, **config)).approximated
    assert told["unknown field within another"] == "left out: generationConfig.speechConfig.languageCode"


@pytest.mark.parametrize(
    ("config", "vendor", "named"),
    [
        ({"responseModalities": ["AUDIO"]}, "groq", "responseModalities AUDIO"),
        ({"responseModalities": ["AUDIO"]}, "mistral", "responseModalities AUDIO"),
        ({"responseModalities": ["IMAGE"]}, "openai", "responseModalities IMAGE"),
        ({"responseModalities": ["SMELL"]}, "", "SMELL"),
        (
            {"responseModalities": ["AUDIO"], "speechConfig": {"multiSpeakerVoiceConfig": {}}},
            "openai",
            "speechConfig.multiSpeakerVoiceConfig",
        ),
    ],
)
def test_what_an_endpoint_has_not_is_refused_by_name(config: dict[str, Any], vendor: str, named: str) -> None:
    with pytest.raises(TranslationError, match=named):
        translate(Dialect.GEMINI, CHAT, asked(Dialect.GEMINI, **config), vendor=vendor)


# ---------------------------------------------------------------- what comes down


@pytest.mark.parametrize("transcribed", [False, True])
@pytest.mark.parametrize("upstream_streams", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("client", GOOGLE)
def test_sound_reaches_the_client(client: Dialect, stream: bool, upstream_streams: bool, transcribed: bool) -> None:
    modes = ["AUDIO", "TEXT"] if transcribed else ["AUDIO"]
    found = translate(client, CHAT, asked(client, responseModalities=modes), stream=stream)
    if upstream_streams:
        raw = b"".join(found.response.feed(piece) for piece in SPOKEN) + found.response.finish()
    else:
        raw = found.response.whole(json.dumps(WHOLE).encode())
    assert found.response.complete and not found.response.approximated
    parts = parts_of(client, raw, stream=stream)
    blobs = [part["inlineData"] for part in parts if "inlineData" in part]
    assert {blob["mimeType"] for blob in blobs} == {L16}
    assert b"".join(base64.b64decode(blob["data"], validate=True) for blob in blobs) == bytes(range(240))
    assert "".join(part.get("text", "") for part in parts) == ("High tide." if transcribed else "")


@pytest.mark.parametrize("stream", [False, True])
def test_a_picture_reaches_the_client(stream: bool) -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    broken = [7, {}, {"image_url": {"url": "https://a.example/x.png"}}, {"image_url": {"url": "data:,"}}]
    body = asked(Dialect.GEMINI, responseModalities=["TEXT", "IMAGE"])
    found = translate(Dialect.GEMINI, CHAT, body, stream=stream)
    pieces = [chunk({"content": "Here:"}), chunk({"images": [*broken, image]}), chunk({"content": "!"}, "stop")]
    raw = b"".join(found.response.feed(piece) for piece in [*pieces, sse("[DONE]")]) + found.response.finish()
    parts = [part for part in parts_of(Dialect.GEMINI, raw, stream=stream) if part]
    picture = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    assert parts == [{"text": "Here:"}, picture, {"text": "!"}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("client", [Dialect.MESSAGES, Dialect.RESPONSES])
def test_a_client_without_a_word_for_sound_gets_what_was_said(client: Dialect, stream: bool) -> None:
    found = translate(client, CHAT, request(client, [("user", "?")], stream=stream), stream=stream)
    raw = b"".join(found.response.feed(piece) for piece in SPOKEN) + found.response.finish()
    assert found.response.complete and found.response.approximated and PCM.encode() not in raw
    assert b"tide." in raw
    if stream:
        assert hear(client, raw).texts() == "High tide."


@pytest.mark.parametrize("client", [Dialect.CHAT, Dialect.MESSAGES, Dialect.RESPONSES])
def test_a_picture_of_gemini_s_is_noted_where_it_cannot_be_told(client: Dialect) -> None:
    parts = [{"text": "Here."}, {"inlineData": {"mimeType": "image/png", "data": PNG}}]
    body = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    found = translate(client, UpstreamKind.GEMINI, request(client, [("user", "?")]))
    assert b"Here." in found.response.whole(json.dumps(body).encode())
    assert found.response.complete and found.response.approximated


@given(st.binary(max_size=60), st.data())
def test_sound_that_is_cut_anywhere_can_be_decoded_piece_by_piece(sound: bytes, data: st.DataObject) -> None:
    raw, pieces, heard = base64.b64encode(sound).decode(), SoundPieces(), b""
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        heard += base64.b64decode(pieces.feed(raw[:size]), validate=True)
        raw = raw[size:]
    assert heard == sound


@pytest.mark.parametrize(
    ("sound", "mime"), [(b"RIFF\x24\0\0\0WAVE", "audio/wav"), (b"ID3\x04\0", "audio/mp3"), (b"OggS\0", "audio/ogg")]
)
def test_a_sound_that_tells_its_form_is_called_by_it(sound: bytes, mime: str) -> None:
    pieces = SoundPieces()
    pieces.feed(base64.b64encode(sound * 3).decode())
    assert pieces.mime == mime


# ---------------------------------------------------------------- in the history


@pytest.mark.parametrize("kind", [kind for client, kind in PAIRS if client is Dialect.GEMINI])
def test_a_picture_the_assistant_made_is_shown_in_the_next_user_turn(kind: UpstreamKind) -> None:
    body = request(Dialect.GEMINI, [("user", "Draw."), ("assistant", "Done."), ("user", "Bluer.")])
    blob = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    body["contents"][1]["parts"].append(blob)
    found = translate(Dialect.GEMINI, kind, body)
    raw = found.body.decode()
    assert raw.count(PNG) == 1
    assert raw.index("Done.") < raw.index("From the answer before:") < raw.index(PNG) < raw.index("Bluer.")
    assert found.approximated["picture, sound or document in the assistant's turn"] == "in the next user turn"
    body["contents"].pop()
    raw = translate(Dialect.GEMINI, kind, body).body.decode()
    assert raw.count(PNG) == 1 and raw.index("Done.") < raw.index(PNG)


@pytest.mark.parametrize("kind", [kind for client, kind in PAIRS if client is Dialect.CHAT])
def test_a_sound_the_vendor_keeps_is_refused_elsewhere(kind: UpstreamKind) -> None:
    body = request(Dialect.CHAT, [("user", "?"), ("assistant", ""), ("user", "Again?")])
    body["messages"][1] |= {"content": None, "audio": {"id": "audio_1"}}
    with pytest.raises(TranslationError, match=r"messages\[1\]\.audio\.id"):
        translate(Dialect.CHAT, kind, body)


def test_a_key_of_nothing_in_one_spelling_does_not_hide_it_in_the_other() -> None:
    body = request(Dialect.GEMINI, [("user", "?")]) | {"generation_config": {"max_output_tokens": 321}}
    body |= {"generationConfig": None, "systemInstruction": None}
    assert up(Dialect.GEMINI, CHAT, body)["max_tokens"] == 321
