"""A real PostgreSQL in a temporary folder, run as a user of its own: a primary, and a synchronous standby."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0
SUPERUSER = "super"

_CONFIG = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
port = {port}
fsync = {fsync}
shared_buffers = '64MB'
max_connections = 300
wal_level = replica
max_wal_senders = 4
logging_collector = off
log_min_messages = fatal
timezone = 'UTC'
"""

_POOLER = """
[databases]
{database} = {place}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {most}
max_client_conn = 500
"""


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL server programs here, None where there are none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(folders, key=lambda path: float(path.parts[-3]), default=None)
    return None if newest is None else newest.parent


def pgbouncer() -> str | None:
    """The pooler's program, None where there is none."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Server:
    """One server process; `role` names of URLs need no password."""

    def __init__(self, programs: Path, folder: Path, *, fsync: bool = False) -> None:
        self.programs = programs
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", role: str = SUPERUSER) -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        self.run(
            "initdb", "-D", str(self.data), "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"
        )
        self.configure()

    def copy_of(self, primary: Server) -> None:
        """Becomes the primary's standby, which names itself `standby`."""
        self.run("pg_basebackup", "-D", str(self.data), "-d", primary.url(), "-R", "--no-sync", "-c", "fast")
        told = f"host=127.0.0.1 port={primary.port} user={SUPERUSER} application_name=standby"
        self.configure(f"primary_conninfo = '{told}'\nhot_standby = on\n")

    def configure(self, more: str = "") -> None:
        fsync = "on" if self.fsync else "off"
        text = _CONFIG.format(folder=self.folder, port=self.port, fsync=fsync) + more
        (self.data / "postgresql.auto.conf").write_text(text, encoding="utf-8")

    def start(self) -> None:
        arguments = [str(self.programs / "postgres"), "-D", str(self.data)]
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log, **_other_user(), cwd=self.folder)
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "log").read_text(encoding="utf-8"))
            time.sleep(0.02)

    def _answers(self) -> bool:
        told = subprocess.run([str(self.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)])
        return told.returncode == 0

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What psql prints for a statement, as the superuser."""
        return self.run("psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url(database))

    @property
    def pid(self) -> int:
        """Of the process that all others of it are children of."""
        return 0 if self._process is None else self._process.pid

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE_S)
            self._process = None

    def run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(self.programs / program), *arguments], capture_output=True, text=True, cwd=self.folder, **_other_user()
        )
        assert done.returncode == 0, f"{program}: {done.stderr}"
        said: str = done.stdout.strip()
        return said


def _other_user() -> dict[str, Any]:
    """Arguments of `subprocess`: PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid}
    raise AssertionError("there is no user that PostgreSQL could run as")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder with a short name, as sockets need, that belongs to the server's user."""
    made = Path(tempfile.mkdtemp(prefix="pool-pg-", dir="/tmp"))
    give(made)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def give(folder: Path) -> None:
    """The folder belongs to the server's user."""
    user = _other_user()
    if user:
        os.chown(folder, user["user"], user["group"])


@contextlib.contextmanager
def running(server: Server, *, create: bool = False) -> Iterator[Server]:
    """The server runs for as long as the block lasts."""
    if create:
        server.create()
    else:
        server.configure()
    server.start()
    try:
        yield server
    finally:
        server.stop(signal.SIGINT)


@contextlib.contextmanager
def primary(programs: Path, *, fsync: bool = False) -> Iterator[Server]:
    with folder() as here, running(Server(programs, here, fsync=fsync), create=True) as server:
        yield server


@contextlib.contextmanager
def standby(of: Server) -> Iterator[Server]:
    """A synchronous standby: what the primary says is committed, both have."""
    with folder() as here:
        server = Server(of.programs, here, fsync=of.fsync)
        server.copy_of(of)
        server.start()
        of.sql("alter system set synchronous_standby_names = 'standby'")
        of.sql("select pg_reload_conf()")
        try:
            deadline = time.monotonic() + PATIENCE_S
            while of.sql("select count(*) from pg_stat_replication where sync_state = 'sync'") != "1":
                assert time.monotonic() < deadline, "the standby does not follow"
                time.sleep(0.05)
            yield server
        finally:
            server.stop(signal.SIGQUIT)


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def pooler(of: Server, database: str, role: str, *, connections: int = 10) -> Iterator[str]:
    """The URL of a database through pgbouncer, which gives one of so many connections for a transaction."""
    program = pgbouncer()
    assert program is not None
    with folder() as here:
        port = free_port()
        place = f"host=127.0.0.1 port={of.port} user={role} dbname={database}"
        (here / "pgbouncer.ini").write_text(_POOLER.format(database=database, place=place, port=port, most=connections))
        process = subprocess.Popen([program, "-q", str(here / "pgbouncer.ini")], **_other_user(), cwd=here)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not _listens(port):
                assert process.poll() is None and time.monotonic() < deadline, "the pooler does not start"
                time.sleep(0.02)
            yield f"postgresql://{role}@127.0.0.1:{port}/{database}?pooler=transaction"
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
