"""What the coding agents without a set-up script of their own must be told. Pure.

Tried as they stand with aider 0.86, the CLIs of Cline 3.0, Continue 1.5 and GitHub Copilot 1.0, and pi 0.73. Sources of
the settings: aider.chat/docs/llms/openai-compat, docs.cline.bot, docs.continue.dev/reference, `copilot help providers`,
pi's docs/models.md.
"""

from __future__ import annotations

import json

from pool_server.dialects import UsableModel
from pool_server.language import gettext as _
from pool_server.web.onboarding.quoting import sh, word
from pool_server.web.onboarding.steps import Client, Step, exports, named, pretty


def agents(base: str, key: str, usable: UsableModel) -> tuple[Client, ...]:
    """aider, Cline, Continue, GitHub Copilot and pi, each through Chat Completions."""
    url, model = f"{base}/v1", named(usable)
    return (
        Client(
            "aider",
            "aider",
            exports({"OPENAI_API_BASE": url, "OPENAI_API_KEY": key}),
            f'aider --model {word("openai/" + model)} --message "say hi"',
            usable,
        ),
        Client("cline", "Cline", _cline(url, key, model), 'cline "say hi"', usable),
        Client("continue", "Continue", (_continue(url, key, model),), 'cn -p "say hi"', usable),
        Client(
            "copilot",
            "GitHub Copilot",
            exports(
                {
                    "COPILOT_PROVIDER_BASE_URL": url,
                    "COPILOT_PROVIDER_API_KEY": key,
                    "COPILOT_MODEL": model,
                    "COPILOT_OFFLINE": "true",
                }
            ),
            'copilot -p "say hi"',
            usable,
        ),
        Client("pi", "pi", (_pi(url, key, model),), f'pi --model {word("pool/" + model)} -p "say hi"', usable),
    )


def _cline(url: str, key: str, model: str) -> tuple[Step, ...]:
    line = f"cline auth -p openai-compatible -b {sh(url)} -k {sh(key)} -m {sh(model)}"
    fields = f"API Provider: OpenAI Compatible\nBase URL: {url}\nOpenAI Compatible API Key: {key}\nModel ID: {model}"
    return Step(_("In a shell, for the CLI:"), line), Step(_("In the editor, under Cline's settings:"), fields)


def _continue(url: str, key: str, model: str) -> Step:
    """YAML takes JSON's strings, which need no thought about quoting."""
    fields = {"name": "Pool", "provider": "openai", "model": model, "apiBase": url, "apiKey": key}
    first, *rest = (f"{name}: {json.dumps(value)}" for name, value in fields.items())
    lines = ["name: Pool", "version: 1.0.0", "schema: v1", "models:", f"  - {first}", *(f"    {one}" for one in rest)]
    return Step(_("As ~/.continue/config.yaml, or its last lines under your own models:"), "\n".join(lines))


def _pi(url: str, key: str, model: str) -> Step:
    provider = {"baseUrl": url, "api": "openai-completions", "apiKey": key, "models": [{"id": model}]}
    return Step(_("Into ~/.pi/agent/models.json:"), pretty({"providers": {"pool": provider}}))
