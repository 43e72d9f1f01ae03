"""One sign-in in two files: a backup, a cloud drive's conflicted copy. Pure.

A refresh token is good once, and providers revoke the whole sign-in when one is shown twice, so two files must never
refresh the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pool_server.core.enums import CredentialKind
from pool_server.providers import Credential


def token_of(credential: Credential) -> str:
    """What makes a sign-in this one: its refresh token, else the token itself; "" for an API key."""
    if credential.can_refresh:
        return credential.refresh_token
    return credential.access_token if credential.kind is CredentialKind.SETUP_TOKEN else ""


def doubles(
    files: Iterable[tuple[str, str, Credential]], spent_by: Callable[[Credential], str] = lambda _: ""
) -> dict[str, str]:
    """The accounts whose sign-in another file has: account → that file's name.

    `files` are (account, file name, credential), those that keep theirs first. `spent_by` tells which account has
    already traded a credential's refresh token for a new one: another file that still holds it is an old copy.
    """
    holders: dict[str, str] = {}
    found: dict[str, str] = {}
    rows = list(files)
    names = {account: name for account, name, _ in rows}
    for account, name, credential in rows:
        token = token_of(credential)
        if not token:
            continue
        spender = spent_by(credential)
        if token in holders:
            found[account] = holders[token]
        elif spender not in ("", account) and spender in names and spender not in found:
            found[account] = names[spender]
        else:
            holders[token] = name
    return found
