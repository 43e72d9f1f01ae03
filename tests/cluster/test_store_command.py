"""`pool-server store` as the shell runs it."""

from __future__ import annotations

import pytest

from pool_server.storage.postgres.migrations import APP, OWNER, migrations
from tests.cli.conftest import Shell, folder, sh
from tests.cluster.conftest import Database

__all__ = ["folder", "sh"]
NEWEST = migrations()[-1].version


def test_migrate_says_what_it_did(sh: Shell, empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_STORE_URL", empty.url(OWNER))
    assert sh("store", "migrate", "--json").json == {"version": NEWEST, "ran": list(range(1, NEWEST + 1))}
    assert sh("store", "migrate").out == f"the schema is at {NEWEST}\n"


def test_check_tells_what_is_wrong(sh: Shell, empty: Database, database: Database) -> None:
    told = sh("store", "check", "--url", empty.url(OWNER))
    assert told.code == 1
    assert (
        f"wrong   schema: the schema is at 0, this program needs {NEWEST}: run `pool-server store migrate`" in told.out
    )
    found = {
        one["check"]: one["state"] for one in sh("store", "check", "--json", "--url", database.url()).json["checks"]
    }
    assert found["schema"] == found["role"] == found["TLS"] == "ok"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://u:sesame@h/d", "mysql is another engine"),
        ("postgresql://u:sesame@db.example/d", "sslmode=verify-full"),
        ("postgresql://u:sesame@127.0.0.1:1/d", "does not answer"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line_without_its_password(sh: Shell, url: str, told: str) -> None:
    for verb in ("migrate", "check"):
        line = sh("store", verb, "--url", url).refused(1)
        assert told in line and "sesame" not in line


def test_a_server_that_cannot_share_says_why_in_one_line(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_STORE_URL", "postgresql:///pool")
    assert "local mode has no people to share" in sh("serve").refused(2)


def test_a_missing_url_is_a_usage_error(sh: Shell) -> None:
    assert "--url" in sh("store", "check").refused(2)


def test_a_missing_database_or_role_is_one_line(sh: Shell, empty: Database) -> None:
    missing = empty._replace(name="nowhere")
    assert "does not exist" in sh("store", "check", "--url", missing.url(OWNER)).refused(1)
    empty.sql(f"revoke all on database {empty.name} from public")
    assert "may not connect to the database" in sh("store", "migrate", "--url", empty.url(APP)).refused(1)
    assert "does not let this role in" in sh("store", "check", "--url", empty.url("nobody_known")).refused(1)


def test_the_doctor_looks_at_the_database_of_several_machines(
    sh: Shell, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOL_STORE_URL", database.url())
    assert "local mode has no people to share" in sh("doctor").out
    monkeypatch.setenv("FRIEND_CODE", "swim")
    monkeypatch.delenv("POOL_STORE_KEY", raising=False)
    assert "set POOL_STORE_KEY" in sh("doctor").out
    monkeypatch.setenv("POOL_STORE_KEY", "k1:" + "A" * 43 + "=")
    told = sh("doctor").out
    assert "database, schema: at" in told and "database, role:" in told
    monkeypatch.setenv("POOL_STORE_URL", database._replace(name="nowhere").url())
    assert "the database does not exist" in sh("doctor").out
