"""Small pieces of HTML that several pages show: bars, times, figures. Pure; everything given is escaped.

Bars are inline SVG, because the pages allow no inline style.
"""

from __future__ import annotations

import secrets
from datetime import tzinfo

from tornado.escape import xhtml_escape

from pool_server.core.settings import HIDDEN
from pool_server.language import gettext as _
from pool_server.texts import format


def bar(used: float | None, *, pace: float | None = None, label: str, kind: str = "") -> str:
    """A thin bar: how much is used (percent) and, as a mark, how much an even pace would have used by now.

    `label` is what a screen reader says; `kind` is a provider's name or a tone for its colour, or "".
    """
    filled = 0.0 if used is None else min(100.0, max(0.0, used))
    mark = ""
    if pace is not None:
        at = min(99.5, max(0.5, pace))
        mark = f'<line class="pace" x1="{at:.1f}%" x2="{at:.1f}%" y1="0" y2="12"></line>'
    return (
        f'<svg class="bar {xhtml_escape(kind)}" role="img" aria-label="{xhtml_escape(label)}">'
        f'<rect class="track" y="4" width="100%" height="4" rx="2"></rect>'
        f'<rect class="fill" y="4" width="{filled:.1f}%" height="4" rx="2"></rect>{mark}</svg>'
    )


def number(value: float | None) -> str:
    """A shortened figure with every digit on hover and for screen readers."""
    short, full = format.count(value), format.exact(value)
    if short == full:
        return short
    # A plain span may not carry a label of its own: the digits are there as text, out of sight.
    return (
        f'<span title="{full}" aria-hidden="true">{short}</span><span class="visually-hidden unselected">{full}</span>'
    )


def moment(at: float | None, now: float, where: tzinfo, *, never: str = "") -> str:
    """A point in time as a distance, with the clock time on hover; kept fresh by the page's script."""
    if at is None:
        return never or _("never")
    words = format.within(at, now) if at > now else format.ago(at, now)
    return f'<time datetime="{format.stamp(at)}" data-distance title="{format.clock(at, now, where)}">{words}</time>'


def clock(at: float, now: float, where: tzinfo) -> str:
    """A clock time in the page's zone, which its foot names; the script moves both into the viewer's."""
    return f'<time datetime="{format.stamp(at)}" data-clock>{format.clock(at, now, where)}</time>'


def second(at: float, now: float, where: tzinfo) -> str:
    """A clock time to the second."""
    words = f"{format.clock(at, now, where)}:{int(at) % 60:02d}"
    return f'<time datetime="{format.stamp(at)}" data-clock data-second>{words}</time>'


def until(at: float, now: float, where: tzinfo) -> str:
    """When something still to come happens, both ways: "00:00 (in 8 h 6 min)"."""
    words = f"{format.clock(at, now, where)} ({format.within(at, now)})"
    return f'<time datetime="{format.stamp(at)}" data-clock data-until>{words}</time>'


def setting(value: object) -> str:
    """A setting's value as one line of plain text; a secret is "set" or "not set"."""
    if value == HIDDEN:
        return _("set")
    if value in ("", None, [], {}, ()):
        return _("not set")
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {setting(item)}" for name, item in value.items())
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)


def hidden_fields(method: str, back: str = "", *, once: bool = False, token: str, here: str) -> str:
    """What a form carries unseen: the page's token, the real method, and where to go afterwards (`here` by default).
    With `once` it also has a name of its own, by which it does what it does once, however often it is sent."""
    fields = {"_xsrf": token, "_method": method, "_back": back or here}
    if once:
        fields["_once"] = secrets.token_urlsafe(16)
    return "".join(
        f'<input type="hidden" name="{name}" value="{xhtml_escape(value)}">' for name, value in fields.items()
    )
