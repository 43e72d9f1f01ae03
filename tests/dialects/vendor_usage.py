"""Usage objects as the vendors write them, and what each means."""

from __future__ import annotations

from typing import Any

from pool_server.core.enums import Dialect
from pool_server.core.models import Usage

CHAT, RESPONSES, MESSAGES, GEMINI = Dialect.CHAT, Dialect.RESPONSES, Dialect.MESSAGES, Dialect.GEMINI

# vendor, dialect, usage object as told, what it means
TOLD: list[tuple[str, Dialect, dict[str, Any], Usage]] = [
    (
        "OpenAI",
        CHAT,
        {
            "prompt_tokens": 100,
            "completion_tokens": 300,
            "total_tokens": 400,
            "completion_tokens_details": {"reasoning_tokens": 280},
        },
        Usage(input=100, output=300, reasoning=280),
    ),
    (
        "OpenAI cache writes of two lives",
        RESPONSES,
        {
            "input_tokens": 20_000,
            "output_tokens": 1000,
            "total_tokens": 21_000,
            "input_tokens_details": {
                "cached_tokens": 5000,
                "cache_write_tokens": 10_000,
                "cache_write_tokens_details": {"ttl_30m_tokens": 2000, "ttl_12h_tokens": 8000},
            },
        },
        Usage(input=5000, cache_read=5000, cache_write=10_000, cache_write_12h=8000, output=1000),
    ),
    (
        "OpenAI cache writes told by life alone",
        RESPONSES,
        {"input_tokens": 900, "output_tokens": 1, "cache_write_tokens_details": {"ttl_12h_tokens": 300}},
        Usage(input=600, cache_write=300, cache_write_12h=300, output=1),
    ),
    (
        "OpenAI images",
        CHAT,
        {
            "input_tokens": 50,
            "output_tokens": 4160,
            "total_tokens": 4210,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens_details": {"image_tokens": 4160},
        },
        Usage(input=50, image_in=40, output=4160, image_out=4160),
    ),
    (
        "OpenAI transcription",
        CHAT,
        {"type": "tokens", "input_tokens": 140, "input_token_details": {"audio_tokens": 126}, "output_tokens": 45},
        Usage(input=140, audio_in=126, output=45),
    ),
    (
        "OpenAI audio out of a cache",
        CHAT,
        {
            "prompt_tokens": 100,
            "completion_tokens": 9,
            "prompt_tokens_details": {
                "cached_tokens": 60,
                "audio_tokens": 70,
                "cached_tokens_details": {"audio_tokens": 50},
            },
            "completion_tokens_details": {"audio_tokens": 4},
        },
        Usage(input=40, cache_read=60, audio_in=20, audio_cache_read=50, output=9, audio_out=4),
    ),
    ("embeddings", CHAT, {"prompt_tokens": 8, "total_tokens": 8}, Usage(input=8)),
    ("rerank", CHAT, {"total_tokens": 56}, Usage(input=56)),
    (
        "DeepSeek",
        CHAT,
        {"prompt_tokens": 100, "completion_tokens": 10, "prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20},
        Usage(input=20, cache_read=80, output=10),
    ),
    (
        "DeepSeek through a relay that drops the sum",
        CHAT,
        {"completion_tokens": 10, "prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20},
        Usage(input=20, cache_read=80, output=10),
    ),
    (
        "both forms: OpenAI's wins",
        CHAT,
        {
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "prompt_cache_hit_tokens": 80,
            "prompt_tokens_details": {"cached_tokens": 60},
        },
        Usage(input=40, cache_read=60, output=10),
    ),
    (
        "both forms, OpenAI's left empty by a relay",
        CHAT,
        {
            "prompt_tokens": 100,
            "input_tokens": 0,
            "completion_tokens": 10,
            "cached_tokens": 80,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
        Usage(input=20, cache_read=80, output=10),
    ),
    ("Moonshot", CHAT, {"prompt_tokens": 90, "completion_tokens": 5, "cached_tokens": 70}, Usage(20, 70, output=5)),
    ("Mistral", CHAT, {"prompt_tokens": 90, "completion_tokens": 5, "num_cached_tokens": 70}, Usage(20, 70, output=5)),
    (
        "Mistral, the other place",
        CHAT,
        {"prompt_tokens": 90, "completion_tokens": 5, "prompt_token_details": {"cached_tokens": 70}},
        Usage(20, 70, output=5),
    ),
    (
        "Qwen, a cache the caller made",
        CHAT,
        {
            "prompt_tokens": 3019,
            "completion_tokens": 104,
            "total_tokens": 3123,
            "prompt_tokens_details": {
                "cached_tokens": 1000,
                "cache_type": "ephemeral",
                "cache_creation_input_tokens": 2000,
                "cache_creation": {"ephemeral_5m_input_tokens": 2000},
            },
        },
        Usage(input=19, cache_read=1000, cache_read_explicit=1000, cache_write=2000, output=104),
    ),
    (
        "GLM",
        CHAT,
        {"prompt_tokens": 7, "completion_tokens": 5, "reasoning_tokens": 5, "prompt_tokens_details": None},
        Usage(input=7, output=5, reasoning=5),
    ),
    (
        "xAI: reasoning beside the completion",
        CHAT,
        {
            "prompt_tokens": 1012,
            "completion_tokens": 149,
            "total_tokens": 1441,
            "prompt_tokens_details": {"cached_tokens": 12},
            "completion_tokens_details": {"reasoning_tokens": 280},
        },
        Usage(input=1000, cache_read=12, output=429, reasoning=280),
    ),
    (
        "xAI without a total",
        CHAT,
        {"prompt_tokens": 12, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 40}},
        Usage(input=12, output=50, reasoning=40),
    ),
    (
        "xAI: more cached than prompted",
        CHAT,
        {"prompt_tokens": 12, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}},
        Usage(input=12, cache_read=40, output=10),
    ),
    (
        "xAI Responses: reasoning inside",
        RESPONSES,
        {
            "input_tokens": 12,
            "output_tokens": 50,
            "total_tokens": 62,
            "output_tokens_details": {"reasoning_tokens": 40},
        },
        Usage(input=12, output=50, reasoning=40),
    ),
    (
        "Gemini's OpenAI form: thoughts in the total alone",
        CHAT,
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40},
        Usage(input=10, output=30, reasoning=25),
    ),
    (
        "a relay of Anthropic: cache beside the prompt",
        CHAT,
        {
            "prompt_tokens": 20,
            "completion_tokens": 5,
            "total_tokens": 1025,
            "cache_read_input_tokens": 900,
            "cache_creation_input_tokens": 100,
        },
        Usage(input=20, cache_read=900, cache_write=100, output=5),
    ),
    (
        "cache and reasoning beside",
        CHAT,
        {
            "prompt_tokens": 20,
            "completion_tokens": 5,
            "total_tokens": 132,
            "prompt_tokens_details": {"cached_tokens": 100},
            "completion_tokens_details": {"reasoning_tokens": 7},
        },
        Usage(input=20, cache_read=100, output=12, reasoning=7),
    ),
    (
        "a total that is too small",
        CHAT,
        {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 3},
        Usage(input=20, output=5),
    ),
    (
        "Perplexity",
        CHAT,
        {"prompt_tokens": 20, "completion_tokens": 5, "num_search_queries": 3},
        Usage(input=20, output=5, web_searches=3),
    ),
    (
        "Anthropic",
        MESSAGES,
        {
            "input_tokens": 11,
            "cache_creation_input_tokens": 300,
            "cache_read_input_tokens": 900,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
            "output_tokens": 90,
            "output_tokens_details": {"thinking_tokens": 77},
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
        },
        Usage(11, 900, 300, 200, output=90, reasoning=77, web_searches=2),
    ),
    ("Zhipu Messages", MESSAGES, {"input_tokens": 11, "output_tokens": 9}, Usage(input=11, output=9)),
    (
        "Anthropic with a compaction",
        MESSAGES,
        {
            "input_tokens": 2300,
            "output_tokens": 100,
            "iterations": [
                {"type": "compaction", "input_tokens": 18_000, "output_tokens": 350},
                {"type": "message", "input_tokens": 2300, "output_tokens": 100},
            ],
        },
        Usage(input=20_300, output=450, parts=[Usage(2300, output=100), Usage(18_000, output=350)]),
    ),
    (
        "Anthropic with an advisor",
        MESSAGES,
        {
            "input_tokens": 400,
            "output_tokens": 90,
            "iterations": [
                {"type": "message", "input_tokens": 200, "output_tokens": 40},
                {"type": "advisor_message", "model": "claude-opus-4-6", "input_tokens": 800, "output_tokens": 160},
                {"type": "message", "input_tokens": 200, "output_tokens": 50},
            ],
        },
        Usage(
            input=1200,
            output=250,
            parts=[Usage(200, output=40), Usage(200, output=50), Usage(800, output=160, model="claude-opus-4-6")],
        ),
    ),
    (
        "Anthropic, one iteration",
        MESSAGES,
        {"input_tokens": 50, "output_tokens": 9, "iterations": [{"input_tokens": 50, "output_tokens": 9}]},
        Usage(input=50, output=9),
    ),
    (
        "Anthropic, iterations that contradict the top",
        MESSAGES,
        {
            "input_tokens": 50,
            "output_tokens": 9,
            "iterations": [
                {"type": "message", "input_tokens": 7, "output_tokens": 9},
                {"type": "compaction", "input_tokens": 100, "output_tokens": 1},
                None,
                {"type": "message", "input_tokens": "much"},
            ],
        },
        Usage(input=150, output=10, parts=[Usage(50, output=9), Usage(100, output=1)]),
    ),
    (
        "Gemini",
        GEMINI,
        {
            "promptTokenCount": 800,
            "cachedContentTokenCount": 256,
            "toolUsePromptTokenCount": 40,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 20,
            "totalTokenCount": 863,
        },
        Usage(input=584, cache_read=256, output=23, reasoning=20),
    ),
    (
        "Gemini behind a relay: thoughts inside the candidates",
        GEMINI,
        {"promptTokenCount": 80, "candidatesTokenCount": 30, "thoughtsTokenCount": 20, "totalTokenCount": 110},
        Usage(input=80, output=30, reasoning=20),
    ),
    (
        "Gemini before the first candidate",
        GEMINI,
        {"promptTokenCount": 80, "thoughtsTokenCount": 20, "totalTokenCount": 100},
        Usage(input=80, output=20, reasoning=20),
    ),
    (
        "Gemini audio, images and video",
        GEMINI,
        {
            "promptTokenCount": 40_000,
            "cachedContentTokenCount": 1000,
            "candidatesTokenCount": 1300,
            "totalTokenCount": 41_300,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 9000},
                {"modality": "AUDIO", "tokenCount": 30_000},
                {"modality": "IMAGE", "tokenCount": 258},
                {"modality": "VIDEO", "tokenCount": 700},
                {"modality": "DOCUMENT", "tokenCount": 42},
            ],
            "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 1000}],
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
        },
        Usage(
            input=39_000,
            cache_read=1000,
            output=1300,
            audio_in=29_000,
            image_in=258,
            video_in=700,
            audio_cache_read=1000,
            image_out=1290,
        ),
    ),
    (
        "a kind of tokens nobody knows",
        GEMINI,
        {"promptTokenCount": 9, "promptTokensDetails": [{"modality": "SMELL", "tokenCount": 5}, None, {"modality": 7}]},
        Usage(input=9, other_kinds=5),
    ),
    ("Gemini embeddings", GEMINI, {"promptTokenCount": 17, "totalTokenCount": 17}, Usage(input=17)),
]
