"""Sound and pictures of a Chat answer: how they are asked for, and the pieces they come in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pool_server.dialects.translation.fields import obj, split_data_url, text, words
from pool_server.dialects.translation.neutral import RequestOptions, Sink

# Gemini's prebuilt voices: no other vendor has them. ai.google.dev, speech generation.
_GOOGLE_VOICES = words(
    "zephyr puck charon kore fenrir leda orus aoede callirrhoe autonoe enceladus iapetus umbriel algieba despina "
    "erinome algenib rasalgethi laomedeia achernar alnilam schedar gacrux pulcherrima achird zubenelgenubi "
    "vindemiatrix sadachbia sadaltager sulafat"
)
_VOICE = "alloy"
_FORMAT = "pcm16"  # the one that streams, and what Gemini's own speech is
_PCM = "audio/L16;codec=pcm;rate=24000"
_BEGINNINGS = {"UklGR": "audio/wav", "SUQz": "audio/mp3", "//": "audio/mp3", "T2dn": "audio/ogg", "ZkxhQ": "audio/flac"}


def write_media(options: RequestOptions) -> dict[str, Any]:
    """The fields that ask for sound or pictures. Endpoints know no answer without text."""
    if options.sound is None and not options.pictures:
        return {}
    told: dict[str, Any] = {"modalities": ["text"]}
    if options.pictures:
        told["modalities"] = ["image", "text"]
    if options.sound is not None:
        told["modalities"].append("audio")
        told["audio"] = {"voice": voice(options.sound.voice), "format": _FORMAT}
    return told


def voice(asked: str) -> str:
    """The voice as the endpoint knows it; a required field."""
    return asked.lower() if asked and asked.lower() not in _GOOGLE_VOICES else _VOICE


def pictures(message: dict[str, Any], sink: Sink) -> Iterator[tuple[str, str]]:
    """(media type, base64 data) of the pictures of a message or delta, as OpenRouter has them; those told by their
    address are named."""
    found = message.get("images")
    for image in found if isinstance(found, list) else ():
        inline = split_data_url(text(obj(obj(image).get("image_url")).get("url")))
        if inline is not None:
            yield inline
        else:
            sink.leave("images")


class SoundPieces:
    """Base64 in pieces that may be cut anywhere, as pieces that can be decoded each by itself."""

    def __init__(self) -> None:
        self._rest = ""
        self.mime = ""

    def feed(self, piece: str) -> str:
        """What of it and of the pieces before can be told."""
        told = self._rest + piece
        whole = len(told) // 4 * 4
        self._rest = told[whole:]
        told = told[:whole]
        if told and not self.mime:
            self.mime = next((mime for start, mime in _BEGINNINGS.items() if told.startswith(start)), _PCM)
        return told
