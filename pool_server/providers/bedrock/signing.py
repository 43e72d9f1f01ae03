"""AWS Signature Version 4, by botocore, which is an optional extra."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

from pool_server.language import lazy

INSTALL = lazy("AWS access keys need botocore: pip install 'pool-server[bedrock]'; a Bedrock API key needs nothing")


@cache
def available() -> bool:
    return importlib.util.find_spec("botocore") is not None


def signed(
    key: tuple[str, str, str], service: str, region: str, method: str, url: str, body: bytes, content_type: str = ""
) -> list[tuple[str, str]]:
    """The headers that show a key (id, secret, session or "") for this very request, at botocore's own clock."""
    # Loaded with the first request that is signed: it takes as long as all else of a start.
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request: Any = AWSRequest(method, url, {"Content-Type": content_type} if content_type else {}, body)
    key_id, secret, session = key
    SigV4Auth(Credentials(key_id, secret, session or None), service, region).add_auth(request)
    return [(name, value) for name, value in request.headers.items() if name.lower() not in ("content-type", "host")]
