"""What an answer used, whatever its vendor calls it: one reading a dialect family, by tables of names.

`told` takes single usage objects in and keeps the last word on each figure; `openai`, `anthropic` and `google` make a
`Usage` of what was told; `served` reads the facts that choose a price beside the tokens.
"""

from __future__ import annotations

from pool_server.dialects.usage import anthropic, google, openai
from pool_server.dialects.usage.estimate import BYTES_A_TOKEN, REQUEST_OUTPUT, estimate
from pool_server.dialects.usage.jobs import identity, makes_batch
from pool_server.dialects.usage.served import Served, header_tier
from pool_server.dialects.usage.told import Told

__all__ = [
    "BYTES_A_TOKEN",
    "REQUEST_OUTPUT",
    "Served",
    "Told",
    "anthropic",
    "estimate",
    "google",
    "header_tier",
    "identity",
    "makes_batch",
    "openai",
]
