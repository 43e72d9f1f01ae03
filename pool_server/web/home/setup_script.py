"""`GET /setup/TICKET/CLI`: the set-up script, for whoever holds the ticket, once."""

from __future__ import annotations

from pool_server.texts import client_settings
from pool_server.users import Principal, RefusedError
from pool_server.users.identity.passwords import same
from pool_server.web.base.handler import Access
from pool_server.web.home.home_page import HomePage, local_key, local_tickets
from pool_server.web.onboarding import scripts

MOST_NAME = 40
_SHARED_NAMES = frozenset(
    {"", "localhost", "ubuntu", "debian", "raspberrypi", "macbook-pro", "macbook-air", "docker-desktop"}
)


class Setup(HomePage, access=Access.OPEN):
    """A used, old or foreign ticket answers a script that says so and fails: what a shell reads from `curl -f` after a
    404 is an empty script, which succeeds."""

    async def get(self, ticket: str, cli: str) -> None:
        if cli not in client_settings.CLIS:
            self.send_error(404)
            return
        base = self.base_url()  # before the ticket is spent: a forged Host must not cost it
        powershell = self.get_query_argument("shell", "") == "powershell"
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        machine = machine_name(self.request.headers.get("X-Pool-Machine", ""))
        label = f"{client_settings.LABELS[cli]} on {machine}" if machine else client_settings.LABELS[cli]
        try:
            key, owner = await self._key(ticket, label, replaces=bool(machine))
        except RefusedError:
            self.finish(scripts.refusal(base, powershell=powershell))
            return
        named = "" if self.ctx.local else label
        usable, pool = await self.usable(owner), self.ctx.pool_name
        text = scripts.script(cli, powershell=powershell, base=base, key=key, pool=pool, usable=usable, named=named)
        self.finish(text)

    async def _key(self, ticket: str, label: str, *, replaces: bool) -> tuple[str, Principal]:
        """The key that a ticket is good for, and whose it is."""
        if self.ctx.local and any(same(ticket, known) for known in local_tickets(self.ctx)):
            return local_key(self.ctx), self.ctx.users.local_principal()
        redeemed = await self.ctx.users.tickets.redeem(ticket, peer=self.peer, label=label, replaces=replaces)
        return str(redeemed["key"]), Principal(redeemed["user"]["id"], redeemed["user"]["name"])


def machine_name(said: str) -> str:
    """What the set-up line says its machine is called, as a key's label can hold it: the first part of a host name.

    "" for a name that many machines share: two of them must not replace each other's key.
    """
    name = "".join(char for char in said.partition(".")[0] if char.isascii() and (char.isalnum() or char in "-_"))
    return "" if name.lower() in _SHARED_NAMES else name[:MOST_NAME]
