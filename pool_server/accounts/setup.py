"""An account's one-time set-up (Code Assist's project discovery), written into its file so that it happens
once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from pool_server.accounts.refresh import Send
from pool_server.accounts.vault import Vault
from pool_server.config import Settings
from pool_server.providers import SetupDone, provider_module

MAX_STEPS = 40


class SetupUnfinished(Exception):
    """The set-up led nowhere within its steps."""


def wanted(vault: Vault, account_id: str, settings: Settings) -> bool:
    """Does this account still need its set-up?"""
    item = vault.items.get(account_id)
    if item is None or item.options.disabled:
        return False
    return provider_module(item.found.provider).setup_request(item.credential, settings) is not None


async def run(
    vault: Vault, account_id: str, settings: Settings, *, send: Send, clock: Callable[[], float]
) -> tuple[SetupDone, str] | None:
    """Do the set-up; returns what it brought and the written file's digest, None when there was nothing to do.

    Raises the provider's SetupFault, SetupUnfinished, OSError or Rejected (the file could not be written),
    KeyError.
    """
    item = vault.items[account_id]
    module = provider_module(item.found.provider)
    step = module.setup_request(item.credential, settings)
    if step is None:
        return None
    for _ in range(MAX_STEPS):
        if step.wait_s:
            await asyncio.sleep(step.wait_s)
        answer = await send(msgspec.structs.replace(step.request, proxy_url=item.options.proxy_url))
        outcome = module.setup_answer(item.credential, step, answer, settings, now=clock())
        if isinstance(outcome, SetupDone):
            digest = item.digest
            if outcome.updates:
                digest = await asyncio.to_thread(vault.write, account_id, outcome.updates)
            vault.adopt(account_id, outcome.credential, digest)
            return outcome, digest
        step = outcome
    raise SetupUnfinished(f"{account_id}: the provider's set-up did not come to an end")
