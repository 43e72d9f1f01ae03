"""One sign-in in two files: a backup, a cloud drive's conflicted copy. Pure.

A refresh token is good once, and providers revoke the whole sign-in when one is shown twice, so two files must never
refresh the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pool_server.core.enums import CredentialKind
from pool_server.providers import Credential, provider_module


def token_of(credential: Credential) -> str:
    """What makes a sign-in this one: what it is refreshed with, else the token itself; "" for an API key."""
    if credential.can_refresh:
        return credential.grant
    return credential.access_token if credential.kind is CredentialKind.SETUP_TOKEN else ""


def doubles(
    files: Iterable[tuple[str, str, Credential]],
    now: float,
    spent_by: Callable[[Credential], str] = lambda _: "",
) -> dict[str, str]:
    """The accounts whose sign-in another file has: account → that file's name.

    `files` are (account, file name, credential), those that keep theirs first. `spent_by` tells which account has
    already traded a credential's refresh token for a new one: another file that still holds it is an old copy.
    Two files with one refresh token and access tokens of their own may both be used until one of these is to be
    refreshed (`now` in unix seconds): only then would the refresh token be presented twice.
    """
    holders: dict[str, tuple[str, Credential]] = {}
    found: dict[str, str] = {}
    rows = list(files)
    names = {account: name for account, name, _ in rows}
    for account, name, credential in rows:
        token = token_of(credential)
        if not token:
            continue
        spender = spent_by(credential)
        name_of, other = holders.get(token, ("", credential))
        if name_of and not _apart(other, credential, now):
            found[account] = name_of
        elif spender not in ("", account) and spender in names and spender not in found:
            found[account] = names[spender]
        else:
            holders.setdefault(token, (name, credential))
    return found


def _apart(one: Credential, other: Credential, now: float) -> bool:
    """Whether both have an access token of their own that is not to be refreshed yet."""
    dues = [provider_module(cred.provider).refresh_due_at(cred, now=now) for cred in (one, other)]
    return one.access_token != other.access_token and all(due is not None and due > now for due in dues)
