"""`/`: in local mode the set-up page; in friends mode the door, or the friend's home once they are in."""

from __future__ import annotations

from pool_server.web import pace, snippets
from pool_server.web.base import Access, Problem
from pool_server.web.pages import PageHandler
from pool_server.web.proxies import base_url

LOCAL_KEY = "local"  # any word does: local mode asks for no key, but the clients want to send one
LOCAL_TICKET = "local"


class Home(PageHandler, access=Access.OPEN):
    def get(self) -> None:
        self.page(
            "local.html",
            title="Set-up",
            base=self.base_url(),
            clients=snippets.clients(self.base_url(), LOCAL_KEY),
            ticket=LOCAL_TICKET,
            one_line=snippets.one_line,
            providers=pace.provider_rows(self.ctx),
        )

    def base_url(self) -> str:
        try:
            return base_url(self.ctx.settings.public_url, self.scheme, self.request.host)
        except ValueError as wrong:
            raise Problem(400, "bad_request", str(wrong)) from None
