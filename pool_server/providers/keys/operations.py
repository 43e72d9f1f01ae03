"""Which calls each kind of account can be asked for; a vendor's module names one of these."""

from __future__ import annotations

from pool_server.core.enums import Operation

# What api.openai.com serves, and compatible servers as far as they do: in the two shapes it answers in.
OPENAI_RESPONSES_API = frozenset(
    {
        Operation.RESPONSES,
        Operation.RESPONSES_COMPACT,
        Operation.COUNT_TOKENS,
        Operation.STORED_RESPONSES,
        Operation.OTHER,
    }
)
OPENAI_CHAT_API = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETIONS,
        Operation.EMBEDDINGS,
        Operation.MODERATIONS,
        Operation.RERANK,
        Operation.IMAGES,
        Operation.AUDIO,
        Operation.PROVENANCE,
        Operation.STORED_COMPLETIONS,
        Operation.CONVERSATIONS,
        Operation.FILES,
        Operation.UPLOADS,
        Operation.BATCHES,
        Operation.VECTOR_STORES,
        Operation.CONTAINERS,
        Operation.VIDEOS,
        Operation.REALTIME,
        Operation.OTHER,
    }
)
CHATGPT_BACKEND = frozenset(
    {Operation.RESPONSES, Operation.RESPONSES_COMPACT, Operation.IMAGES, Operation.SIDE, Operation.OTHER}
)
ANTHROPIC_API = frozenset(
    {
        Operation.MESSAGES,
        Operation.COUNT_TOKENS,
        Operation.COMPLETIONS,
        Operation.FILES,
        Operation.BATCHES,
        Operation.OTHER,
    }
)
GEMINI_API = frozenset(
    {
        Operation.GENERATE,
        Operation.COUNT_TOKENS,
        Operation.EMBEDDINGS,
        Operation.IMAGES,
        Operation.VIDEOS,
        Operation.FILES,
        Operation.BATCHES,
        Operation.CACHES,
        Operation.REALTIME,
        Operation.OTHER,
    }
)
CODE_ASSIST = frozenset({Operation.GENERATE, Operation.COUNT_TOKENS, Operation.OTHER})
DASHSCOPE = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETIONS,
        Operation.EMBEDDINGS,
        Operation.RERANK,
        Operation.FILES,
        Operation.BATCHES,
        Operation.OTHER,
    }
)
