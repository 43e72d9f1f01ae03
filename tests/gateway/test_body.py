"""A body stays what it was, in memory and in a file, as often as it is sent; all bodies stay within their budgets."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.settings import Budgets, Limits
from pool_server.gateway import service
from pool_server.gateway.http import body as module
from pool_server.gateway.http.body import CROWDED_LIMIT, FULL_LIMIT, MEMORY_LIMIT, Body, Spool, SpoolFullError
from tests.fakes import account
from tests.gateway.stack import Stack, messages, run

MB = 1 << 20


def spool(folder: Path | str, **caps: int) -> Spool:
    return Spool(Path(folder), **{"memory": 64 * MB, "total": 64 * MB, "per_user": 64 * MB} | caps)


def filled(place: Spool, size: int, owner: str = "ada") -> Body:
    body = Body(place, owner)
    while body.size < size:
        body.append(b"x" * min(64 << 10, size - body.size))
    return body


async def _collect(body: Body) -> bytes:
    payload = body.payload()
    if isinstance(payload, bytes):
        return payload
    return b"".join([piece async for piece in payload])


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=20), st.integers(1, 200))
def test_any_pieces_come_back_whole_and_twice(pieces: list[bytes], limit: int) -> None:
    whole = b"".join(pieces)
    originals = module.MEMORY_LIMIT, module.FULL_LIMIT
    module.MEMORY_LIMIT = module.FULL_LIMIT = limit
    place = spool(tempfile.gettempdir())
    try:
        body = Body(place)
        for piece in pieces:
            body.append(piece)
        assert body.size == len(whole)
        assert body.in_file is (len(whole) > limit)
        assert bytes(body.view()) == whole
        assert asyncio.run(_collect(body)) == whole
        assert asyncio.run(_collect(body)) == whole
        body.close()
        body.close()
        assert (place.held, place.files.used) == (0, 0)
    finally:
        module.MEMORY_LIMIT, module.FULL_LIMIT = originals


def test_files_have_no_name_and_stand_in_the_data_folder(tmp_path: Path) -> None:
    body = filled(spool(tmp_path), MEMORY_LIMIT + 1)
    target = os.readlink(f"/proc/self/fd/{vars_of(body)['_fd']}")
    assert target.startswith(str(tmp_path)) and "deleted" in target
    assert list(tmp_path.iterdir()) == []
    body.close()


def test_a_filesystem_without_nameless_files_does_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def plain(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no such thing")
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", plain)
    body = filled(spool(tmp_path), MEMORY_LIMIT + 1)
    assert (body.in_file, list(tmp_path.iterdir())) == (True, [])
    body.close()


def vars_of(body: Body) -> dict[str, Any]:
    return {name: getattr(body, name) for name in Body.__slots__}


def test_the_more_is_held_the_less_of_a_body_stays_in_memory(tmp_path: Path) -> None:
    place = spool(tmp_path, memory=40 * MB)
    for held, limit in ((0, MEMORY_LIMIT), (20 * MB, CROWDED_LIMIT), (40 * MB, FULL_LIMIT)):
        place.held = held - limit if held else 0  # what the others hold
        fits = filled(place, limit)
        assert (fits.in_file, place.memory_limit) == (False, limit if held else MEMORY_LIMIT)
        assert filled(place, limit + 1).in_file
        fits.close()


def test_a_user_and_all_have_their_share_of_the_disk(tmp_path: Path) -> None:
    place = spool(tmp_path, per_user=20 * MB, total=30 * MB)
    kept = filled(place, 12 * MB)
    with pytest.raises(SpoolFullError) as full:
        filled(place, 12 * MB)
    assert full.value.reason == "user"
    other = filled(place, 9 * MB, "berta")
    with pytest.raises(SpoolFullError) as full:
        filled(place, 12 * MB, "carl")
    assert full.value.reason == "total"
    for body in (kept, other):
        body.close()
    assert place.files.used > 0, "the two that were refused are not closed yet"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 400), st.booleans())))
def test_budgets_hold_and_come_back(steps: list[tuple[str, int, bool]]) -> None:
    originals = module.MEMORY_LIMIT, module.CROWDED_LIMIT, module.FULL_LIMIT
    module.MEMORY_LIMIT, module.CROWDED_LIMIT, module.FULL_LIMIT = 200, 100, 50
    place = spool(tempfile.gettempdir(), memory=400, total=1000, per_user=500)
    bodies: list[Body] = []
    try:
        for owner, size, close in steps:
            body = Body(place, owner)
            try:
                body.append(b"x" * size)
                bodies.append(body)
            except SpoolFullError:
                body.close()
            if close and bodies:
                bodies.pop(0).close()
            assert 0 <= place.held <= 400 + 200
            assert 0 <= place.files.used <= 1000
            assert place.files.used + place.held == sum(one.size for one in bodies)
        for body in bodies:
            body.close()
        assert (place.held, place.files.used, vars(place.files)["_of"]) == (0, 0, {})
    finally:
        module.MEMORY_LIMIT, module.CROWDED_LIMIT, module.FULL_LIMIT = originals


@pytest.mark.parametrize(
    ("broken", "reason"),
    [(errno.ENOSPC, "disk"), (errno.EDQUOT, "disk"), (errno.EMFILE, "descriptors"), (errno.EIO, "disk")],
)
@pytest.mark.parametrize("call", ["open", "write"])
def test_what_stands_in_the_way_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int, reason: str, call: str
) -> None:
    def fail(*args: object, **kwargs: object) -> int:
        raise OSError(broken, os.strerror(broken))

    place = spool(tmp_path)
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(SpoolFullError) as full:
        filled(place, MEMORY_LIMIT + 1)
    assert full.value.reason == reason


# -- through a whole server


def upload(size: int) -> io.BytesIO:
    return io.BytesIO(json.dumps(messages(text="x" * size)).encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budgets", "status", "code"),
    [
        (Budgets(spool_user_mb=10, body_memory_mb=8), 429, b"one user"),
        (Budgets(spool_mb=10, body_memory_mb=8), 503, b"this pool"),
    ],
)
def test_uploads_at_once_are_counted_together(tmp_path: Path, budgets: Budgets, status: int, code: bytes) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")], budgets=budgets, max_body_mb=10) as stack:
            open_ = asyncio.Event()

            async def slow() -> Any:
                yield upload(9 * MB).getvalue()[: 9 * MB]
                await open_.wait()

            async def uploading() -> int:
                async with stack.client.post(stack.url + "/v1/messages", data=slow()) as answer:
                    return answer.status

            first = asyncio.ensure_future(uploading())
            while stack.gateway.spool.files.used < 9 * MB:
                await asyncio.sleep(0.005)
            told, answer = await stack.post("/v1/messages", upload(9 * MB))
            assert told == status
            assert code in answer
            assert json.loads(answer)["type"] == "error"
            open_.set()
            await first
            await stack.idle()
            assert (stack.gateway.spool.files.used, stack.gateway.spool.held) == (0, 0)
            assert (await stack.post("/v1/messages", upload(9 * MB)))[0] == 200

    run(test)


def test_whoever_is_over_a_limit_uploads_a_mebibyte_and_no_more(tmp_path: Path) -> None:
    async def test() -> None:
        limits = Limits(requests_per_minute=0)
        async with Stack(tmp_path, [account("claude:one")], friend_code="swim", limits=limits) as stack:
            key = await stack.key()
            taken: list[int] = []
            real: Callable[[Body, bytes], None] = Body.append

            def counted(self: Body, chunk: bytes) -> None:
                real(self, chunk)
                taken.append(self.size)

            Body.append = counted  # type: ignore[method-assign]
            try:
                assert (await stack.post("/v1/messages", upload(20 * MB), token=key))[0] == 429
            finally:
                Body.append = real  # type: ignore[method-assign, assignment]
            assert max(taken) <= MB
            await stack.idle()
            assert stack.gateway.spool.files.used == 0

    run(test)


def test_memory_is_given_back_after_a_burst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[bool] = []
    monkeypatch.setattr(service, "give_memory_back", lambda: trimmed.append(True))

    async def test() -> None:
        async with Stack(tmp_path, [account("claude:one")]) as stack:
            gateway = stack.gateway
            gateway._tick()
            bodies = [filled(gateway.spool, 7 * MB) for _ in range(6)]
            gateway._tick()
            assert trimmed == []
            for body in bodies:
                body.close()
            gateway._tick()
            while gateway._background:
                await asyncio.sleep(0.005)
            assert trimmed == [True]
            gateway._tick()
            assert not gateway._background

    run(test)


@pytest.mark.parametrize(("given", "told"), [(1, True), (0, False), (None, False)])
def test_giving_memory_back_works_where_the_library_can(
    monkeypatch: pytest.MonkeyPatch, given: int | None, told: bool
) -> None:
    asked: list[int] = []

    def trim(pad: int) -> int | None:
        asked.append(pad)
        return given

    library = SimpleNamespace() if given is None else SimpleNamespace(malloc_trim=trim)
    monkeypatch.setattr("ctypes.CDLL", lambda _: library)
    assert service.give_memory_back() is told
    assert asked == ([] if given is None else [0])


def test_a_body_that_will_not_stay_in_memory_is_in_its_file_from_the_first_byte(tmp_path: Path) -> None:
    body = Body(spool(tmp_path))
    body.expect(9 << 20)
    body.append(bytes(FULL_LIMIT + 1))
    assert body.in_file
    body.close()


@pytest.mark.parametrize(("announced", "size", "in_file"), [(3 << 20, 3 << 20, False), (None, 3 << 20, True)])
def test_a_body_without_a_length_moves_to_its_file_while_there_is_little_to_move(
    tmp_path: Path, announced: int | None, size: int, in_file: bool
) -> None:
    body = Body(spool(tmp_path))
    body.expect(announced)
    for start in range(0, size, 64 << 10):
        body.append(bytes([start >> 16 & 255]) * (64 << 10))
    assert body.in_file is in_file

    async def read() -> None:
        whole = await body.whole()
        assert whole == bytes(body.view()) and len(whole) == size
        body.close()
        body.close()

    asyncio.run(read())
    assert body._spool.files.used == body._spool.held == 0
