"""The OpenAI API's calls, as compatible servers have them too. Source: the vendor's SDK (openai 3.57).

Codex asks the same of `/backend-api/codex`, and some more. Not served: sessions and secrets of the realtime API, with
which a client would go past the pool and nobody would count what it uses.
"""

from __future__ import annotations

from pool_server.core.enums import Dialect, Operation
from pool_server.core.enums import ObjectKind as Kind
from pool_server.gateway.routes.rows import Row

BASES = ("/v1", "")
CODEX_BASES = ("/backend-api/codex", "/api/codex")
_R = Dialect.RESPONSES

RESPONSES = (
    Row("POST", "/responses", Operation.RESPONSES, works=True, dialect=_R),
    Row("GET", "/responses", Operation.RESPONSES, works=True, socket=True, dialect=_R),
    Row("POST", "/responses/compact", Operation.RESPONSES_COMPACT, works=True, dialect=_R),
)
STORED_RESPONSES = (
    Row("POST", "/responses/input_tokens", Operation.COUNT_TOKENS, works=True, dialect=_R),
    Row("GET", "/responses/{response}", Operation.STORED_RESPONSES, dialect=_R),
    Row("DELETE", "/responses/{response}", Operation.STORED_RESPONSES, deletes=True, dialect=_R),
    Row("POST", "/responses/{response}/cancel", Operation.STORED_RESPONSES, dialect=_R),
    Row("GET", "/responses/{response}/input_items", Operation.STORED_RESPONSES, dialect=_R),
)
MODEL_WORK = (
    Row("POST", "/chat/completions", Operation.CHAT, works=True),
    Row("POST", "/completions", Operation.COMPLETIONS, works=True),
    Row("POST", "/embeddings", Operation.EMBEDDINGS, works=True),
    Row("POST", "/moderations", Operation.MODERATIONS),  # the vendor has a model of its own for it, free of charge
    Row("POST", "/rerank", Operation.RERANK, works=True),
    Row("POST", "/images/generations", Operation.IMAGES, works=True),
    Row("POST", "/images/edits", Operation.IMAGES, works=True),
    Row("POST", "/images/variations", Operation.IMAGES, works=True),
    Row("POST", "/audio/speech", Operation.AUDIO, works=True),
    Row("POST", "/audio/transcriptions", Operation.AUDIO, works=True),
    Row("POST", "/audio/translations", Operation.AUDIO, works=True),
    Row("POST", "/content_provenance_checks", Operation.PROVENANCE),
)
STORED_COMPLETIONS = (
    Row("GET", "/chat/completions", Operation.STORED_COMPLETIONS, lists=Kind.COMPLETION),
    Row("GET", "/chat/completions/{completion}", Operation.STORED_COMPLETIONS),
    Row("POST", "/chat/completions/{completion}", Operation.STORED_COMPLETIONS),
    Row("DELETE", "/chat/completions/{completion}", Operation.STORED_COMPLETIONS, deletes=True),
    Row("GET", "/chat/completions/{completion}/messages", Operation.STORED_COMPLETIONS),
)
CONVERSATIONS = (
    Row("POST", "/conversations", Operation.CONVERSATIONS, makes=Kind.CONVERSATION),
    Row("GET", "/conversations/{conversation}", Operation.CONVERSATIONS),
    Row("POST", "/conversations/{conversation}", Operation.CONVERSATIONS),
    Row("DELETE", "/conversations/{conversation}", Operation.CONVERSATIONS, deletes=True),
    Row("POST", "/conversations/{conversation}/items", Operation.CONVERSATIONS),
    Row("GET", "/conversations/{conversation}/items", Operation.CONVERSATIONS),
    Row("GET", "/conversations/{conversation}/items/{_}", Operation.CONVERSATIONS),
    Row("DELETE", "/conversations/{conversation}/items/{_}", Operation.CONVERSATIONS),
)
FILES = (
    Row("POST", "/files", Operation.FILES, makes=Kind.FILE),
    Row("GET", "/files", Operation.FILES, lists=Kind.FILE),
    Row("GET", "/files/{file}", Operation.FILES),
    Row("GET", "/files/{file}/content", Operation.FILES),
    Row("DELETE", "/files/{file}", Operation.FILES, deletes=True),
    Row("POST", "/uploads", Operation.UPLOADS, makes=Kind.UPLOAD),
    Row("POST", "/uploads/{upload}/parts", Operation.UPLOADS),
    Row("POST", "/uploads/{upload}/complete", Operation.UPLOADS, makes=Kind.FILE),
    Row("POST", "/uploads/{upload}/cancel", Operation.UPLOADS),
)
BATCHES = (
    Row("POST", "/batches", Operation.BATCHES, makes=Kind.BATCH),
    Row("GET", "/batches", Operation.BATCHES, lists=Kind.BATCH),
    Row("GET", "/batches/{batch}", Operation.BATCHES),
    Row("POST", "/batches/{batch}/cancel", Operation.BATCHES),
)
VECTOR_STORES = (
    Row("POST", "/vector_stores", Operation.VECTOR_STORES, makes=Kind.VECTOR_STORE),
    Row("GET", "/vector_stores", Operation.VECTOR_STORES, lists=Kind.VECTOR_STORE),
    Row("GET", "/vector_stores/{vector_store}", Operation.VECTOR_STORES),
    Row("POST", "/vector_stores/{vector_store}", Operation.VECTOR_STORES),
    Row("DELETE", "/vector_stores/{vector_store}", Operation.VECTOR_STORES, deletes=True),
    Row("POST", "/vector_stores/{vector_store}/search", Operation.VECTOR_STORES),
    Row("POST", "/vector_stores/{vector_store}/files", Operation.VECTOR_STORES),
    Row("GET", "/vector_stores/{vector_store}/files", Operation.VECTOR_STORES),
    Row("GET", "/vector_stores/{vector_store}/files/{file}", Operation.VECTOR_STORES),
    Row("POST", "/vector_stores/{vector_store}/files/{file}", Operation.VECTOR_STORES),
    Row("DELETE", "/vector_stores/{vector_store}/files/{file}", Operation.VECTOR_STORES),
    Row("GET", "/vector_stores/{vector_store}/files/{file}/content", Operation.VECTOR_STORES),
    Row("POST", "/vector_stores/{vector_store}/file_batches", Operation.VECTOR_STORES),
    Row("GET", "/vector_stores/{vector_store}/file_batches/{_}", Operation.VECTOR_STORES),
    Row("POST", "/vector_stores/{vector_store}/file_batches/{_}/cancel", Operation.VECTOR_STORES),
    Row("GET", "/vector_stores/{vector_store}/file_batches/{_}/files", Operation.VECTOR_STORES),
)
CONTAINERS = (
    Row("POST", "/containers", Operation.CONTAINERS, makes=Kind.CONTAINER),
    Row("GET", "/containers", Operation.CONTAINERS, lists=Kind.CONTAINER),
    Row("GET", "/containers/{container}", Operation.CONTAINERS),
    Row("DELETE", "/containers/{container}", Operation.CONTAINERS, deletes=True),
    Row("POST", "/containers/{container}/files", Operation.CONTAINERS),
    Row("GET", "/containers/{container}/files", Operation.CONTAINERS),
    Row("GET", "/containers/{container}/files/{_}", Operation.CONTAINERS),
    Row("GET", "/containers/{container}/files/{_}/content", Operation.CONTAINERS),
    Row("DELETE", "/containers/{container}/files/{_}", Operation.CONTAINERS),
)
VIDEOS = (
    Row("POST", "/videos", Operation.VIDEOS, makes=Kind.VIDEO, works=True),
    Row("GET", "/videos", Operation.VIDEOS, lists=Kind.VIDEO),
    Row("GET", "/videos/{video}", Operation.VIDEOS),
    Row("DELETE", "/videos/{video}", Operation.VIDEOS, deletes=True),
    Row("GET", "/videos/{video}/content", Operation.VIDEOS),
    Row("POST", "/videos/{video}/remix", Operation.VIDEOS, makes=Kind.VIDEO, works=True),
    Row("POST", "/videos/edits", Operation.VIDEOS, makes=Kind.VIDEO, works=True),
    Row("POST", "/videos/extensions", Operation.VIDEOS, makes=Kind.VIDEO, works=True),
    Row("POST", "/videos/characters", Operation.VIDEOS, makes=Kind.CHARACTER),
    Row("GET", "/videos/characters/{character}", Operation.VIDEOS),
)
REALTIME = (
    Row("GET", "/realtime", Operation.REALTIME, works=True, socket=True),
    Row("POST", "/realtime/calls", Operation.REALTIME, makes=Kind.CALL, works=True),
    Row("POST", "/realtime/calls/{call}/accept", Operation.REALTIME, works=True),
    Row("POST", "/realtime/calls/{call}/hangup", Operation.REALTIME),
    Row("POST", "/realtime/calls/{call}/refer", Operation.REALTIME),
    Row("POST", "/realtime/calls/{call}/reject", Operation.REALTIME),
)
ROWS = (
    *RESPONSES,
    *STORED_RESPONSES,
    *MODEL_WORK,
    *STORED_COMPLETIONS,
    *CONVERSATIONS,
    *FILES,
    *BATCHES,
    *VECTOR_STORES,
    *CONTAINERS,
    *VIDEOS,
    *REALTIME,
)
CODEX_ROWS = (
    *RESPONSES,
    Row("POST", "/alpha/search", Operation.SIDE, dialect=_R),
    Row("POST", "/memories/trace_summarize", Operation.SIDE, dialect=_R),
    Row("POST", "/realtime/calls", Operation.SIDE, dialect=_R),
    Row("POST", "/images/generations", Operation.IMAGES, works=True, dialect=_R),
    Row("POST", "/images/edits", Operation.IMAGES, works=True, dialect=_R),
)

# First segments (or first two) of calls that act on the vendor's whole account, or hand out its credentials.
REFUSED = (
    "organization",
    "projects",
    "admin_api_keys",
    "fine_tuning",
    "fine-tunes",
    "evals",
    "assistants",
    "threads",
    "skills",
    "chatkit",
    "webhook_endpoints",
    "webhook_event_types",
    "agents",
    "vaults",
    "safety",
    "audio/voices",
    "audio/voice_consents",
    "realtime/client_secrets",
    "realtime/sessions",
    "realtime/transcription_sessions",
    "realtime/translations/client_secrets",
)
