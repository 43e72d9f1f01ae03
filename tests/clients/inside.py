"""Runs within a network namespace of its own: loopback up, listening ports, commands on demand.

Started by `jail.py` as `python inside.py FD HOSTS PORT…`; FD is a Unix socket on which the listening sockets are handed
out and commands come in, one JSON line each: {"argv", "env", "cwd", "out", "err", "timeout"} → {"code", "seconds"}.
The listening sockets belong to this namespace, whoever accepts on them: nothing else can be reached from in here.
HOSTS, a file or "", stands for /etc/hosts in here.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any

_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x1 | 0x40
TIMED_OUT = 124


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP_RUNNING))


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Runs one command to its end. What it leaves behind ends with the namespace; a late one is stopped here."""
    began = time.monotonic()
    with open(order["out"], "wb") as out, open(order["err"], "wb") as err:
        process = subprocess.Popen(
            order["argv"],
            env=order["env"],
            cwd=order["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            code = process.wait(order["timeout"])
        except subprocess.TimeoutExpired:
            code = TIMED_OUT
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return {"code": code, "seconds": time.monotonic() - began}


def main() -> None:
    loopback_up()
    with socket.socket(fileno=int(sys.argv[1])) as line:
        if sys.argv[2]:
            subprocess.run(["mount", "--bind", sys.argv[2], "/etc/hosts"], check=True)
        listening = [socket.create_server(("127.0.0.1", int(port)), backlog=256) for port in sys.argv[3:]]
        socket.send_fds(line, [b"\n"], [one.fileno() for one in listening])
        for one in listening:
            one.close()
        for order in line.makefile("r"):
            line.sendall(json.dumps(run(json.loads(order))).encode() + b"\n")


if __name__ == "__main__":
    main()
