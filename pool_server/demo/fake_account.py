"""A fake account: its credential file, its rotating tokens, and the quota it tells in its vendor's own way."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import jwt
import msgspec

from pool_server.core.enums import CredentialKind, Provider

Json = dict[str, Any]
_SIGNING = "not a secret: signs the tokens of fake accounts only"
FIVE_HOURS, WEEK, DAY = 18_000, 604_800, 86_400


class Window(msgspec.Struct):
    """One quota window: percent used, unix seconds of its reset."""

    used_percent: float
    resets_at: float


class FakeAccount:
    """An account a fake provider knows. `id` is what the pool calls it, e.g. "claude:work".

    `windows` maps a length in seconds to a `Window`; `access` is the token or key that is accepted now. A refresh
    token works once: `renew` raises `KeyError` for a spent or unknown one.
    """

    def __init__(
        self,
        provider: Provider,
        stem: str,
        *,
        now: float,
        kind: CredentialKind = CredentialKind.OAUTH,
        plan: str = "",
        windows: dict[int, Window] | None = None,
        life_s: float = 28_800.0,
        extra: Json | None = None,
    ) -> None:
        self.provider, self.stem, self.kind, self.plan = provider, stem, kind, plan
        self.id = f"{provider.value}:{stem}"
        self.life_s = life_s
        self.extra = extra or {}
        self.email = f"{stem}@example.com"
        self.account_id = f"acct-{provider.value}-{stem}"
        self.user_id = f"user-{provider.value}-{stem}"
        self.project = f"project-{stem}"
        self.windows = windows if windows is not None else {}
        self.generation = 0
        self.expires_at = now + life_s
        self.access = self._access_token()
        self.refresh = self._refresh_token()
        self.spent: list[str] = []

    # ------------------------------------------------------------ tokens

    def _access_token(self) -> str:
        name = f"{self.provider.value}-{self.stem}-{self.generation}"
        if self.kind is CredentialKind.API_KEY:
            return f"sk-fake-{name}"
        if self.provider is Provider.CODEX:
            return self._jwt({"exp": int(self.expires_at), "jti": name})
        return {Provider.CLAUDE: "sk-ant-oat01-fake-", Provider.GEMINI: "ya29.fake-"}.get(
            self.provider, "qwen-fake-"
        ) + name

    def _refresh_token(self) -> str:
        return f"rt-fake-{self.provider.value}-{self.stem}-{self.generation}"

    def _jwt(self, claims: Json) -> str:
        return jwt.encode(claims, _SIGNING, algorithm="HS256")

    def _id_token(self) -> str:
        auth = {
            "chatgpt_plan_type": self.plan or "plus",
            "chatgpt_account_id": self.account_id,
            "chatgpt_user_id": self.user_id,
        }
        return self._jwt({"email": self.email, "https://api.openai.com/auth": auth})

    def revoke(self) -> None:
        """The access token stops working; a refresh makes a new one."""
        self.access = ""

    def renew(self, refresh: str, *, now: float) -> Json:
        """The token endpoint's answer; rotates both tokens (Google keeps the refresh token)."""
        if refresh != self.refresh:
            raise KeyError(refresh)
        self.generation += 1
        self.expires_at = now + self.life_s
        self.access = self._access_token()
        answer: Json = {
            "access_token": self.access,
            "token_type": "Bearer",
            "expires_in": int(self.life_s),
        }
        if self.provider is not Provider.GEMINI:
            self.spent.append(self.refresh)
            self.refresh = self._refresh_token()
            answer["refresh_token"] = self.refresh
        if self.provider is Provider.CODEX:
            answer["id_token"] = self._id_token()
        return answer

    # ------------------------------------------------------------ the file in pool/

    @property
    def file_name(self) -> str:
        prefix = "" if self.provider is Provider.CODEX else f"{self.provider.value}_"
        return f"{prefix}{self.stem}.json"

    def file(self) -> Json:
        """The content of the credential file, in the shape the vendor's CLI (or the operator) writes."""
        return {**self._credential(), **self.extra}

    def write(self, folder: Path) -> Path:
        """Writes the credential file (0600) into the pool folder `folder`."""
        path = folder / self.file_name
        path.touch(mode=0o600)
        path.write_text(json.dumps(self.file(), indent=2))
        return path

    def _credential(self) -> Json:
        millis = int(self.expires_at * 1000)
        if self.kind is CredentialKind.API_KEY:
            if self.provider is Provider.CODEX:
                return {"OPENAI_API_KEY": self.access}
            return {"api_key": self.access}
        if self.provider is Provider.CODEX:
            stamp = datetime.datetime.fromtimestamp(self.expires_at - self.life_s, datetime.UTC)
            tokens = {"id_token": self._id_token(), "access_token": self.access, "refresh_token": self.refresh}
            return {
                "tokens": {**tokens, "account_id": self.account_id},
                "last_refresh": stamp.isoformat().replace("+00:00", "Z"),
            }
        if self.provider is Provider.CLAUDE:
            inner: Json = {"accessToken": self.access, "subscriptionType": self.plan or "max"}
            if self.kind is CredentialKind.SETUP_TOKEN:
                return {"claudeAiOauth": {**inner, "scopes": ["user:inference"]}}
            scopes = ["user:inference", "user:profile"]
            return {
                "claudeAiOauth": {
                    **inner,
                    "refreshToken": self.refresh,
                    "expiresAt": millis,
                    "scopes": scopes,
                }
            }
        return {"access_token": self.access, "refresh_token": self.refresh, "expiry_date": millis}

    # ------------------------------------------------------------ quota, in the vendor's words

    def spend(self, percent: float, *, now: float) -> None:
        """Every window fills by its share of `percent` of five hours; a window past its reset starts anew."""
        for seconds, window in self.windows.items():
            if window.resets_at <= now:
                window.used_percent, window.resets_at = 0.0, now + seconds
            window.used_percent = min(100.0, window.used_percent + percent * FIVE_HOURS / max(seconds, FIVE_HOURS))

    def quota_headers(self) -> dict[str, str]:
        if self.provider is Provider.CODEX and self.kind is not CredentialKind.API_KEY:
            return self._codex_headers()
        if self.provider is Provider.CLAUDE and self.kind is not CredentialKind.API_KEY:
            return self._unified_headers()
        return {}

    def _codex_headers(self) -> dict[str, str]:
        headers = {"x-codex-plan-type": self.plan or "plus"}
        for slot, (seconds, window) in zip(("primary", "secondary"), sorted(self.windows.items()), strict=False):
            headers |= {
                f"x-codex-{slot}-used-percent": f"{window.used_percent:g}",
                f"x-codex-{slot}-window-minutes": str(seconds // 60),
                f"x-codex-{slot}-reset-at": str(int(window.resets_at)),
            }
        return headers

    def _unified_headers(self) -> dict[str, str]:
        base = "anthropic-ratelimit-unified"
        headers: dict[str, str] = {}
        for seconds, window in sorted(self.windows.items()):
            name = "5h" if seconds == FIVE_HOURS else f"{seconds // DAY}d"
            status = "rejected" if window.used_percent >= 100 else "allowed"
            headers |= {
                f"{base}-{name}-status": status,
                f"{base}-{name}-utilization": f"{window.used_percent / 100:g}",
                f"{base}-{name}-reset": str(int(window.resets_at)),
            }
        if headers:
            full = any(value == "rejected" for value in headers.values())
            nearest = min(window.resets_at for window in self.windows.values())
            headers |= {f"{base}-status": "rejected" if full else "allowed", f"{base}-reset": str(int(nearest))}
        return headers

    def usage(self, *, now: float) -> Json:
        """What the vendor's usage endpoint says of this account."""
        if self.provider is Provider.CODEX:
            slots = [self._codex_window(seconds, now) for seconds in sorted(self.windows)] + [None, None]
            full = any(window.used_percent >= 100 for window in self.windows.values())
            limit = {"allowed": not full, "limit_reached": full}
            return {
                "plan_type": self.plan or "plus",
                "rate_limit": {**limit, "primary_window": slots[0], "secondary_window": slots[1]},
                "credits": {"has_credits": False, "unlimited": False, "balance": "0"},
            }
        if self.provider is Provider.CLAUDE:
            names = {FIVE_HOURS: "five_hour", WEEK: "seven_day"}
            told = {
                names[seconds]: {"utilization": window.used_percent, "resets_at": _iso(window.resets_at)}
                for seconds, window in self.windows.items()
                if seconds in names
            }
            return {"five_hour": None, "seven_day": None, "seven_day_opus": None, **told}
        buckets = [
            {
                "remainingFraction": round(1 - window.used_percent / 100, 4),
                "resetTime": _iso(window.resets_at),
                "tokenType": "REQUESTS",
                "modelId": model,
            }
            for window in self.windows.values()
            for model in ("gemini-2.5-pro", "gemini-2.5-flash")
        ]
        return {"buckets": buckets}

    def _codex_window(self, seconds: int, now: float) -> Json:
        window = self.windows[seconds]
        return {
            "used_percent": int(window.used_percent),
            "limit_window_seconds": seconds,
            "reset_after_seconds": max(0, int(window.resets_at - now)),
            "reset_at": int(window.resets_at),
        }


def _iso(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat().replace("+00:00", "Z")
