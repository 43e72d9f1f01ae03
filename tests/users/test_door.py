"""Signing in: codes, passphrases, keys, the admin password, and what is counted against whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import bcrypt
import pytest

from pool_server.core.enums import Denial
from pool_server.core.settings import PoolUsers
from pool_server.users import AuditActor, Denied, Principal, RefusedError
from pool_server.users.identity.codes import spelt
from pool_server.users.identity.throttle import NAME, PEER

from .site import NOON, PASSPHRASE, SHELL, Site
from .site import PEER as HOME

BOTH_STORES = True

CODE = "open sesame"
ADMIN = AuditActor("admin", "admin", "admin", HOME)


async def turned_away(call: Any, status: int = 401) -> Denied:
    with pytest.raises(RefusedError) as info:
        await call
    assert info.value.denied.status == status, info.value.denied
    return info.value.denied


def test_a_friend_comes_in_by_code_and_returns_by_passphrase_or_key(site: Site) -> None:
    async def main() -> None:
        first = await site.users.sign_in.friend_login(peer=HOME, code=CODE, name="Anna", passphrase=PASSPHRASE)
        assert first.is_new and first.name == "Anna" and first.key is not None
        anna = site.users.authenticate(first.key)
        assert isinstance(anna, Principal) and anna.user == first.user
        for how in ({"name": "anna", "passphrase": PASSPHRASE}, {"key": first.key},
                    {"code": CODE, "name": "Anna", "passphrase": PASSPHRASE}):  # fmt: skip
            again = await site.users.sign_in.friend_login(peer=HOME, **how)
            assert (again.user, again.is_new, again.key) == (first.user, False, None)
            assert again.cookie != first.cookie
            found = await site.users.sessions.find(again.cookie)
            assert found is not None and (found.user, found.admin) == (first.user, False)

    site.run(main)


@pytest.mark.parametrize("name", ["Anna", "ANNA", "аnna"])
def test_a_name_cannot_be_claimed_by_somebody_else_who_knows_the_code(site: Site, name: str) -> None:
    async def main() -> None:
        first = await site.users.sign_in.friend_login(peer=HOME, code=CODE, name="Anna", passphrase=PASSPHRASE)
        denied = await turned_away(
            site.users.sign_in.friend_login(peer="192.0.2.66", code=CODE, name=name, passphrase="another one")
        )
        assert denied.denial is Denial.BAD_LOGIN
        assert len(site.users.people.list_keys(first.user)) == 1

    site.run(main)


def test_a_user_made_by_the_admin_cannot_be_claimed_either(site: Site) -> None:
    async def main() -> None:
        _, key = await site.friend("Anna")
        for passphrase in ("", PASSPHRASE):
            await turned_away(site.users.sign_in.friend_login(peer=HOME, code=CODE, name="Anna", passphrase=passphrase))
        entry = await site.users.sign_in.friend_login(peer=HOME, key=key)
        here = await site.users.sessions.find(entry.cookie)
        assert here is not None
        await site.users.sign_in.change_passphrase(here, "", PASSPHRASE, peer=HOME)
        assert (await site.users.sign_in.friend_login(peer=HOME, name="Anna", passphrase=PASSPHRASE)).user == entry.user

    site.run(main)


def test_two_who_want_one_name_at_once(site: Site) -> None:
    async def main() -> None:
        results = await asyncio.gather(
            *(
                site.users.sign_in.friend_login(
                    peer=f"192.0.2.{n}", code=CODE, name="Anna", passphrase=f"{PASSPHRASE}{n}"
                )
                for n in range(4)
            ),
            return_exceptions=True,
        )
        refused = [result for result in results if isinstance(result, RefusedError)]
        assert len(refused) == 3 and {result.denied.status for result in refused} <= {401, 409}
        assert len(site.users.people.list_users()[0]) == 1

    site.run(main)


def test_five_wrong_codes_and_the_sixth_even_right_waits(site: Site) -> None:
    async def main() -> None:
        right = {"code": CODE, "name": "Anna", "passphrase": PASSPHRASE}
        for _ in range(5):
            await turned_away(site.users.sign_in.friend_login(peer=HOME, **{**right, "code": "open barley"}))
        denied = await turned_away(site.users.sign_in.friend_login(peer=HOME, **right), 429)
        assert (denied.denial, denied.retry_at) == (Denial.THROTTLED, NOON + PEER.ban_s)
        assert (await site.users.sign_in.friend_login(peer="192.0.2.8", **right)).is_new
        site.clock.now += PEER.ban_s
        assert not (await site.users.sign_in.friend_login(peer=HOME, **right)).is_new

    site.run(main)


def test_wrong_passphrases_count_and_right_ones_in_between_clear_nothing(site: Site) -> None:
    async def main() -> None:
        await site.users.sign_in.friend_login(peer=HOME, code=CODE, name="Mallory", passphrase=PASSPHRASE)
        await site.users.sign_in.friend_login(peer="192.0.2.1", code=CODE, name="Anna", passphrase="anna's own words")
        for number in range(5):
            await turned_away(
                site.users.sign_in.friend_login(peer=HOME, name="Anna", passphrase=f"guess number {number}")
            )
            if number < 4:
                await site.users.sign_in.friend_login(peer=HOME, name="Mallory", passphrase=PASSPHRASE)
        await turned_away(site.users.sign_in.friend_login(peer=HOME, name="Mallory", passphrase=PASSPHRASE), 429)

    site.run(main)


def test_guesses_at_one_name_from_many_places_end(site: Site) -> None:
    async def main() -> None:
        await site.users.sign_in.friend_login(peer=HOME, code=CODE, name="Anna", passphrase=PASSPHRASE)
        for number in range(NAME.tries):
            peer = f"198.51.100.{number}"
            await turned_away(site.users.sign_in.friend_login(peer=peer, name="ANNA", passphrase="guess"))
        await turned_away(site.users.sign_in.friend_login(peer="203.0.113.1", name="Anna", passphrase=PASSPHRASE), 429)
        site.clock.now += NAME.ban_s
        await site.users.sign_in.friend_login(peer="203.0.113.1", name="Anna", passphrase=PASSPHRASE)

    site.run(main)


def test_wrong_keys_at_the_door_count_too_and_switched_off_ones_do_not(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend("Anna")
        await site.users.people.patch_user(anna.user, {"disabled": True}, actor=SHELL)
        for _ in range(6):
            await turned_away(site.users.sign_in.friend_login(peer=HOME, key=key), 403)
        for _ in range(5):
            await turned_away(site.users.sign_in.friend_login(peer=HOME, key=key[:-2]))
        await turned_away(site.users.sign_in.friend_login(peer=HOME, key=key), 429)

    site.run(main)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"code": CODE, "name": "Anna", "passphrase": "short"}, 400),
        ({"code": CODE, "name": "Anna"}, 400),
        ({"code": CODE, "name": "", "passphrase": PASSPHRASE}, 400),
        ({"code": CODE, "name": "\u202eanna", "passphrase": PASSPHRASE}, 400),
        ({"name": "Anna", "passphrase": PASSPHRASE}, 401),
        ({"code": "wrong", "name": "Anna", "passphrase": PASSPHRASE}, 401),
        ({"code": " ", "name": "Anna", "passphrase": PASSPHRASE}, 401),
        ({"code": CODE.upper(), "name": "Anna", "passphrase": PASSPHRASE}, 401),
        ({"code": CODE + "\0", "name": "Anna", "passphrase": PASSPHRASE}, 401),
        ({"code": "\ud800", "name": "Anna", "passphrase": "\ud800"}, 401),
        ({"key": "sk-ant-1"}, 401),
    ],
)
def test_what_opens_nothing(site: Site, sent: dict[str, str], status: int) -> None:
    async def main() -> None:
        denied = await turned_away(site.users.sign_in.friend_login(peer=HOME, **sent), status)
        assert PASSPHRASE not in repr(denied) and CODE not in denied.message
        assert site.users.people.list_users() == ([], None)

    site.run(main)


def test_without_a_shared_code_no_code_is_right(open_site: Callable[..., Site]) -> None:
    site = open_site(friend_code="", pool_users=PoolUsers(admin_password="secret"))
    for code in ("x", "None"):
        login = site.users.sign_in.friend_login(peer=HOME, code=code, name="Anna", passphrase=PASSPHRASE)
        asyncio.run(turned_away(login))


def test_a_shared_code_may_be_kept_as_a_hash(open_site: Callable[..., Site]) -> None:
    site = open_site(friend_code=bcrypt.hashpw(CODE.encode(), bcrypt.gensalt(4)).decode())

    async def main() -> None:
        wrong = site.users.sign_in.friend_login(peer=HOME, code="wrong", name="Anna", passphrase=PASSPHRASE)
        await turned_away(wrong)
        itself = site.settings.friend_code
        await turned_away(site.users.sign_in.friend_login(peer=HOME, code=itself, name="Anna", passphrase=PASSPHRASE))
        assert (await site.users.sign_in.friend_login(peer=HOME, code=CODE, name="Anna", passphrase=PASSPHRASE)).is_new

    site.run(main)


def test_a_wrong_name_and_a_wrong_passphrase_are_told_and_cost_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[bytes] = []

    def spy(password: bytes, hashed: bytes) -> bool:
        checks.append(hashed[:7])
        return False

    async def main() -> None:
        await site.users.sign_in.friend_login(peer=HOME, code=CODE, name="Anna", passphrase=PASSPHRASE)
        monkeypatch.setattr(bcrypt, "checkpw", spy)
        costs = []
        for name in ("Anna", "Nobody"):
            denied = await turned_away(site.users.sign_in.friend_login(peer=HOME, name=name, passphrase="wrong words"))
            costs.append((list(checks), denied.message, denied.denial))
            checks.clear()
        assert costs[0] == costs[1] and costs[0][0] == [b"$2b$04$"]

    site.run(main)


def test_disabled_friends_learn_so_only_when_they_are_themselves(site: Site) -> None:
    async def main() -> None:
        entry = await site.users.sign_in.friend_login(peer=HOME, code=CODE, name="Anna", passphrase=PASSPHRASE)
        await site.users.people.patch_user(entry.user, {"disabled": True}, actor=ADMIN)
        assert await site.users.sessions.find(entry.cookie) is None
        await turned_away(site.users.sign_in.friend_login(peer=HOME, name="Anna", passphrase="wrong words"))
        denied = await turned_away(site.users.sign_in.friend_login(peer=HOME, name="Anna", passphrase=PASSPHRASE), 403)
        assert denied.denial is Denial.USER_DISABLED

    site.run(main)


# Personal codes


def test_a_personal_code_lets_in_so_many_with_its_limits(site: Site) -> None:
    async def main() -> None:
        users = site.users
        code = await users.codes.create(actor=ADMIN, label="for the band", uses=2, limits={"tokens_day": 7})
        typed = code["code"].lower().replace("-", " ").replace("0", "o")
        for name in ("Anna", "Berta"):
            entry = await users.sign_in.friend_login(peer=HOME, code=typed, name=name, passphrase=PASSPHRASE)
            assert users.people.get(entry.user)["limits"] == {"tokens_day": 7}
            assert users.people.get(entry.user)["via"] == f"code:{code['id']}"
        denied = await turned_away(
            users.sign_in.friend_login(peer=HOME, code=typed, name="Carla", passphrase=PASSPHRASE)
        )
        assert "used up" in denied.message
        (row,) = users.codes.rows()
        assert (row["uses_left"], row["state"], len(row["used_by"])) == (0, "used up", 2)
        back = await users.sign_in.friend_login(peer=HOME, code=typed, name="Anna", passphrase=PASSPHRASE)
        assert not back.is_new

    site.run(main)


def test_one_use_lets_one_in_however_many_try_at_once(site: Site) -> None:
    async def main() -> None:
        code = (await site.users.codes.create(actor=ADMIN, uses=1))["code"]
        results = await asyncio.gather(
            *(
                site.users.sign_in.friend_login(
                    peer=f"192.0.2.{n}", code=code, name=f"friend {n}", passphrase=PASSPHRASE
                )
                for n in range(5)
            ),
            return_exceptions=True,
        )
        assert sum(not isinstance(result, BaseException) for result in results) == 1
        assert all(result.denied.status == 401 for result in results if isinstance(result, RefusedError))
        assert len(site.users.people.list_users()[0]) == 1

    site.run(main)


def test_codes_expire_and_are_revoked(site: Site) -> None:
    async def main() -> None:
        users = site.users
        late = await users.codes.create(actor=ADMIN, expires=NOON + 60, uses=None)
        gone = await users.codes.create(actor=ADMIN)
        await users.codes.revoke(gone["id"], actor=ADMIN)
        await turned_away(users.codes.revoke(gone["id"], actor=ADMIN), 404)
        ask = {"peer": HOME, "name": "Anna", "passphrase": PASSPHRASE}
        await turned_away(users.sign_in.friend_login(code=gone["code"], **ask))
        site.clock.now = NOON + 60
        denied = await turned_away(users.sign_in.friend_login(code=late["code"], **ask))
        assert "expired" in denied.message
        assert [row["state"] for row in users.codes.rows()] == ["expired"]

    site.run(main)


def test_half_a_code_is_none(site: Site) -> None:
    async def main() -> None:
        code = (await site.users.codes.create(actor=ADMIN))["code"]
        wrong = code[:-1] + ("A" if code[-1] != "A" else "B")
        for typed in (code[:5], code[:-1], wrong, code + "A", code[:5] + "-00000-00000-00000"):
            site.clock.now += 1000
            ask = {"name": "Anna", "passphrase": PASSPHRASE}
            await turned_away(site.users.sign_in.friend_login(peer=HOME, code=typed, **ask))

    site.run(main)


@pytest.mark.parametrize("bad", [{"uses": 0}, {"uses": 10**6}, {"expires": NOON}, {"limits": {"x": 1}}])
def test_codes_that_make_no_sense(site: Site, bad: dict[str, Any]) -> None:
    asyncio.run(turned_away(site.users.codes.create(actor=ADMIN, **bad), 400))


def test_codes_are_kept_as_hashes(site: Site) -> None:
    async def main() -> None:
        code = (await site.users.codes.create(actor=ADMIN))["code"]
        await site.users.sign_in.friend_login(peer=HOME, code=code, name="Anna", passphrase=PASSPHRASE)
        with site.durable.read() as txn:
            kept = b"".join(value for table in ("users.codes", "users.people") for _, value in txn.scan(table))
        assert spelt(code)[5:].encode() not in kept and PASSPHRASE.encode() not in kept
        assert kept.count(b"$2b$04$") == 2

    site.run(main)


# The admin


@pytest.fixture(params=["plain", "bcrypt"])
def guarded(request: pytest.FixtureRequest, open_site: Callable[..., Site]) -> Site:
    password = "let the admin in"
    if request.param == "bcrypt":
        password = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    return open_site(pool_users=PoolUsers(admin_password=password))


def test_the_admin_comes_in_by_password(guarded: Site) -> None:
    async def main() -> None:
        users = guarded.users
        found = await users.sign_in.check_admin("let the admin in", peer=HOME)
        assert isinstance(found, Principal) and found.admin
        entry = await users.sign_in.admin_login("let the admin in", peer=HOME)
        session = await users.sessions.find(entry.cookie)
        assert session is not None and session.admin and entry.admin
        for wrong in ("", "let the admin i", guarded.settings.pool_users.admin_password + "x"):
            denied = await users.sign_in.check_admin(wrong, peer=HOME)
            assert isinstance(denied, Denied) and denied.status == 401

    guarded.run(main)


def test_a_right_friend_code_does_not_clear_failed_admin_tries(guarded: Site) -> None:
    async def main() -> None:
        users = guarded.users
        for _ in range(4):
            await turned_away(users.sign_in.admin_login("wrong", peer=HOME))
        await users.sign_in.friend_login(peer=HOME, code=CODE, name="Anna", passphrase=PASSPHRASE)
        await turned_away(users.sign_in.admin_login("wrong", peer=HOME))
        denied = await users.sign_in.check_admin("let the admin in", peer=HOME)
        assert isinstance(denied, Denied) and (denied.status, denied.retry_at) == (429, NOON + PEER.ban_s)
        await turned_away(users.sign_in.admin_login("let the admin in", peer=HOME), 429)
        await users.sign_in.friend_login(peer=HOME, name="Anna", passphrase=PASSPHRASE)  # friends are counted apart
        assert isinstance(await users.sign_in.check_admin("let the admin in", peer="192.0.2.9"), Principal)
        bans = (await users.audit_log(action="door.ban"))[0]
        assert [(row.target, row.detail["kind"]) for row in bans] == [(HOME, "admin")]

    guarded.run(main)


def test_a_pool_key_is_no_admin_password_and_no_guess(guarded: Site) -> None:
    async def main() -> None:
        _, key = await guarded.friend("Anna")
        for _ in range(10):
            denied = await guarded.users.sign_in.check_admin(key, peer=HOME)
            assert isinstance(denied, Denied) and denied.status == 403
        assert isinstance(await guarded.users.sign_in.check_admin("let the admin in", peer=HOME), Principal)

    guarded.run(main)


def test_a_new_admin_password_ends_the_admins_sessions(guarded: Site) -> None:
    import msgspec

    async def main() -> None:
        users = guarded.users
        entry = await users.sign_in.admin_login("let the admin in", peer=HOME)
        for password in ("something new", ""):
            new = msgspec.structs.replace(guarded.settings, pool_users=PoolUsers(admin_password=password))
            users.reload(new)
            assert await users.sessions.find(entry.cookie) is None
            assert isinstance(await users.sign_in.check_admin("let the admin in", peer=HOME), Denied)
        assert isinstance(await users.sign_in.check_admin("", peer=HOME), Denied)
        users.reload(guarded.settings)
        assert await users.sessions.find(entry.cookie) is not None

    guarded.run(main)


def test_a_bcrypt_password_is_not_hashed_at_every_call(
    open_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = open_site(pool_users=PoolUsers(admin_password=bcrypt.hashpw(b"admin", bcrypt.gensalt(4)).decode()))
    checks: list[bytes] = []
    checkpw = bcrypt.checkpw

    def spy(password: bytes, hashed: bytes) -> bool:
        checks.append(password)
        return checkpw(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", spy)

    async def main() -> None:
        for _ in range(5):
            assert isinstance(await site.users.sign_in.check_admin("admin", peer=HOME), Principal)
        assert len(checks) == 1
        assert isinstance(await site.users.sign_in.check_admin("admin2", peer=HOME), Denied)
        site.clock.now += 301
        await site.users.sign_in.check_admin("admin", peer=HOME)
        assert len(checks) == 3

    site.run(main)


@pytest.mark.parametrize("name", ["Berta", "berta", "B e r t a", "Вerta"])
def test_a_name_that_stands_in_an_accounts_file_is_not_taken_at_the_door(site: Site, name: str) -> None:
    async def main() -> None:
        site.users.sign_in.keep_names(lambda: {"Berta", "u_0123456789abcdef"})
        call = site.users.sign_in.friend_login(peer=HOME, code=CODE, name=name, passphrase=PASSPHRASE)
        denied = await turned_away(call, 409)
        assert denied.denial is Denial.NAME_TAKEN and "operator" in denied.message
        made = await site.users.people.create_user("Berta", actor=ADMIN)  # whom the operator adds is who is meant
        assert site.users.people.owner_id("berta") == made["id"] == site.users.people.owner_id(made["id"])

    site.run(main)


def test_whom_a_files_owner_stands_for(site: Site) -> None:
    async def main() -> None:
        door = await site.users.sign_in.friend_login(peer=HOME, code=CODE, name="Anna", passphrase=PASSPHRASE)
        assert site.users.people.owner_id("Anna") == "", "at the door anybody can call themselves anything"
        assert site.users.people.owner_id(door.user) == door.user
        made = await site.users.people.create_user("Carla", actor=ADMIN)
        assert site.users.people.owner_id("CARLA") == made["id"]
        await site.users.people.delete_user(made["id"], actor=ADMIN)
        assert site.users.people.owner_id("Carla") == site.users.people.owner_id(made["id"]) == ""
        for odd in ("", "nobody", "\0", "x" * 2000, "u_", "admin", "local", "\udcff"):
            assert site.users.people.owner_id(odd) == ""

    site.run(main)
