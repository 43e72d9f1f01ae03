"""A network namespace that sees nothing but ports of ours; commands run in it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

INSIDE = Path(__file__).with_name("inside.py")
PORT, TLS_PORT = 8989, 443


class Ran(NamedTuple):
    """How a command ended. `code` 124 = it had to be stopped."""

    code: int
    out: str
    err: str
    seconds: float


def why_not() -> str:
    """Why namespaces cannot be made here; "" when they can."""
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    probe = subprocess.run([*_unshare(), "true"], capture_output=True, timeout=20)
    return "" if probe.returncode == 0 else f"unshare: {probe.stderr.decode().strip()[:200]}"


def _unshare() -> list[str]:
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *own, "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


class Jail:
    """`listening` is the one port commands in here can reach, at `url`; accept on it from outside. With `hosts` these
    names lead to one more, `at_hosts`, by TLS's own port."""

    url = f"http://127.0.0.1:{PORT}"

    def __init__(self, logs: Path, hosts: Sequence[str] = ()) -> None:
        self._logs = logs
        self._count = 0
        self._line, theirs = socket.socketpair()
        named = logs / "hosts" if hosts else None
        if named is not None:
            named.write_text("".join(f"127.0.0.1 {one}\n" for one in ("localhost", *hosts)))
        ports = [str(PORT), *([str(TLS_PORT)] if hosts else [])]
        with theirs:
            self._process = subprocess.Popen(
                [*_unshare(), sys.executable, "-I", str(INSIDE), str(theirs.fileno()), str(named or ""), *ports],
                pass_fds=[theirs.fileno()],
            )
        self._line.settimeout(30)
        _, fds, _, _ = socket.recv_fds(self._line, 1, 2)
        self.listening, *more = (socket.socket(fileno=fd) for fd in fds)
        self.at_hosts = more[0] if more else None
        for one in (self.listening, *more):
            one.setblocking(False)

    def run(self, argv: list[str], *, env: dict[str, str], cwd: Path, timeout_s: float = 120.0) -> Ran:
        """Runs a command with exactly this environment. Raises TimeoutError only if the jail itself hangs."""
        self._count += 1
        out, err = (self._logs / f"{self._count:02d}.{kind}" for kind in ("out", "err"))
        order = {
            "argv": argv,
            "env": env,
            "cwd": str(cwd),
            "out": str(out),
            "err": str(err),
            "timeout": timeout_s,
        }
        self._line.settimeout(timeout_s + 30)
        self._line.sendall(json.dumps(order).encode() + b"\n")
        reply = b""
        while not reply.endswith(b"\n"):
            reply += self._line.recv(4096)
        done = json.loads(reply)
        return Ran(done["code"], out.read_text("utf-8", "replace"), err.read_text("utf-8", "replace"), done["seconds"])

    def close(self) -> None:
        self._line.close()
        self.listening.close()
        if self.at_hosts is not None:
            self.at_hosts.close()
        self._process.terminate()
        self._process.wait(10)
