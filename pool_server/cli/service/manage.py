"""`pool-server service`: installed, removed, looked at and restarted as a service of systemd or launchd."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import click

from pool_server.cli.common import config_option, settings
from pool_server.cli.service.units import LABEL, NAME, Service, launchd_plist, systemd_socket, systemd_unit
from pool_server.core.settings import bind_address

F = TypeVar("F", bound=Callable[..., object])
SYSTEMD, LAUNCHD = "systemd", "launchd"


class Manager(NamedTuple):
    """Which service manager, and whether the system's own or the user's."""

    kind: str
    system: bool

    @property
    def file(self) -> Path:
        """Where the service's file belongs."""
        if self.kind == LAUNCHD:
            library = Path("/Library/LaunchDaemons") if self.system else Path.home() / "Library/LaunchAgents"
            return library / f"{LABEL}.plist"
        if self.system:
            return Path("/etc/systemd/system") / f"{NAME}.service"
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user" / f"{NAME}.service"

    @property
    def systemctl(self) -> list[str]:
        return ["systemctl"] if self.system else ["systemctl", "--user"]

    @property
    def domain(self) -> str:
        return "system" if self.system else f"gui/{os.getuid()}"


def manager_options(command: F) -> F:
    """`--user` and `--manager`; the command gets `user` and `manager`."""
    chosen = click.Choice([SYSTEMD, LAUNCHD])
    usual = LAUNCHD if sys.platform == "darwin" else SYSTEMD
    command = click.option("--manager", type=chosen, default=usual, help="Else the one of this system.")(command)
    return click.option("--user", is_flag=True, help="A service of your own, not of the system.")(command)


@click.group("service", help="The pool as a service that starts at boot.")
def command() -> None:
    """Only its subcommands do anything."""


@command.command("install", help="Write the service's file and start it; the settings in force say what it needs.")
@config_option
@manager_options
@click.option("--run-as", metavar="NAME", default="pool", help="The user of a system service; made if there is none.")
@click.option("--socket", is_flag=True, help="systemd opens the port, and starts the service for its first connection.")
@click.option("--dry-run", is_flag=True, help="Print the files and the commands, change nothing.")
def install(config: str | None, user: bool, manager: str, run_as: str, socket: bool, dry_run: bool) -> None:
    to = Manager(manager, not user)
    if socket and manager == LAUNCHD:
        raise click.UsageError("--socket is systemd's")
    service = _service(config, "" if user else run_as)
    address = bind_address(settings(config))
    try:
        files = {to.file: launchd_plist(service) if manager == LAUNCHD else systemd_unit(service)}
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if socket:
        host = f"[{address.host}]" if ":" in address.host else address.host
        files[to.file.with_suffix(".socket")] = systemd_socket(f"{host}:{address.port}" if host else str(address.port))
    commands = [*_prepared(service), *_begun(to, socket=socket)]
    if dry_run:
        _show(files, commands)
        return
    for path, text in files.items():
        _write(path, text)
    _run_all(commands)
    click.echo(f"{to.file} is installed and runs; pool-server service status" + (" --user" if user else ""))


@command.command("uninstall", help="Stop the service and remove its file; settings, accounts and data stay.")
@manager_options
@click.option("--dry-run", is_flag=True, help="Print what would be done.")
def uninstall(user: bool, manager: str, dry_run: bool) -> None:
    to = Manager(manager, not user)
    socket = to.file.with_suffix(".socket")
    there = [path for path in (to.file, socket) if path.exists()]
    names = [path.name for path in there]
    if manager == LAUNCHD:
        before, after = [["launchctl", "bootout", f"{to.domain}/{LABEL}"]], []
    else:
        before, after = [[*to.systemctl, "disable", "--now", *names]], [[*to.systemctl, "daemon-reload"]]
    removed = [["rm", "-f", str(path)] for path in there]
    if not there:
        raise click.ClickException(f"{to.file} is not there: nothing is installed")
    if dry_run:
        _show({}, [*before, *removed, *after])
        return
    _run_all([*before, *removed, *after])
    click.echo(f"{to.file} is gone; settings, accounts and data are where they were")


@command.command("status", help="What the service manager says of it.")
@manager_options
def status(user: bool, manager: str) -> int:
    to = Manager(manager, not user)
    if manager == LAUNCHD:
        return _run(["launchctl", "print", f"{to.domain}/{LABEL}"])
    return _run([*to.systemctl, "status", "--no-pager", f"{NAME}.service"])


@command.command("logs", help="Its log; --follow goes on.")
@manager_options
@click.option("--follow", is_flag=True)
@click.option("--lines", type=click.IntRange(1, 100_000), default=100)
@config_option
def logs(user: bool, manager: str, follow: bool, lines: int, config: str | None) -> int:
    more = ["-f"] if follow else []
    if manager == LAUNCHD:
        return _run(["tail", "-n", str(lines), *more, str(_folder(config) / "pool-server.log")])
    return _run(["journalctl", *(["--user"] if user else []), "-u", f"{NAME}.service", "-n", str(lines), *more])


@command.command("restart", help="Stop and start it. `pool-server upgrade` cuts nothing.")
@manager_options
def restart(user: bool, manager: str) -> int:
    to = Manager(manager, not user)
    if manager == LAUNCHD:
        return _run(["launchctl", "kickstart", "-k", f"{to.domain}/{LABEL}"])
    return _run([*to.systemctl, "restart", f"{NAME}.service"])


def installed() -> list[tuple[Path, str]]:
    """The systemd units of the pool on this machine, and what is wrong with each ("" = nothing)."""
    found = []
    for to in (Manager(SYSTEMD, True), Manager(SYSTEMD, False)):
        try:
            text = to.file.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            found.append((to.file, f"it cannot be read: {error}"))
            continue
        found.append((to.file, _fault(text)))
    return found


def _fault(unit: str) -> str:
    started = re.search(r"^ExecStart=(\S+|\"[^\"]+\")", unit, re.MULTILINE)
    if started is None or "[Install]" not in unit:
        return "it is not whole"
    program = started[1].strip('"').replace("%%", "%").replace("$$", "$")
    if not os.access(program, os.X_OK):
        return f"it starts {program}, which is not there"
    if not re.search(r"^Type=notify", unit, re.MULTILINE):
        return "systemd is not told when the pool serves, and does not watch it"
    return ""


def _service(config: str | None, user: str) -> Service:
    folder, loaded = _folder(config), settings(config)
    program = Path(sys.executable).with_name(NAME)
    argv = [str(program)] if program.is_file() else [sys.executable, "-m", "pool_server"]
    given = ["--config", str(Path(config).absolute())] if config else []
    writes = [folder / loaded.pool_dir, folder / loaded.data_dir]
    writes += [folder / loaded.backup.folder] if loaded.backup.folder else []
    return Service([*argv, "serve", *given], folder, writes, bind_address(loaded).port, user)


def _folder(config: str | None) -> Path:
    """The working directory of the service: the settings file's, else this one."""
    return Path(config).absolute().parent if config else Path.cwd()


def _prepared(service: Service) -> list[list[str]]:
    """The commands that make a system service's user and give it its folders."""
    folders = [str(path) for path in service.writes]
    made = [["mkdir", "-p", *folders]]
    if not service.user:
        return made
    try:
        pwd.getpwnam(service.user)
    except KeyError:
        home = ["--home-dir", str(service.folder), "--shell", "/usr/sbin/nologin"]
        made.append(["useradd", "--system", *home, service.user])
    if service.user != getpass.getuser():
        made.append(["chown", "-R", f"{service.user}:", *folders])
    return made


def _begun(to: Manager, *, socket: bool) -> list[list[str]]:
    if to.kind == LAUNCHD:
        return [["launchctl", "bootstrap", to.domain, str(to.file)]]
    names = [f"{NAME}.socket", f"{NAME}.service"] if socket else [f"{NAME}.service"]
    linger = [] if to.system else [["loginctl", "enable-linger"]]
    return [[*to.systemctl, "daemon-reload"], [*to.systemctl, "enable", "--now", *names], *linger]


def _show(files: dict[Path, str], commands: Sequence[Sequence[str]]) -> None:
    for path, text in files.items():
        click.echo(f"# {path}\n{text}")
    for argv in commands:
        click.echo(shlex.join(argv))


def _write(path: Path, text: str) -> None:
    """All of the file or nothing of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o644)
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        hint = "a system service is installed by root (or --user)"
        raise click.ClickException(f"{path}: {error.strerror}; {hint}") from None


def _run_all(commands: Sequence[Sequence[str]]) -> None:
    for argv in commands:
        if _run(argv):
            raise click.ClickException(f"{shlex.join(argv)} failed")


def _run(argv: Sequence[str]) -> int:
    try:
        return subprocess.run(argv, check=False).returncode
    except OSError as error:
        raise click.ClickException(f"{argv[0]}: {error.strerror}: is this system run by it? (--manager)") from None
