"""`/sign-ins/ID`: one sign-in as it goes, live: the line, the code or the address, and how it ended."""

from __future__ import annotations

from pool_server.providers import provider_module
from pool_server.texts import client_settings, labels
from pool_server.web.base.handler import Access
from pool_server.web.sign_ins.sign_in_api import SignInHandler, row


class SignInPage(SignInHandler, access=Access.FRIEND):
    def get(self, ident: str) -> None:
        record = self.found(ident)
        self.page(
            "sign_in.html",
            title="Sign in",
            row=row(self, record),
            label=labels.PROVIDERS[record.provider],
            steps=labels.SIGN_IN_STEPS,
            install=client_settings.INSTALL.get(record.provider.value, ""),
            notice=provider_module(record.provider).spec.notice,
            act=f"{'/admin' if self.principal.admin else '/api'}/sign-ins/{record.id}",
            back="/accounts" if self.principal.admin else "/contribute",
        )
