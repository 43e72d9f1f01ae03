"""The texts of the service's files, for systemd and launchd. Pure.

The system's unit is hardened: it runs as a user of its own who may write into the pool's folders alone, has no
capabilities but a low port's, and is watched by the service manager.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

NAME = "pool-server"
LABEL = "org.pool-server"
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
LOW_PORTS = 1024


class Service(NamedTuple):
    """What is run and where: `argv` with an absolute program, the working directory, the folders it writes into, the
    port it listens on, and whom it runs as ("" = whoever installs it)."""

    argv: Sequence[str]
    folder: Path
    writes: Sequence[Path]
    port: int
    user: str = ""

    @property
    def environment(self) -> Path:
        """Secrets as NAME=value lines; it need not be there."""
        return self.folder / "environment"


def systemd_unit(service: Service) -> str:
    """The unit of the system's manager, or of the user's own where no `user` is named. Raises ValueError for a path
    that a unit cannot hold."""
    system = bool(service.user)
    lines = [
        "[Unit]",
        "Description=pool server",
        "After=network-online.target",
        "Wants=network-online.target",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=all",
        f"ExecStart={' '.join(_word(word) for word in service.argv)}",
        "ExecReload=/bin/sh -c 'kill -HUP $MAINPID'",
        f"WorkingDirectory={_path(service.folder)}",
        f"EnvironmentFile=-{_path(service.environment)}",
        *([f"User={service.user}"] if system else []),
        "Restart=on-failure",
        "RestartSec=2",
        "TimeoutStartSec=180",
        "TimeoutStopSec=90",
        "WatchdogSec=60",
        "UMask=0077",
        "LimitNOFILE=65536",
        "NoNewPrivileges=yes",
        *(_hardened(service) if system else []),
        "",
        "[Install]",
        f"WantedBy={'multi-user' if system else 'default'}.target",
    ]
    return "\n".join(lines) + "\n"


def systemd_socket(address: str) -> str:
    """A socket unit: connections wait for the service while it is started or replaced."""
    return (
        "[Unit]\nDescription=pool server, listening\n\n[Socket]\n"
        f"ListenStream={address}\nNoDelay=yes\nBacklog=1024\n\n[Install]\nWantedBy=sockets.target\n"
    )


def launchd_plist(service: Service) -> str:
    """The property list of a launch agent, or of a daemon where a `user` is named."""
    log = escape(str(service.folder / "pool-server.log"))
    words = "".join(f"\n    <string>{escape(word)}</string>" for word in service.argv)
    user = f"\n  <key>UserName</key><string>{escape(service.user)}</string>" if service.user else ""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key><string>{LABEL}</string>{user}
  <key>ProgramArguments</key>
  <array>{words}
  </array>
  <key>WorkingDirectory</key><string>{escape(str(service.folder))}</string>
  <key>RunAtLoad</key><true/>
  <key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>
  <key>Umask</key><integer>63</integer>
  <key>ExitTimeOut</key><integer>90</integer>
  <key>StandardOutPath</key><string>{log}</string>
  <key>StandardErrorPath</key><string>{log}</string>
</dict>
</plist>
"""


def _hardened(service: Service) -> list[str]:
    below_home = any(
        path.is_relative_to(home) for path in (service.folder, Path(service.argv[0]), *service.writes) for home in HOMES
    )
    low = "CAP_NET_BIND_SERVICE" if 0 < service.port < LOW_PORTS else ""
    return [
        f"CapabilityBoundingSet={low}",
        f"AmbientCapabilities={low}",
        "ProtectSystem=strict",
        f"ReadWritePaths={' '.join(_word(str(path)) for path in service.writes)}",
        f"ProtectHome={'read-only' if below_home else 'yes'}",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "DevicePolicy=closed",
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "ProtectProc=invisible",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "RemoveIPC=yes",
        "KeyringMode=private",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallErrorNumber=EPERM",
    ]


def _path(path: Path) -> str:
    """A path as the right side of a setting that takes one."""
    return _checked(str(path)).replace("%", "%%")


def _word(word: str) -> str:
    """One word of a list: specifiers and variables are escaped, quotes stand where they are needed."""
    text = _checked(word).replace("%", "%%").replace("$", "$$")
    return text if shlex.quote(word) == word else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _checked(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text!r} holds a control character, which no unit can")
    return text
