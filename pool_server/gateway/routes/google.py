"""The Gemini API's calls and Code Assist's. Source: the vendor's SDK (google-genai 3.6) and CLI.

A method stands behind a colon (`models/M:generateContent`); each one is named here, so that no other one passes.
"""

from __future__ import annotations

from pool_server.core.enums import Dialect, Operation
from pool_server.core.enums import ObjectKind as Kind
from pool_server.gateway.routes.rows import Row

BASES = ("/v1beta", "/v1", "/v1alpha", "/v1beta1")
UPLOAD_BASES = tuple(f"/upload{base}" for base in BASES)

ROWS = (
    Row("POST", "/models/{model}:generateContent", Operation.GENERATE, works=True),
    Row("POST", "/models/{model}:streamGenerateContent", Operation.GENERATE, works=True),
    Row("POST", "/models/{model}:countTokens", Operation.COUNT_TOKENS, works=True),
    Row("POST", "/models/{model}:embedContent", Operation.EMBEDDINGS, works=True),
    Row("POST", "/models/{model}:batchEmbedContents", Operation.EMBEDDINGS, works=True),
    Row("POST", "/models/{model}:predict", Operation.IMAGES, works=True),
    Row("POST", "/models/{model}:batchGenerateContent", Operation.BATCHES, makes=Kind.BATCH, works=True),
    Row("POST", "/models/{model}:asyncBatchEmbedContent", Operation.BATCHES, makes=Kind.BATCH, works=True),
    Row("POST", "/models/{model}:predictLongRunning", Operation.VIDEOS, makes=Kind.OPERATION, works=True),
    Row("GET", "/models/{model}/operations/{operation}", Operation.VIDEOS),
    Row("GET", "/operations/{operation}", Operation.VIDEOS),
    Row("POST", "/operations/{operation}:cancel", Operation.VIDEOS),
    Row("DELETE", "/operations/{operation}", Operation.VIDEOS, deletes=True),
    Row("GET", "/batches", Operation.BATCHES, lists=Kind.BATCH),
    Row("GET", "/batches/{batch}", Operation.BATCHES),
    Row("POST", "/batches/{batch}:cancel", Operation.BATCHES),
    Row("DELETE", "/batches/{batch}", Operation.BATCHES, deletes=True),
    Row("GET", "/files", Operation.FILES, lists=Kind.FILE),
    Row("GET", "/files/{file}", Operation.FILES),
    Row("GET", "/files/{file}:download", Operation.FILES),
    Row("DELETE", "/files/{file}", Operation.FILES, deletes=True),
    Row("POST", "/cachedContents", Operation.CACHES, makes=Kind.CACHE, works=True),
    Row("GET", "/cachedContents", Operation.CACHES, lists=Kind.CACHE),
    Row("GET", "/cachedContents/{cache}", Operation.CACHES),
    Row("PATCH", "/cachedContents/{cache}", Operation.CACHES),
    Row("DELETE", "/cachedContents/{cache}", Operation.CACHES, deletes=True),
)
UPLOAD_ROWS = tuple(Row(method, "/files", Operation.FILES, makes=Kind.FILE) for method in ("POST", "PUT"))

_GENERATING = ("generateContent", "GenerateContent", "streamGenerateContent", "streamgenerateContent")
CODE_ASSIST_ROWS = (
    *(
        Row("POST", f"/v1internal:{verb}", Operation.GENERATE, works=True, dialect=Dialect.CODE_ASSIST)
        for verb in _GENERATING
    ),
    Row("POST", "/v1internal:countTokens", Operation.COUNT_TOKENS, works=True, dialect=Dialect.CODE_ASSIST),
)

LIVE_ROWS = tuple(
    Row(
        "GET",
        f"/ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent",
        Operation.REALTIME,
        works=True,
        socket=True,
    )
    for version in ("v1beta", "v1alpha", "v1")
)

REFUSED = (
    "tunedModels",
    "fileSearchStores",
    "permissions",
    "corpora",
    "ragStores",
    "auth_tokens",
    "authTokens",
)
