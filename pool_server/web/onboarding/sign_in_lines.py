"""The line that somebody runs on their own machine to sign an account in, and the script behind it."""

from __future__ import annotations

from typing import Any

from pool_server.core.enums import Provider
from pool_server.providers import SPECS
from pool_server.texts import client_settings
from pool_server.web.onboarding import quoting, scripts, snippets
from pool_server.web.onboarding.steps import Step

# The vendors whose own programs can be run for a sign-in that the pool can use.
PROGRAMS = tuple(one for one in SPECS if one.value in snippets.SIGN_IN_PROGRAMS)


def lines(base: str, ticket: str) -> tuple[Step, Step]:
    """The command that fetches and runs the script, for both kinds of shell."""
    url = f"{base}/contribute/{ticket}"
    return (
        Step("", f"curl -fsSL {quoting.sh(url)} | sh", "posix"),
        Step("", f"irm {quoting.ps(url + '?shell=powershell')} | iex", "powershell"),
    )


def script(provider: Provider, *, powershell: bool, base: str, ticket: str, pool: str) -> str:
    """The script of a sign-in with `provider`'s program. Raises ValueError when a value cannot be quoted."""
    shown = "".join(char for char in pool if char.isalnum() or char in " .-_'") or "the pool"
    values: dict[str, Any] = {
        "cli": provider.value,
        "label": client_settings.LABELS[provider.value],
        "program": provider.value,
        "install": client_settings.INSTALL[provider.value],
        "notice": SPECS[provider].notice,
        "pool": shown,
        "url": f"{base}/contribute/{ticket}",
    }
    return scripts.render(f"contribute.{'ps1' if powershell else 'sh'}", values)
