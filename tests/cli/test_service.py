"""`pool-server service`: the files of systemd and launchd, and what is done with them."""

from __future__ import annotations

import plistlib
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.cli.doctor import look_at_service
from pool_server.cli.service import manage as service
from pool_server.cli.service.units import HOMES, Service, launchd_plist, systemd_socket, systemd_unit
from tests.cli.conftest import Shell

HERE = Path("/srv/pool server")
EXPOSED = 3.0  # of 10: systemd-analyze calls what is below it "OK"


def a_service(**changes: object) -> Service:
    usual = Service((sys.executable, "-m", "pool_server", "serve"), HERE, (HERE / "pool", HERE / "data"), 8989, "pool")
    return usual._replace(**changes)  # type: ignore[arg-type]


def value(unit: str, name: str) -> str:
    (found,) = re.findall(rf"^{name}=(.*)$", unit, re.MULTILINE)
    return str(found)


def test_the_system_s_unit_is_hardened_and_may_write_its_folders_alone() -> None:
    unit = systemd_unit(a_service())
    assert value(unit, "User") == "pool"
    assert (value(unit, "Type"), value(unit, "NotifyAccess")) == ("notify", "all")
    assert value(unit, "ReadWritePaths") == '"/srv/pool server/pool" "/srv/pool server/data"'
    assert value(unit, "ProtectSystem") == "strict" and value(unit, "NoNewPrivileges") == "yes"
    assert value(unit, "CapabilityBoundingSet") == ""
    assert value(systemd_unit(a_service(port=443)), "CapabilityBoundingSet") == "CAP_NET_BIND_SERVICE"
    at_home = systemd_unit(a_service(folder=HOMES[0] / "ann/pool"))
    assert value(at_home, "ProtectHome") == "read-only", "a program below /home must be readable"


def test_a_user_s_unit_names_no_user_and_no_protection_it_cannot_have() -> None:
    unit = systemd_unit(a_service(user=""))
    assert "User=" not in unit and "ProtectSystem" not in unit
    assert value(unit, "WantedBy") == "default.target" and value(unit, "NoNewPrivileges") == "yes"


@given(st.text(min_size=1, max_size=30))
def test_any_path_is_one_word_or_refused(name: str) -> None:
    try:
        unit = systemd_unit(a_service(argv=("/bin/x", name), folder=Path("/srv") / name))
    except ValueError:
        assert not name.isprintable()
    else:
        assert len(unit.splitlines()) == len(systemd_unit(a_service()).splitlines())
    if name.isprintable():
        read = plistlib.loads(launchd_plist(a_service(argv=("/bin/x", name))).encode())
        assert read["ProgramArguments"] == ["/bin/x", name]


@pytest.mark.parametrize("user", ["root", ""])
def test_systemd_finds_nothing_wrong(tmp_path: Path, user: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "pool-server.service"
    unit.write_text(systemd_unit(a_service(user=user, folder=tmp_path, writes=[tmp_path])))
    (tmp_path / "pool-server.socket").write_text(systemd_socket("127.0.0.1:8989"))
    kind = [] if user else ["--user"]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *kind, str(unit), str(tmp_path / "pool-server.socket")],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )
    mine = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "pool-server" in line]
    assert not mine, done.stderr


def test_systemd_calls_it_little_exposed(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "pool-server.service"
    unit.write_text(systemd_unit(a_service(folder=tmp_path, writes=[tmp_path])))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"exposure level for pool-server\.service: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) < EXPOSED, done.stdout


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[list[str]]:
    """The commands that were run, none of them really; the home is the folder."""
    found: list[list[str]] = []

    def run(argv: list[str]) -> int:
        found.append(list(argv))
        return 0

    monkeypatch.setattr(service, "_run", run)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return found


def test_a_dry_run_prints_and_changes_nothing(sh: Shell, folder: Path, ran: list[list[str]]) -> None:
    before = sorted(folder.rglob("*"))
    done = sh("service", "install", "--dry-run", "--socket")
    assert done.code == 0, done.err
    assert "[Service]" in done.out and "ListenStream=127.0.0.1:8989" in done.out
    assert "systemctl enable --now pool-server.socket pool-server.service" in done.out
    assert "useradd --system" in done.out
    assert "org.pool-server" in sh("service", "install", "--dry-run", "--manager", "launchd", "--user").out
    assert (ran, sorted(folder.rglob("*"))) == ([], before)


def test_a_service_is_installed_looked_at_and_removed(sh: Shell, folder: Path, ran: list[list[str]]) -> None:
    assert "nothing is installed" in sh("service", "uninstall", "--user").refused(1)
    assert sh("service", "install", "--user").code == 0
    unit = folder / ".config/systemd/user/pool-server.service"
    assert stat.S_IMODE(unit.stat().st_mode) == 0o644
    assert value(unit.read_text(), "WorkingDirectory") == str(folder)
    assert ["systemctl", "--user", "enable", "--now", "pool-server.service"] in ran
    ran.clear()
    for name in ("status", "restart", "logs"):
        assert sh("service", name, "--user").code == 0
    assert [argv[0] for argv in ran] == ["systemctl", "systemctl", "journalctl"]
    ran.clear()
    assert sh("service", "uninstall", "--user").code == 0
    assert ["rm", "-f", str(unit)] in ran
    assert ran[-1] == ["systemctl", "--user", "daemon-reload"]


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("", "not whole"),
        ("[Service]\nExecStart=/bin/sh -c x\n", "not whole"),
        ("[Service]\nType=notify\nExecStart=/nonexistent/x serve\n[Install]\n", "/nonexistent/x"),
        ("[Service]\nExecStart=/bin/sh\n[Install]\n", "not told"),
    ],
)
def test_doctor_sees_a_unit_that_is_wrong(folder: Path, monkeypatch: pytest.MonkeyPatch, unit: str, said: str) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    file = folder / "systemd/user/pool-server.service"
    assert list(look_at_service()) == []
    file.parent.mkdir(parents=True)
    file.write_text(unit)
    (found,) = look_at_service()
    assert found.state == "warning" and said in found.message
    file.write_text(systemd_unit(a_service(user="")))
    assert [one.state for one in look_at_service()] == ["ok"]


def test_what_fails_is_named(sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(service, "_run", lambda argv: 1)
    assert "failed" in sh("service", "install", "--user").refused(1)
    assert "systemd's" in sh("service", "install", "--socket", "--manager", "launchd").refused(2)
    (folder / ".config/systemd/user/pool-server.service").unlink()
    (folder / ".config/systemd/user").rmdir()
    (folder / ".config/systemd/user").write_text("in the way")
    assert "user" in sh("service", "install", "--user").refused(1)
