"""An upgrade to a version that is not whole changes nothing: the old one goes on, and the reason is told."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pool_server
from pool_server.app import run_file
from tests.fakes import FakeProviders, fake_settings, key_account
from tests.process import PoolProcess, until
from tests.test_server import MESSAGE

LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")


def removed(file: Path) -> None:
    file.unlink()


def half_written(file: Path) -> None:
    """As an installer that was killed leaves it."""
    text = file.read_bytes()
    file.write_bytes(text[: len(text) // 2] + b"\n(")


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def unreadable(file: Path) -> None:
    file.write_bytes(b"\x00\xff" * 100)


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    """The package as it may be replaced under a server: a copy of its own."""
    site = tmp_path / "site"
    source = Path(pool_server.__file__).parent
    shutil.copytree(source, site / "pool_server", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(source.parent / "templates", site / "templates")
    yield site


def file_of(site: Path, module: str) -> Path:
    path = site.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "spoil"),
    [
        ("pool_server", emptied),
        ("pool_server.app.server", half_written),
        ("pool_server.dialects.wire.plain", removed),
        ("pool_server.web.routes", unreadable),
        ("pool_server.web.base.live", half_written),
    ],
)
def test_a_version_that_is_not_whole_leaves_the_old_one_serving(
    tmp_path: Path, installed: Path, module: str, spoil: Callable[[Path], None]
) -> None:
    with FakeProviders([key_account("claude:a")]) as fakes:
        settings = fake_settings(tmp_path, fakes)
        with PoolProcess(tmp_path, settings, env={"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}) as pool:
            data = Path(settings.data_dir)
            assert pool.call("GET", "/")[0] == 200 and pool.call("POST", "/v1/messages", MESSAGE)[0] == 200
            spoil(file_of(installed, module))
            pool.signal(signal.SIGUSR2)
            until(lambda: str(run_file.read(data).get("upgrade", "")).startswith("failed"), "it is told")
            assert run_file.read(data)["pid"] == pool.process.pid
            assert pool.call("POST", "/v1/messages", MESSAGE)[0] == 200
            assert pool.call("GET", "/")[0] == 200
