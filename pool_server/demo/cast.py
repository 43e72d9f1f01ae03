"""Who plays in the demo: accounts of every provider in every state, six friends with their habits. Pure data."""

from __future__ import annotations

import msgspec

from pool_server.core.enums import CredentialKind, Dialect, Operation, Provider
from pool_server.demo.fake_account import DAY, FIVE_HOURS, WEEK, FakeAccount, Window

HOUR = 3600.0

RESTING = "claude:home"  # told to wait a while by its provider
EXHAUSTED = "codex:night-owl"  # its five hours are used up
LAST_RESORT = "gemini:lab"  # paid by use: nobody needed it so far
SIGNED_OUT = "claude:old-laptop"  # its refresh token was used elsewhere

SIGNED_OUT_S = 2 * DAY  # since when

COMPATIBLE_MODELS = ("deepseek-v3.2", "glm-4.6")


def accounts(now: float, origin: str) -> list[FakeAccount]:
    """The accounts at `now` (unix seconds); `origin` is where the fake providers listen."""
    key, setup = CredentialKind.API_KEY, CredentialKind.SETUP_TOKEN

    def window(used: float, left: float) -> Window:
        return Window(used, now + left * HOUR)

    def make(ident: str, kind: CredentialKind = CredentialKind.OAUTH, *, plan: str = "", **more: object) -> FakeAccount:
        provider, stem = ident.split(":")
        windows = more.pop("windows", {})
        assert isinstance(windows, dict)
        named = {"plan_type": plan} if plan else {}
        return FakeAccount(
            Provider(provider), stem, now=now, kind=kind, plan=plan, windows=windows, extra={**named, **more}
        )

    cast = [
        make("codex:studio", plan="pro", windows={FIVE_HOURS: window(22, 2.4), WEEK: window(38, 81)}),
        make("codex:personal", plan="plus", windows={FIVE_HOURS: window(64, 1.1), WEEK: window(51, 30)}),
        make("codex:night-owl", plan="plus", windows={FIVE_HOURS: window(100, 0.6), WEEK: window(73, 52)}),
        make("claude:work", plan="max_20x", windows={FIVE_HOURS: window(31, 3.2), WEEK: window(44, 96)}),
        make("claude:home", plan="max_5x", windows={FIVE_HOURS: window(78, 0.9), WEEK: window(62, 20)}),
        make("claude:build-robot", setup, plan="pro", windows={FIVE_HOURS: window(9, 4.0), WEEK: window(17, 120)}),
        make("claude:old-laptop", plan="pro"),
        make("gemini:assistant", plan="pro", windows={DAY: window(18, 9.5)}),
        make("gemini:lab", key, priority=200, label="API key, used last"),
        make("qwen:coder", key),
        make(
            "openai:basement",
            key,
            label="a server in the basement",
            base_url=f"{origin}/openai",
            models=list(COMPATIBLE_MODELS),
        ),
    ]
    lost = next(account for account in cast if account.id == SIGNED_OUT)
    lost.expires_at = now - SIGNED_OUT_S
    return cast


class FriendHabit(msgspec.Struct, frozen=True):
    """One way a friend works: a client and a model, and how often of all their sessions (weights)."""

    provider: Provider
    model: str
    weight: float
    agent: str
    dialect: Dialect
    operation: Operation


class Friend(msgspec.Struct, frozen=True):
    """A friend of the demo: `pace` sessions a working day, within `hours` (UTC), `since` that many days."""

    name: str
    pace: float
    hours: tuple[int, int]
    since: int
    habits: tuple[FriendHabit, ...]
    weekends: float = 0.25
    limits: dict[str, float] = {}


def _codex(model: str, weight: float) -> FriendHabit:
    agent = "Codex 0.169.0"
    return FriendHabit(Provider.CODEX, model, weight, agent, Dialect.RESPONSES, Operation.RESPONSES)


def _claude(model: str, weight: float) -> FriendHabit:
    return FriendHabit(Provider.CLAUDE, model, weight, "Claude Code 2.1.329", Dialect.MESSAGES, Operation.MESSAGES)


def _gemini(model: str, weight: float) -> FriendHabit:
    return FriendHabit(Provider.GEMINI, model, weight, "Gemini CLI 0.61.0", Dialect.CODE_ASSIST, Operation.GENERATE)


def _qwen(weight: float) -> FriendHabit:
    return FriendHabit(Provider.QWEN, "qwen3-coder-plus", weight, "Qwen Code 0.24.4", Dialect.CHAT, Operation.CHAT)


def _basement(weight: float) -> FriendHabit:
    return FriendHabit(Provider.OPENAI, COMPATIBLE_MODELS[0], weight, "opencode 1.18.33", Dialect.CHAT, Operation.CHAT)


FRIENDS: tuple[Friend, ...] = (
    Friend("Mara", 4.0, (7, 17), 118, (_claude("claude-opus-4-7", 3), _claude("claude-haiku-4-5", 1))),
    Friend(
        "Jonas",
        3.0,
        (8, 19),
        112,
        (_codex("gpt-5.5", 3), _codex("gpt-5.4-mini", 1), _claude("claude-sonnet-5", 1)),
    ),
    Friend("Aiko", 2.5, (0, 9), 96, (_claude("claude-sonnet-5", 2), _gemini("gemini-3.1-pro", 2))),
    Friend("Priya", 2.0, (4, 13), 74, (_gemini("gemini-3-flash", 3), _qwen(2)), 0.5),
    Friend("Tomás", 1.5, (14, 23), 51, (_codex("gpt-5.5", 2), _basement(1)), 0.9, {"tokens_week": 60_000_000}),
    Friend("Lena", 0.7, (9, 21), 23, (_qwen(1), _claude("claude-haiku-4-5", 2)), 1.2, {"cost_month": 50.0}),
)

MODELS: dict[Provider, tuple[str, ...]] = {
    provider: tuple(dict.fromkeys(h.model for friend in FRIENDS for h in friend.habits if h.provider is provider))
    for provider in Provider
}
