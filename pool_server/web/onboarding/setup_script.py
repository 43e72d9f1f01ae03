"""`GET /setup/TICKET/CLI`: the set-up script, for whoever holds the ticket, once."""

from __future__ import annotations

from pool_server.web.base.handler import Access
from pool_server.web.home.home_page import LOCAL_KEY, LOCAL_TICKET, HomePage
from pool_server.web.onboarding import scripts, snippets


class Setup(HomePage, access=Access.OPEN):
    """A used, old or foreign ticket answers like a missing page, and nothing a shell would run."""

    async def get(self, ticket: str, cli: str) -> None:
        if cli not in snippets.CLIS:
            self.send_error(404)
            return
        base = self.base_url()  # before the ticket is spent: a forged Host must not cost it
        if self.ctx.local and ticket == LOCAL_TICKET:
            key = LOCAL_KEY
        else:
            key = (await self.ctx.users.redeem_ticket(ticket, peer=self.peer, label=cli))["key"]
        powershell = self.get_query_argument("shell", "") == "powershell"
        text = scripts.script(cli, powershell=powershell, base=base, key=key, pool=self.ctx.pool_name)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(text)
