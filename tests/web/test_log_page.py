"""The log page: the newest lines of all processes, filtered, bounded, told live, and the operator's alone."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.app import logs
from pool_server.web.base import recent_log
from pool_server.web.base.live import PageWatch
from pool_server.web.base.recent_log import LogFilter
from tests.web.pool import ADMIN
from tests.web.site import Site
from tests.web.test_friends import Browser, enter
from tests.web.test_live import Listener

KEY = "sk-ant-api03-" + "x1" * 20


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logging.Logger]:
    """A logger whose lines are kept in the data folder of `friends`."""
    found = logging.getLogger("pool_server.under_test")
    found.setLevel(logging.DEBUG)
    (tmp_path / "data").mkdir(exist_ok=True)
    with logs.kept(tmp_path / "data"):
        yield found


def boss(site: Site) -> Browser:
    return Browser(site, site.post("/admin", {"password": ADMIN}))


def told(site: Site, query: str = "") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = boss(site).get(f"/admin/log?{query}").json()["lines"]
    return [row for row in rows if row["logger"] == "pool_server.under_test"]


def test_lines_are_found_by_level_text_and_request(friends: Site, log: logging.Logger) -> None:
    log.info("Accounts were READ again")
    log.warning("slow answer", extra={logs.REQUEST_ID: "req-1"})
    log.error("request req-2 failed")
    try:
        raise ValueError("no such thing")
    except ValueError:
        log.exception("it broke")
    messages = [row["message"] for row in told(friends)]
    assert messages == ["it broke", "request req-2 failed", "slow answer", "Accounts were READ again"]
    assert [row["level"] for row in told(friends, "level=WARNING")] == ["ERROR", "ERROR", "WARNING"]
    assert [row["message"] for row in told(friends, "q=were+read")] == ["Accounts were READ again"]
    assert [row["message"] for row in told(friends, "q=no+such+thing")] == ["it broke"]
    assert [row["message"] for row in told(friends, "request=req-1")] == ["slow answer"]
    assert [row["message"] for row in told(friends, "request=req-2")] == ["request req-2 failed"]
    page = boss(friends).get("/log?level=ERROR", Accept="text/html").text
    assert "it broke" in page and "no such thing" in page and "slow answer" not in page


def test_nothing_secret_is_kept_and_nothing_is_markup(friends: Site, log: logging.Logger, tmp_path: Path) -> None:
    log.error("refused with %s <script>alert(1)</script>\r\nforged", KEY)
    folder = tmp_path / "data" / recent_log.FOLDER
    (kept,) = folder.iterdir()
    assert KEY not in kept.read_text() and kept.stat().st_mode & 0o077 == 0 and folder.stat().st_mode & 0o077 == 0
    page = boss(friends).get("/log", Accept="text/html").text
    assert KEY not in page and "<script>alert" not in page and "&lt;script&gt;" in page


def test_the_log_is_the_operators_alone(friends: Site, log: logging.Logger) -> None:
    log.info("a line")
    ada = Browser(friends, enter(friends))
    assert (ada.get("/log").status, ada.get("/admin/log").status) == (403, 403)
    assert friends.get("/admin/log").status == 401
    assert 'href="/log"' not in ada.get("/", Accept="text/html").text


@pytest.mark.parametrize(
    "query", ["level=LOUD", "limit=many", "before=x", "before=2026-01-01T00:00:00.000Z/f/x", "q=" + "x" * 999]
)
def test_what_cannot_be_asked_is_refused(friends: Site, query: str) -> None:
    assert boss(friends).get(f"/admin/log?{query}").status == 400


def test_pages_of_lines_meet_without_gap_or_overlap(friends: Site, log: logging.Logger) -> None:
    for number in range(25):  # many of them in one millisecond
        log.info("line %d", number)
    seen: list[str] = []
    cursor, operator = "", boss(friends)
    while True:
        answer = operator.get(f"/admin/log?q=line+&limit=7&before={cursor}").json()
        seen += [row["message"] for row in answer["lines"]]
        cursor = answer["next"]
        if cursor is None:
            break
    assert seen == [f"line {number}" for number in reversed(range(25))]


def test_lines_of_every_process_are_merged_also_of_those_that_ended(tmp_path: Path, log: logging.Logger) -> None:
    log.info("before the fork")
    child = os.fork()
    if not child:  # as the supervisor's workers
        log.info("in the worker")
        os._exit(0)
    os.waitpid(child, 0)
    log.info("after it")
    lines, _ = recent_log.newest(tmp_path / "data", LogFilter(), 10)
    assert [line.message for line in lines] == ["after it", "in the worker", "before the fork"]
    assert len(list((tmp_path / "data" / recent_log.FOLDER).iterdir())) == 2


def test_files_are_bounded(tmp_path: Path, log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_BYTES", 4000)
    for number in range(200):
        log.info("line %d", number)
    log.error("long " + "x" * 200_000)
    sizes = [path.stat().st_size for path in (tmp_path / "data" / recent_log.FOLDER).iterdir()]
    assert len(sizes) == 2 and max(sizes) <= 4000 + logs.LONGEST
    lines, _ = recent_log.newest(tmp_path / "data", LogFilter(), 1000)
    assert lines[0].message.startswith("long x") and lines[1].message == "line 199"


def test_files_of_processes_that_ended_go_but_the_newest(tmp_path: Path, log: logging.Logger) -> None:
    folder = tmp_path / "data" / recent_log.FOLDER
    folder.mkdir()
    for number in range(40):
        path = folder / f"{number + 2**22}.0.gone.x{recent_log.SUFFIX}"
        path.write_text("{}")
        os.utime(path, (1000 + number, 1000 + number))
    log.info("a line")
    assert len(list(folder.iterdir())) == recent_log.MOST_FILES // 2


def test_damaged_lines_are_left_out_and_a_folder_that_cannot_be_read_is_empty(tmp_path: Path) -> None:
    folder = tmp_path / recent_log.FOLDER
    assert recent_log.newest(tmp_path, LogFilter(), 5) == ([], "") and recent_log.mark(tmp_path) == 0
    folder.mkdir()
    good = {"time": "2026-01-01T00:00:00.000Z", "level": "INFO", "logger": "x", "message": "good"}
    bad = [b"", b"{", b"[]", b"\xff\xfe", json.dumps({**good, "time": "soon"}).encode(), json.dumps(good).encode()[:-3]]
    (folder / "1.1.1.1.jsonl").write_bytes(b"\n".join([*bad, json.dumps(good).encode(), b'{"time": "2026']))
    lines, following = recent_log.newest(tmp_path, LogFilter(), 5)
    assert [line.message for line in lines] == ["good"] and following == ""


def test_a_disk_that_takes_no_line_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # others' write to streams that are closed by now
    with logs.kept(tmp_path / "missing"):
        logging.getLogger("pool_server.under_test").warning("still here")
        (tmp_path / "missing").mkdir()
    assert "Traceback" not in capsys.readouterr().err
    assert not list((tmp_path / "missing").iterdir())


@pytest.mark.slow
@pytest.mark.gen_test
async def test_a_new_line_is_told_to_the_operators_open_pages(friends: Site, log: logging.Logger) -> None:
    log.info("first")
    entered = await friends.fetch("POST", "/admin", json_body={"password": ADMIN})
    async with Listener(friends, f"pool_session={entered.cookies()['pool_session']}") as listener:
        log.info("second")
        async for name, _ in listener.events():
            if name == "log":
                break


@pytest.mark.parametrize("operator", [True, False])
def test_a_friends_page_is_told_of_no_line(friends: Site, log: logging.Logger, operator: bool) -> None:
    async def told() -> list[tuple[str, dict[str, Any]]]:
        watch = PageWatch(friends.ctx, "", operator=operator)
        await watch.begin()
        log.info("a line")
        return await watch.changes()

    assert friends.run(told) == ([("log", {})] if operator else [])
