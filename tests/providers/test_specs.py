"""A vendor is one folder and one line in a list: its parts are complete, and nobody else says its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pool_server
from pool_server.core.enums import CredentialKind, Operation, Provider
from pool_server.core.settings import Settings
from pool_server.providers import SPECS, provider_module
from pool_server.texts import labels
from tests.providers.make import cred

PACKAGE = Path(pool_server.__file__).parent
ROOT = PACKAGE.parent


def missing(provider: Provider) -> list[str]:
    """The parts a vendor lacks, in words for whoever adds one."""
    spec = SPECS.get(provider)
    if spec is None:
        return [f"a module in providers/{provider}/ and its line in providers/__init__.py"]
    found = []
    if not spec.label:
        found.append("a label for people")
    keyless = cred(provider).kind is CredentialKind.SERVICE_ACCOUNT
    if not (spec.keys.fields or keyless) or not spec.keys.dialects:
        found.append("its API keys: fields and dialects")
    elif spec.keys.dialects[0] is not spec.home:
        found.append("the dialect of its home first among those its keys speak")
    if not spec.keys.upstream(Settings()).startswith(("https://", "http://127.0.0.1")):
        found.append("an address in [upstreams]")
    if not spec.missing:
        found.append("what a file without a credential lacks")
    sample = cred(provider, key=True)
    module = provider_module(provider)
    if not module.egress(sample, Settings()):
        found.append("the hosts an account may reach")
    if not any(module.serves(sample, operation, spec.home, "") for operation in Operation):
        found.append("a call it serves in its own dialect")
    if f"`{provider}_" not in (ROOT / "docs/accounts.md").read_text():
        found.append("its file in docs/accounts.md")
    return found


@pytest.mark.parametrize("provider", list(Provider))
def test_every_vendor_has_all_its_parts(provider: Provider) -> None:
    assert missing(provider) == []


def test_a_member_without_its_parts_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(SPECS, Provider.QWEN)
    assert missing(Provider.QWEN) == ["a module in providers/qwen/ and its line in providers/__init__.py"]


def test_names_are_told_apart() -> None:
    spoken = [spec.label for spec in SPECS.values()]
    assert len(set(spoken)) == len(spoken) and {*labels.PROVIDERS} == {*Provider}
    assert sum(spec.unnamed for spec in SPECS.values()) == 1


@pytest.mark.parametrize("provider", [one for one in Provider if cred(one).kind is CredentialKind.OAUTH])
def test_what_a_refresh_writes_is_owned(provider: Provider) -> None:
    assert SPECS[provider].owned


# Vendors' names stand in their folders, in the emulation of what their clients ask and the paths they use, in the
# set-up and start of their clients, in what is taken over from other programs and lent to them, in the dialects that
# are named after them, and in the demo and simulation.
ALLOWED = (
    "providers/", "gateway/emulation/", "gateway/routes/", "gateway/objects/", "accounts/objects/", "web/onboarding/",
    "dialects/", "demo/", "simulation/", "cli/importing/", "cli/sync/", "cli/run/", "users/identity/imported/",
)  # fmt: skip
NAMES = re.compile(r"(?i:codex|claude|gemini|qwen|openai|anthropic)|Provider\.[A-Z]{3,}\b")

# Beyond that they stand in these files alone (room and file name). A file may leave this list, none may come in.
EXCEPTIONS = {
    "accounts/translated.py": "which dialect a sign-in speaks",
    "cli/__init__.py": "which programs a command starts, or lends an account to",
    "cli/doctor.py": "an example of a command",
    "cli/transcripts.py": "the folder of Codex's own sessions",
    "core/enums.py": "the closed vocabularies themselves",
    "core/settings.py": "the settings' names, which are a contract",
    "core/settings_file.py": "the same",
    "gateway/dialling.py": "the dialect of a live conversation",
    "gateway/entry.py": "Codex's WebSocket",
    "gateway/exchange.py": "a header of Codex's protocol",
    "gateway/handler.py": "Codex's WebSocket",
    "gateway/headers.py": "headers of the vendors",
    "gateway/held_conversations.py": "Codex's WebSocket",
    "gateway/pipeline.py": "a header of Codex's protocol",
    "gateway/programs.py": "what client programs are called",
    "gateway/service.py": "the setting of Codex's WebSocket",
    "gateway/translation.py": "headers of Codex's own client",
    "gateway/transport.py": "whether quota headers are shown; Codex's WebSocket",
    "ledger/codec.py": "a sample for the compressor",
    "ledger/model_ids.py": "spellings of model names",
    "statusline.py/statusline.py": "a variable of Claude Code's",
    "texts/client_settings.py": "the settings of client programs",
    "texts/settings.py": "the settings' names",
    "transcripts/replacing.py": "fields of the dialects",
    "users/__init__.py": "another pool's name",
    "users/importer.py": "another program's name",
    "web/contributing.py": "the programs an invitation speaks of",
    "web/models_page.py": "the operations of a dialect",
    "web/story.py": "what the dialects are called",
}


def test_no_vendors_name_stands_elsewhere() -> None:
    found = {
        f"{name.partition('/')[0]}/{path.name}": line
        for path in sorted(PACKAGE.rglob("*.py"))
        if not (name := path.relative_to(PACKAGE).as_posix()).startswith(ALLOWED)
        for line in _code(path)
        if NAMES.search(line)
    }
    more = {name: line.strip() for name, line in found.items() if name not in EXCEPTIONS}
    assert not more, f"take what is needed from the vendor's ProviderSpec: {more}"
    assert found.keys() == EXCEPTIONS.keys(), "these files are clean now: take them off the list"


def _code(path: Path) -> list[str]:
    """The lines of a file without comments and docstrings, which may give examples."""
    text = re.sub(r'"""(?:[^"\\]|\\.|"(?!""))*"""', "", path.read_text(encoding="utf-8"))
    return [re.sub(r"(?:^|\s)#.*", "", line) for line in text.splitlines()]
