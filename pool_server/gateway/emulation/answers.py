"""What the pool answers itself, so that no CLI shows an error or waits at start: all around the model traffic.

Nothing here reaches a provider with a client's words; only the model catalogue is asked for, in the pool's own
name. Telemetry is swallowed. A path no client is known to use gets a 404 in its dialect.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import parse_qs, unquote

from pool_server import dialects
from pool_server.accounts import Accounts
from pool_server.core.enums import Dialect, Provider
from pool_server.core.models import ClientError, Send
from pool_server.core.settings import Settings
from pool_server.dialects import ModelInfo, ModelsShape, UsableModel
from pool_server.gateway.emulation import claude, codex, google
from pool_server.gateway.emulation.callable_models import Asker, with_aliases
from pool_server.gateway.emulation.catalogue import Catalogue
from pool_server.gateway.emulation.not_found import no_such_model, not_served
from pool_server.gateway.emulation.quota_windows import QuotaWindow, own, pooled, tightest
from pool_server.gateway.emulation.types import LocalAnswer, LocalRequest, answer, empty
from pool_server.gateway.emulation.usable_models import UNNAMED, Lookup, usable
from pool_server.ledger import Ledger
from pool_server.users import Principal, Users, model_allowed

__all__ = ["LocalAnswer", "LocalAnswers", "LocalRequest"]

_MOST_FIELDS = 32  # of a form
_PAGE_WAIT_S = 1.0  # seconds that a page waits for the vendors' lists
_TOKEN_LIFE_S = 86_400  # what a refreshed "access token" says; the key itself ends when the pool says so
_BACKEND = r"(?:/backend-api|/api/codex)"

# What clients of a list's shape speak.
_SPOKEN = {
    ModelsShape.OPENAI: (Dialect.CHAT, Dialect.RESPONSES),
    ModelsShape.CODEX: (Dialect.RESPONSES,),
    ModelsShape.ANTHROPIC: (Dialect.MESSAGES,),
    ModelsShape.GEMINI: (Dialect.GEMINI, Dialect.CODE_ASSIST),
}

OPEN: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("POST", re.compile(r"(?:/backend-api|/api/codex)?/ps/mcp")),
    ("HEAD", re.compile(r"/|/api/hello")),
    ("GET", re.compile(r"/api/hello")),
    ("POST", re.compile(r"/oauth/token|/v1/oauth/token")),  # the token in the body is what is judged
)

Handler = Callable[[LocalRequest], Awaitable[LocalAnswer]]


class LocalAnswers:
    """The data plane's local half. `send` makes the pool's own calls (the model catalogue)."""

    def __init__(
        self,
        settings: Settings,
        *,
        accounts: Accounts,
        users: Users,
        ledger: Ledger,
        send: Send,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._users = users
        self._clock = clock
        self.catalogue = Catalogue(settings, accounts=accounts, send=send, clock=clock)
        self._table = self._rules()

    def apply(self, settings: Settings) -> None:
        """New settings for calls that come from now on."""
        self._settings = settings
        self.catalogue.settings = settings

    def open_to_all(self, method: str, path: str) -> bool:
        """Is this one of the few calls that are answered without a key?"""
        return any(method == wanted and pattern.fullmatch(path) for wanted, pattern in OPEN)

    def handles(self, method: str, path: str) -> bool:
        """Is there an answer other than 404? `path` has no provider prefix."""
        return self._find(method, path) is not None

    async def answer(self, request: LocalRequest) -> LocalAnswer:
        handler = self._find(request.method, request.path)
        if handler is None:
            return self._unknown(request)
        return await handler(request)

    def _find(self, method: str, path: str) -> Handler | None:
        for methods, pattern, handler in self._table:
            if method in methods and pattern.fullmatch(path):
                return handler
        return None

    def _unknown(self, request: LocalRequest) -> LocalAnswer:
        origin = request.base_url
        return self._told(request, not_served(request.method, request.path, request.dialect, request.forced, origin))

    def _told(self, request: LocalRequest, error: ClientError) -> LocalAnswer:
        return LocalAnswer(*dialects.error(request.dialect, error, now=self._clock()))

    # ------------------------------------------------------------ the table

    def _rules(self) -> list[tuple[frozenset[str], re.Pattern[str], Handler]]:
        verbs = "|".join(sorted(google.VERBS))
        rules: list[tuple[str, str, Handler]] = [
            ("GET", rf"{_BACKEND}/(?:codex/)?models", self._codex_models),
            ("GET", r"(?:/v1)?/models", self._models),
            ("GET", r"/v1(?:beta1?|alpha)/models", self._models),
            ("GET", r"(?:/v1(?:beta1?|alpha)?)?/models/.+", self._model),
            ("GET", rf"{_BACKEND}/(?:wham/|codex/)?usage", self._codex_usage),
            ("GET", rf"{_BACKEND}/(?:wham/)?rate-limit-reset-credits", _reset_credits),
            ("POST", rf"{_BACKEND}/(?:wham/)?rate-limit-reset-credits/consume", _consume_credit),
            ("GET", rf"{_BACKEND}/(?:wham/)?accounts/check", self._accounts_check),
            ("GET", rf"{_BACKEND}/(?:wham/)?settings/user", _settings),
            ("GET", rf"{_BACKEND}?/ps/plugins/(?:installed|suggested/[\w.-]+)", _plugins),
            ("GET POST DELETE", rf"{_BACKEND}?/ps/mcp", _mcp),
            ("POST", rf"{_BACKEND}/(?:codex/)?analytics-events(?:/.*)?", _swallow),
            ("HEAD GET", r"/api/hello", _hello),
            ("HEAD", r"/", _hello),
            ("GET", r"/api/oauth/usage", self._claude_usage),
            ("GET", r"/api/oauth/profile", self._claude_profile),
            ("GET", r"/api/oauth/claude_cli/roles", _roles),
            ("GET", r"/api/claude_cli/bootstrap|/api/claude_code_penguin_mode", _nothing),
            ("GET", r"/api/directory/server-urls", _nothing),
            ("GET", r"/api/claude_code/organizations/metrics_enabled", _no_metrics),
            ("POST", r"/api/event_logging/.+|/api/eval/.+|/api/claude_code/metrics", _swallow),
            ("POST", rf"/v1internal:(?:{verbs})", self._code_assist),
            ("GET", r"/v1internal/operations/[\w.-]+", self._code_assist),
            ("POST", r"(?:/v1)?/oauth/token", self._refresh),
        ]
        return [(frozenset(methods.split()), re.compile(pattern), handler) for methods, pattern, handler in rules]

    # ------------------------------------------------------------ models

    async def every_model(self) -> list[ModelInfo]:
        """The models that some client can call, whatever it speaks."""
        return await self.catalogue.models(tuple(Provider), Asker(tuple(Dialect), self._settings.models.translate))

    async def usable(self, principal: Principal | None, dialect: Dialect) -> UsableModel:
        """What a client of this dialect can be told to ask for now, by this person; None: by nobody in particular."""
        limited = principal is not None and not principal.local
        held_to = self._users.limits.allowed(principal.user, "") if principal is not None and limited else []
        user = principal.user if principal is not None else ""
        lookup = Lookup(self._accounts, self._settings, user, held_to, dialect)
        asker = Asker((dialect,), self._settings.models.translate)
        listed = await self.catalogue.models(lookup.providers(UNNAMED), asker, wait_s=_PAGE_WAIT_S)
        return usable(lookup, with_aliases(listed, self._settings.models.aliases))

    async def _codex_models(self, request: LocalRequest) -> LocalAnswer:
        version = parse_qs(request.query).get("client_version", [""])[0]
        if not version:  # another client than the CLI, at its base URL
            return self._list(request, ModelsShape.OPENAI, await self._served(request, (Provider.CODEX,)))
        # All vendors are asked at once: Codex waits five seconds for the whole list.
        asker = Asker(_SPOKEN[ModelsShape.CODEX], self._settings.models.translate)
        asked = tuple(Provider) if request.forced is None else ()
        (models, etag), served = await asyncio.gather(
            self.catalogue.codex(version), self.catalogue.models(asked, asker, plans=False)
        )
        others: list[ModelInfo] = []
        if models or not self.catalogue.codex_signed_in():
            known = {model.id for model in models}
            others = [model for model in served if model.id not in known and dialects.converses(model.id)]
        listed = self._allowed(request.principal, [*models, *others])
        # Nobody could say: of an empty list the CLI uses the one it brings along; a 404 it would show as an error. The
        # vendor's ETag, which its answers repeat, does not tell what else is in the list: no 304 for it then.
        return self._list(request, ModelsShape.CODEX, listed, etag, changes=listed != models)

    async def _models(self, request: LocalRequest) -> LocalAnswer:
        shape = self._shape(request)
        if shape is ModelsShape.CODEX:
            return await self._codex_models(request)
        return self._list(request, shape, await self._served(request))

    async def _model(self, request: LocalRequest) -> LocalAnswer:
        wanted = unquote(request.path.partition("/models/")[2])
        models = await self._served(request)
        entry = next((dialects.model_entry(self._shape(request), one) for one in models if one.id == wanted), None)
        return answer(entry) if entry is not None else self._told(request, no_such_model(wanted))

    def _shape(self, request: LocalRequest) -> ModelsShape:
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        return dialects.models_shape(request.path, query, request.headers)

    def _list(
        self,
        request: LocalRequest,
        shape: ModelsShape,
        models: Sequence[ModelInfo],
        etag: str = "",
        *,
        changes: bool = False,
    ) -> LocalAnswer:
        """A model list; 304 when the client has it already, unless it `changes` while its ETag stays."""
        body = dialects.models_answer(shape, models)
        etag = etag or dialects.etag(body)
        if etag == request.headers.get("if-none-match") and not changes:
            return LocalAnswer(304, [("ETag", etag)])
        return LocalAnswer(200, [("Content-Type", "application/json"), ("ETag", etag)], body)

    async def _served(self, request: LocalRequest, providers: Sequence[Provider] = ()) -> list[ModelInfo]:
        asked = providers or ([request.forced] if request.forced is not None else list(Provider))
        strict = request.forced is None and not providers
        asker = Asker(_SPOKEN[self._shape(request)], self._settings.models.translate, strict)
        return self._allowed(request.principal, await self.catalogue.models(asked, asker))

    def _allowed(self, principal: Principal | None, models: list[ModelInfo]) -> list[ModelInfo]:
        """The models by the names they are called by here, as far as the limits of the user, and of their key, let them
        be used: both the name asked for and the model that serves."""
        aliases = self._settings.models.aliases
        if principal is None or principal.local:
            return with_aliases(models, aliases)
        held_to = self._users.limits.allowed(principal.user, principal.key)
        for limits in held_to:
            models = [one for one in models if limits.providers is None or one.owner in limits.providers]
            models = [one for one in models if model_allowed(limits, one.id)]
        named = with_aliases(models, aliases)
        return [one for one in named if all(model_allowed(limits, one.id) for limits in held_to)]

    # ------------------------------------------------------------ headroom

    def _room(self, provider: Provider, principal: Principal | None) -> list[QuotaWindow]:
        windows = pooled(self._accounts.glance(provider)[1])
        if principal is not None and not principal.local:
            windows += own(self._users.limits.of_caller(principal.user, principal.key))
        return tightest(windows)

    async def _codex_usage(self, request: LocalRequest) -> LocalAnswer:
        return codex.usage(self._room(Provider.CODEX, request.principal), self._clock())

    async def _claude_usage(self, request: LocalRequest) -> LocalAnswer:
        return claude.usage(self._room(Provider.CLAUDE, request.principal))

    async def _claude_profile(self, request: LocalRequest) -> LocalAnswer:
        assert request.principal is not None  # not one of the calls that are open to all
        return claude.profile(request.principal)

    async def _code_assist(self, request: LocalRequest) -> LocalAnswer:
        asker = Asker((Dialect.CODE_ASSIST,), self._settings.models.translate, strict=False)
        models = await self.catalogue.models([Provider.GEMINI], asker)
        room = self._room(Provider.GEMINI, request.principal)
        return google.code_assist(request, room, [model.id for model in models])

    # ------------------------------------------------------------ sign-in

    async def _accounts_check(self, request: LocalRequest) -> LocalAnswer:
        return codex.accounts_check(request, self._settings.public_url)

    async def _refresh(self, request: LocalRequest) -> LocalAnswer:
        """A CLI's token refresh that was led here. A pool key is its own refresh token: whoever shows a living one
        gets that very key back, and nobody gets another."""
        form = request.json() if request.body.lstrip()[:1] == b"{" else _form(request.body)
        token = form.get("refresh_token") if isinstance(form, dict) else None
        owner = self._users.authenticate(token) if isinstance(token, str) and token else None
        if not isinstance(owner, Principal) or (request.principal is not None and request.principal != owner):
            message = "This is not a refresh token of the pool; sign in to the pool again."
            error = {"code": "refresh_token_invalidated", "type": "invalid_request_error", "message": message}
            return answer({"error": error, "error_description": message}, 401)
        tokens = {"access_token": token, "refresh_token": token}
        return answer({**tokens, "token_type": "Bearer", "expires_in": _TOKEN_LIFE_S})


def _form(body: bytes) -> dict[str, str]:
    """The fields of a form, {} when there are too many for any client's."""
    try:
        return {
            name: values[0] for name, values in parse_qs(body.decode("latin-1"), max_num_fields=_MOST_FIELDS).items()
        }
    except ValueError:
        return {}


async def _swallow(request: LocalRequest) -> LocalAnswer:
    """Telemetry: taken and forgotten."""
    return answer({})


async def _hello(request: LocalRequest) -> LocalAnswer:
    return empty(200) if request.method == "HEAD" else answer({"message": "hello"})


async def _nothing(request: LocalRequest) -> LocalAnswer:
    return answer({})


async def _no_metrics(request: LocalRequest) -> LocalAnswer:
    return answer({"metrics_logging_enabled": False})


async def _roles(request: LocalRequest) -> LocalAnswer:
    return claude.roles()


async def _reset_credits(request: LocalRequest) -> LocalAnswer:
    return codex.reset_credits()


async def _consume_credit(request: LocalRequest) -> LocalAnswer:
    return codex.consume_reset_credit()


async def _settings(request: LocalRequest) -> LocalAnswer:
    return codex.settings()


async def _plugins(request: LocalRequest) -> LocalAnswer:
    return codex.plugins(request)


async def _mcp(request: LocalRequest) -> LocalAnswer:
    return codex.mcp(request)
