"""Settings: every name, every mistake in one clear line, no secret in any of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.core.settings import (
    HIDDEN,
    SECRET,
    ConfigError,
    Listen,
    PoolUsers,
    Section,
    Settings,
    bind_address,
    parse_listen,
)
from pool_server.core.settings_file import VARIABLES, config_path, load, rows, typed
from pool_server.texts.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
# A setting that stands in the example as a comment.
SUGGESTED = re.compile(r'^# (?=[a-z"][\w:"]* = |\[prices)', re.MULTILINE)


def read(tmp_path: Path, text: str, **env: str) -> Settings:
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, env).settings


def mistake(tmp_path: Path, text: str, **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, **env)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_nothing_said_is_the_default() -> None:
    loaded = load(None, {})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert not loaded.settings.friends_mode


def test_environment_wins_over_file_and_option_over_both(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('listen_addr = "127.0.0.1:1"\nmax_attempts = 2\n[pool_users]\nadmin_password = "f"\n')
    env = {"PROXY_MAX_ATTEMPTS": "5", "POOL_ADMIN_PASSWORD": "e", "PROXY_LISTEN_ADDR": ":7", "FRIEND_NAME": ""}
    settings, origins, path = load(file, env, {"listen_addr": "127.0.0.1:9"})
    assert path == file
    assert (settings.listen_addr, settings.max_attempts, settings.pool_users.admin_password) == (
        "127.0.0.1:9",
        5,
        "e",
    )
    assert origins["listen_addr"] == "option"
    assert origins["max_attempts"] == "environment (PROXY_MAX_ATTEMPTS)"
    assert origins["friend_name"] == "default"


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_is_read(name: str) -> None:
    values = {"PROXY_LISTEN_ADDR": ":9", "PUBLIC_URL": "https://p.example", "PROXY_MAX_ATTEMPTS": "7"}
    values |= {
        "PROXY_DEBUG": "1",
        "PROXY_DB_PATH": "/tmp/x/proxy.db",
        "POOL_JWT_SECRET": "s" * 32,
        "POOL_ADMIN_TOTP": "A" * 32,
    }
    settings, origins, _ = load(None, {name: values.get(name, "some-text")})
    assert settings != Settings()
    assert [origin for origin in origins.values() if origin != "default"] == [f"environment ({name})"]


def test_codex_pool_settings_run_unchanged(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        """
        listen_addr = "127.0.0.1:8989"
        pool_dir = "pool"
        db_path = "./data/proxy.db"
        max_attempts = 3
        disable_refresh = false
        debug = false
        public_url = ""
        friend_code = "your-secret"
        friend_name = "YourName"
        [pool_users]
        admin_password = "admin"
        jwt_secret = "32-char-secret-for-jwt-tokens!!"
        storage_path = "./data/pool_users.json"
        """,
    )
    assert settings.data_dir == "data"
    assert settings.friends_mode
    assert settings.pool_users.storage_path == "./data/pool_users.json"


@pytest.mark.parametrize(
    ("text", "env", "folder"),
    [
        ('db_path = "/srv/pool/proxy.db"', {}, "/srv/pool"),
        ('db_path = "proxy.db"', {}, "."),
        ('db_path = "keep/"', {}, "keep/"),
        ('data_dir = "a"\ndb_path = "b/x.db"', {}, "a"),
        ('db_path = "b/x.db"\ndata_dir = "a"', {}, "a"),
        ('data_dir = "a"', {"PROXY_DB_PATH": "c/x.db"}, "c"),
        ('data_dir = "a"', {"PROXY_DB_PATH": "c/x.db", "POOL_DATA_DIR": "d"}, "d"),
    ],
)
def test_the_database_path_names_the_data_folder(tmp_path: Path, text: str, env: dict[str, str], folder: str) -> None:
    assert read(tmp_path, text, **env).data_dir == folder


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('max_attempts = "three"', ['max_attempts = "three"', "a whole number from 1 to 20"]),
        ("max_attempts = 0", ["max_attempts = 0", "from 1 to 20"]),
        ("max_attempts = true", ["max_attempts = true", "a whole number"]),
        ("max_attempts = 2.5", ["max_attempts = 2.5", "a whole number"]),
        ("debug = 1", ["debug = 1", "true or false"]),
        ("upstream_idle_s = nan", ["upstream_idle_s = NaN", "a number from 1 to 86400"]),
        ("pool_dir = 3", ["pool_dir = 3", "text"]),
        ('pool_dir = ""', ['pool_dir = ""', "text that is not empty"]),
        ("max_attemps = 3", ["max_attemps = 3", "unknown key", "did you mean max_attempts"]),
        ("zzz = 3", ["zzz = 3", "unknown key", "known here", "listen_addr", "pool_users"]),
        ("[pool_users]\nadmin_pass = 1", ["pool_users.admin_pass = 1", "did you mean admin_password"]),
        ("[nowhere]\na = 1", ["nowhere", "unknown key"]),
        ("pool_users = 3", ["pool_users = 3", "must be a table: [pool_users]"]),
        ('[choosing]\nstrategy = "best"', ['choosing.strategy = "best"', '"balanced"', '"reset_first"']),
        ('[ledger]\nfriends_see = "all"', ["ledger.friends_see", '"own"', '"names"']),
        ('[ledger]\ntimezone = "Mars/Base"', ["ledger.timezone", "time zone"]),
        ('[ledger]\ntimezone = "../../etc/passwd"', ["ledger.timezone", "time zone"]),
        ('listen_addr = "here"', ['listen_addr = "here"', "host:port"]),
        ('listen_addr = "1.2.3.4.5:80"', ["listen_addr", "host:port"]),
        ('listen_addr = "127.0.0.1:99999"', ["listen_addr", "0 to 65535"]),
        ('public_url = "ftp://x"', ["public_url", "https://host"]),
        ('public_url = "https://x/$(id)\'"', ["public_url", "https://host"]),
        ('public_url = "https://h:x"', ["public_url", "https://host"]),
        ('[upstreams]\nclaude = ""', ["upstreams.claude", "http://host:port"]),
        ('trusted_proxies = ["lan"]', ["trusted_proxies", "10.0.0.0/8"]),
        ('trusted_proxies = "10.0.0.0/8"', ["trusted_proxies", "a list"]),
        ('[limits]\nproviders = ["openia"]', ["limits.providers", "codex, claude, gemini, qwen, openai"]),
        ("[limits]\ntokens_5h = -1", ["limits.tokens_5h = -1", "from 0"]),
        ("[alerts]\nbudget_percent = [80, 0]", ["alerts.budget_percent", "each a whole number from 1 to 1000"]),
        ('[subscriptions]\npro = "much"', ["subscriptions", "each value a number from 0"]),
        ("[prices.x]\ninput = 1", ['prices."x"', "input and output must both be given"]),
        ("[prices.x]\ninput = 1\noutput = -1", ['prices."x".output = -1', "0 or more"]),
        ("[pool_users]\nfriend_code = 1", ["unknown key; friend_code stands above the first table"]),
        ("tokens_day = 1", ["unknown key; tokens_day stands below [limits]"]),
        ("[prices.x]\ninptu = 1", ["unknown key inptu", "did you mean input"]),
        ("prices = 1", ["prices = 1", "must be tables"]),
        ('gemini_client_id = "x"', ["gemini_client_id", "GEMINI_OAUTH_CLIENT_ID"]),
        ("disable_refresh = true", ["disable_refresh = true", "unknown key"]),
        ("db_path = 3", ["db_path = 3", "its folder is used"]),
        ("debug = 1\nmax_attempts = x", ["is not TOML", "line 2"]),
        ("a = " + "[" * 3000, ["is not TOML"]),
        ('"a\\nb" = 1', ["unknown key"]),
    ],
)
def test_a_mistake_names_key_value_and_what_is_allowed(tmp_path: Path, text: str, parts: list[str]) -> None:
    line = mistake(tmp_path, text)
    assert line.startswith(str(tmp_path / "config.toml"))
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PROXY_MAX_ATTEMPTS", "many", "a whole number from 1 to 20"),
        ("PROXY_DEBUG", "maybe", "true or false"),
        ("PROXY_LISTEN_ADDR", "nowhere", "host:port"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(name: str, value: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {name: value})
    assert f"environment {name}" in str(caught.value)
    assert json.dumps(value) in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '[pool_users]\njwt_secret = "SENTINEL"',
        '[pool_users]\nadmin_password = "$2b$SENTINEL"',
        '[pool_users]\nadmin_pasword = "SENTINEL"',
        '[pool_user]\nadmin_password = "SENTINEL"',
        'friend_kode = "SENTINEL"',
        f'friend_code = "SENTINEL{"x" * 80}"',
        'friend_code = ["SENTINEL"]',
        '[alerts]\nwebhook_url = "SENTINEL"',
        '[alerts]\nsmtp_password = ["SENTINEL"]',
    ],
)
def test_no_mistake_shows_a_secret(tmp_path: Path, text: str) -> None:
    assert "SENTINEL" not in mistake(tmp_path, text)


def test_a_blank_friend_code_is_a_mistake(tmp_path: Path) -> None:
    assert "not blank" in mistake(tmp_path, 'friend_code = "  "')


def test_secrets_are_hidden_in_reprs_and_rows(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        'friend_code = "SENTINEL"\n[pool_users]\nadmin_password = "SENTINEL"\n[alerts]\nmail_to = ["a@b"]\n'
    )
    loaded = load(file, {"GEMINI_OAUTH_CLIENT_SECRET": "SENTINEL"})
    assert "SENTINEL" not in repr(loaded) + repr(rows(loaded))
    table = {key: (value, origin) for key, value, origin in rows(loaded)}
    assert table["friend_code"] == (HIDDEN, "file")
    assert table["pool_users.jwt_secret"] == ("", "default")
    assert table["alerts.mail_to"] == (["a@b"], "file")


def test_unreadable_files_are_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "b.toml"
    broken.write_bytes(b'a = "\xff"')
    for path, words in ((tmp_path / "none", "no such file"), (tmp_path, "cannot be read"), (broken, "not UTF-8")):
        with pytest.raises(ConfigError, match=words):
            load(path, {})


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b"\xef\xbb\xbfmax_attempts = 4\n")
    assert load(file, {}).settings.max_attempts == 4


def test_the_working_directory_is_looked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_path(None) is None
    (tmp_path / "config.toml").write_text("")
    assert config_path(None) == Path("config.toml")
    assert config_path("other.toml") == Path("other.toml")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8989", "127.0.0.1", 8989),
        (":8989", "", 8989),
        ("8989", "", 8989),
        ("[::1]:80", "::1", 80),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
        ("pool.example:1", "pool.example", 1),
        (" localhost:0 ", "localhost", 0),
    ],
)
def test_listen_addresses(text: str, host: str, port: int) -> None:
    assert parse_listen(text) == Listen(host, port)


@given(st.text(max_size=30))
def test_any_listen_text_is_parsed_or_refused(text: str) -> None:
    try:
        host, port = parse_listen(text)
    except ValueError:
        return
    assert 0 <= port <= 65535
    assert not set(host) & set(" /@\n")


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "192.168.1.2:1", "pool.example:1", "localhost.evil:1"])
def test_local_mode_refuses_addresses_others_can_reach(address: str) -> None:
    with pytest.raises(ConfigError, match="only a loopback address is allowed"):
        bind_address(Settings(listen_addr=address))
    assert bind_address(Settings(listen_addr=address, friend_code="x")) == parse_listen(address)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "[::ffff:127.0.0.1]:1"])
def test_local_mode_takes_loopback(address: str) -> None:
    assert bind_address(Settings(listen_addr=address)).port == 1


def test_a_bare_port_is_loopback_without_a_door() -> None:
    assert bind_address(Settings(listen_addr=":8989")) == Listen("127.0.0.1", 8989)
    users = PoolUsers(admin_password="x")
    assert bind_address(Settings(listen_addr="8989", pool_users=users)) == Listen("", 8989)


def every_key(kind: type[Section]) -> list[str]:
    keys = []
    for field in msgspec.structs.fields(kind):
        inner = isinstance(field.type, type) and issubclass(field.type, Section)
        keys += [f"{field.name}.{key}" for key in every_key(field.type)] if inner else [field.name]
    return keys


def test_the_example_file_is_the_default_and_names_every_setting() -> None:
    text = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    assert load(ROOT / "config.example.toml", {}).settings == Settings()
    said = tomli.loads(SUGGESTED.sub("", text))
    for key in every_key(Settings):
        section, _, name = key.rpartition(".")
        if not key.startswith("gemini_client_"):
            assert name in (said.get(section, {}) if section else said), f"{key} is missing"


def test_what_the_example_suggests_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    settings = read(tmp_path, SUGGESTED.sub("", text))
    assert (settings.limits.concurrent, settings.limits.requests_per_minute) == (64, 60)
    assert settings.prices["my-model"].cache_write_1h == 2.0
    assert settings.subscriptions == {"claude:work": 100.0, "pro": 20.0}


def test_the_settings_page_of_the_docs_names_every_setting_in_its_section() -> None:
    section, said = "", set()
    for line in (ROOT / "docs/settings.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[4:-1] + "." if line.startswith("## [") else ""
        if found := re.match(r"\| `(\w+)` \|", line):
            said.add(section + found[1])
    assert said == set(every_key(Settings)) == set(SETTINGS), (
        "docs/settings.md and texts/settings.py have every setting"
    )


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["\x00", "a\nb", "[::", "http://[", "http://a:99999", "../..", "nan", "s3cr3t-value" * 3]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=600)
@given(st.sampled_from(sorted(SETTINGS)), _VALUES, st.booleans())
def test_any_value_of_any_setting_is_taken_or_refused_in_one_line(key: str, value: Any, page: bool) -> None:
    """From a file or a program, or as text from a page: no traceback, nothing that no disk or header could take."""
    try:
        found = typed(key, str(value)) if page else load(None, {}, {key: value}).settings
    except ConfigError as wrong:
        said = str(wrong)
        assert "\n" not in said and len(said) < 700 and key.rpartition(".")[2] in said
        assert key.rpartition(".")[2] not in SECRET or "s3cr3t" not in said
        return
    for text in texts(msgspec.to_builtins(found)):
        assert key == "friend_tagline" or not re.search(r"[\x00-\x1f]", text)


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.items() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for one in inner for text in texts(one)]
