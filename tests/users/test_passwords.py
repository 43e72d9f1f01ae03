from __future__ import annotations

import asyncio
import os
import threading

import bcrypt
import pytest

from pool_server.users import RefusedError
from pool_server.users.identity import passwords
from pool_server.users.identity.passwords import Hasher, checked_passphrase, is_bcrypt, same


@pytest.fixture
def hasher() -> Hasher:
    return Hasher(rounds=4, threads=1)


def test_only_the_right_passphrase_opens_its_hash(hasher: Hasher) -> None:
    async def main() -> None:
        kept = await hasher.hash("correct horse")
        assert is_bcrypt(kept) and "correct" not in kept
        assert await hasher.check("correct horse", kept)
        assert not await hasher.check("correct hors", kept)
        assert not await hasher.check("correct horse", "")
        assert not await hasher.check("correct horse", "not a hash")

    asyncio.run(main())


def test_the_whole_of_a_long_passphrase_counts_and_its_unicode_form_does_not(hasher: Hasher) -> None:
    async def main() -> None:
        long = "x" * 100
        kept = await hasher.hash(long + "1")
        assert not await hasher.check(long + "2", kept)
        assert await hasher.check("Zo\u00eb", await hasher.hash("Zoe\u0308"))
        assert await hasher.check("nul\0one", await hasher.hash("nul\0one"))
        assert not await hasher.check("nul\0one", await hasher.hash("nul\0two"))
        assert not await hasher.check("\ud800", kept)

    asyncio.run(main())


def test_hashes_of_other_programs_are_understood(hasher: Hasher) -> None:
    async def main() -> None:
        kept = bcrypt.hashpw(b"admin password", bcrypt.gensalt(4)).decode()
        assert await hasher.check_raw("admin password", kept)
        assert not await hasher.check_raw("admin passwort", kept)
        assert not await hasher.check_raw("x" * 200, kept)

    asyncio.run(main())


def test_a_check_against_nobody_does_the_same_work(hasher: Hasher, monkeypatch: pytest.MonkeyPatch) -> None:
    worked: list[bytes] = []
    checkpw = bcrypt.checkpw

    def spy(password: bytes, hashed: bytes) -> bool:
        worked.append(hashed[:7])
        return checkpw(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", spy)

    async def main() -> None:
        kept = await hasher.hash("one")
        await hasher.check("two", kept)
        await hasher.check("two", "")

    asyncio.run(main())
    assert worked == [b"$2b$04$", b"$2b$04$"]


def test_hashing_happens_elsewhere_and_gives_way(hasher: Hasher, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, int]] = []

    def spy(password: bytes, hashed: bytes) -> bool:
        nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        seen.append((threading.current_thread() is threading.main_thread(), nice))
        return False

    monkeypatch.setattr(bcrypt, "checkpw", spy)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    asyncio.run(hasher.check("one", ""))
    assert seen == [(False, 10)]
    assert os.getpriority(os.PRIO_PROCESS, threading.main_thread().native_id or 0) == before


def test_too_many_at_once_are_turned_away(hasher: Hasher, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, hashed: go.wait(10))

    async def main() -> None:
        waiting = [asyncio.create_task(hasher.check("one", "")) for _ in range(passwords.MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(RefusedError) as info:
            await hasher.check("one", "")
        assert info.value.denied.status == 503
        go.set()
        await asyncio.gather(*waiting)
        await hasher.check("one", "")

    asyncio.run(main())


def test_a_passphrase_has_to_be_long_enough() -> None:
    assert checked_passphrase("12345678") == "12345678"
    for bad in ("", "1234567", "x" * 257):
        with pytest.raises(RefusedError) as info:
            checked_passphrase(bad)
        assert info.value.denied.status == 400


def test_equality_of_texts() -> None:
    assert same("abc", "abc") and same("", "")
    assert not same("abc", "abcd") and not same("abc", "ABC") and not same("", "a")
