"""The stylesheet and the script modules, held in memory under one content hash.

Every file is served below `/static/HASH/`, where HASH covers all of them: a page and the modules that import each
other by relative path always fit together, and a browser may keep them for ever.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache, cached_property
from pathlib import Path

from pool_server.texts import languages, markup
from pool_server.web.base.assets import localized
from pool_server.web.base.assets.paths import chart_bundle, static_folder

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
CHARTS = "vendor/chart.js"


class Asset:
    """One file: its bytes, its media type, and the compressed form made when first asked for."""

    def __init__(self, body: bytes, suffix: str) -> None:
        self.body = body
        self.media_type = TYPES[suffix]

    @cached_property
    def gzipped(self) -> bytes:
        return gzip.compress(self.body, 9, mtime=0)


class Assets:
    """All files of one folder, what its scripts say in other languages, and Chart.js from its wheel."""

    def __init__(self, folder: Path, charts: Path | None) -> None:
        found = [path for path in folder.rglob("*") if path.suffix in TYPES]
        self.files = {
            path.relative_to(folder).as_posix(): Asset(path.read_bytes(), path.suffix) for path in sorted(found)
        }
        scripts = [asset.body.decode() for name, asset in self.files.items() if name.endswith(".js")]
        said = sorted({message for source in scripts for message in markup.scripted(source)})
        for language in languages.NAMES:
            if language != languages.ENGLISH:
                self.files[f"language/{language}.js"] = Asset(localized.script(language, said), ".js")
        if charts is not None:
            self.files[CHARTS] = Asset(charts.read_bytes(), ".js")
        digest = hashlib.sha256()
        for name, asset in sorted(self.files.items()):
            digest.update(name.encode() + b"\0" + asset.body)
        self.version = digest.hexdigest()[:16]

    def url(self, name: str) -> str:
        """The address of a file; KeyError when there is none, so that a page cannot name a missing one."""
        self.files[name]
        return f"/static/{self.version}/{name}"


@cache
def assets() -> Assets:
    """The package's own files, read once."""
    return Assets(static_folder(), chart_bundle())
