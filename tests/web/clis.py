"""Real CLIs in a network namespace that holds nothing but one loopback port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

CLIENTS = Path(os.environ.get("CLIENTS_DIR", "~/.cache/pool-clients")).expanduser()

# Runs inside the namespace: a port there that leads to a unix socket out here, then the command.
INNER = """
import socket, subprocess, sys, threading
def pump(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
    except OSError: pass
    try: b.shutdown(socket.SHUT_WR)
    except OSError: pass
def serve(listener, path):
    while True:
        near, _ = listener.accept()
        far = socket.socket(socket.AF_UNIX)
        far.connect(path)
        for pair in ((near, far), (far, near)): threading.Thread(target=pump, args=pair, daemon=True).start()
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
threading.Thread(target=serve, args=(listener, sys.argv[1]), daemon=True).start()
sys.exit(subprocess.run(sys.argv[3:], stdin=subprocess.DEVNULL).returncode)
"""


def isolation() -> list[str] | None:
    """The command that makes a private network, None where this machine allows none."""
    for command in (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"]):
        probe = [*command, "ip", "link", "set", "lo", "up"]
        tools = shutil.which("unshare") and shutil.which("ip")
        if tools and subprocess.run(probe, capture_output=True).returncode == 0:
            return command
    return None


def need(cli: str) -> None:
    """Skips the test, saying why, where the CLI or the isolation is missing."""
    if not (CLIENTS / cli / "node_modules" / ".bin" / cli).exists():
        pytest.skip(f"{cli} is not installed below {CLIENTS}")
    if isolation() is None:
        pytest.skip("no network namespace can be made here")


class Bridge:
    """Leads connections of a unix socket to a loopback port, for as long as the `with` lasts."""

    def __init__(self, folder: Path, port: int) -> None:
        self.path, self.port = str(folder / "bridge.sock"), port

    def __enter__(self) -> Bridge:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                near.close()
                continue
            for pair in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    try:
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()


def run(home: Path, bridge: Bridge, command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A shell command with the CLIs on its PATH, its own home, and no other network than the bridge."""
    names = ("node22", "codex", "claude", "gemini", "qwen", "opencode")
    bins = [CLIENTS / name / "node_modules" / ".bin" for name in names]
    path = ":".join([*(str(place) for place in bins), "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"])
    project = home / "project"
    project.mkdir(parents=True, exist_ok=True)
    if not (project / ".git").exists():
        subprocess.run(["git", "init", "-q", str(project)], check=True)
    isolated = isolation() or []
    inner = [sys.executable, "-c", INNER, bridge.path, str(bridge.port), "sh", "-c", command]
    return subprocess.run(
        [*isolated, *inner],
        cwd=project,
        env={"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TERM": "xterm-256color", **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
