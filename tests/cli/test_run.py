"""`pool-server run` and `pool-server login`: one run of a CLI with a pool, its key kept, nothing else touched."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.cli.account import reconcile
from pool_server.cli.run import pools
from pool_server.cli.run.clients import RECIPES, Asked, Launch
from pool_server.core.settings import SECRET, PoolUsers
from pool_server.core.settings_file import VARIABLES
from tests.cli.conftest import Shell
from tests.fakes import FakeProviders, account, fake_settings
from tests.process import PoolProcess, environment, until

BASE, KEY = "https://pool.example.org", "key-of-ann"
FAKE_CLI = """#!{python}
import json, os, signal, sys, time
if "wait" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
    print("ready", os.getpid(), flush=True)
    time.sleep(60)
print(json.dumps({{"argv": sys.argv[1:], "env": dict(os.environ), "stdin": sys.stdin.read()}}))
sys.exit(7)
"""


def launched(cli: str, *args: str, env: dict[str, str] | None = None, **headers: str) -> Launch:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return RECIPES[cli](Asked(BASE, KEY, sent, args, env or {}, Path("/config")))


@pytest.mark.parametrize("cli", RECIPES)
def test_arguments_are_the_cli_s_own_and_the_key_is_in_none(cli: str) -> None:
    made = launched(cli, "--model", "x", "-p", "say hi", env={"PATH": "/bin", "MINE": "1"})
    assert made.argv[0] == cli
    assert made.argv[-4:] == ("--model", "x", "-p", "say hi")
    assert KEY not in " ".join(made.argv), "other users of the machine see a program's arguments"
    assert made.env["PATH"] == "/bin" and made.env["MINE"] == "1"
    assert KEY in " ".join(made.env.values())
    assert BASE in " ".join((*made.argv, *made.env.values()))


def test_codex_is_given_a_provider_with_websockets_and_headers() -> None:
    made = launched("codex", "exec", X_Pool_Account='codex:a "b"')
    options = [made.argv[at + 1] for at, part in enumerate(made.argv) if part == "-c"]
    read = tomllib.loads("\n".join(options))
    provider = read["model_providers"]["pool-server"]
    assert read["model_provider"] == "pool-server"
    assert provider["supports_websockets"] is True
    assert provider["base_url"] == f"{BASE}/v1"
    assert provider["http_headers"] == {"X-Pool-Account": 'codex:a "b"'}
    assert made.env[provider["env_key"]] == KEY


def test_what_would_win_over_the_pool_is_left_out_or_overruled() -> None:
    claude = launched("claude", env={"ANTHROPIC_API_KEY": "mine", "CLAUDE_CODE_USE_BEDROCK": "1"}, X_Pool_Agent="a")
    assert not {"ANTHROPIC_API_KEY", "CLAUDE_CODE_USE_BEDROCK"} & claude.env.keys()
    file = Path(claude.argv[claude.argv.index("--settings") + 1])
    assert json.loads(claude.files[file])["env"]["ANTHROPIC_AUTH_TOKEN"] == KEY
    assert claude.env["ANTHROPIC_CUSTOM_HEADERS"] == "X-Pool-Agent: a"
    own = launched("claude", "--settings=mine.json")
    assert "wins over the pool" in own.note, "a file that cannot be read"
    assert own.argv == ("claude", "--settings=mine.json") and not own.files
    gemini = launched("gemini", env={"GEMINI_API_KEY": "mine", "GEMINI_CLI_CUSTOM_HEADERS": "A: b"}, X_Pool_Agent="a")
    assert gemini.env["GEMINI_API_KEY"] == KEY
    assert gemini.env["GEMINI_CLI_CUSTOM_HEADERS"] == "A: b, X-Pool-Agent: a"
    qwen = launched("qwen", env={"OPENAI_MODEL": "their-model", "OPENAI_API_KEY": "mine"}, X_Pool_Agent="a")
    (told,) = map(json.loads, qwen.files.values())
    assert qwen.env["OPENAI_MODEL"] == "their-model" and qwen.env["OPENAI_API_KEY"] == KEY
    assert told["model"]["generationConfig"]["customHeaders"] == {"X-Pool-Agent": "a"}
    theirs = json.dumps({"theme": "x", "provider": {"mine": {}, "openai": {"options": {"baseURL": "elsewhere"}}}})
    opencode = json.loads(launched("opencode", env={"OPENCODE_CONFIG_CONTENT": theirs}).env["OPENCODE_CONFIG_CONTENT"])
    assert opencode["theme"] == "x" and "mine" in opencode["provider"]
    assert opencode["provider"]["openai"]["options"]["baseURL"] == f"{BASE}/v1"
    assert launched("opencode", env={"OPENCODE_CONFIG_CONTENT": "{broken"}).env["OPENCODE_CONFIG_CONTENT"]


@given(st.text(max_size=60))
def test_an_address_is_one_or_a_line_of_refusal(text: str) -> None:
    try:
        made = pools.address(text)
    except Exception as error:
        assert type(error).__name__ == "UsageError"
    else:
        assert made.startswith(("http://", "https://")) and made.isprintable() and pools.address(made) == made


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("pool.example.org", BASE),
        ("https://pool.example.org/?code=x", BASE),
        ("HTTP://[::1]:8989/", "http://[::1]:8989"),
    ],
)
def test_an_address_is_kept_without_its_path(text: str, url: str) -> None:
    assert pools.address(text) == url


def test_keys_are_kept_for_their_owner_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"XDG_CONFIG_HOME": str(folder / "cfg")}
    pools.keep(pools.PoolKey(BASE, KEY), env, keyring=False)
    pools.keep(pools.PoolKey("https://b.example", "kb"), env, keyring=False)
    file = folder / "cfg/pool-server" / pools.FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert pools.find("", env) == ("https://b.example", "kb")
    assert pools.find(BASE, env).key == KEY
    assert pools.forget("https://b.example", env) and not pools.forget("https://b.example", env)
    assert pools.find("", env).key == KEY
    assert pools.find("", {**env, "POOL_SERVER_URL": "http://127.0.0.1:1"}).key == pools.NO_KEY
    assert pools.find("http://localhost:1", {**env, "POOL_LOCAL_TOKEN": "t"}).key == "t"
    chain: dict[tuple[str, str], str] = {}
    fake = types.SimpleNamespace(
        set_password=lambda service, name, key: chain.__setitem__((service, name), key),
        get_password=lambda service, name: chain.get((service, name)),
        delete_password=lambda service, name: chain.pop((service, name)),
    )
    monkeypatch.setitem(sys.modules, "keyring", fake)
    pools.keep(pools.PoolKey(BASE, "in-the-ring"), env, keyring=True)
    assert "in-the-ring" not in file.read_text() and pools.find(BASE, env).key == "in-the-ring"
    assert pools.forget(BASE, env) and not chain


OTHERS = ("https://pool.example.org.evil.example", "https://pool.example.org:8443", "https://b.example")


@pytest.mark.parametrize("cli", ["claude", "qwen"])
@pytest.mark.parametrize("kept", [True, False])
def test_a_key_that_is_dropped_is_in_no_settings_of_a_run(folder: Path, cli: str, kept: bool) -> None:
    env = {"XDG_CONFIG_HOME": str(folder / "cfg")}

    def write(base: str) -> list[Path]:
        made = RECIPES[cli](Asked(base, KEY, {}, [], env, pools.folder(env))).files
        for path, text in made.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return list(made)

    (file,) = write(BASE)
    if kept:
        pools.keep(pools.PoolKey(BASE, KEY), env, keyring=False)
        assert not file.exists(), "an earlier key of that pool"
        write(BASE)
    assert pools.forget(BASE, env) and not file.exists()
    for other in OTHERS:
        write(other)
        assert not pools.forget(BASE, env) and file.exists(), "it is another pool's"
        assert pools.forget(other, env)
    file.mkdir()
    assert not pools.forget(BASE, env)


@pytest.fixture
def programs(folder: Path) -> Iterator[dict[str, str]]:
    """Fake CLIs on the PATH; the environment to run them with, and a port that stands for a pool."""
    (folder / "bin").mkdir()
    for cli in RECIPES:
        program = folder / "bin" / cli
        program.write_text(FAKE_CLI.format(python=sys.executable))
        program.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as pool:
        mine = {"POOL_SERVER_URL": f"http://127.0.0.1:{pool.getsockname()[1]}", "XDG_CONFIG_HOME": str(folder / "cfg")}
        yield {**environment(), **mine, "PATH": f"{folder / 'bin'}:/usr/bin:/bin"}


def run(env: dict[str, str], *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pool_server", "run", *args]
    return subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True, check=False)


def test_a_run_is_the_program_with_its_code_its_input_and_its_signals(programs: dict[str, str]) -> None:
    done = run(programs, "--as", "laptop", "claude", "-p", "--help", "a b", stdin="typed")
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 7, done.stderr
    assert told["argv"][2:] == ["-p", "--help", "a b"] and told["stdin"] == "typed"
    assert told["env"]["ANTHROPIC_BASE_URL"] == programs["POOL_SERVER_URL"]
    file = Path(told["argv"][1])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    argv = [sys.executable, "-m", "pool_server", "run", "codex", "wait"]
    with subprocess.Popen(argv, env=programs, stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline().split() == ["ready", str(waiting.pid)], "it has become the program"
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait() == 9


def test_a_program_is_told_a_model_that_the_pool_serves(programs: dict[str, str], folder: Path) -> None:
    with FakeProviders([account("claude:a")]) as fakes, PoolProcess(folder, fake_settings(folder, fakes)) as pool:
        qwen = run(programs, "--pool", pool.url, "qwen", "-p", "hi")
        named: str = json.loads(qwen.stdout)["env"]["OPENAI_MODEL"]
        assert named.startswith("claude-") and not qwen.stderr
        own = run({**programs, "OPENAI_MODEL": "mine"}, "--pool", pool.url, "qwen")
        assert json.loads(own.stdout)["env"]["OPENAI_MODEL"] == "mine"
        opencode = run(programs, "--pool", pool.url, "opencode")
        config = json.loads(json.loads(opencode.stdout)["env"]["OPENCODE_CONFIG_CONTENT"])
        assert list(config["provider"]["pool"]["models"]) == [named]
        (folder / "pool" / "claude_a.json").unlink()
        pool.call("POST", "/admin/reload")
        nothing = run(programs, "--pool", pool.url, "qwen")
        assert nothing.returncode == 7 and "serves you no model now" in nothing.stderr
        assert "OPENAI_MODEL" not in json.loads(nothing.stdout)["env"]


def test_a_program_that_is_run_sees_no_secret_of_the_pool_s_operator(programs: dict[str, str]) -> None:
    """What a model's commands print goes to the provider."""
    secret = {name for name, key in VARIABLES.items() if key.rpartition(".")[2] in SECRET}
    secret |= {"POOL_STORE_KEY", "POOL_STORE_URL", "POOL_STORE_LISTEN_URL", reconcile.ADMIN_KEY, "POOL_SERVER_KEY"}
    assert secret == pools.SECRETS
    mine = {"EDITOR": "vi", "OPENAI_API_KEY": "of-the-user"}
    keys = {"POOL_LOCAL_TOKEN": "t", "POOL_SERVER_KEY": "k"}  # what the program is given under its own name
    done = run({**programs, **dict.fromkeys(secret, "SENTINEL"), **keys, **mine}, "aider")
    told: dict[str, str] = json.loads(done.stdout)["env"]
    assert not secret & told.keys() and "SENTINEL" not in told.values() and told["EDITOR"] == "vi"


def test_a_run_without_a_pool_says_so_before_the_program_speaks(programs: dict[str, str]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # it does not listen
        for here in (f"http://127.0.0.1:{bound.getsockname()[1]}", f"http://localhost:{bound.getsockname()[1]}"):
            done = run(programs, "--pool", here, "codex")
            assert done.returncode == 1 and not done.stdout
            assert f"no pool answers at {here}" in done.stderr and "pool-server serve" in done.stderr
    keyed = {**programs, "POOL_SERVER_KEY": KEY}
    done = run(keyed, "--pool", "https://pool.invalid", "codex")  # who knows what the program has it go through
    assert done.returncode == 7 and "no pool answers at https://pool.invalid" in done.stderr.splitlines()[0]
    done = run({**keyed, "HTTPS_PROXY": "http://127.0.0.1:1"}, "--pool", "https://pool.invalid", "codex")
    assert done.returncode == 7 and "no pool" not in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["nano"], 2, "nano"),
        (["--account", "codex:a", "aider"], 2, "headers"),
        (["--as", "a\nb", "codex"], 2, "--as"),
        (["--pool", "ftp://x", "codex"], 2, "address"),
        (["--pool", "https://nobody.example", "codex"], 1, "pool-server login"),
    ],
)
def test_a_run_that_cannot_be_says_so_in_one_line(
    sh: Shell, programs: dict[str, str], monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, said: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", programs["XDG_CONFIG_HOME"])
    assert said in sh("run", *args).refused(code)


def test_a_program_that_is_not_there_is_named_with_its_install(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "npm install -g @openai/codex" in sh("run", "codex").refused(1)


@pytest.mark.parametrize("text", ["", "[]", '{"last": 1, "pools": {}}', '{"last": ""}', "\x00" * 40])
def test_a_broken_file_of_keys_is_named(sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    (folder / "pool-server").mkdir()
    (folder / "pool-server" / pools.FILE).write_text(text)
    (folder / "pool-server" / pools.FILE).chmod(0o600)
    assert pools.FILE in sh("run", "codex").refused(1)


def test_somebody_signs_in_and_comes_back(sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "cfg"))
    with FakeProviders([account("claude:a")]) as fakes:
        users = PoolUsers(admin_password="admin")
        with PoolProcess(folder, fake_settings(folder, fakes, friend_code="swim", pool_users=users)) as pool:
            prompts = iter(["correct horse battery", "correct horse battery", "correct horse battery"])
            monkeypatch.setattr("click.termui.hidden_prompt_func", lambda text: next(prompts))
            assert sh("login", f"{pool.url}/?code=swim", "--name", "Ann").code == 0
            first = pools.find("", os.environ)
            assert first.url == pool.url and pool.call("GET", "/status", x_api_key=first.key)[0] == 200
            assert sh("login", pool.url, "--name", "Ann", stdin="\n").code == 0
            second = pools.find("", os.environ)
            assert second.key != first.key
            assert pool.call("GET", "/status", x_api_key=second.key)[0] == 200
            assert sh("login", pool.url, "--key", stdin=first.key + "\n").code == 0
            assert pools.find("", os.environ).key == first.key
            assert "pool says" in sh("login", pool.url, "--key", stdin="no-key\n").refused(1)
            assert sh("login", "--forget", pool.url).code == 0
        until(pool.refuses, "it has ended")
        assert "no pool answers" in sh("login", pool.url, "--key", stdin="k\n").refused(1)


def test_a_key_is_not_sent_in_the_clear(sh: Shell) -> None:
    assert "--insecure" in sh("login", "http://pool.example.org", "--key", stdin="k\n").refused(2)


@pytest.mark.parametrize(
    "given",
    [
        ["--settings", "{file}"], ["--settings={file}"], ["--settings", "{json}"],
        ["--settings", "nowhere.json", "--settings={json}"],
    ],
)  # fmt: skip
def test_settings_of_the_person_s_own_stand_beside_the_pool(folder: Path, given: list[str]) -> None:
    own = {"model": "opus", "env": {"MINE": "1", "ANTHROPIC_BASE_URL": "https://elsewhere.example"}}
    (folder / "mine.json").write_text(json.dumps(own))
    args = [one.replace("{file}", str(folder / "mine.json")).replace("{json}", json.dumps(own)) for one in given]
    made = launched("claude", *args, "-p", "--", "--settings", "is said here")
    assert made.argv[1] == "--settings" and made.argv[3:] == ("-p", "--", "--settings", "is said here")
    (text,) = made.files.values()
    both = json.loads(text)
    assert both["model"] == "opus" and both["env"]["MINE"] == "1"
    assert both["env"]["ANTHROPIC_BASE_URL"] == BASE
    assert not made.note


@pytest.mark.parametrize("text", ["", "[]", "not json", '{"env": 3}'])
def test_settings_that_cannot_be_merged_are_told_to_win(folder: Path, text: str) -> None:
    (folder / "mine.json").write_text(text)
    made = launched("claude", "--settings", str(folder / "mine.json"))
    assert made.argv == ("claude", "--settings", str(folder / "mine.json"))
    assert not made.files and made.note


def test_codex_s_tools_see_no_key() -> None:
    made = launched("codex", "exec")
    options = [made.argv[at + 1] for at, part in enumerate(made.argv) if part == "-c"]
    assert tomllib.loads("\n".join(options))["shell_environment_policy"] == {"set": {"POOL_SERVER_KEY": ""}}
    assert made.env["POOL_SERVER_KEY"] == KEY


def test_settings_of_runs_that_have_ended_are_removed(folder: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(folder / "cfg")}
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    places = [pools.settings_folder(env, pid) for pid in (ended.pid, os.getpid())]
    other = places[0].parent / "notes"
    for place in (*places, other):
        place.mkdir(parents=True)
        (place / "claude-settings.json").write_text("{}")
    pools.sweep_ended(env)
    assert [place.exists() for place in (*places, other)] == [False, True, True]
