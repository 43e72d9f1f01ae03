"""Counts made up from sizes, for answers whose provider told none: never taken for what was told."""

from __future__ import annotations

from pool_server.core.enums import Operation
from pool_server.core.models import Usage

REQUEST_OUTPUT = 2_000  # tokens an answer is taken to have where nothing says how many
BYTES_A_TOKEN = 4  # the usual rough length of a token in UTF-8 text and JSON
BYTES_AN_EVENT_TOKEN = 120  # of a streamed answer, whose events wrap a few characters each
_GENERATES = frozenset(
    {
        Operation.RESPONSES,
        Operation.RESPONSES_COMPACT,
        Operation.MESSAGES,
        Operation.CHAT,
        Operation.GENERATE,
        Operation.COMPLETIONS,
    }
)
# Calls that read text a model is paid for; their answers are numbers, not output.
_READS = frozenset({Operation.EMBEDDINGS, Operation.RERANK})


def estimate(operation: Operation, request_bytes: int, response_bytes: int, *, streamed: bool) -> Usage:
    """What an answered call may have used, judged by its sizes in bytes; nothing for calls no model reads (files,
    lists, counts of tokens) or whose bytes are no text (images, audio)."""
    if operation in _READS:
        return Usage(input=request_bytes // BYTES_A_TOKEN, estimated=True)
    if operation not in _GENERATES:
        return Usage()
    output = response_bytes // (BYTES_AN_EVENT_TOKEN if streamed else BYTES_A_TOKEN)
    return Usage(input=request_bytes // BYTES_A_TOKEN, output=output, estimated=True)
