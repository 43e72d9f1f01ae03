"""The closed vocabularies all rooms share.

Metrics labels, API answers and page texts are made from these; there is no free-text status anywhere.
The value of a member is what APIs and the store carry, so values are never renamed.
"""

from __future__ import annotations

from enum import IntFlag, StrEnum


class Provider(StrEnum):
    """Who answers: the vendor behind an account. Those after VERTEX are data: providers/presets.toml."""

    CODEX = "codex"
    CLAUDE = "claude"
    GEMINI = "gemini"
    QWEN = "qwen"
    OPENAI = "openai"
    VERTEX = "vertex"
    ZAI = "zai"
    ZHIPU = "zhipu"
    KIMI = "kimi"
    MOONSHOT = "moonshot"
    MINIMAX = "minimax"
    DEEPSEEK = "deepseek"
    OPENROUTER = "openrouter"
    GROQ = "groq"
    MISTRAL = "mistral"
    CODESTRAL = "codestral"
    XAI = "xai"
    TOGETHER = "together"
    FIREWORKS = "fireworks"
    CEREBRAS = "cerebras"
    NVIDIA = "nvidia"
    HUGGINGFACE = "huggingface"
    GITHUB = "github"
    DASHSCOPE = "dashscope"
    ALIBABA = "alibaba"
    MIMO = "mimo"
    ARK = "ark"
    SILICONFLOW = "siliconflow"
    AZURE = "azure"
    FOUNDRY = "foundry"
    BEDROCK = "bedrock"
    OLLAMA = "ollama"
    OLLAMA_CLOUD = "ollama-cloud"
    VLLM = "vllm"
    LMSTUDIO = "lmstudio"
    LLAMACPP = "llamacpp"


class Dialect(StrEnum):
    """The client protocol of an exchange; errors and keep-alives are spoken in it."""

    RESPONSES = "responses"
    MESSAGES = "messages"
    CHAT = "chat"
    GEMINI = "gemini"
    CODE_ASSIST = "code_assist"


class Operation(StrEnum):
    """What a data-plane call asks a provider to do."""

    RESPONSES = "responses"  # POST …/responses
    RESPONSES_COMPACT = "responses_compact"  # POST …/responses/compact, never a stream
    MESSAGES = "messages"  # POST /v1/messages
    COUNT_TOKENS = "count_tokens"  # POST /v1/messages/count_tokens, Gemini :countTokens
    CHAT = "chat"  # POST /v1/chat/completions
    GENERATE = "generate"  # Gemini :generateContent, :streamGenerateContent, plain or Code Assist
    COMPLETIONS = "completions"  # POST /v1/completions, /v1/complete: the calls before chats
    EMBEDDINGS = "embeddings"  # POST /v1/embeddings, Gemini :embedContent, :batchEmbedContents
    MODERATIONS = "moderations"  # POST /v1/moderations
    RERANK = "rerank"  # POST /v1/rerank, of compatible servers
    IMAGES = "images"  # POST /v1/images/…, Gemini :predict
    AUDIO = "audio"  # POST /v1/audio/speech, transcriptions, translations
    PROVENANCE = "provenance"  # POST /v1/content_provenance_checks
    SIDE = "side"  # what a CLI asks beside its model calls (Codex: search, memories, calls)
    STORED_RESPONSES = "stored_responses"  # …/responses/ID and below
    STORED_COMPLETIONS = "stored_completions"  # /v1/chat/completions/ID and below, and their list
    CONVERSATIONS = "conversations"  # /v1/conversations…
    FILES = "files"  # /v1/files…, /v1beta/files…, /upload/…/files
    UPLOADS = "uploads"  # /v1/uploads…
    BATCHES = "batches"  # /v1/batches…, /v1/messages/batches…, Gemini :batchGenerateContent
    VECTOR_STORES = "vector_stores"  # /v1/vector_stores…
    CONTAINERS = "containers"  # /v1/containers…
    VIDEOS = "videos"  # /v1/videos…, Gemini :predictLongRunning and its operations
    CACHES = "caches"  # Gemini cachedContents
    REALTIME = "realtime"  # /v1/realtime and its calls, Gemini Live: a connection of many turns
    OTHER = "other"  # no call of a provider


# What a model is asked directly; each of these is nothing without a JSON body.
MODEL_CALLS = frozenset(
    {
        Operation.RESPONSES,
        Operation.RESPONSES_COMPACT,
        Operation.MESSAGES,
        Operation.COUNT_TOKENS,
        Operation.CHAT,
        Operation.GENERATE,
    }
)


class ObjectKind(StrEnum):
    """What a provider keeps under an id until it is deleted or expires.

    The last four are never made through the pool: they belong to the account as a whole.
    """

    FILE = "file"
    UPLOAD = "upload"
    BATCH = "batch"
    RESPONSE = "response"
    ITEM = "item"  # of a stored response or a conversation
    COMPLETION = "completion"  # a stored chat completion
    CONVERSATION = "conversation"
    VECTOR_STORE = "vector_store"
    CONTAINER = "container"
    VIDEO = "video"
    CHARACTER = "character"  # of videos
    CACHE = "cache"
    OPERATION = "operation"
    CALL = "call"  # of the realtime API, over WebRTC or SIP
    PROMPT = "prompt"
    SKILL = "skill"
    VOICE = "voice"
    SEARCH_STORE = "search_store"


class ApiFamily(StrEnum):
    """Whose objects: ids of different vendors' APIs are never the same thing."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"


class Transport(StrEnum):
    """How the answer travels to the client."""

    BUFFERED = "buffered"
    SSE = "sse"
    WEBSOCKET = "websocket"


class CredentialKind(StrEnum):
    OAUTH = "oauth"
    SETUP_TOKEN = "setup_token"  # an access token without a refresh token
    SERVICE_ACCOUNT = "service_account"  # a private key that is traded for access tokens
    API_KEY = "api_key"


class SignInFlow(StrEnum):
    """How somebody signs an account in."""

    LINE = "line"  # a script on the person's own machine runs the vendor's program
    DEVICE = "device"  # a code typed into the vendor's page
    BROWSER = "browser"  # the address that the browser is sent back to, pasted


class SignInState(StrEnum):
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"


class SignInStep(StrEnum):
    """What a waiting sign-in waits for."""

    OPEN = "open"  # the person has not begun
    CODE = "code"  # the person is at the vendor's
    EXCHANGE = "exchange"  # a code is being turned into tokens
    CHECK = "check"  # the tokens are here and are judged
    CONFIRM = "confirm"  # another person's sign-in than expected: somebody has to say what becomes of it
    TEST = "test"  # one real request


class AccountState(StrEnum):
    """What the pool knows of an account; set with who said so and on what evidence."""

    READY = "ready"
    DRAINING = "draining"
    COOLING = "cooling"
    EXHAUSTED = "exhausted"
    NEEDS_LOGIN = "needs_login"
    SUSPENDED = "suspended"
    DISABLED = "disabled"
    PROBING = "probing"


class Source(StrEnum):
    """Where a quota observation came from."""

    HEADERS = "headers"
    STREAM = "stream"
    USAGE_ENDPOINT = "usage_endpoint"
    ERROR = "error"
    LOCAL = "local"


class FaultKind(StrEnum):
    """What an upstream fault means; decides who is blamed and whether another account is tried."""

    REQUEST = "request"  # the client's own mistake: returned untouched, nobody blamed
    AUTH = "auth"  # 401: refresh once, same account
    PAYMENT = "payment"  # 402, credits gone
    PERMISSION = "permission"  # 403 without a better class
    QUOTA = "quota"  # a usage window is used up
    RATE = "rate"  # short-term rate limit
    CAPACITY = "capacity"  # the model is full, not the account's fault
    OVERLOAD = "overload"  # 529, server_is_overloaded, slow_down: next account, no cooldown
    TRANSIENT = "transient"  # 408, 500, 502, 503, 504
    NETWORK = "network"  # no connection, cut, timed out
    CHALLENGE = "challenge"  # a Cloudflare page instead of an answer
    NOT_FOUND = "not_found"  # 404 for the model
    MODEL_UNSUPPORTED = "model_unsupported"  # this plan does not offer the model
    PLAN = "plan"  # this account's plan or key does not cover the request; another account's may
    CLIENT = "client"  # the provider refuses the caller's program; the account is well
    ENCRYPTED_CONTENT = "encrypted_content"  # reasoning sealed for another account
    CONTINUATION = "continuation"  # previous_response_id is not known upstream
    SUSPENDED = "suspended"  # the provider stopped the account
    NEEDS_USER = "needs_user"  # the account's owner must act (verification, licence)
    CLIENT_GONE = "client_gone"  # nobody is blamed


class Refusal(StrEnum):
    """Why an account is not chosen for this exchange."""

    PROVIDER = "provider"  # another provider was asked for
    DISABLED = "disabled"
    NEEDS_LOGIN = "needs_login"
    SUSPENDED = "suspended"
    DRAINING = "draining"
    EXPIRED = "expired"  # the access token ended and cannot be refreshed now
    COOLING = "cooling"
    EXHAUSTED = "exhausted"
    RATE_LIMITED = "rate_limited"  # as a whole or for this model
    RETURNING = "returning"  # back from a cooldown, it takes a few requests at first
    MODEL_COOLING = "model_cooling"
    MODEL_EXHAUSTED = "model_exhausted"
    MODEL_NOT_SERVED = "model_not_served"
    PLAN_UNFIT = "plan_unfit"
    NOT_CARRIED = "not_carried"  # the request names something that the account's dialect has no word for
    TRANSPORT = "transport"  # the account cannot do this transport or operation
    TRIED = "tried"  # failed in this very exchange
    NOT_FORCED = "not_forced"  # another account was forced
    NOT_OWNER = "not_owner"  # hard-pinned to another account
    RESERVED = "reserved"  # what is left is kept for the account's owner
    NOT_SHARED = "not_shared"  # its owner shares it with others
    LOCKED = "locked"  # the operator locked the pool to another account
    PROBING = "probing"  # one half-open request is under way


class ChoiceReason(StrEnum):
    """Why the winner won."""

    BEST = "best"
    PINNED = "pinned"
    OWN = "own"  # an account of whoever asks, which comes before the pool's
    HARD_PIN = "hard_pin"
    FORCED = "forced"
    LOCKED = "locked"
    BORROWED = "borrowed"  # the pinned account rests for a moment; the pin stays
    PROBE = "probe"  # a half-open request to a cooling account


class Strategy(StrEnum):
    BALANCED = "balanced"
    FILL_FIRST = "fill_first"
    ROUND_ROBIN = "round_robin"
    PRIORITY = "priority"
    RESET_FIRST = "reset_first"


class TokenScope(StrEnum):
    """What an admin token may do. Each stands for itself: none includes another."""

    READ = "read"  # look at accounts, people, requests, usage, the audit log
    PEOPLE = "people"  # change people, their keys and codes
    ACCOUNTS = "accounts"  # change accounts


class Denial(StrEnum):
    """Why a caller is not let in, or not further."""

    NO_KEY = "no_key"
    BAD_KEY = "bad_key"
    EXPIRED_KEY = "expired_key"
    REVOKED_KEY = "revoked_key"
    USER_DISABLED = "user_disabled"
    NOT_LOCAL = "not_local"  # local mode, and the caller is not a loopback one
    REQUESTS_PER_MINUTE = "requests_per_minute"
    CONCURRENT = "concurrent"
    TOKENS_5H = "tokens_5h"
    TOKENS_DAY = "tokens_day"
    TOKENS_WEEK = "tokens_week"
    TOKENS_MONTH = "tokens_month"
    COST_DAY = "cost_day"
    COST_WEEK = "cost_week"
    COST_MONTH = "cost_month"
    PROVIDER = "provider"
    MODEL = "model"
    FAIR_SHARE = "fair_share"
    BOOKED = "booked"  # what is left of a provider is somebody else's for a time
    STORE = "store"  # the store cannot be written: limits fail closed
    BAD_LOGIN = "bad_login"  # wrong code, name, passphrase, password or session
    THROTTLED = "throttled"  # too many wrong tries, or too many at once
    BAD_VALUE = "bad_value"  # a name, passphrase, limit … that cannot be accepted
    NAME_TAKEN = "name_taken"
    NOT_FOUND = "not_found"


class PassiveHealth(StrEnum):
    """What is done about a host that requests find silent."""

    SET_ASIDE = "set_aside"  # others are asked first
    TRIED = "tried"  # half-open: one request tries it again
    REOPENED = "reopened"
    LEFT = "left"  # a request that waited on a dead host went to another account
    HEDGED = "hedged"  # one that waited unusually long went to another account


class Conduct(StrEnum):
    """What a client's program does when it is refused, where that needs another answer than the usual one."""

    USUAL = "usual"
    REPEATS = "repeats"  # asks again and again after a 403, 404 or 503
    WAITS = "waits"  # sleeps after a 429 as long as it is told to, in silence


class ErrorKind(StrEnum):
    """What the pool itself has to tell a client; each dialect gives it its own shape."""

    AUTH = "auth"  # 401
    FORBIDDEN = "forbidden"  # 403
    LIMIT = "limit"  # 429, the user's own limit
    EXHAUSTED = "exhausted"  # 429, every account is out of quota
    RATE = "rate"  # 429, every account is rate limited or cools down for a moment
    NO_ACCOUNT = "no_account"  # 503, nothing to serve with
    UNREACHABLE = "unreachable"  # 502
    BAD_REQUEST = "bad_request"  # 400
    NOT_FOUND = "not_found"  # 404
    TOO_LARGE = "too_large"  # 413
    UPGRADE = "upgrade"  # 426
    DRAINING = "draining"  # 503
    BUSY = "busy"  # 503, no room for it just now
    CUT = "cut"  # the upstream broke off within a stream
    CONTINUATION = "continuation"  # resend the conversation in full


class Outcome(StrEnum):
    """How an exchange ended, as the ledger keeps it."""

    OK = "ok"
    CLIENT_GONE = "client_gone"
    REQUEST_FAULT = "request_fault"  # the provider refused the request itself
    DENIED = "denied"  # the pool refused the caller
    EXHAUSTED = "exhausted"
    NO_ACCOUNT = "no_account"
    UPSTREAM = "upstream"  # every attempt failed
    CUT = "cut"  # broke off after the first byte
    REVOKED = "revoked"  # ended because the key or the user was


class SpoolFullReason(StrEnum):
    """Which budget has no room for more of a body."""

    USER = "user"
    TOTAL = "total"
    DISK = "disk"
    DESCRIPTORS = "descriptors"


class CostBasis(StrEnum):
    """What a cost rests on."""

    LIST = "list"  # the price table or the settings
    TOLD = "told"  # the price that came with the answer
    ASSUMED = "assumed"  # an entry of the table that fewer than two sources confirm


class Signal(IntFlag):
    """What a piece of an answer held, as a meter saw it."""

    NONE = 0
    RENDERED = 1  # something the client shows, or any byte of a non-stream answer
    TERMINAL = 2  # the event that ends the answer well
    FAULT = 4  # an error event
    LIMITS = 8  # quota facts for the provider to read
    USAGE = 16  # an event that holds only the usage of a completion


class NoticeWhen(StrEnum):
    """What a person is told of their own limits: at 80 %, used up and back again, or without the first."""

    ALL = "all"
    USED_UP = "used_up"
