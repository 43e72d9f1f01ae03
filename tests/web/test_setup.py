"""Set-up scripts: tickets, quoting, and what running them does to a home folder."""

from __future__ import annotations

import base64
import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli
import tree_sitter_powershell
from hypothesis import given
from hypothesis import strategies as st
from tree_sitter import Language, Parser

from pool_server.texts import client_settings
from pool_server.web.onboarding import quoting, scripts, snippets
from tests.web.pool import CODE, usable
from tests.web.site import LiveSite, Site

BASE, KEY = "http://127.0.0.1:4100", "pk.FAKE.it's-a-key"
JSON_CLIS = ("claude", "gemini", "qwen", "opencode")
PATH = "/usr/local/bin:/usr/bin:/bin"
FILES = {
    "claude": ".claude/settings.json",
    "gemini": ".gemini/settings.json",
    "qwen": ".qwen/settings.json",
    "opencode": ".config/opencode/opencode.json",
}


def text_of(cli: str, *, powershell: bool = False, key: str = KEY, pool: str = "Bob's pool") -> str:
    return scripts.script(cli, powershell=powershell, base=BASE, key=key, pool=pool, usable=usable())


def sh(home: Path, script: str, *args: str, path: str = PATH, **env: str) -> str:
    """Runs a script as the one-line command does: the shell reads it from its input."""
    done = subprocess.run(
        ["sh", "-s", *args],
        input=script,
        env={"HOME": str(home), "PATH": path, **env},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def undo(home: Path, cli: str) -> None:
    sh(home, (home / ".local/state/pool-server" / cli / "undo.sh").read_text())


def tree(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


# -- tickets ------------------------------------------------------------------------------------------------------


def signed_in(site: Site) -> dict[str, str]:
    entered = site.post("/api/friend/login", {"code": CODE, "name": "Ada", "passphrase": "correct horse battery"})
    cookies = entered.cookies()
    page = site.get("/", Accept="text/html", Cookie=f"pool_session={cookies['pool_session']}")
    token = page.text.partition('name="xsrf" content="')[2].partition('"')[0]
    xsrf = page.cookies().get("_xsrf", cookies["_xsrf"])
    return {"Cookie": f"pool_session={cookies['pool_session']}; _xsrf={xsrf}", "X_XSRFToken": token}


def test_a_ticket_is_good_for_one_script(friends: Site) -> None:
    me = signed_in(friends)
    made = friends.post("/api/setup-tickets", {"label": "laptop"}, **me).json()
    assert made["expires_in"] == 600
    first = friends.get(f"/setup/{made['ticket']}/claude")
    assert (first.status, first.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    key = re.search(r'"ANTHROPIC_AUTH_TOKEN"\], "([^"]+)"', first.text)
    assert key is not None
    assert friends.get("/status", Authorization=f"Bearer {key[1]}").status == 200
    again = friends.get(f"/setup/{made['ticket']}/claude")
    assert again.text.startswith("printf")
    assert key[1] not in again.text
    labels = [row["label"] for row in friends.get("/api/me", Cookie=me["Cookie"]).json()["keys"]]
    assert "Claude Code" in labels


@pytest.mark.parametrize(
    "path",
    ["/setup/unknown/claude", "/setup/$(reboot)/claude", "/setup/'%3Breboot%3B'/claude", "/setup/local/claude",
     "/setup/%2e%2e/claude"],
)  # fmt: skip
def test_no_ticket_no_script(friends: Site, path: str) -> None:
    answer = friends.get(path)
    assert "reboot" not in answer.text
    assert answer.status == 404 or answer.text == scripts.refusal(friends.url, powershell=False)


def test_a_line_that_was_used_says_so_and_fails(live_friends: LiveSite, tmp_path: Path) -> None:
    friends = live_friends
    ticket = friends.post("/api/setup-tickets", **signed_in(friends)).json()["ticket"]
    assert friends.get(f"/setup/{ticket}/claude").status == 200
    line, windows = snippets.one_line(friends.url, ticket, "claude")
    home = tmp_path / "home"
    home.mkdir()
    env = {"HOME": str(home), "PATH": PATH}
    done = subprocess.run(["sh", "-c", line.text], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"pool-server: this line was used or has expired. Copy a new one from {friends.url}/\n"
    assert tree(home) == {}
    refused = friends.get(windows.text.split("'")[1].removeprefix(friends.url))
    assert refused.text.startswith("throw 'pool-server: this line was used")


def test_every_client_s_line_has_a_ticket_of_its_own(friends: Site) -> None:
    page = friends.get("/", Accept="text/html", Cookie=signed_in(friends)["Cookie"]).text
    tickets = {cli: set(re.findall(rf"/setup/([A-Za-z0-9_-]{{32}})/{cli}", page)) for cli in client_settings.CLIS}
    assert [len(found) for found in tickets.values()] == [1] * len(client_settings.CLIS)
    assert len(set.union(*tickets.values())) == len(client_settings.CLIS)


def test_a_forged_host_gets_no_script_and_does_not_cost_the_ticket(friends: Site) -> None:
    ticket = friends.post("/api/setup-tickets", **signed_in(friends)).json()["ticket"]
    for host in ("evil.example;reboot", "$(reboot)", "a b", "x'y"):
        answer = friends.get(f"/setup/{ticket}/codex", Host=host)
        assert answer.status == 400
        assert "reboot" not in answer.text
    assert friends.get(f"/setup/{ticket}/codex").status == 200


def test_local_mode_needs_no_ticket(local: Site) -> None:
    for cli in client_settings.CLIS:
        assert local.get(f"/setup/local/{cli}").status == 200
        assert local.get(f"/setup/local/{cli}?shell=powershell").text.startswith("& {")
    assert local.get("/setup/local/emacs").status == 404


# -- quoting ------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(blacklist_categories=("Cc", "Cs", "Cf", "Zl", "Zp", "Cn", "Co", "Zs"))))
def test_a_quoted_word_is_itself_to_a_shell(value: str) -> None:
    echoed = subprocess.run(["sh", "-c", f"printf %s {quoting.sh(value)}"], capture_output=True, check=True)
    assert echoed.stdout == value.encode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_powershell_words_have_every_kind_of_single_quote_doubled(value: str) -> None:
    try:
        quoted = quoting.ps(value)
    except ValueError:
        return
    inner = quoted[1:-1]
    assert not re.sub("([\u2018\u2019\u201a\u201b'])\\1", "", inner).strip("\0").count("'")
    assert all(inner.count(mark) == 2 * value.count(mark) for mark in "'\u2018\u2019\u201a\u201b")


@pytest.mark.parametrize("value", ["a\nb", "a\x00b", "a\x1bb", "a\u2028b", "a\rb"])
@pytest.mark.parametrize("quote", [quoting.sh, quoting.ps, quoting.toml])
def test_control_characters_are_refused(quote: Any, value: str) -> None:
    with pytest.raises(ValueError, match="control"):
        quote(value)


@pytest.mark.parametrize("cli", client_settings.CLIS)
def test_a_hostile_key_or_pool_name_stays_a_value(cli: str, tmp_path: Path) -> None:
    key, pool = "k'; touch owned; '$(touch owned)`touch owned`\\", "x'; touch owned\n#\u2019; $(touch owned)"
    sh(tmp_path, text_of(cli, key=key, pool=pool))
    assert not list(tmp_path.rglob("owned"))
    assert not Path("owned").exists()


# -- running them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cli", client_settings.CLIS)
def test_twice_is_once_and_the_undo_leaves_nothing(cli: str, tmp_path: Path) -> None:
    said = sh(tmp_path, text_of(cli))
    assert "Try it" in said
    assert KEY not in said
    once = {name: body for name, body in tree(tmp_path).items() if ".local" not in name}
    sh(tmp_path, text_of(cli))
    assert {name: body for name, body in tree(tmp_path).items() if ".local" not in name} == once
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in tree(tmp_path)}
    assert set(modes.values()) == {0o600}, modes
    undo(tmp_path, cli)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("cli", client_settings.CLIS)
def test_undo_by_argument_too(cli: str, tmp_path: Path) -> None:
    sh(tmp_path, text_of(cli))
    assert "as it was before" in sh(tmp_path, text_of(cli), "undo")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("tool", ["node", "python3"])
@pytest.mark.parametrize("cli", JSON_CLIS)
def test_foreign_settings_are_kept_and_come_back(cli: str, tool: str, tmp_path: Path) -> None:
    found = sys.executable if tool == "python3" else shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed")
    bins = tmp_path / "bin"
    bins.mkdir()
    for name in ["sh", "awk", "cat", "chmod", "cp", "mkdir", "mktemp", "mv", "rm", "dirname", "basename", "printenv"]:
        (bins / name).symlink_to(shutil.which(name) or name)
    (bins / tool).write_text(f'#!/bin/sh\nexec {found} "$@"\n')
    (bins / tool).chmod(0o755)
    home = tmp_path / "home"
    file = home / FILES[cli]
    file.parent.mkdir(parents=True)
    before = {
        "theme": "dark — “ö”",
        "env": {"ANTHROPIC_API_KEY": "sk-own", "MY_OWN": "1", "ANTHROPIC_BASE_URL": "http://other"},
        "security": {"auth": {"selectedType": "other", "useExternal": True}},
        "model": {"name": "own-model", "maxTurns": 3},
        "provider": {"anthropic": {"options": {"apiKey": "sk-own"}}, "mine": {"name": "Mine"}},
        "list": [{"one": [1]}],
        "when": "2026-01-02T03:04:05Z",
        "apiKeyHelper": "own.sh",
    }
    file.write_text(json.dumps(before, ensure_ascii=False))
    sh(home, text_of(cli), path=str(bins))
    after = json.loads(file.read_text())
    assert (after["theme"], after["list"], after["when"]) == (before["theme"], before["list"], before["when"])
    assert after["env"]["MY_OWN"] == "1"
    assert after["provider"]["mine"] == {"name": "Mine"}
    assert after["model"]["maxTurns"] == 3
    if cli == "claude":
        assert after["env"]["ANTHROPIC_AUTH_TOKEN"] == KEY
        assert after["env"]["ANTHROPIC_BASE_URL"] == BASE
        assert not {"ANTHROPIC_API_KEY", "apiKeyHelper"} & (set(after["env"]) | set(after))
    after["added"] = "meanwhile"
    file.write_text(json.dumps(after))
    sh(home, text_of(cli, key="another.key.now"), path=str(bins))
    undo_script = (home / ".local/state/pool-server" / cli / "undo.sh").read_text()
    sh(home, undo_script, path=str(bins))
    assert json.loads(file.read_text()) == {**before, "added": "meanwhile"}
    written = "\ufeff" + json.dumps(before, ensure_ascii=False, separators=(" ,", ":\t"))
    file.write_text(written, encoding="utf-8")
    sh(home, text_of(cli), path=str(bins))
    sh(home, undo_script, path=str(bins))
    assert file.read_text(encoding="utf-8") == written, "to the byte, where nothing else was changed since"


def test_a_file_with_comments_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / ".claude" / "settings.json"
    file.parent.mkdir()
    file.write_text('{\n  // mine\n  "env": {}\n}\n')
    done = subprocess.run(
        ["sh", "-s"], input=text_of("claude"), env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "nothing was changed" in done.stderr
    assert file.read_text() == '{\n  // mine\n  "env": {}\n}\n'


def test_a_linked_file_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "config.toml"
    real.parent.mkdir()
    real.write_text('model = "gpt-5"\n')
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "config.toml").symlink_to(real)
    sh(tmp_path, text_of("codex"))
    assert (tmp_path / ".codex" / "config.toml").is_symlink()
    assert BASE in real.read_text()
    undo(tmp_path, "codex")
    assert real.read_text() == 'model = "gpt-5"\n'


CONFIGS = {
    "plain": 'model = "gpt-5"\n',
    "tables": (
        'model = "x"\n\n[analytics]\nenabled = true\nother = 1\n\n'
        "[features]\n  apps = true\nweb = true\n\n[tui]\na = 1\n"
    ),
    "quoted": '"model_provider" = "mine"\n[model_providers.mine]\nname = "mine"\nbase_url = "http://x"\n',
    "dotted": "analytics.enabled = true\nanalytics.level = 2\nfeatures.apps = true\n[tui]\nenabled = 1\n",
    "below": "[features.extra]\na = 1\n[analytics.x]\nb = 2\n",
    "inline": 'features = { apps = true }\nopenai_base_url = "http://other"\n',
    "spaces": "  [ analytics ]   # mine\n\tenabled   =   true # yes\n",
    "array": 'notify = [\n  "a",\n  "b",\n]\n[mcp_servers.x]\ncommand = "enabled = true"\n',
    "windows": 'model = "x"\r\n[analytics]\r\nenabled = true\r\n',
    "empty": "",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_codex_settings_keep_everything_else_and_stay_toml(name: str, tmp_path: Path) -> None:
    file = tmp_path / ".codex" / "config.toml"
    file.parent.mkdir()
    before = CONFIGS[name]
    file.write_bytes(before.encode())
    sh(tmp_path, text_of("codex"))
    sh(tmp_path, text_of("codex"))
    after = tomli.loads(file.read_text())
    assert after["openai_base_url"] == f"{BASE}/backend-api/codex"
    assert after["chatgpt_base_url"] == f"{BASE}/backend-api"
    assert "model_provider" not in after
    assert after["analytics"]["enabled"] is False
    if name != "inline":
        assert (after["features"]["apps"], after["features"]["plugins"]) == (False, False)
    was = tomli.loads(before)
    changed = {"openai_base_url", "chatgpt_base_url", "model_provider", "analytics", "features"}
    assert {k: after[k] for k in after.keys() - changed} == {k: was[k] for k in was.keys() - changed}
    for table in ("analytics", "features"):
        kept = {k: v for k, v in was.get(table, {}).items() if k not in ("enabled", "apps", "plugins")}
        assert kept.items() <= after[table].items()
    undo(tmp_path, "codex")
    assert file.read_bytes() == before.encode()


def test_codexs_own_login_comes_back(tmp_path: Path) -> None:
    auth = tmp_path / ".codex" / "auth.json"
    auth.parent.mkdir()
    auth.write_text('{"tokens":{"account_id":"acc-own"}}')
    sh(tmp_path, text_of("codex"))
    ours = json.loads(auth.read_text())
    assert ours["tokens"]["account_id"] is None
    assert "chatgpt_account_id" not in auth.read_text()
    assert ours["tokens"]["access_token"] == KEY
    auth.write_text('{"tokens":{"account_id":"acc-second"}}')  # signed in by oneself in between
    sh(tmp_path, text_of("codex"))
    assert (tmp_path / ".local/state/pool-server/codex/auth.json.older").read_text().count("acc-own") == 1
    undo(tmp_path, "codex")
    assert auth.read_text() == '{"tokens":{"account_id":"acc-second"}}'


def test_the_environment_file_keeps_other_lines_and_sets_conflicts_aside(tmp_path: Path) -> None:
    file = tmp_path / ".gemini" / ".env"
    file.parent.mkdir()
    before = "# mine\nexport GEMINI_API_KEY=own\nOTHER=1\nCODE_ASSIST_ENDPOINT = http://other\n"
    file.write_text(before)
    sh(tmp_path, text_of("gemini"))
    sh(tmp_path, text_of("gemini"))
    lines = file.read_text().splitlines()
    assert "OTHER=1" in lines
    assert "# pool-server kept: export GEMINI_API_KEY=own" in lines
    assert lines.count(f"CODE_ASSIST_ENDPOINT={BASE}") == 1
    undo(tmp_path, "gemini")
    assert file.read_text() == before


def test_what_is_exported_and_would_win_is_named(tmp_path: Path) -> None:
    said = sh(tmp_path, text_of("claude"), ANTHROPIC_API_KEY="sk-own-secret", CLAUDE_CODE_USE_BEDROCK="1")
    assert "unset ANTHROPIC_API_KEY" in said
    assert "CLAUDE_CODE_USE_BEDROCK" in said
    assert "sk-own-secret" not in said


# -- settings that are elsewhere ------------------------------------------------------------------------------------

MOVED = {
    "codex": ("CODEX_HOME", "config.toml"),
    "claude": ("CLAUDE_CONFIG_DIR", "settings.json"),
    "gemini": ("GEMINI_CLI_HOME", ".gemini/settings.json"),
    "qwen": ("QWEN_HOME", "settings.json"),
    "opencode": ("OPENCODE_CONFIG", ""),
}


@pytest.mark.parametrize("place", ["elsewhere", "it's $(touch owned) `here`", "."])
@pytest.mark.parametrize("cli", client_settings.CLIS)
def test_settings_are_written_where_the_cli_looks_and_taken_back_from_there(
    cli: str, place: str, tmp_path: Path
) -> None:
    variable, name = MOVED[cli]
    moved = tmp_path / place
    moved.mkdir(exist_ok=True)
    where = moved / "own.json" if cli == "opencode" else moved
    file = where if cli == "opencode" else moved / name
    said = sh(tmp_path, text_of(cli), **{variable: str(where)})
    assert file.exists()
    assert any(BASE.encode() in body for body in tree(moved).values())
    assert not (tmp_path / f".{cli}").exists() or place == "."
    undo_file = next(tmp_path.glob(".local/state/pool-server/*/undo.sh"))
    assert str(undo_file).replace("'", "'\\''") in said
    sh(tmp_path, undo_file.read_text(), **{variable: str(tmp_path / "another")})
    assert not file.exists()
    assert not list(tmp_path.rglob("owned"))
    assert not undo_file.parent.exists()


def test_the_undo_of_one_place_leaves_the_other_alone(tmp_path: Path) -> None:
    own = '{"tokens":{"account_id":"acc-own"}}'
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "auth.json").write_text(own.replace("own", name))
        sh(tmp_path, text_of("codex"), CODEX_HOME=str(tmp_path / name))
    sh(tmp_path, text_of("codex"), "undo", CODEX_HOME=str(tmp_path / "two"))
    assert (tmp_path / "two" / "auth.json").read_text() == own.replace("own", "two")
    assert KEY in (tmp_path / "one" / "auth.json").read_text()
    sh(tmp_path, text_of("codex"), "undo", CODEX_HOME=str(tmp_path / "one"))
    assert (tmp_path / "one" / "auth.json").read_text() == own.replace("own", "one")


@pytest.mark.parametrize("cli", client_settings.CLIS)
def test_where_nothing_was_set_up_nothing_is_undone_or_lost(cli: str, tmp_path: Path) -> None:
    variable, _ = MOVED[cli]
    place = tmp_path / "x.json" if cli == "opencode" else tmp_path / "elsewhere"
    sh(tmp_path, text_of(cli), **{variable: str(place)})
    before = tree(tmp_path)
    done = subprocess.run(
        ["sh", "-s", "undo"],
        input=text_of(cli),
        env={"HOME": str(tmp_path), "PATH": PATH},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "nothing to undo here" in done.stderr
    assert tree(tmp_path) == before


def test_a_sign_in_that_cannot_be_put_back_is_kept(tmp_path: Path) -> None:
    auth = tmp_path / ".codex" / "auth.json"
    auth.parent.mkdir()
    auth.write_text("mine at first")
    sh(tmp_path, text_of("codex"))
    auth.write_text("mine, signed in later")
    said = sh(tmp_path, text_of("codex"), "undo")
    kept = tmp_path / ".local/state/pool-server/codex/auth.json.before"
    assert auth.read_text() == "mine, signed in later"
    assert kept.read_text() == "mine at first"
    assert str(kept) in said


@pytest.mark.parametrize("cli", client_settings.CLIS)
def test_settings_removed_meanwhile_come_back_as_they_were(cli: str, tmp_path: Path) -> None:
    name = ".codex/config.toml" if cli == "codex" else FILES[cli]
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.write_text('model = "mine"\n' if cli == "codex" else '{"theme": "mine"}\n')
    before = file.read_text()
    sh(tmp_path, text_of(cli))
    file.unlink()
    undo(tmp_path, cli)
    assert file.read_text() == before


@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if name not in ("tables", "below", "inline", "spaces", "windows")]
)
def test_the_lines_by_hand_on_top_of_a_file_leave_its_keys_where_they_were(name: str) -> None:
    was = CONFIGS[name]
    mine = {"analytics.enabled", "features.apps", "openai_base_url"}
    kept = "".join(line for line in was.splitlines(True) if not any(line.startswith(one) for one in mine))
    both = tomli.loads(client_settings.codex_toml(BASE) + "\n" + kept)
    before = tomli.loads(kept)
    added = {"openai_base_url", "chatgpt_base_url", "analytics", "features"}
    assert {k: both[k] for k in both.keys() - added} == {k: before[k] for k in before.keys() - added}
    assert both["features"]["apps"] is False


def test_no_key_is_left_in_an_undo(tmp_path: Path) -> None:
    for cli in client_settings.CLIS:
        sh(tmp_path, text_of(cli))
        assert KEY not in (tmp_path / ".local/state/pool-server" / cli / "undo.sh").read_text()
        assert KEY not in text_of(cli, powershell=True).partition("$undo = @'")[2].partition("\n'@")[0]


# -- PowerShell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cli", client_settings.CLIS)
def test_powershell_text_runs_on_the_version_windows_ships(cli: str) -> None:
    text = text_of(cli, powershell=True)
    assert not text.startswith("\ufeff")
    assert text.isascii()
    for newer in ("utf8NoBOM", "-AsHashtable", "??", "&&", "||", "$IsWindows", "-SkipCertificateCheck", "?."):
        code = re.sub(r"(?s)\$Merge = @'.*?\n'@", "", text)
        assert newer not in code, newer
    assert "UTF8Encoding($false)" in text
    assert text.count("{") == text.count("}") or cli != "codex"
    assert quoting.ps(KEY) in text or KEY.replace("'", "''") in text


def test_powershell_here_strings_are_closed_by_nothing_inside() -> None:
    for cli in client_settings.CLIS:
        text = text_of(cli, powershell=True)
        assert len(re.findall(r"@'$", text, re.M)) == len(re.findall(r"^'@", text, re.M))


@pytest.mark.parametrize("cli", client_settings.CLIS)
def test_powershell_text_is_grammatical(cli: str) -> None:
    parser = Parser(Language(tree_sitter_powershell.language()))
    texts = [text_of(cli, powershell=True), scripts.refusal(BASE, powershell=True)]
    texts += re.findall(r"(?s)\$undo = @'\n(.*?)\n'@", texts[0])
    texts += [base64.b64decode(part).decode() for part in re.findall(r"\$undo = '([A-Za-z0-9+/=]{99,})'", texts[0])]
    assert len(texts) == 3
    for text in texts:
        assert not parser.parse(text.encode()).root_node.has_error
    assert parser.parse(b"function { broken").root_node.has_error
