"""`GET /setup/TICKET/CLI`: the set-up script, for whoever holds the ticket, once."""

from __future__ import annotations

from pool_server.users import RefusedError
from pool_server.web.base.handler import Access
from pool_server.web.home.home_page import LOCAL_KEY, LOCAL_TICKET, HomePage
from pool_server.web.onboarding import scripts, snippets


class Setup(HomePage, access=Access.OPEN):
    """A used, old or foreign ticket answers a script that says so and fails: what a shell reads from `curl -f` after a
    404 is an empty script, which succeeds."""

    async def get(self, ticket: str, cli: str) -> None:
        if cli not in snippets.CLIS:
            self.send_error(404)
            return
        base = self.base_url()  # before the ticket is spent: a forged Host must not cost it
        powershell = self.get_query_argument("shell", "") == "powershell"
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        try:
            key = await self._key(ticket, cli)
        except RefusedError:
            self.finish(scripts.refusal(base, powershell=powershell))
            return
        text = scripts.script(cli, powershell=powershell, base=base, key=key, pool=self.ctx.pool_name)
        self.finish(text)

    async def _key(self, ticket: str, cli: str) -> str:
        if self.ctx.local and ticket == LOCAL_TICKET:
            return LOCAL_KEY
        redeemed = await self.ctx.users.redeem_ticket(ticket, peer=self.peer, label=cli)
        return str(redeemed["key"])
