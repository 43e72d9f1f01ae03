from __future__ import annotations

from typing import Any

import pytest

from pool_server.storage import StoreError, StoreFullError
from pool_server.users import AuditActor, Principal, RefusedError
from pool_server.users.identity.people import MAX_KEYS

from .site import NOON, PASSPHRASE, PEER, Site

BOTH_STORES = True

ADMIN = AuditActor("admin", "admin", "admin", PEER)


async def refused(call: Any, status: int) -> str:
    with pytest.raises(RefusedError) as info:
        await call
    assert info.value.denied.status == status
    return str(info.value)


def test_an_admin_makes_a_user_with_a_first_key(site: Site) -> None:
    async def main() -> None:
        made = await site.users.people.create_user(
            " Anna  Maria ", actor=ADMIN, limits={"tokens_day": 5}, note="at work"
        )
        assert set(made) == {"id", "name", "key_id", "key"}
        row = site.users.people.get(made["id"])
        assert (row["name"], row["state"], row["created"]) == ("Anna Maria", "active", NOON)
        assert (row["limits"], row["note"], row["via"]) == ({"tokens_day": 5}, "at work", "admin")
        assert site.users.people.list_keys(made["id"])[0]["id"] == made["key_id"]
        found = site.users.people.named("anna maria")
        assert found == row and site.users.people.named("berta") is None

    site.run(main)


@pytest.mark.parametrize("name", ["Anna", "ANNA", "  anna", "ANNA\u200a", "Ánna", "A-n-n-a"])
def test_a_name_belongs_to_one_person(site: Site, name: str) -> None:
    async def main() -> None:
        await site.friend("Anna")
        berta, _ = await site.friend("Berta")
        await refused(site.users.people.create_user(name, actor=ADMIN), 409)
        await refused(site.users.people.patch_user(berta.user, {"name": name}, actor=ADMIN), 409)
        assert len(site.users.people.list_users()[0]) == 2

    site.run(main)


def test_a_name_in_two_scripts_is_nobodys(site: Site) -> None:
    async def main() -> None:
        berta, _ = await site.friend("Berta")
        await refused(site.users.people.create_user("Аnna", actor=ADMIN), 400)  # a Cyrillic А
        await refused(site.users.people.patch_user(berta.user, {"name": "Аnna"}, actor=ADMIN), 400)

    site.run(main)


def test_renaming_frees_the_old_name_and_keeps_everything_else(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend("Anna")
        await site.users.people.patch_user(anna.user, {"name": "ANNA"}, actor=ADMIN)  # her own name, written otherwise
        await site.users.people.patch_user(anna.user, {"name": "Annegret"}, actor=ADMIN)
        assert site.users.authenticate(key) == Principal(anna.user, "Annegret", anna.key)
        other, _ = await site.friend("Anna")
        assert other.user != anna.user

    site.run(main)


@pytest.mark.parametrize(
    "patch",
    [
        {},
        {"disabled": "yes"},
        {"disabled": 1},
        {"name": ""},
        {"name": 7},
        {"role": "admin"},
        {"id": "u_2"},
        {"note": "x" * 2001},
        {"weight": 0},
        {"weight": True},
        {"weight": float("nan")},
        {"limits": None},
        {"limits": {"tokens_hour": 1}},
        {"limits": {"tokens_day": "many"}},
        {"limits": {"tokens_day": 1.5}},
        {"limits": {"tokens_day": -1}},
        {"limits": {"cost_day": float("nan")}},
        {"limits": {"cost_day": float("inf")}},
        {"limits": {"concurrent": True}},
        {"limits": {"providers": ["codex", "acme"]}},
        {"limits": {"models": "gpt-5"}},
    ],
)
def test_what_will_not_do_is_refused_and_changes_nothing(site: Site, patch: dict[str, Any]) -> None:
    async def main() -> None:
        anna, _ = await site.friend()
        before = site.users.people.get(anna.user)
        assert await refused(site.users.people.patch_user(anna.user, patch, actor=ADMIN), 400)
        assert site.users.people.get(anna.user) == before

    site.run(main)


def test_a_deleted_user_leaves_a_tombstone_and_a_free_name(site: Site) -> None:
    async def main() -> None:
        anna, _ = await site.friend("Anna")
        await site.users.people.delete_user(anna.user, actor=ADMIN)
        row = site.users.people.get(anna.user)
        assert (row["name"], row["state"]) == ("Anna", "deleted")
        assert site.users.people.list_keys(anna.user) == []
        assert site.users.people.list_users() == ([], None)
        assert [row["id"] for row in site.users.people.list_users(deleted=True)[0]] == [anna.user]
        await refused(site.users.people.patch_user(anna.user, {"disabled": False}, actor=ADMIN), 404)
        await refused(site.users.people.delete_user(anna.user, actor=ADMIN), 404)
        await refused(site.users.people.create_key(anna.user, actor=ADMIN), 404)
        again, _ = await site.friend("Anna")
        assert again.user != anna.user

    site.run(main)


@pytest.mark.parametrize("user_id", ["", "u_0", "\0", "x" * 1000, "../..", "\ud800"])
def test_ids_of_nobody(site: Site, user_id: str) -> None:
    async def main() -> None:
        users = site.users
        await refused(users.people.patch_user(user_id, {"disabled": True}, actor=ADMIN), 404)
        await refused(users.people.delete_user(user_id, actor=ADMIN), 404)
        await refused(users.people.rotate(user_id, actor=ADMIN), 404)
        await refused(users.people.revoke_key("u_1", user_id, actor=ADMIN), 404)
        await refused(users.codes.revoke(user_id, actor=ADMIN), 404)
        with pytest.raises(RefusedError):
            users.people.get(user_id)
        with pytest.raises(RefusedError):
            await users.tickets.create(Principal("u_1", "x"), key_id=user_id or "k")

    site.run(main)


def test_users_are_listed_page_by_page(site: Site) -> None:
    async def main() -> None:
        made = {(await site.friend(f"friend {number}"))[0].user for number in range(7)}
        seen: list[str] = []
        cursor: str | None = None
        for size in (3, 3, 1):
            rows, cursor = site.users.people.list_users(cursor=cursor, limit=3)
            assert len(rows) == size and all(row["keys"] == 1 for row in rows)
            seen += [row["id"] for row in rows]
        assert cursor is None and set(seen) == made

    site.run(main)


def test_keys_are_made_listed_and_revoked_one_by_one(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend("Anna")
        berta, _ = await site.friend("Berta")
        made = await site.users.people.create_key(anna.user, " my \n laptop ", actor=ADMIN, expires=NOON + 3600)
        assert made["label"] == "my laptop"
        rows = site.users.people.list_keys(anna.user)
        assert [set(row) for row in rows] == [{"id", "label", "created", "expires", "last_used", "wait"}] * 2
        await refused(site.users.people.revoke_key(berta.user, made["id"], actor=ADMIN), 404)
        await site.users.people.revoke_key(anna.user, made["id"], actor=ADMIN)
        await refused(site.users.people.revoke_key(anna.user, made["id"], actor=ADMIN), 404)
        assert [row["id"] for row in site.users.people.list_keys(anna.user)] == [anna.key]
        assert isinstance(site.users.authenticate(key), Principal)
        await refused(site.users.people.create_key(anna.user, "x" * 65, actor=ADMIN), 400)

    site.run(main)


def test_rotating_leaves_one_new_key(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend("Anna")
        await site.users.people.create_key(anna.user, "laptop", actor=ADMIN)
        fresh = await site.users.people.rotate(anna.user, actor=ADMIN)
        assert not isinstance(site.users.authenticate(key), Principal)
        assert isinstance(site.users.authenticate(fresh["key"]), Principal)
        assert len(site.users.people.list_keys(anna.user)) == 1

    site.run(main)


def test_a_script_gone_wild_cannot_fill_the_store_with_keys(site: Site) -> None:
    async def main() -> None:
        anna, _ = await site.friend("Anna")
        for _ in range(MAX_KEYS - 1):
            await site.users.people.create_key(anna.user, actor=ADMIN)
        await refused(site.users.people.create_key(anna.user, actor=ADMIN), 409)

    site.run(main)


@pytest.mark.parametrize("error", [StoreError("no answer"), StoreFullError("no space left")])
def test_what_was_last_used_waits_for_a_store_that_writes(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def main() -> None:
        anna, key = await site.friend("Anna")
        await site.users.close()
        site.clock.now += 100
        site.users.authenticate(key)
        waiting = site.users._last_used
        with monkeypatch.context() as failing, caplog.at_level("WARNING"):
            failing.setattr(site.state, "write", lambda _: _raise(error))
            for _ in range(3):
                waiting.write_in_turn()
            assert len(caplog.records) == 1 and caplog.records[0].exc_info is None, "told once, in one line"
        waiting.write_in_turn()
        assert site.users.people.list_keys(anna.user)[0]["last_used"] == NOON + 100
        assert not waiting.write(), "what is written is not written again"

    site.run(main)


def _raise(error: Exception) -> None:
    raise error


def test_last_used_is_written_in_its_own_time(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend("Anna")
        await site.users.close()
        assert site.users.people.list_keys(anna.user)[0]["last_used"] == NOON
        site.clock.now += 100
        site.users.authenticate(key)
        assert site.users.people.list_keys(anna.user)[0]["last_used"] == NOON
        await site.users.close()
        assert site.users.people.list_keys(anna.user)[0]["last_used"] == NOON + 100
        assert site.users.people.get(anna.user)["last_seen"] == NOON + 100

    site.run(main)


def test_every_change_is_audited_without_secrets(site: Site) -> None:
    async def main() -> None:
        users = site.users
        made = await users.people.create_user("Anna", actor=ADMIN)
        code = await users.codes.create(actor=ADMIN, label="for Berta")
        entry = await users.sign_in.friend_login(peer=PEER, code=code["code"], name="Berta", passphrase=PASSPHRASE)
        await users.people.patch_user(made["id"], {"limits": {"tokens_day": 5}, "note": "private words"}, actor=ADMIN)
        await users.people.patch_user(made["id"], {"disabled": True}, actor=ADMIN)
        await users.people.patch_user(made["id"], {"disabled": False}, actor=ADMIN)
        key = await users.people.create_key(made["id"], "laptop", actor=ADMIN)
        await users.people.revoke_key(made["id"], key["id"], actor=ADMIN)
        rotated = await users.people.rotate(made["id"], actor=ADMIN)
        await users.codes.revoke(code["id"], actor=ADMIN)
        await users.sign_in.reset_passphrase(entry.user, actor=ADMIN)
        await users.people.end_sessions(entry.user, actor=ADMIN)
        await users.people.delete_user(made["id"], actor=ADMIN)
        await users.audit(ADMIN, "account.disable", "claude:work", {"why": "asked to"})
        rows, cursor = await users.audit_log(limit=100)
        assert cursor is None
        assert [row.action for row in reversed(rows)] == [
            "user.create", "code.create", "user.create", "session.open", "user.change", "user.disable",
            "user.enable", "key.create", "key.revoke", "key.rotate", "code.revoke", "user.passphrase",
            "session.end_all", "user.delete", "account.disable",
        ]  # fmt: skip
        assert {row.peer for row in rows} == {PEER} and {row.at for row in rows} == {NOON}
        secrets = (made["key"], key["key"], rotated["key"], entry.key, entry.cookie, code["code"], PASSPHRASE)
        assert entry.key and entry.key not in repr(entry) and entry.cookie not in repr(entry)
        for secret in (*secrets, "private words"):
            assert secret and secret not in repr(rows)
            assert secret not in repr(users.people.list_users()) + repr(users.codes.rows())

    site.run(main)


def test_the_audit_log_is_read_newest_first_page_by_page(site: Site) -> None:
    async def main() -> None:
        for number in range(10):
            actor = ADMIN if number % 2 else AuditActor("user", "u_1", "Anna", "192.0.2.9")
            await site.users.audit(actor, f"test.{number}", "even" if number % 2 == 0 else "odd")
        seen, cursor = await site.users.audit_log(limit=4)
        while cursor is not None:
            rows, cursor = await site.users.audit_log(limit=4, cursor=cursor)
            seen += rows
        assert [row.action for row in seen] == [f"test.{number}" for number in reversed(range(10))]
        assert [row.seq for row in seen] == sorted((row.seq for row in seen), reverse=True)
        mine, more = await site.users.audit_log(actor="u_1", limit=3)
        assert [row.action for row in mine] == ["test.8", "test.6", "test.4"] and more is not None
        assert len((await site.users.audit_log(target="odd"))[0]) == 5
        assert len((await site.users.audit_log(action="test."))[0]) == 10
        assert (await site.users.audit_log(action="user."))[0] == []

    site.run(main)


def test_everything_is_there_after_a_restart(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend("Anna", tokens_day=9)
        restarted = site.worker()
        restarted.load()
        assert restarted.authenticate(key) == anna
        assert restarted.me(anna)["limits"]["tokens_day"] == 9

    site.run(main)
