"""A real S3 server in a process of its own: moto's, over HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

WITHIN_S = 60.0


@contextmanager
def s3_server(*buckets: str) -> Iterator[dict[str, str]]:
    """The options by which obstore reaches it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + WITHIN_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < until, "the S3 server did not start"
                time.sleep(0.05)
        for bucket in buckets:
            made = urllib.request.Request(f"http://127.0.0.1:{port}/{bucket}", method="PUT")
            urllib.request.urlopen(made, timeout=WITHIN_S).close()
        yield {
            "aws_endpoint": f"http://127.0.0.1:{port}", "aws_region": "us-east-1",
            "aws_access_key_id": "an-id", "aws_secret_access_key": "a-secret",
            "aws_virtual_hosted_style_request": "false",
        }  # fmt: skip
    finally:
        server.terminate()
        server.wait(WITHIN_S)
