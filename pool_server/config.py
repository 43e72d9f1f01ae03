"""Settings: `config.toml` and the environment, typed, every mistake one clear line."""

from __future__ import annotations

from typing import Literal

import msgspec

from pool_server.words import Strategy


class PoolUsers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    admin_password: str = ""
    jwt_secret: str = ""
    jwt_secret_previous: str = ""  # still accepted after a rotation
    storage_path: str = ""  # codex-pool's users file: imported once


class Upstreams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    codex: str = "https://chatgpt.com/backend-api/codex"
    chatgpt: str = "https://chatgpt.com/backend-api"
    openai: str = "https://api.openai.com"
    claude: str = "https://api.anthropic.com"
    code_assist: str = "https://cloudcode-pa.googleapis.com"
    gemini: str = "https://generativelanguage.googleapis.com"
    qwen: str = "https://dashscope.aliyuncs.com/compatible-mode"


class TokenUrls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    codex: str = "https://auth.openai.com/oauth/token"
    claude: str = "https://platform.claude.com/v1/oauth/token"
    gemini: str = "https://oauth2.googleapis.com/token"
    qwen: str = "https://chat.qwen.ai/api/v1/oauth2/token"


class UsagePolling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    interval_s: float = 300.0


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user's limits; None = none. Costs are API-equivalent US dollars."""

    requests_per_minute: int | None = None
    concurrent: int | None = None
    tokens_5h: int | None = None
    tokens_day: int | None = None
    tokens_week: int | None = None
    tokens_month: int | None = None
    cost_day: float | None = None
    cost_week: float | None = None
    cost_month: float | None = None
    providers: list[str] | None = None
    models: list[str] | None = None  # fnmatch patterns


class Choosing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    strategy: Strategy = Strategy.BALANCED
    lock_account: str = ""
    wait_s: float = 10.0  # a request waits its turn when every account returns within this
    pin_ttl_h: float = 24.0


class FairShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enabled: bool = True
    short_percent: float = 20.0  # a provider's room is short below this much of it left
    window_h: float = 5.0  # recent use that is compared
    wait_s: float = 20.0


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    retention_days: int = 90
    friends_see: Literal["own", "pool", "names"] = "pool"
    timezone: str = "UTC"


class ModelPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """US dollars a million tokens."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None


class Alerts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    webhook_url: str = ""
    smtp_host: str = ""
    smtp_port: int = 587
    smtp_user: str = ""
    smtp_password: str = ""
    smtp_tls: bool = True
    mail_from: str = ""
    mail_to: list[str] = []
    room_hours: float = 3.0  # a provider's room under this many hours
    error_rate_percent: float = 20.0
    disk_free_mb: int = 512
    budget_percent: tuple[int, ...] = (80, 100)


class Backup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    folder: str = ""  # empty = no scheduled copies
    every_h: float = 24.0
    keep: int = 7


class Codex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hold_conversations_mb: int = 0  # 0 = off: nothing of a conversation is kept for replay


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything the operator can say. Sizes, times and units are in the names."""

    listen_addr: str = "127.0.0.1:8989"
    public_url: str = ""
    pool_dir: str = "pool"
    data_dir: str = "data"
    max_attempts: int = 3
    max_body_mb: int = 256
    workers: int = 1
    trusted_proxies: list[str] = []
    debug: bool = False
    upstream_first_byte_s: float = 300.0
    upstream_idle_s: float = 300.0
    drain_s: float = 30.0
    friend_code: str = ""
    friend_name: str = ""
    friend_tagline: str = ""
    pool_users: PoolUsers = PoolUsers()
    upstreams: Upstreams = Upstreams()
    token_urls: TokenUrls = TokenUrls()
    usage_polling: UsagePolling = UsagePolling()
    limits: Limits = Limits()
    choosing: Choosing = Choosing()
    fair_share: FairShare = FairShare()
    ledger: Ledger = Ledger()
    prices: dict[str, ModelPrice] = {}  # model → price, over the table that ships
    subscriptions: dict[str, float] = {}  # account id or plan → US dollars a month
    alerts: Alerts = Alerts()
    backup: Backup = Backup()
    codex: Codex = Codex()
    gemini_client_id: str = ""  # only from GEMINI_OAUTH_CLIENT_ID
    gemini_client_secret: str = ""  # only from GEMINI_OAUTH_CLIENT_SECRET

    @property
    def friends_mode(self) -> bool:
        """Every data-plane call needs a key; otherwise local mode, loopback peers only."""
        return bool(self.friend_code or self.pool_users.admin_password)
