"""Settings as plain typed values: what each may be stands in its type. `configfile.load` reads and checks them."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from pool_server.core.enums import Denial, Strategy
from pool_server.core.loopback import is_loopback

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Amount = Annotated[float, Meta(ge=0, le=1e12)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Hours = Annotated[float, Meta(gt=0, le=87600)]
Wait = Annotated[float, Meta(ge=0, le=3600)]
Timeout = Annotated[float, Meta(ge=1, le=86400)]

# Never shown: not in errors, not in reprs, not on the settings page.
SECRET = frozenset(
    {
        "admin_password",
        "admin_totp",
        "chat_urls",
        "client_secret",
        "friend_code",
        "gemini_client_secret",
        "jwt_secret",
        "jwt_secret_previous",
        "local_token",
        "mirror_options",
        "smtp_password",
        "store_listen_url",
        "store_url",
        "webhook_url",
    }
)
HIDDEN = "[hidden]"


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of settings. Its repr can be logged: secrets are hidden in it."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={HIDDEN if name in SECRET and value else repr(value)}"
            for name, value in ((name, getattr(self, name)) for name in self.__struct_fields__)
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class PoolUsers(Section, frozen=True):
    admin_password: str = ""  # plain, or a bcrypt hash
    admin_totp: str = ""  # the Base32 secret of an authenticator app; with it the password alone is not enough
    jwt_secret: str = ""  # empty = made once, kept in data_dir; with store_url sealed in the database
    jwt_secret_previous: str = ""  # still accepted after a rotation
    storage_path: str = ""  # codex-pool's users file: imported once
    new_people_per_network: Count = 5  # a day, by a code that anybody may use; twice as many of a wider network
    new_people_per_day: Count = 50


class SingleSignOn(Section, frozen=True):
    """Who comes in by what a trusted proxy, or an issuer of OpenID Connect, says of them. `people` and `operators` are
    identities, such as e-mail addresses; empty lets nobody in."""

    user_header: str = ""
    issuer: str = ""
    client_id: str = ""
    client_secret: str = ""
    label: str = "single sign-on"  # what the button on the door calls it
    people: list[str] = []  # fnmatch patterns of those who may become people of the pool
    operators: list[str] = []  # whole identities of those who are the operator


class Upstreams(Section, frozen=True):
    codex: str = "https://chatgpt.com/backend-api/codex"
    chatgpt: str = "https://chatgpt.com/backend-api"
    openai: str = "https://api.openai.com"
    claude: str = "https://api.anthropic.com"
    code_assist: str = "https://cloudcode-pa.googleapis.com"
    gemini: str = "https://generativelanguage.googleapis.com"
    qwen: str = "https://dashscope.aliyuncs.com/compatible-mode"
    presets: dict[str, str] = {}  # preset → the origin that stands for its hosts


class TokenUrls(Section, frozen=True):
    codex: str = "https://auth.openai.com/oauth/token"
    claude: str = "https://platform.claude.com/v1/oauth/token"
    gemini: str = "https://oauth2.googleapis.com/token"
    qwen: str = "https://chat.qwen.ai/api/v1/oauth2/token"
    kimi: str = "https://auth.kimi.com/api/oauth/token"
    vertex: str = "https://oauth2.googleapis.com/token"


class SignInUrls(Section, frozen=True):
    """Where a sign-in from the page goes; tokens come from `TokenUrls`. The redirect is the vendor's registered one."""

    codex_authorize: str = "https://auth.openai.com/oauth/authorize"
    codex_device: str = "https://auth.openai.com/api/accounts/deviceauth"
    codex_redirect: str = "http://localhost:1455/auth/callback"


class UsagePolling(Section, frozen=True):
    interval_s: Annotated[float, Meta(ge=0, le=86400)] = 300.0  # 0 = off


class Limits(Section, frozen=True):
    """A user's limits; None = none. Costs are API-equivalent US dollars."""

    requests_per_minute: Count | None = None
    concurrent: Count | None = None
    tokens_5h: Count | None = None
    tokens_day: Count | None = None
    tokens_week: Count | None = None
    tokens_month: Count | None = None
    cost_day: Amount | None = None
    cost_week: Amount | None = None
    cost_month: Amount | None = None
    providers: list[str] | None = None
    models: list[str] | None = None  # fnmatch patterns


class CountedLimit(NamedTuple):
    """A limit that is counted: what admission, messages, labels, forms and pages derive from.

    `denial` is told when the limit is reached; its value is the name of the field in `Limits`.

    `label` stands in forms, `words` behind the figure in a sentence; `yours` and `returns` are a friend's own part as
    the subject of a sentence, and what happens to it in the end.
    """

    denial: Denial
    label: str
    words: str
    yours: str
    returns: str
    dollars: bool = False

    @property
    def name(self) -> str:
        return self.denial.value

    def amount(self, limit: float) -> str:
        """The limit as a sentence has it.

        >>> COUNTED_BY_DENIAL[Denial.COST_DAY].amount(2)
        '$2.00 a day'
        """
        if self.dollars:
            return f"${limit:,.2f} {self.words.removeprefix('cost ')}"
        words = self.words.replace("requests", "request").replace("tokens", "token") if limit == 1 else self.words
        return f"{limit:,.0f} {words}"


COUNTED_LIMITS = (
    CountedLimit(
        Denial.REQUESTS_PER_MINUTE, "Requests a minute", "requests a minute",
        "Your requests for this minute are", "They free up",
    ),
    CountedLimit(
        Denial.CONCURRENT, "Requests at once", "requests at the same time",
        "Your requests at once are", "They free up",
    ),
    CountedLimit(
        Denial.TOKENS_5H, "Tokens in 5 hours", "tokens in 5 hours", "Your tokens for 5 hours are", "They free up"
    ),
    CountedLimit(Denial.TOKENS_DAY, "Tokens a day", "tokens a day", "Your tokens for today are", "They reset"),
    CountedLimit(Denial.TOKENS_WEEK, "Tokens a week", "tokens a week", "Your tokens for this week are", "They reset"),
    CountedLimit(
        Denial.TOKENS_MONTH, "Tokens a month", "tokens a month", "Your tokens for this month are", "They reset"
    ),
    CountedLimit(Denial.COST_DAY, "Cost a day", "cost a day", "Your budget for today is", "It resets", True),
    CountedLimit(Denial.COST_WEEK, "Cost a week", "cost a week", "Your budget for this week is", "It resets", True),
    CountedLimit(Denial.COST_MONTH, "Cost a month", "cost a month", "Your budget for this month is", "It resets", True),
)  # fmt: skip
COUNTED_BY_DENIAL = {limit.denial: limit for limit in COUNTED_LIMITS}


class Choosing(Section, frozen=True):
    strategy: Strategy = Strategy.BALANCED
    lock_account: str = ""
    wait_s: Wait = 10.0  # a request waits its turn when every account returns within this
    pin_ttl_h: Hours = 24.0


class NightShift(Section, frozen=True):
    longest_h: Annotated[float, Meta(ge=0, le=168)] = 0.0  # how long X-Pool-Wait may hold a request; 0 = off
    requests: Positive = 32  # held at once, in one worker
    requests_per_person: Positive = 8


class BookingSettings(Section, frozen=True):
    most_percent: Percent = 0.0  # of a provider's headroom that may be booked at a time; 0 = nobody can book
    longest_h: Annotated[float, Meta(gt=0, le=168)] = 12.0
    ahead_days: Annotated[float, Meta(gt=0, le=365)] = 14.0
    per_person: Positive = 3  # running and to come


class FairShare(Section, frozen=True):
    enabled: bool = True
    short_percent: Percent = 20.0  # a provider's room is short below this much of it left
    window_h: Hours = 5.0  # recent use that is compared
    wait_s: Wait = 20.0


class LedgerSettings(Section, frozen=True):
    retention_days: Annotated[int, Meta(ge=1, le=36500)] = 90
    friends_see: Literal["own", "pool", "names"] = "pool"
    timezone: str = "UTC"
    durable: Literal["node", "store"] = "node"  # with store_url: where a record is before an answer's last byte
    journal_mb: Annotated[int, Meta(ge=4, le=1024)] = 64  # with store_url: of what waits for the database, a worker


class ModelPrice(Section, frozen=True):
    """US dollars a million tokens; `web_search` dollars each."""

    input: Amount
    output: Amount
    cache_read: Amount | None = None
    cache_write: Amount | None = None
    cache_write_1h: Amount | None = None
    web_search: Amount = 0.0


class Alerts(Section, frozen=True):
    webhook_url: str = ""
    smtp_host: str = ""
    smtp_port: Port = 587
    smtp_user: str = ""
    smtp_password: str = ""
    smtp_tls: bool = True
    mail_from: str = ""
    mail_to: list[str] = []
    chat_urls: list[str] = []  # addresses as Apprise writes them; they hold tokens
    room_hours: Annotated[float, Meta(ge=0, le=8760)] = 3.0  # a provider's room under this many hours
    error_rate_percent: Percent = 20.0
    disk_free_mb: Count = 512
    budget_percent: tuple[Annotated[int, Meta(ge=1, le=1000)], ...] = (80, 100)


class Backup(Section, frozen=True):
    folder: str = ""  # empty = no scheduled copies
    every_h: Hours = 24.0
    keep: Positive = 7
    keep_days: Count = 0  # 0 = however old
    prove: bool = True  # restore each copy for a trial
    encrypt: bool = False  # with the first key of POOL_STORE_KEY
    credentials: bool = False  # the files of pool_dir too; encrypted copies alone
    mirror: str = ""  # another folder, or s3://, gs://, az://, that gets each copy; empty = none
    mirror_options: dict[str, str] = {}  # obstore's for that store; they may hold secrets
    point_in_time: bool = False  # every change goes to the mirror, else to the folder, a moment after it was made
    point_in_time_s: Annotated[float, Meta(ge=0.1, le=3600)] = 0.3  # between two sendings, where there are changes
    point_in_time_mb: Annotated[int, Meta(ge=1, le=1 << 24)] = 1024  # may wait here while the place takes nothing


class TranscriptSettings(Section, frozen=True):
    enabled: bool = False  # people may have their exchanges kept; each decides for themselves
    keep_days: Annotated[float, Meta(gt=0, le=36500)] = 30.0
    max_mb: Annotated[int, Meta(ge=1, le=1 << 24)] = 2048  # of all people, as it lies on the disk
    exchange_mb: Annotated[int, Meta(ge=1, le=65536)] = 64  # of one exchange; the rest is counted
    mirror: str = ""  # a folder or s3://, gs://, az:// that gets a copy of each; empty = none
    mirror_options: dict[str, str] = {}  # obstore's for that store; they may hold secrets


class TelemetrySettings(Section, frozen=True):
    endpoint: str = ""  # a collector of OpenTelemetry, OTLP over HTTP; empty = no traces
    ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0  # of the exchanges that are traced


class CodexSettings(Section, frozen=True):
    hold_conversations_mb: Count = 0  # 0 = off: nothing of a conversation is kept for replay


class Fallback(Section, frozen=True):
    """A model to serve instead, once the one asked for cannot be had for one of these reasons."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    on: tuple[Literal["quota", "overload"], ...] = ("quota", "overload")


class Models(Section, frozen=True):
    """Which model is served for which. `translate` False: each dialect serves accounts that speak it alone."""

    aliases: dict[str, str] = {}
    fallbacks: dict[str, list[Fallback]] = {}
    translate: bool = True

    def following(self, asked: str, start: int, *, quota: bool, overload: bool) -> Iterator[tuple[int, str]]:
        """The models of the chain for `asked` that may be tried for one of these reasons, from the place `start` on,
        each with the place after it."""
        for place, one in enumerate(self.fallbacks.get(asked, [])[start:], start + 1):
            if (quota and "quota" in one.on) or (overload and "overload" in one.on):
                yield place, one.model


class Budgets(Section, frozen=True):
    """What one worker holds at most, whoever asks for it."""

    connections: Annotated[int, Meta(ge=16, le=1_000_000)] = 8192  # of clients; fewer where descriptors are few
    connections_per_address: Annotated[int, Meta(ge=4, le=1_000_000)] = 256
    first_byte_s: Timeout = 10.0  # a new connection may say nothing for so long
    body_memory_mb: Annotated[int, Meta(ge=8, le=65536)] = 128  # of all request bodies; more goes to files
    spool_mb: Annotated[int, Meta(ge=1, le=1 << 20)] = 1024  # of all bodies in files
    spool_user_mb: Annotated[int, Meta(ge=1, le=1 << 20)] = 512  # of one user's
    sockets_per_user: Annotated[int, Meta(ge=1, le=10_000)] = 16  # WebSockets
    frames_mb: Annotated[int, Meta(ge=64, le=65536)] = 128  # of large WebSocket messages, arriving or being served
    reserved_files: Annotated[int, Meta(ge=32, le=65536)] = 128  # descriptors no connection may take


class Settings(Section, frozen=True):
    """Everything the operator can say. Sizes, times and units are in the names."""

    listen_addr: str = "127.0.0.1:8989"
    public_url: str = ""
    tls_cert: str = ""  # the certificate and those it is signed by, PEM; with it the pool serves https
    tls_key: str = ""
    tls_ca: str = ""  # the private authority that signed it, PEM: set-up pages say how clients come to trust it
    pool_dir: Annotated[str, Meta(min_length=1)] = "pool"
    data_dir: Annotated[str, Meta(min_length=1)] = "data"
    max_attempts: Annotated[int, Meta(ge=1, le=20)] = 3
    max_body_mb: Annotated[int, Meta(ge=1, le=65536)] = 256
    workers: Annotated[int, Meta(ge=0, le=256)] = 1
    trusted_proxies: list[str] = []
    debug: bool = False
    log_format: Literal["text", "json"] = "text"
    upstream_first_byte_s: Timeout = 300.0
    upstream_idle_s: Timeout = 300.0
    drain_s: Wait = 30.0
    upgrade_drain_s: Wait = 3600.0
    store_url: str = ""  # postgresql://…: the database of a pool of several machines; it may hold a password
    store_listen_url: str = ""  # the same past a pooler, to be told of changes at once; empty = store_url
    store_wait_s: Wait = 5.0  # a request waits so long for a database that does not answer
    store_grace_s: Annotated[float, Meta(ge=-1, le=86400)] = 900.0  # people without limits go on; -1 = for ever
    store_when_away: Literal["refuse", "allow"] = "refuse"  # what happens to people with limits while it is away
    node_name: Annotated[str, Meta(max_length=100)] = ""  # this machine among the others; empty = its host name
    local_token: str = ""  # local mode asks for it when set; else whoever is on this machine may do all
    friend_code: str = ""
    friend_name: str = ""
    friend_tagline: str = ""
    pool_users: PoolUsers = PoolUsers()
    single_sign_on: SingleSignOn = SingleSignOn()
    upstreams: Upstreams = Upstreams()
    token_urls: TokenUrls = TokenUrls()
    sign_in: SignInUrls = SignInUrls()
    usage_polling: UsagePolling = UsagePolling()
    limits: Limits = Limits(concurrent=64)
    choosing: Choosing = Choosing()
    night_shift: NightShift = NightShift()
    bookings: BookingSettings = BookingSettings()
    fair_share: FairShare = FairShare()
    ledger: LedgerSettings = LedgerSettings()
    prices: dict[str, ModelPrice] = {}  # model → price, over the table that ships
    subscriptions: dict[str, Amount] = {}  # account id or plan → US dollars a month
    alerts: Alerts = Alerts()
    backup: Backup = Backup()
    transcripts: TranscriptSettings = TranscriptSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    codex: CodexSettings = CodexSettings()
    models: Models = Models()
    budgets: Budgets = Budgets()
    gemini_client_id: str = ""  # only from GEMINI_OAUTH_CLIENT_ID
    gemini_client_secret: str = ""  # only from GEMINI_OAUTH_CLIENT_SECRET

    @property
    def friends_mode(self) -> bool:
        """Every data-plane call needs a key; otherwise local mode, loopback peers only."""
        return bool(self.friend_code or self.pool_users.admin_password)

    @property
    def scheme(self) -> str:
        """What the server speaks on its own port: "https" with a certificate, else "http"."""
        return "https" if self.tls_cert else "http"

    @property
    def operator_password(self) -> str:
        """What the operator signs in with; in local mode the token, "" where nothing is asked for."""
        return self.pool_users.admin_password or ("" if self.friends_mode else self.local_token)


class ConfigError(Exception):
    """A mistake in the settings: one line naming key, value and what is allowed, never a secret."""


class Listen(NamedTuple):
    """A listen address; `host` is "" when only a port was given."""

    host: str
    port: int


def parse_listen(text: str) -> Listen:
    """`host:port`, `[v6]:port`, `:port` or `port`. Raises ValueError for anything else."""
    found = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9._-]*):)?([0-9]{1,5})", text.strip())
    if not found or int(found[2]) > 65535:
        raise ValueError(text)
    host = (found[1] or "").strip("[]")
    if (found[1] or "").startswith("["):
        ipaddress.IPv6Address(host.partition("%")[0])
    elif re.fullmatch(r"[0-9.]+", host):
        ipaddress.IPv4Address(host)
    return Listen(host, int(found[2]))


def bind_address(settings: Settings) -> Listen:
    """Where to listen. A bare port means loopback in local mode and every interface in friends mode.

    Raises ConfigError when local mode would listen where others can reach it: there, nobody needs a key.
    """
    host, port = parse_listen(settings.listen_addr)
    if settings.friends_mode:
        return Listen(host, port)
    if not host:
        return Listen("127.0.0.1", port)
    if host.lower() != "localhost" and not is_loopback(host):
        raise ConfigError(
            f"listen_addr = {json.dumps(settings.listen_addr)}: without friend_code or admin_password the pool is "
            "open to whoever reaches it, so only a loopback address is allowed (127.0.0.1, [::1], localhost)"
        )
    return Listen(host, port)
