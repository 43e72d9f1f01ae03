"""The pieces of HTML that several pages show: `{% module name(…) %}` of a template. Each is a template of its own in
`templates/pages/modules/`, which escapes what it is given.

They are Tornado's UI modules without its `UIModule`: that one holds the handler, and a rendered page, which refers to
its modules, would keep its request until the next collection.
"""

from __future__ import annotations

import secrets
from datetime import tzinfo

from tornado.template import Loader

from pool_server.language import gettext as _
from pool_server.texts import format

_CLOCK = "data-clock"  # the page's script moves it into the viewer's zone


class PageModules:
    """Of one page: `now` (unix seconds) and `zone` it is written in, its `token`, and its own address, `here`."""

    def __init__(self, loader: Loader, *, now: float, zone: tzinfo, token: str, here: str) -> None:
        self._loader = loader
        self._now = now
        self._zone = zone
        self._token = token
        self._here = here

    def bar(self, used: float | None, *, pace: float | None = None, label: str, kind: str = "") -> bytes:
        """A thin bar: how much is used (percent) and, as a mark, how much an even pace would have used by now.

        `label` is what a screen reader says; `kind` is a provider's name or a tone for its colour, or "". It is SVG,
        because the pages allow no inline style.
        """
        filled = 0.0 if used is None else min(100.0, max(0.0, used))
        mark = "" if pace is None else f"{min(99.5, max(0.5, pace)):.1f}%"
        return self._rendered("bar", filled=f"{filled:.1f}%", mark=mark, label=label, kind=kind)

    def number(self, value: float | None) -> bytes:
        """A shortened figure with every digit on hover and for screen readers."""
        return self._rendered("number", short=format.count(value), full=format.exact(value))

    def moment(self, at: float | None, *, never: str = "") -> bytes | str:
        """A point in time as a distance, with the clock time on hover; kept fresh by the page's script."""
        if at is None:
            return never or _("never")
        words = format.within(at, self._now) if at > self._now else format.ago(at, self._now)
        return self._time(at, words, "data-distance", title=self._told(at))

    def clock(self, at: float) -> bytes:
        """A clock time in the page's zone, which its foot names."""
        return self._time(at, self._told(at), _CLOCK)

    def second(self, at: float) -> bytes:
        """A clock time to the second."""
        return self._time(at, f"{self._told(at)}:{int(at) % 60:02d}", f"{_CLOCK} data-second")

    def until(self, at: float) -> bytes:
        """When something still to come happens, both ways: "00:00 (in 8 h 6 min)"."""
        return self._time(at, f"{self._told(at)} ({format.within(at, self._now)})", f"{_CLOCK} data-until")

    def hidden(self, method: str, back: str = "", *, once: bool = False) -> bytes:
        """What a form carries unseen: the page's token, the real method, and where to go afterwards (here by default).
        With `once` it also has a name of its own, by which it does what it does once, however often it is sent."""
        fields = {"_xsrf": self._token, "_method": method, "_back": back or self._here}
        if once:
            fields["_once"] = secrets.token_urlsafe(16)
        return self._rendered("hidden", fields=fields)

    def _told(self, at: float) -> str:
        return format.clock(at, self._now, self._zone)

    def _time(self, at: float, words: str, kind: str, *, title: str = "") -> bytes:
        return self._rendered("time", stamp=format.stamp(at), words=words, kind=kind, title=title)

    def _rendered(self, name: str, **values: object) -> bytes:
        return rendered(self._loader, name, **values)


def rendered(loader: Loader, name: str, **values: object) -> bytes:
    """A module outside of a page."""
    return loader.load(f"modules/{name}.html").generate(**values).rstrip(b"\n")
