"""Serving the stylesheet and the script modules: from memory, compressed, kept by browsers for ever."""

from __future__ import annotations

from pool_server.web.base.assets.bundle import assets
from pool_server.web.base.cross_site import BodyKind
from pool_server.web.base.handler import Access, BaseHandler
from pool_server.web.base.page import PageHandler


class StaticFile(BaseHandler, access=Access.OPEN):
    """`GET /static/HASH/NAME`. A hash that is not this version's gets the present file, but not for keeping."""

    def get(self, version: str, name: str) -> None:
        asset = assets().files.get(name)
        if asset is None:
            self.send_error(404)
            return
        known = assets().version
        current = version == known
        self.set_header("Cache-Control", "public, max-age=31536000, immutable" if current else "no-cache")
        self.set_header("Etag", f'"{known}"')
        self.set_header("Vary", "Accept-Encoding")
        self.set_header("Content-Type", asset.media_type)
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
            return
        if "gzip" in self.request.headers.get("Accept-Encoding", ""):
            self.set_header("Content-Encoding", "gzip")
            self.finish(asset.gzipped)
        else:
            self.finish(asset.body)

    def compute_etag(self) -> str | None:
        return f'"{assets().version}"'


class Icon(BaseHandler, access=Access.OPEN):
    """`/favicon.ico`, which browsers ask for where no page names an icon."""

    def get(self) -> None:
        self.set_header("Cache-Control", "public, max-age=86400")
        self.redirect(assets().url("icon.svg"), status=302)


class NotFound(PageHandler, access=Access.OPEN):
    """Everything that is no route, whatever was sent to it."""

    takes = frozenset(BodyKind)  # 404 whatever is sent: nothing is read

    def get(self) -> None:
        self.send_error(404)

    post = put = patch = delete = get
