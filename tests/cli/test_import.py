"""`pool-server import`: from each program's and pool's own shapes; nothing is lost, nothing secret is said."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import given
from hypothesis import strategies as st

from pool_server.cli.importing.sources import cliproxyapi
from pool_server.cli.importing.sources import crs as crs_source
from pool_server.cli.importing.sources.cliproxyapi import api_keys
from pool_server.users import Principal, Users
from tests.cli.conftest import Shell
from tests.fakes import account
from tests.users import old_keys

SOON = int(time.time()) + 30 * 86400
MS = SOON * 1000
SECRETS = ("refresh-of", "sk-ant-oat01-imported", "sk-ant-api03-imported", "sk-cpa-one", "cr_imported", "poolrt_")


def login(name: str) -> dict[str, Any]:
    return account(f"codex:{name}", used_5h=1, used_7d=1).file()


def put(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def rows(sh: Shell, *args: str) -> dict[str, tuple[str, str]]:
    """Where from → (what it is now, the note)."""
    done = sh("import", *args, "--json")
    assert done.code == 0, done
    assert not any(secret in done.out for secret in SECRETS)
    return {row["where"]: (row["taken"], row["note"]) for row in done.json["rows"]}


def pool_file(folder: Path, name: str) -> dict[str, Any]:
    path = folder / "pool" / name
    assert path.stat().st_mode & 0o777 == 0o600
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def holder(folder: Path, key: str) -> str:
    """Whose key it is, by the pool's own people."""
    from pool_server.app.server import open_people
    from pool_server.core.settings import Settings

    with open_people(Settings(data_dir=str(folder / "data"))) as users:
        assert isinstance(users, Users)
        found = users.authenticate(key)
        return found.name if isinstance(found, Principal) else found.denial.value


CLAUDE = {"claudeAiOauth": {"accessToken": "sk-ant-oat01-imported", "refreshToken": "refresh-of-c", "expiresAt": MS}}
GOOGLE = {"access_token": "ya29.imported", "refresh_token": "refresh-of-g", "expiry_date": MS}
PROGRAMS: list[tuple[str, str, Callable[[], Any]]] = [
    ("codex", "auth.json", lambda: login("anna")),
    ("claude", ".credentials.json", lambda: CLAUDE),
    ("gemini", "oauth_creds.json", lambda: GOOGLE),
    ("qwen", "oauth_creds.json", lambda: {**GOOGLE, "resource_url": "portal.qwen.ai"}),
]


@pytest.mark.parametrize(("kind", "file", "content"), PROGRAMS, ids=[one[0] for one in PROGRAMS])
def test_a_programs_own_sign_in_is_not_taken_unasked(
    sh: Shell, folder: Path, kind: str, file: str, content: Callable[[], Any]
) -> None:
    source = put(folder / "home" / file, content())
    before = source.read_bytes()
    ((taken, note),) = rows(sh, kind, str(folder / "home"), "--dry-run").values()
    assert list((folder / "pool").iterdir()) == []
    assert rows(sh, kind, str(folder / "home")) == {str(source): (taken, note)}
    kept = pool_file(folder, taken.replace(":", "_") + ".json")
    assert kept["disabled"] is True and "ends it in" in note
    assert {name: kept[name] for name in content()}.keys() == content().keys()
    assert source.read_bytes() == before
    again = rows(sh, kind, str(folder / "home"))
    assert again == {str(source): ("", f"it is the account {taken}")}


def test_take_says_that_it_ends_there(sh: Shell, folder: Path) -> None:
    put(folder / "home/auth.json", login("anna"))
    ((taken, note),) = rows(sh, "codex", str(folder / "home"), "--take").values()
    assert "disabled" not in pool_file(folder, taken.replace(":", "_") + ".json")
    assert "ends in codex" in note


def test_what_no_program_refreshes_comes_ready(sh: Shell, folder: Path) -> None:
    put(folder / "home/auth.json", {"OPENAI_API_KEY": "sk-imported-key"})
    ((taken, _),) = rows(sh, "codex", str(folder / "home/auth.json")).values()
    assert "disabled" not in pool_file(folder, taken.replace(":", "_") + ".json")


@pytest.mark.parametrize("kind", ["codex", "claude", "gemini", "qwen", "cx", "oauthrouter", "codex-pool", "crs"])
def test_an_empty_folder_is_told(sh: Shell, folder: Path, kind: str) -> None:
    (folder / "home").mkdir()
    assert str(folder / "home") in sh("import", kind, str(folder / "home")).refused(1)


@pytest.mark.parametrize("text", ["{", "[]", "nul", '{"tokens": 7}', "\x00"])
@pytest.mark.parametrize(("kind", "file"), [("codex", "auth.json"), ("cx", "a.json"), ("cliproxyapi", "a.json")])
def test_a_broken_file_stops_nothing_and_says_so(sh: Shell, folder: Path, kind: str, file: str, text: str) -> None:
    put(folder / "home" / file, text)
    done = sh("import", kind, str(folder / "home"))
    assert done.code in (0, 1) and "Traceback" not in done.err
    assert "left" in done.out or done.err.startswith("pool-server: ")
    assert list((folder / "pool").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "file"),
    [("cx", "accounts/a.json"), ("cx", "a.json"), ("codex-pool", "pool/codex_a.json"), ("codex-pool", "config.toml"),
     ("cliproxyapi", "auths/a.json"), ("crs", "export.json"), ("crs", ".env"), ("codex", "auth.json")],
)  # fmt: skip
def test_a_pipe_among_the_files_is_not_waited_for(sh: Shell, folder: Path, kind: str, file: str) -> None:
    path = folder / "home" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    done = sh("import", kind, str(folder / "home"), "--dry-run")
    assert done.code in (0, 1) and "Traceback" not in done.err


def test_the_home_is_known(sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEX_HOME", str(folder / "elsewhere"))
    put(folder / "elsewhere/auth.json", login("anna"))
    assert list(rows(sh, "codex")) == [str(folder / "elsewhere/auth.json")]
    assert "in which folder" in sh("import", "crs").refused(2)


def test_cx(sh: Shell, folder: Path) -> None:
    home = folder / "home"
    put(home / "accounts/a.json", {"email": "anna@example.org", "label": "Anna's", "auth": login("a")})
    put(home / "accounts/b.json", {"email": "b@example.org", "auth": {**login("b"), "refresh_failure": {"at": 1}}})
    put(home / "accounts/c.json", {"email": "apikey:work", "auth": {"OPENAI_API_KEY": "sk-imported-cx"}})
    put(home / "accounts/d.json", {"who": "another tool"})
    found = rows(sh, "cx", str(home))
    assert [found[name][0] for name in ("a.json", "b.json", "c.json", "d.json")] == ["codex:anna", "", "codex:work", ""]
    assert "has ended" in found["b.json"][1]
    assert pool_file(folder, "codex_anna.json")["label"] == "Anna's"


def test_oauthrouter_is_read_with_its_log(sh: Shell, folder: Path) -> None:
    home = folder / "home"
    home.mkdir()
    with closing(sqlite3.connect(home / "tokens.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(
            "CREATE TABLE tokens (id TEXT PRIMARY KEY, provider TEXT, access_token TEXT, refresh_token TEXT, "
            "account_id TEXT, oauth_client_id TEXT, scopes TEXT, expires_at TEXT, status TEXT, priority INTEGER)"
        )
        tokens = login("work")["tokens"]
        for row in (
            ("1", "claude", "sk-ant-oat01-imported-setup", None, "setup", "", "", "2030-01-01T00:00:00Z", "healthy", 5),
            ("2", "claude", "sk-ant-api03-imported", None, "key", None, None, None, "healthy", 100),
            ("3", "openai", tokens["access_token"], tokens["refresh_token"], "work", None, None, None, "healthy", 100),
            ("4", "claude", "sk-ant-oat01-imported-x", "refresh-of-x", "x", "another-client", "", "", "healthy", 100),
            ("5", "openai", "eyJ", "refresh-of-y", "y", None, None, None, "unhealthy", 100),
            ("6", "other", "a", "b", "z", None, None, None, "healthy", 100),
        ):
            database.execute("INSERT INTO tokens VALUES (?,?,?,?,?,?,?,?,?,?)", row)
        database.commit()
        before = {path.name: path.read_bytes() for path in home.iterdir()}
        assert "tokens.db-wal" in before
        found = rows(sh, "oauthrouter", str(home))
        assert {path.name: path.read_bytes() for path in home.iterdir()} == before
    assert [found[f"token {n}"][0] for n in range(1, 7)] == ["claude:setup", "claude:key", "codex:work", "", "", ""]
    assert "another OAuth client" in found["token 4"][1]
    setup = pool_file(folder, "claude_setup.json")
    assert (setup["priority"], "refreshToken" in setup["claudeAiOauth"], "disabled" in setup) == (5, False, False)
    assert pool_file(folder, "codex_work.json")["disabled"] is True


def codex_pool(folder: Path, *, secret: str = old_keys.SECRET) -> Path:
    home = folder / "home"
    put(home / "config.toml", f'[pool_users]\njwt_secret = "{secret}"\n' if secret else "")
    put(home / "pool/codex/work.json", {**login("w"), "cookies": "c", "cyber_access": True, "allowed_ip": "192.0.2.1"})
    put(home / "pool/gemini_g.json", GOOGLE)
    put(home / "pool/claude/gone.json", {**CLAUDE, "dead": True})
    put(home / "pool/antigravity/a.json", {"token": "t"})
    people = [{"id": "5f2b", "email": "anna@example.org", "token": "d"}, {"id": "77", "email": ""}]
    put(home / "data/pool_users.json", people)
    return home


@pytest.mark.parametrize("form", old_keys.FORMS, ids=lambda form: form.__name__)
def test_codex_pool(sh: Shell, folder: Path, form: Callable[..., str]) -> None:
    home = codex_pool(folder)
    planned = rows(sh, "codex-pool", str(home), "--dry-run")
    assert not (folder / "data").exists()
    found = rows(sh, "codex-pool", str(home))
    assert planned == found
    assert found["codex/work.json"][0] == "codex:work" and found["gemini_g.json"][0] == "gemini:g"
    assert found["codex/work.json"][1].endswith("left: cookies, cyber_access, allowed_ip")
    assert found["claude/gone.json"][0] == found["antigravity/a.json"][0] == ""
    assert found["entry 1"] == ("anna@example.org", "their key works here")
    assert found["entry 2"][0] == ""
    assert not {"cookies", "cyber_access", "allowed_ip"} & pool_file(folder, "codex_work.json").keys()
    assert holder(folder, form("5f2b")) == "anna@example.org"
    assert holder(folder, form("5f2b", "guessed")) == "bad_key"


def test_old_keys_end_by_the_date_that_was_said(sh: Shell, folder: Path) -> None:
    home = codex_pool(folder)
    assert "takes a date" in sh("import", "codex-pool", str(home), "--old-keys-until", "soon").refused(2)
    rows(sh, "codex-pool", str(home), "--old-keys-until", "2020-01-01")
    assert holder(folder, old_keys.claude("5f2b")) == "bad_key"


def test_codex_pool_without_its_secret(sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = codex_pool(folder, secret="")
    found = rows(sh, "codex-pool", str(home))
    assert found["entry 1"] == ("anna@example.org", "they need a new key") and "do not work" in found["jwt_secret"][1]
    monkeypatch.setenv("POOL_JWT_SECRET", old_keys.SECRET)
    again = rows(sh, "codex-pool", str(home))
    assert "came over before" in again["entry 1"][1]
    assert holder(folder, old_keys.claude("5f2b")) == "anna@example.org"


def test_cliproxyapi(sh: Shell, folder: Path) -> None:
    home = folder / "home"
    put(
        home / "config.yaml",
        'port: 8317\napi-keys:\n  - "sk-cpa-one"  # Anna\n\n  # old\n  - sk-cpa-two\n  - sk-cpa-one\n  - [x]\n',
    )
    tokens = login("w")["tokens"]
    put(
        home / "auths/codex-w.json",
        {"type": "codex", "email": "w@example.org", "note": "Work", "priority": 3, **tokens},
    )
    claude = {"type": "claude", "access_token": "sk-ant-oat01-imported", "refresh_token": "refresh-of-cl"}
    put(home / "auths/claude-a.json", {**claude, "email": "a@b.c", "account_uuid": "u1", "organization_uuid": "o1"})
    kimi = {"type": "kimi", "access_token": "kimi-access", "refresh_token": "kimi-refresh", "device_id": "d"}
    put(home / "auths/kimi-k.json", {**kimi, "expired": "2030-01-01T00:00:00Z"})
    google = {"token": {**GOOGLE, "client_secret": "hidden", "expiry": "2030-01-01T00:00:00Z"}, "project_id": "p-1"}
    put(home / "auths/gemini-g.json", {"type": "gemini", "email": "g@b.c", **google})
    planned = rows(sh, "cliproxyapi", str(home), "--dry-run")
    found = rows(sh, "cliproxyapi", str(home))
    assert planned == found and found["api-keys, entry 3"] == ("", "it is the key of entry 1")
    assert found["api-keys, entry 4"] == ("", "it is no plain text")
    again = rows(sh, "cliproxyapi", str(home), "--dry-run")
    assert again == rows(sh, "cliproxyapi", str(home)) and not any(taken for taken, _note in again.values())
    assert found["codex-w.json"][0] == "codex:w" and found["kimi-k.json"][0] == "kimi:k"
    assert pool_file(folder, "kimi_k.json")["disabled"] and "device_id" not in pool_file(folder, "kimi_k.json")
    work = pool_file(folder, "codex_w.json")
    assert (work["label"], work["priority"], work["disabled"]) == ("Work", 3, True)
    assert pool_file(folder, "claude_a.json")["claudeAiOauth"]["accountUuid"] == "u1"
    gemini = pool_file(folder, "gemini_g.json")
    assert gemini["project_id"] == "p-1" and "client_secret" not in json.dumps(gemini)
    assert holder(folder, "sk-cpa-one") == "cliproxyapi 1" and holder(folder, "sk-cpa-two") == "cliproxyapi 2"
    assert b"sk-cpa-one" not in b"".join(path.read_bytes() for path in (folder / "data").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("yaml", "keys"),
    [
        ("api-keys: [a, 'b', \"c\"]\n", ["a", "b", "c"]),
        ("api-keys:\n- a\n- b # two\n", ["a", "b"]),
        ("api-keys:\r\n  - a\r\nother: 1\r\n", ["a"]),
        ("api-keys:\n  - it#is\n  - 'it''s'\n  - a\n  - a\n", ["it#is", "it's", "a", "a"]),
        ("api-keys:\nother:\n  - x\n", []),
        ("# api-keys:\n#  - x\n", []),
        ("nested:\n  api-keys:\n    - x\n", []),
        ("api-keys:\n  - key: x\n", [""]),
    ],
)
def test_the_plain_list_of_keys(yaml: str, keys: list[str]) -> None:
    assert api_keys(yaml) == keys


@given(st.lists(st.from_regex(r"[A-Za-z0-9_\-]{1,40}", fullmatch=True), unique=True, max_size=5))
def test_any_plain_list_is_read(keys: list[str]) -> None:
    block = "a: 1\napi-keys:\n" + "".join(f"  - {json.dumps(key)}\n" for key in keys) + "b: 2\n"
    assert api_keys(block) == [key for key in keys if key]


PEPPER = "an encryption key of 32 letters."


def sealed(plain: str, salt: bytes) -> str:
    key, nonce = hashlib.scrypt(PEPPER.encode(), salt=salt, n=16384, r=8, p=1, dklen=32), os.urandom(16)
    padder, cipher = PKCS7(128).padder(), Cipher(algorithms.AES(key), modes.CBC(nonce)).encryptor()
    padded = padder.update(plain.encode()) + padder.finalize()
    return f"{nonce.hex()}:{(cipher.update(padded) + cipher.finalize()).hex()}"


def crs(folder: Path, *, plain: bool, sanitized: bool = False) -> Path:
    token = {"accessToken": "sk-ant-oat01-imported", "refreshToken": "refresh-of-crs", "expiresAt": str(MS)}
    if not plain:
        token |= {name: sealed(token[name], b"salt") for name in ("accessToken", "refreshToken")}
    keys = [
        {"name": "Anna", "apiKey": hashlib.sha256(f"cr_imported_a{PEPPER}".encode()).hexdigest(), "isActive": "true",
         "concurrencyLimit": "3", "dailyCostLimit": "2.5", "rateLimitRequests": "10", "rateLimitWindow": "1",
         "permissions": "claude"},
        {"name": "Anna", "apiKey": hashlib.sha256(f"cr_imported_b{PEPPER}".encode()).hexdigest(), "isActive": "false"},
        {"name": "Old", "apiKey": "00" * 32, "expiresAt": "2020-01-01T00:00:00.000Z"},
        {"name": "Bare", "apiKey": "no hash"},
    ]  # fmt: skip
    accounts = [{"name": "Max", "priority": "50", "isActive": "true", **token}, {"name": "Empty"}]
    data = {"apiKeys": keys, "claudeAccounts": accounts, "geminiAccounts": []}
    meta = {"version": "2.0", "sanitized": sanitized, "decrypted": plain}
    return put(folder / "home/export.json", {"metadata": meta, "data": data}).parent


@pytest.mark.parametrize("plain", [True, False], ids=["decrypted", "encrypted"])
def test_crs(sh: Shell, folder: Path, plain: bool) -> None:
    home = crs(folder, plain=plain)
    put(home / ".env", f'PORT=3000\nENCRYPTION_KEY="{PEPPER.replace(" ", "_")}"\n')
    os.environ["ENCRYPTION_KEY"] = PEPPER
    try:
        found = rows(sh, "crs", str(home))
    finally:
        del os.environ["ENCRYPTION_KEY"]
    assert found["claudeAccounts, entry 1"][0] == "claude:Max" and found["claudeAccounts, entry 2"][0] == ""
    assert found["apiKeys, entry 2"] == ("Anna 2", "their key works here")
    kept = pool_file(folder, "claude_Max.json")
    assert (kept["claudeAiOauth"]["refreshToken"], kept["priority"], kept["disabled"]) == ("refresh-of-crs", 50, True)
    assert holder(folder, "cr_imported_a") == "Anna" and holder(folder, "cr_imported_b") == "user_disabled"
    assert "Old" in found["apiKeys, entry 3"][1] or found["apiKeys, entry 3"][0] == ""
    shown = sh("user", "show", "Anna", "--json").json
    assert shown["limits"]["concurrent"] == 3 and shown["limits"]["cost_day"] == 2.5
    assert shown["limits"]["requests_per_minute"] == 10 and shown["limits"]["providers"] == ["claude"]


def test_crs_says_what_cannot_live_on(sh: Shell, folder: Path) -> None:
    home = crs(folder, plain=False)
    found = rows(sh, "crs", str(home))
    assert "ENCRYPTION_KEY" in found["apiKeys"][1] and "encrypted" in found["claudeAccounts, entry 1"][1]
    assert found["apiKeys, entry 2"] == ("Anna 2", "they need a new key")
    crs(folder, plain=True, sanitized=True)
    assert "sanitized" in sh("import", "crs", str(home)).refused(1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expiresAt", "next summer"), ("expiresAt", {}), ("dailyCostLimit", "a lot"), ("dailyCostLimit", -1),
        ("concurrencyLimit", "NaN"), ("rateLimitRequests", []), ("tokenLimit", "1e400"),
    ],
)  # fmt: skip
def test_what_bounds_a_key_and_cannot_be_read_keeps_it_out(field: str, value: Any, tmp_path: Path) -> None:
    entry = {"name": "Anna", "apiKey": "ab" * 32, field: value}
    put(tmp_path / "e.json", {"metadata": {}, "data": {"apiKeys": [entry]}})
    found = crs_source.read(tmp_path, {"ENCRYPTION_KEY": PEPPER}, 0.0, None)
    if value == {}:  # said to be none
        assert found.people[0].expires is None
    else:
        assert found.people == [] and any("cannot be read" in row.why for row in found.left)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"claudeAccountId": "4f1c"}, "bound to one account"),
        ({"openaiAccountId": "group:7"}, "bound to one account"),
        ({"anyNewVendorAccountId": {"id": 1}}, "bound to one account"),
        ({"rateLimitRequests": "10", "rateLimitWindow": "5"}, "10 requests in 5 minutes"),
        ({"weeklyOpusCostLimit": "20"}, "weeklyOpusCostLimit"),
        ({"tokenLimit": 1000}, "tokenLimit"),
        ({"totalCostLimit": "0.5"}, "totalCostLimit"),
        ({"rateLimitCost": 1}, "rateLimitCost"),
        ({"enableModelRestriction": "true", "restrictedModels": '["claude-opus-5"]'}, "restrictedModels"),
        ({"enableClientRestriction": True, "allowedClients": ["claude_code"]}, "allowedClients"),
        ({"expirationMode": "activation", "isActivated": "false"}, "first use"),
        ({"permissions": "droid"}, "permissions"),
        ({"permissions": '["claude","droid"]'}, "permissions"),
        ({"permissions": {"claude": True}}, "permissions"),
        ({"permissions": "[claude"}, "permissions"),
    ],
)
def test_a_key_with_a_bound_that_has_no_like_here_does_not_come_over_freer(
    said: dict[str, Any], why: str, tmp_path: Path
) -> None:
    put(tmp_path / "e.json", {"metadata": {}, "data": {"apiKeys": [{"name": "Anna", "apiKey": "ab" * 32, **said}]}})
    found = crs_source.read(tmp_path, {"ENCRYPTION_KEY": PEPPER}, 0.0, None)
    assert found.people == [] and any(why in row.why and "Anna" in row.why for row in found.left)


@pytest.mark.parametrize(
    ("said", "limits"),
    [
        ({"claudeAccountId": "", "geminiAccountId": None, "tokenLimit": "0", "rateLimitWindow": "5"}, {}),
        ({"permissions": "all"}, {}),
        ({"permissions": "[]"}, {}),
        ({"permissions": "openai"}, {"providers": ["codex", "openai"]}),
        ({"permissions": '["claude","gemini"]'}, {"providers": ["claude", "gemini"]}),
        ({"enableModelRestriction": "true", "restrictedModels": "[]"}, {}),
        ({"expirationMode": "activation", "isActivated": "true"}, {}),
    ],
)
def test_a_key_without_such_bounds_comes_over(said: dict[str, Any], limits: dict[str, Any], tmp_path: Path) -> None:
    put(tmp_path / "e.json", {"metadata": {}, "data": {"apiKeys": [{"name": "Anna", "apiKey": "ab" * 32, **said}]}})
    (person,) = crs_source.read(tmp_path, {"ENCRYPTION_KEY": PEPPER}, 0.0, None).people
    assert person.limits == limits


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("7", 7),
        (7, 7),
        ("0", 0),
        (0, 0),
        (-5, -5),
        ("1e12", None),
        ("2026-01-01T00:00:00Z", None),
        (True, None),
        (1.5, None),
    ],
)
def test_a_priority_is_a_number(said: Any, kept: int | None, tmp_path: Path) -> None:
    entry = {"name": "Max", "accessToken": "sk-ant-oat01-a", "refreshToken": "r", "priority": said}
    put(tmp_path / "e.json", {"metadata": {}, "data": {"claudeAccounts": [entry]}})
    (taken,) = crs_source.read(tmp_path, {}, 0.0, None).accounts
    assert taken.data.get("priority") == kept


@pytest.mark.parametrize(
    ("said", "disabled"),
    [({}, False), ({"accountType": "shared"}, False), ({"accountType": "dedicated"}, True),
     ({"accountType": "group"}, True), ({"schedulable": "false"}, True), ({"schedulable": "?"}, True)],
)  # fmt: skip
def test_an_account_kept_for_bound_keys_does_not_serve_everybody(
    said: dict[str, Any], disabled: bool, tmp_path: Path
) -> None:
    entry = {"name": "Max", "accessToken": "sk-ant-oat01-a", "refreshToken": "r", **said}
    put(tmp_path / "e.json", {"metadata": {}, "data": {"claudeAccounts": [entry]}})
    (taken,) = crs_source.read(tmp_path, {}, 0.0, None).accounts
    assert taken.data.get("disabled", False) is disabled


@pytest.mark.parametrize(
    ("said", "disabled"),
    [
        ({}, False), ({"isActive": True}, False), ({"isActive": "1"}, False), ({"isActive": False}, True),
        ({"isActive": 0}, True), ({"isActive": "No"}, True), ({"isActive": "paused"}, True), ({"isActive": []}, True),
        ({"isActive": "true", "isDeleted": "true"}, True), ({"isDeleted": "perhaps"}, True),
        ({"isDeleted": False}, False),
    ],
)  # fmt: skip
def test_a_key_that_was_switched_off_stays_off(said: dict[str, Any], disabled: bool, tmp_path: Path) -> None:
    put(tmp_path / "e.json", {"metadata": {}, "data": {"apiKeys": [{"name": "Anna", "apiKey": "ab" * 32, **said}]}})
    (person,) = crs_source.read(tmp_path, {"ENCRYPTION_KEY": PEPPER}, 0.0, None).people
    assert person.disabled is disabled


@pytest.mark.parametrize("proxy", ["{broken", "socks5://h:1", ["h", 1], {"port": 80}, '{"type":"http"}', 7])
def test_an_account_whose_proxy_cannot_be_read_is_left(proxy: Any, tmp_path: Path) -> None:
    entry = {"name": "Max", "accessToken": "sk-ant-oat01-a", "refreshToken": "r", "proxy": proxy}
    put(tmp_path / "e.json", {"metadata": {}, "data": {"claudeAccounts": [entry]}})
    found = crs_source.read(tmp_path, {}, 0.0, None)
    assert found.accounts == [] and "proxy" in found.left[0].why
    put(tmp_path / "cpa/codex-a.json", {"type": "codex", **login("w")["tokens"], "proxy_url": {"url": "http://h:1"}})
    left = cliproxyapi.read(tmp_path / "cpa")
    assert left.accounts == [] and "proxy_url" in left.left[0].why


@pytest.mark.parametrize("said", [True, "true", 1, "yes", "perhaps", {}, [0]])
def test_an_account_that_was_switched_off_stays_off(said: Any, tmp_path: Path) -> None:
    put(tmp_path / "codex-a.json", {"type": "codex", **login("w")["tokens"], "disabled": said})
    (taken,) = cliproxyapi.read(tmp_path).accounts
    assert taken.data["disabled"] is True
