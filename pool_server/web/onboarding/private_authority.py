"""What makes clients trust a pool whose certificate a private authority has signed."""

from __future__ import annotations

import re
from pathlib import Path

from pool_server.language import gettext as _
from pool_server.web.onboarding.steps import Step

_MOST_BYTES = 1 << 16
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_BUNDLES = "/etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem"
_FOLDER = '"$HOME/.config/pool-server"'


def certificates(path: str) -> str:
    """The certificates in a file, and nothing else that may stand in it; "" for none, or no file. Blocks."""
    if not path:
        return ""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MOST_BYTES).decode("ascii", "replace")
    except OSError:
        return ""
    return "\n".join(one.replace("\r", "") for one in _CERTIFICATE.findall(text))


def trust(pem: str) -> tuple[Step, ...]:
    """Once for each machine: the authority beside those it knows, for Node, for what reads OpenSSL's variable and for
    curl; on Windows among the user's own. Pure."""
    if not pem:
        return ()
    keep = _("Keep the authority that signed this pool's certificate:")
    posix = (
        f"mkdir -p {_FOLDER} && cd {_FOLDER} && cat > ca.pem <<'END'\n{pem}\nEND\n"
        f"cat $(ls {_BUNDLES} 2> /dev/null | head -n 1) ca.pem > with-ca.pem; cd - > /dev/null"
    )
    exported = (
        'export NODE_EXTRA_CA_CERTS="$HOME/.config/pool-server/ca.pem"   # Claude Code, Gemini, Qwen, opencode\n'
        'export SSL_CERT_FILE="$HOME/.config/pool-server/with-ca.pem"    # Codex, aider, SDKs for Python\n'
        'export CURL_CA_BUNDLE="$HOME/.config/pool-server/with-ca.pem"   # curl'
    )
    windows = (
        '$dir = "$HOME\\.config\\pool-server"; New-Item -Force -ItemType Directory $dir | Out-Null\n'
        f"@'\n{pem}\n'@ | Set-Content -Encoding ascii \"$dir\\ca.pem\"\n"
        'Import-Certificate -FilePath "$dir\\ca.pem" -CertStoreLocation Cert:\\CurrentUser\\Root | Out-Null\n'
        '[Environment]::SetEnvironmentVariable("NODE_EXTRA_CA_CERTS", "$dir\\ca.pem", "User")\n'
        '$env:NODE_EXTRA_CA_CERTS = "$dir\\ca.pem"'
    )
    return (
        Step(keep, posix, "posix"),
        Step(_("In this terminal, and at the end of your shell's profile:"), exported, "posix"),
        Step(keep, windows, "powershell"),
    )
