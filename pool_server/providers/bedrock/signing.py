"""AWS Signature Version 4, by botocore, which is an optional extra."""

from __future__ import annotations

from typing import Any

try:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
except ImportError:  # pool-server[bedrock] is not installed
    SigV4Auth = None

INSTALL = "AWS access keys need botocore: pip install 'pool-server[bedrock]'; a Bedrock API key needs nothing"


def available() -> bool:
    return SigV4Auth is not None


def signed(
    key: tuple[str, str, str], service: str, region: str, method: str, url: str, body: bytes, content_type: str = ""
) -> list[tuple[str, str]]:
    """The headers that show a key (id, secret, session or "") for this very request, at botocore's own clock."""
    request: Any = AWSRequest(method, url, {"Content-Type": content_type} if content_type else {}, body)
    key_id, secret, session = key
    SigV4Auth(Credentials(key_id, secret, session or None), service, region).add_auth(request)
    return [(name, value) for name, value in request.headers.items() if name.lower() not in ("content-type", "host")]
