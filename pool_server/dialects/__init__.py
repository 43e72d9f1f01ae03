"""The client protocols: what a request asks, what an answer used, and how each client is told what went wrong.

Pure: nothing here does I/O, keeps a clock or knows a provider.
"""

from __future__ import annotations

from pool_server.dialects.errors import (
    PATIENCE_S,
    duration,
    ends_stream,
    error,
    header_safe,
    live_error,
    stream_error,
    ws_error,
)
from pool_server.dialects.forms import listed
from pool_server.dialects.live.asking import name_model
from pool_server.dialects.meters import FrameMeter, frame_meter, meter
from pool_server.dialects.models import (
    ModelInfo,
    ModelsShape,
    UsableModel,
    converses,
    etag,
    model_entry,
    models_answer,
    models_shape,
)
from pool_server.dialects.references import made, references
from pool_server.dialects.requests import SHEDDABLE, peek
from pool_server.dialects.responses import next_sequence, response_object
from pool_server.dialects.specs import SPECS, DialectSpec
from pool_server.dialects.types import BadBodyError, BadEncodingError, BodyTooLargeError, ContinuationLostError, Meter
from pool_server.dialects.usage import (
    BYTES_A_TOKEN,
    REQUEST_OUTPUT,
    Served,
    estimate,
    header_tier,
    identity,
    makes_batch,
)
from pool_server.dialects.wire.encoding import Inflater, decode_body
from pool_server.dialects.wire.output_limit import output_limit
from pool_server.dialects.wire.sealed import strip_sealed
from pool_server.dialects.wire.splice import splice, without
from pool_server.dialects.wire.sse import Scanner, data_of
from pool_server.dialects.wire.stream_usage import StreamUsagePolicy, ask_usage, host_of, without_usage
from pool_server.dialects.wire.unique import keys_once

__all__ = [
    "BYTES_A_TOKEN",
    "PATIENCE_S",
    "REQUEST_OUTPUT",
    "SHEDDABLE",
    "SPECS",
    "BadBodyError",
    "BadEncodingError",
    "BodyTooLargeError",
    "ContinuationLostError",
    "DialectSpec",
    "FrameMeter",
    "Inflater",
    "Meter",
    "ModelInfo",
    "ModelsShape",
    "Scanner",
    "Served",
    "StreamUsagePolicy",
    "UsableModel",
    "ask_usage",
    "converses",
    "data_of",
    "decode_body",
    "duration",
    "ends_stream",
    "error",
    "estimate",
    "etag",
    "frame_meter",
    "header_safe",
    "header_tier",
    "host_of",
    "identity",
    "keys_once",
    "listed",
    "live_error",
    "made",
    "makes_batch",
    "meter",
    "model_entry",
    "models_answer",
    "models_shape",
    "name_model",
    "next_sequence",
    "output_limit",
    "peek",
    "references",
    "response_object",
    "splice",
    "stream_error",
    "strip_sealed",
    "without",
    "without_usage",
    "ws_error",
]
