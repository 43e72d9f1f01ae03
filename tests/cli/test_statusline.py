"""`pool-server statusline`: at once from what is kept, fetched beside it, never a stale truth."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pool_server import statusline


class Pool:
    """A pool that tells a line, and keeps which keys it was shown."""

    def __init__(self) -> None:
        self.line, self.status, self.keys, pool = "Claude 62 % left", 200, [], self  # type: ignore[var-annotated]

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pool.keys.append(self.headers.get("Authorization"))
                self.send_response(pool.status)
                if pool.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(f"{pool.line}\n".encode())

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    found = Pool()
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    monkeypatch.setenv("POOL_URL", found.url)
    monkeypatch.setenv("POOL_KEY", "a key")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def file() -> Path:
    return Path(statusline.LineSource(dict(os.environ)).file)


def aged(seconds: float) -> None:
    os.utime(file(), (time.time() - seconds,) * 2)


def test_what_is_kept_is_shown_without_asking(pool: Pool) -> None:
    assert statusline.show() == "Claude 62 % left"
    assert pool.keys == ["Bearer a key"]
    pool.line = "Claude 10 % left"
    assert statusline.show() == "Claude 62 % left"
    assert len(pool.keys) == 1
    assert statusline.show(only_fetch=True) == "Claude 10 % left"
    assert statusline.show() == "Claude 10 % left"
    assert "a key" not in file().name + file().read_text()


def test_what_is_old_is_fetched_once_beside_the_answer(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(statusline, "_fetch_beside", begun.append)
    statusline.show()
    aged(60)
    assert [statusline.show() for _ in range(3)] == ["Claude 62 % left"] * 3
    assert begun == [""]


def test_what_is_stale_is_no_truth(pool: Pool) -> None:
    statusline.show()
    aged(3600)
    pool.status = 503
    assert statusline.show() == f"pool: no answer from {pool.url}"
    aged(60)
    statusline.show(only_fetch=True)
    assert time.time() - file().stat().st_mtime > 50, "a failed fetch makes nothing younger"


@pytest.mark.slow
@pytest.mark.parametrize("status", [302, 401, 500])
def test_the_key_goes_nowhere_else_and_an_error_is_no_line(pool: Pool, status: int) -> None:
    pool.status = status
    assert statusline.show().startswith("pool: no answer")
    assert len(pool.keys) == 1


def test_no_control_characters_reach_the_terminal(pool: Pool) -> None:
    pool.line = "Claude \x1b[31m62 %\x07 left" + "x" * 9000
    shown = statusline.show()
    assert shown.isprintable()
    assert len(shown) <= statusline.LARGEST


def test_bytes_that_are_no_text_are_one_line(pool: Pool) -> None:
    """A command line may hold any."""
    assert len(statusline.show(os.fsdecode(b"\xff\xfe")).splitlines()) == 1


def test_wrong_addresses_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for url in ("file:///etc/passwd", "ftp://x", "127.0.0.1:1"):
        monkeypatch.setenv("POOL_URL", url)
        shown = statusline.show()
        assert shown.startswith("pool: ") and "\n" not in shown


def test_a_plain_call_loads_no_command(pool: Pool) -> None:
    """What makes it quick is what it does not import; times are for the notes of a release, not for a test."""
    code = (
        "import os, sys; sys.argv = ['pool-server', 'statusline']\n"
        "dear = {'click', 'json', 'asyncio', 'tornado', 'urllib', 'subprocess', 'typing', 'zlib'}\n"
        "ended = lambda status: print(sorted(dear & set(sys.modules) - before), status) or sys.exit()\n"
        "os._exit = ended\n"
        "from pool_server.__main__ import main; main()"
    )
    statusline.show()
    command = [sys.executable, "-S", "-c", "import sys; before = set(sys.modules)\n" + code]
    told = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60)
    assert told.stdout.splitlines() == ["Claude 62 % left", "[] 0"], told.stderr
    assert statusline.asked(["--json"]) is None
    assert statusline.asked(["--provider", "claude"]) == "claude"


@pytest.mark.parametrize(
    ("env", "url", "key"),
    [
        ({"POOL_URL": "https://a", "ANTHROPIC_BASE_URL": "https://b", "ANTHROPIC_AUTH_TOKEN": "kb"}, "https://a", ""),
        ({"POOL_KEY": "ka", "ANTHROPIC_BASE_URL": "https://b", "ANTHROPIC_AUTH_TOKEN": "kb"}, "https://b", "kb"),
        ({"POOL_KEY": "ka", "ANTHROPIC_BASE_URL": "https://b"}, "https://b", ""),
        ({"POOL_URL": "https://a/", "POOL_KEY": "ka", "ANTHROPIC_BASE_URL": "https://b"}, "https://a", "ka"),
        ({"ANTHROPIC_AUTH_TOKEN": "a vendor's"}, statusline.USUAL, ""),
        ({"POOL_KEY": "ka"}, statusline.USUAL, "ka"),
        ({}, statusline.USUAL, ""),
    ],
)
def test_a_key_goes_to_no_address_but_its_own(env: dict[str, str], url: str, key: str) -> None:
    place = statusline.LineSource(env)
    assert (place.url, place.key) == (url, key)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [[], ["--fetch"], ["--json"], ["--fetch", "--json"], ["--provider", "claude", "--fetch"]]
)
def test_every_option_stands_alone(pool: Pool, options: list[str]) -> None:
    command = [sys.executable, "-m", "pool_server", "statusline", *options]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Claude 62 % left" in ran.stdout
