"""A pool server as its operator runs it: a process of its own, its settings in a file."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pool_server.core.settings import Section, Settings

PATIENCE_S = 120.0  # only a hang reaches it, also on a machine with twenty things to do


def to_toml(settings: Settings) -> str:
    """The settings that differ from the defaults, as a config file."""
    top, sections = [], []
    for name in Settings.__struct_fields__:
        value, default = getattr(settings, name), getattr(Settings(), name)
        if value == default or name.startswith("gemini_client"):
            continue
        if isinstance(value, Section):
            lines = [f"{n} = {json.dumps(getattr(value, n))}" for n in value.__struct_fields__]
            sections.append("\n".join([f"[{name}]", *(line for line in lines if not line.endswith("null"))]))
        else:
            top.append(f"{name} = {json.dumps(value)}")
    return "\n".join([*top, *sections, ""])


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "pool_server", *args]


def environment(settings: Settings | None = None) -> dict[str, str]:
    """The parent's environment without anything that would be a setting."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PROXY_", "POOL_", "FRIEND_", "PUBLIC_", "GEMINI_"))
    }
    if settings is not None and settings.gemini_client_id:
        kept["GEMINI_OAUTH_CLIENT_ID"] = settings.gemini_client_id
        kept["GEMINI_OAUTH_CLIENT_SECRET"] = settings.gemini_client_secret
    return kept


def until(true: Callable[[], Any], what: str, *, within_s: float = PATIENCE_S) -> Any:
    """The first true value; for facts of another process, which cannot tell us."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        value = true()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s} s: {what}")


class PoolProcess:
    """`with PoolProcess(folder, settings) as pool`: started, listening, `pool.url` known; stopped at the end."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *args: str,
        descriptors: int | None = None,
        env: dict[str, str] | None = None,
        trusts: Path | None = None,
    ) -> None:
        """`descriptors`: how many files the process may have open, None = as many as this one. `env`: variables it
        gets beside those of `environment`. `trusts`: the authority that signed its certificate, where it speaks
        TLS."""
        self.folder, self._env = folder, env or {}
        self.config = folder / "config.toml"
        self.config.write_text(to_toml(settings), encoding="utf-8")
        self.settings = settings
        self._args = args
        self._before = [] if descriptors is None else ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"]
        self.tls = None if trusts is None else ssl.create_default_context(cafile=str(trusts))
        self.url = ""

    def __enter__(self) -> PoolProcess:
        self._log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            self._before + command("serve", "--config", str(self.config), *self._args),
            cwd=self.folder,
            env=environment(self.settings) | self._env,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self.process.stdout is not None
        self.banner = self.process.stdout.readline().strip()
        found = re.search(r"https?://\S+", self.banner)
        assert found, f"no banner: {self.banner!r} {self.log()}"
        self.url = found[0]
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            killer = threading.Timer(10, self.process.kill)
            killer.start()
            self.process.wait()
            killer.cancel()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()

    def log(self) -> str:
        return (self.folder / "server.log").read_text(encoding="utf-8")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def children(self) -> list[int]:
        """The process ids of its workers, in the order of their start. Linux alone tells."""
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]

    def wait(self, timeout: float = PATIENCE_S) -> int:
        return self.process.wait(timeout)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON (else text) of one request on a connection of its own."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, data=data)
        request.add_header("Content-Type", "application/json")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        tls = urllib.request.HTTPSHandler(context=self.tls)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), tls)
        try:
            with opener.open(request, timeout=PATIENCE_S) as answer:
                status, raw = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, raw = error.code, error.read()
        try:
            return status, json.loads(raw)
        except ValueError:
            return status, raw.decode()

    def refuses(self) -> bool:
        """Nobody listens any more."""
        try:
            self.call("GET", "/healthz")
        except OSError:
            return True
        return False
