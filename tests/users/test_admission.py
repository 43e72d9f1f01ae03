"""Who may come in with a key, and what a key's end does."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest

from pool_server.core.enums import Denial
from pool_server.core.models import Usage
from pool_server.core.settings import FairShare, LedgerSettings, Limits, PoolUsers, Settings
from pool_server.storage import StoreError
from pool_server.users import Denied, Principal, RefusedError, Reservation

from .site import NOON, SHELL, Site

SECRET = "the secret of this pool, from its settings"
ASK: dict[str, Any] = {"provider": "codex", "model": "gpt-5", "tokens": 100, "cost": None, "headroom": None}


def denial(answer: object) -> tuple[Denial, int]:
    assert isinstance(answer, Denied)
    return answer.denial, answer.status


def test_a_key_lets_its_user_in(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend("Anna")
        assert (anna.name, anna.admin, anna.local) == ("Anna", False, False)
        assert site.users.authenticate(key) == anna
        assert site.worker().authenticate(key) == anna  # another worker, or this one after a restart

    site.run(main)


@pytest.mark.parametrize("token", [None, ""])
def test_no_key(site: Site, token: str | None) -> None:
    assert denial(site.users.authenticate(token)) == (Denial.NO_KEY, 401)


@pytest.mark.parametrize(
    "token",
    ["sk-proj-abc", "sk-ant-api03-abc", "sk-ant-oat01-abc", "ya29.a0AfH6", "AIzaSyAbc", "a.b.c", "…", "\0"],
)
def test_foreign_credentials_are_no_keys(site: Site, token: str) -> None:
    assert denial(site.users.authenticate(token)) == (Denial.BAD_KEY, 401)


def test_keys_that_were_tampered_with(open_site: Callable[..., Site]) -> None:
    site = open_site(pool_users=PoolUsers(jwt_secret=SECRET))

    async def main() -> None:
        _, key = await site.friend()
        claims = jwt.decode(key, options={"verify_signature": False})
        head, body, mac = key.split(".")
        none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=").decode()
        last = "A" if mac[-1] != "A" else "B"
        for bad in (
            f"{head}.{body}.{mac[:-1]}{last}",
            f"{none}.{body}.",
            f"{none}.{body}.{mac}",
            jwt.encode(claims, SECRET + "x", algorithm="HS256"),
        ):
            assert denial(site.users.authenticate(bad)) == (Denial.BAD_KEY, 401)
        for field, value in (("jti", "k_unknown"), ("sub", "u_unknown"), ("jti", "")):
            unknown = jwt.encode({**claims, field: value}, SECRET, algorithm="HS256")
            assert denial(site.users.authenticate(unknown)) == (Denial.REVOKED_KEY, 401)
        assert isinstance(site.users.authenticate(key), Principal)

    site.run(main)


def test_a_key_ends_when_it_was_to_end(site: Site) -> None:
    async def main() -> None:
        anna, _ = await site.friend()
        made = await site.users.people.create_key(anna.user, "short", actor=SHELL, expires=NOON + 60)
        assert isinstance(site.users.authenticate(made["key"]), Principal)
        site.clock.now = NOON + 60
        assert denial(site.users.authenticate(made["key"])) == (Denial.EXPIRED_KEY, 401)
        assert denial(site.worker().authenticate(made["key"])) == (Denial.EXPIRED_KEY, 401)
        with pytest.raises(RefusedError):
            await site.users.people.create_key(anna.user, "past", actor=SHELL, expires=NOON)

    site.run(main)


def test_a_revoked_key_is_forgotten_at_once_in_every_worker(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend()
        other = await site.users.people.create_key(anna.user, "laptop", actor=SHELL)
        second = site.worker()
        ended: list[tuple[str, Any]] = []
        site.users.on_end.append(lambda *who: ended.append(("here", who)))
        second.on_end.append(lambda *who: ended.append(("there", who)))
        await second.start()
        for worker in (site.users, second):
            assert isinstance(worker.authenticate(key), Principal)
        await site.users.people.revoke_key(anna.user, anna.key, actor=SHELL)
        assert denial(site.users.authenticate(key)) == (Denial.REVOKED_KEY, 401)
        assert ended == [("here", (None, anna.key))]
        await until(lambda: len(ended) == 2)
        assert ended[1] == ("there", (None, anna.key))
        assert denial(second.authenticate(key)) == (Denial.REVOKED_KEY, 401)
        assert isinstance(second.authenticate(other["key"]), Principal)
        await second.close()

    site.run(main)


@pytest.mark.slow
def test_a_disabled_user_is_told_so_and_comes_back_when_enabled(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend()
        second = site.worker()
        ended: list[Any] = []
        second.on_end.append(lambda *who: ended.append(who))
        await second.start()
        assert isinstance(second.authenticate(key), Principal)
        await site.users.people.patch_user(anna.user, {"disabled": True}, actor=SHELL)
        assert denial(site.users.authenticate(key)) == (Denial.USER_DISABLED, 403)
        assert denial(site.users.admission.reserve(anna, **ASK)) == (Denial.REVOKED_KEY, 401)
        await until(lambda: ended == [(anna.user, None)])
        assert denial(second.authenticate(key)) == (Denial.USER_DISABLED, 403)
        await site.users.people.patch_user(anna.user, {"disabled": False}, actor=SHELL)
        await until(lambda: isinstance(second.authenticate(key), Principal))
        assert ended == [(anna.user, None)]
        await second.close()

    site.run(main)


def test_a_deleted_user_is_gone(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend()
        ended: list[Any] = []
        site.users.on_end.append(lambda *who: ended.append(who))
        await site.users.people.delete_user(anna.user, actor=SHELL)
        assert denial(site.users.authenticate(key)) == (Denial.REVOKED_KEY, 401)
        assert ended == [(anna.user, None)]

    site.run(main)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(1.0):  # what the contract allows
        while not true():
            await asyncio.sleep(0.01)


def test_a_listener_that_fails_does_not_keep_the_others_from_hearing(site: Site) -> None:
    async def main() -> None:
        anna, _ = await site.friend()
        heard: list[Any] = []

        def bad(user: str | None, key: str | None) -> None:
            raise RuntimeError("no")

        site.users.on_end += [bad, lambda *who: heard.append(who)]
        await site.users.people.rotate(anna.user, actor=SHELL)
        assert heard == [(None, anna.key)]

    site.run(main)


def test_a_worker_that_slept_too_long_checks_everybody_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_server.users.changes.KEEP_CHANGES", 3)

    async def main() -> None:
        anna, anna_key = await site.friend("Anna")
        berta, berta_key = await site.friend("Berta")
        sleeper = site.worker()
        ended: list[Any] = []
        sleeper.on_end.append(lambda *who: ended.append(who))
        for key in (anna_key, berta_key):
            assert isinstance(sleeper.authenticate(key), Principal)
        await site.users.people.revoke_key(anna.user, anna.key, actor=SHELL)
        for number in range(6):
            await site.users.people.patch_user(berta.user, {"note": str(number)}, actor=SHELL)
        await sleeper.start()
        await until(lambda: ended == [(None, anna.key)])
        assert denial(sleeper.authenticate(anna_key)) == (Denial.REVOKED_KEY, 401)
        assert isinstance(sleeper.authenticate(berta_key), Principal)
        await sleeper.close()

    site.run(main)


def test_keys_outlive_a_rotated_secret_for_a_while(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend()
        second = site.worker()
        await site.users.rotate_secret(actor=SHELL)
        fresh = await site.users.people.create_key(anna.user, "new", actor=SHELL)
        assert isinstance(site.users.authenticate(key), Principal)
        await second.start()
        await until(lambda: isinstance(second.authenticate(fresh["key"]), Principal))
        await second.close()
        site.clock.now += 31 * 86400
        assert denial(site.worker().authenticate(key)) == (Denial.BAD_KEY, 401)
        assert isinstance(site.worker().authenticate(fresh["key"]), Principal)

    site.run(main)


def test_a_secret_in_the_settings_is_rotated_there(open_site: Callable[..., Site]) -> None:
    site = open_site(pool_users=PoolUsers(jwt_secret=SECRET))

    async def main() -> None:
        _, key = await site.friend()
        with pytest.raises(RefusedError) as info:
            await site.users.rotate_secret(actor=SHELL)
        assert info.value.denied.status == 409 and SECRET not in str(info.value)
        new = PoolUsers(jwt_secret="something new for everybody", jwt_secret_previous=SECRET)
        site.users.reload(settings_with(site, pool_users=new))
        assert isinstance(site.users.authenticate(key), Principal)
        site.users.reload(settings_with(site, pool_users=PoolUsers(jwt_secret="something new for everybody")))
        assert denial(site.users.authenticate(key)) == (Denial.BAD_KEY, 401)

    site.run(main)


def settings_with(site: Site, **changes: Any) -> Any:
    return msgspec.structs.replace(site.settings, **changes)


def test_a_store_that_cannot_be_read_lets_nobody_new_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        anna, key = await site.friend()
        second = site.worker()

        def broken(table: str, key: bytes) -> None:
            raise StoreError("the store failed")

        monkeypatch.setattr(site.durable, "get", broken)
        assert denial(second.authenticate(key)) == (Denial.STORE, 503)
        assert denial(second.admission.reserve(anna, **ASK)) == (Denial.STORE, 503)

    site.run(main)


def test_local_mode_needs_no_key_and_has_no_limits(open_site: Callable[..., Site]) -> None:
    site = open_site(friend_code="", limits=Limits(tokens_day=1, concurrent=0))
    local = site.users.local_principal()
    assert local.local and local.admin
    made = site.users.admission.reserve(local, **ASK)
    assert isinstance(made, Reservation)
    site.users.admission.progress(made, 10, None)
    site.users.admission.settle(made, Usage(input=10), None)
    assert site.users.me(local)["user"] == {"id": "local", "name": "you"}
    with site.state.read() as txn:
        assert txn.count("users.use") == 0


def test_limits_follow_the_defaults_and_the_users_own(open_site: Callable[..., Site]) -> None:
    site = open_site(limits=Limits(tokens_day=50_000, concurrent=2, models=["gpt-*"]))

    async def main() -> None:
        anna, _ = await site.friend("Anna", tokens_day=None, concurrent=1, providers=["codex"])
        limits = site.users.me(anna)["limits"]
        assert (limits["tokens_day"], limits["concurrent"], limits["models"]) == (None, 1, ["gpt-*"])
        assert denial(site.users.admission.reserve(anna, **{**ASK, "provider": "claude"})) == (Denial.PROVIDER, 403)
        assert denial(site.users.admission.reserve(anna, **{**ASK, "model": "opus"})) == (Denial.MODEL, 403)
        assert isinstance(site.users.admission.reserve(anna, **{**ASK, "provider": "", "model": ""}), Reservation)
        assert denial(site.users.admission.reserve(anna, **ASK)) == (Denial.CONCURRENT, 429)
        await site.users.people.patch_user(anna.user, {"limits": {}}, actor=SHELL)
        assert site.users.me(anna)["limits"]["tokens_day"] == 50_000
        assert isinstance(site.users.admission.reserve(anna, **ASK), Reservation)
        site.users.reload(settings_with(site, limits=Limits()))
        assert site.users.me(anna)["limits"]["tokens_day"] is None

    site.run(main)


def test_me_tells_what_is_used_and_when_it_frees(site: Site) -> None:
    async def main() -> None:
        anna, _ = await site.friend("Anna", tokens_5h=100_000)
        made = site.users.admission.reserve(anna, **ASK)
        assert isinstance(made, Reservation)
        site.users.admission.settle(made, Usage(input=700, output=300), 0.5)
        running = site.users.admission.reserve(anna, **ASK)
        me = site.users.me(anna)
        assert me["user"] == {"id": anna.user, "name": "Anna"}
        assert set(me["limits"]) == set(me["used"]) == set(me["frees"]) == set(Limits.__struct_fields__)
        assert me["used"]["tokens_5h"] == me["used"]["tokens_month"] == 1000
        assert (me["used"]["cost_day"], me["used"]["concurrent"], me["used"]["requests_per_minute"]) == (0.5, 1, 2)
        assert me["frees"]["tokens_5h"] == NOON // 300 * 300 + 300 + 18_000
        assert [key["label"] for key in me["keys"]] == ["first key"]
        assert isinstance(running, Reservation)

    site.run(main)


def test_new_settings_reach_fair_share_and_the_calendar(open_site: Callable[..., Site]) -> None:
    site = open_site(fair_share=FairShare(short_percent=0.0))

    async def main() -> None:
        greedy, _ = await site.friend("Greedy")
        modest, _ = await site.friend("Modest")
        for who, tokens in ((greedy, 90_000), (modest, 10_000)):
            made = site.users.admission.reserve(who, **ASK)
            assert isinstance(made, Reservation)
            site.users.admission.settle(made, Usage(input=tokens), None)
        assert isinstance(site.users.admission.reserve(greedy, **{**ASK, "headroom": 5.0}), Reservation)
        before = site.users.me(greedy)["frees"]["tokens_day"]
        new = settings_with(site, fair_share=FairShare(), ledger=LedgerSettings(timezone="Pacific/Auckland"))
        site.users.reload(new)
        assert denial(site.users.admission.reserve(greedy, **{**ASK, "headroom": 5.0})) == (Denial.FAIR_SHARE, 429)
        assert site.users.me(greedy)["frees"]["tokens_day"] != before
        with pytest.raises(ValueError, match="Mars"):
            site.users.reload(settings_with(site, ledger=LedgerSettings(timezone="Mars"), limits=Limits(tokens_day=1)))
        assert site.users.me(greedy)["limits"]["tokens_day"] is None

    site.run(main)


OTHER_WORKER = """
    import asyncio, sys
    from pathlib import Path
    from pool_server.core.settings import Settings
    from pool_server.storage import Store
    from pool_server.users import LEDGER_TABLES, STATE_TABLES, Principal, Users

    async def main():
        folder = Path(sys.argv[1])
        durable = Store.open(folder / "ledger", tables=LEDGER_TABLES, durable=True, map_size=1 << 24)
        state = Store.open(folder / "state", tables=STATE_TABLES, durable=False, map_size=1 << 24)
        users = Users(Settings(data_dir=str(folder)), durable, state)
        users.load()
        ended = asyncio.Event()
        users.on_end.append(lambda user, key: ended.set())
        await users.start()
        assert isinstance(users.authenticate(sys.argv[2]), Principal)
        print("ready", flush=True)
        await asyncio.wait_for(ended.wait(), 60)
        print(users.authenticate(sys.argv[2]).denial.value, flush=True)
        await users.close()

    asyncio.run(main())
"""


def other_worker(folder: Path, key: str) -> subprocess.Popen[str]:
    code = textwrap.dedent(OTHER_WORKER)
    return subprocess.Popen([sys.executable, "-c", code, str(folder), key], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_another_process_hears_of_a_revoked_key_within_a_second(site: Site, tmp_path: Path) -> None:
    async def main() -> None:
        anna, key = await site.friend()
        worker = other_worker(tmp_path, key)
        with worker:
            assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
            began = time.monotonic()
            await site.users.people.revoke_key(anna.user, anna.key, actor=SHELL)
            assert worker.stdout.readline() == "revoked_key\n"
            assert time.monotonic() - began < 1.0

    site.run(main)


def test_who_may_force_an_account(site: Site) -> None:
    anna = Principal("u_1", "Anna", "k_1")
    assert site.users.may_force(anna, "u_1")
    assert not site.users.may_force(anna, "anna"), "a name is no authority: see owner_id"
    assert not site.users.may_force(anna, "berta")
    assert not site.users.may_force(anna, "")
    assert site.users.may_force(Principal("admin", "admin", admin=True), "berta")
    assert site.users.may_force(site.users.local_principal(), "")


def test_what_frees_soon_is_waited_for(open_site: Callable[..., Site]) -> None:
    site = open_site(fair_share=FairShare(wait_s=5.0))

    async def main() -> None:
        anna, _ = await site.friend("Anna", tokens_day=2000)
        made = site.users.admission.reserve(anna, **ASK)
        assert isinstance(made, Reservation)
        waiting = asyncio.create_task(site.users.admission.reserve_or_wait(anna, **ASK))
        await asyncio.sleep(0)
        assert not waiting.done()
        site.users.admission.settle(made, Usage(input=100), None)
        second = await waiting
        assert isinstance(second, Reservation)
        site.users.admission.settle(second, Usage(input=2000), None)
        assert denial(await site.users.admission.reserve_or_wait(anna, **ASK)) == (Denial.TOKENS_DAY, 429)

    site.run(main)


def test_a_greedy_user_waits_only_while_room_is_short(open_site: Callable[..., Site]) -> None:
    site = open_site(fair_share=FairShare(wait_s=0.2, short_percent=20.0))

    async def main() -> None:
        greedy, _ = await site.friend("Greedy")
        modest, _ = await site.friend("Modest")
        for who, tokens in ((greedy, 90_000), (modest, 10_000)):
            made = site.users.admission.reserve(who, **ASK)
            assert isinstance(made, Reservation)
            site.users.admission.settle(made, Usage(input=tokens), None)
        short = {**ASK, "headroom": 5.0}
        assert isinstance(site.users.admission.reserve(modest, **short), Reservation)
        denied = await site.users.admission.reserve_or_wait(greedy, **short)
        assert denial(denied) == (Denial.FAIR_SHARE, 429)
        assert isinstance(denied, Denied) and denied.retry_at == NOON // 600 * 600 + 600 + 5 * 3600
        assert isinstance(site.users.admission.reserve(greedy, **{**short, "provider": "claude"}), Reservation)
        assert isinstance(site.users.admission.reserve(greedy, **{**ASK, "headroom": 50.0}), Reservation)
        rooms = iter([5.0, 50.0])
        answer = await site.users.admission.reserve_or_wait(greedy, **{**ASK, "headroom": lambda: next(rooms)})
        assert isinstance(answer, Reservation)
        await site.users.people.patch_user(greedy.user, {"weight": 50}, actor=SHELL)
        site.clock.now += 2
        assert isinstance(site.users.admission.reserve(greedy, **short), Reservation)

    site.run(main)


def test_a_crowd_of_one_person_has_a_bound_without_any_setting(open_site: Callable[..., Site]) -> None:
    site = open_site(limits=Settings().limits)

    async def main() -> None:
        anna, _ = await site.friend("Anna")
        ben, _ = await site.friend("Ben")
        answers = [site.users.admission.reserve(anna, **ASK) for _ in range(65)]
        assert [isinstance(one, Reservation) for one in answers] == [True] * 64 + [False]
        assert denial(answers[-1]) == (Denial.CONCURRENT, 429)
        assert isinstance(site.users.admission.reserve(ben, **ASK), Reservation)

    site.run(main)
