"""What every page has in common: the frame, the navigation, the helpers a template may call."""

from __future__ import annotations

from typing import Any, NamedTuple

from tornado.template import Loader

from pool_server.language import gettext as _
from pool_server.language import marked, ngettext
from pool_server.texts import format, labels, languages
from pool_server.web.base.assets.bundle import assets
from pool_server.web.base.assets.localized import loader
from pool_server.web.base.assets.paths import templates_folder
from pool_server.web.base.cross_site import JSON_OR_FORM
from pool_server.web.base.handler import LANGUAGE, Access, BaseHandler, ProblemError
from pool_server.web.base.modules import PageModules
from pool_server.web.base.shared import banner, query_params


class NavItem(NamedTuple):
    path: str
    label: str
    rank: Access  # who is shown it
    go: str  # "g" and this letter lead there
    icon: str  # a symbol of icons.svg


# In the order of the navigation; a page is only listed when it exists.
NAVIGATION = (
    NavItem("/", marked("Home"), Access.FRIEND, "h", "home"),
    NavItem("/analytics", marked("Analytics"), Access.FRIEND, "n", "analytics"),
    NavItem("/requests", marked("Requests"), Access.FRIEND, "r", "requests"),
    NavItem("/analytics/conversations", marked("Conversations"), Access.FRIEND, "c", "conversations"),
    NavItem("/contribute", marked("Your accounts"), Access.FRIEND, "y", "accounts"),
    NavItem("/accounts", marked("Accounts"), Access.ADMIN, "a", "accounts"),
    NavItem("/admin/models", marked("Models"), Access.ADMIN, "m", "models"),
    NavItem("/people", marked("People"), Access.ADMIN, "p", "people"),
    NavItem("/audit", marked("Audit"), Access.ADMIN, "u", "audit"),
    NavItem("/log", marked("Log"), Access.ADMIN, "l", "log"),
    NavItem("/settings", marked("Settings"), Access.ADMIN, "s", "settings"),
)
THEMES = ("light", "dark")
SEEN = "seen_version"  # a cookie


class PageHandler(BaseHandler, abstract=True):
    """A handler that answers HTML. Its page is complete as it is served; scripts only make it live."""

    def get_template_path(self) -> str:
        return str(templates_folder() / "pages")

    def page(self, template: str, *, title: str, status: int = 200, **values: Any) -> None:
        """Render `template` inside the frame. `title` is the heading of the browser tab."""
        self.set_status(status)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        if self.caller.rank >= Access.ADMIN and not self.seen_version:
            self.note_version()
        self.finish(self.render_string(template, title=_(title), **values))

    @property
    def seen_version(self) -> str:
        """Up to which version the operator has seen what is new in this browser, "" = no page of any yet."""
        return self.get_cookie(SEEN, "") or ""

    def note_version(self) -> None:
        """What is new in this version counts as seen."""
        self.set_cookie(SEEN, self.ctx.version, expires_days=365)

    def render_string(self, template_name: str, **kwargs: Any) -> bytes:
        """The template in this visitor's language."""
        found = self.templates().load(template_name)
        return found.generate(**{**self.get_template_namespace(), **kwargs})

    def templates(self) -> Loader:
        return loader(self.get_template_path(), self.locale.code)

    def get_template_namespace(self) -> dict[str, Any]:
        """What templates may name. Not the handler itself: a rendered template refers to its namespace and back, and
        would keep the request until the next collection."""
        theme, token = self.get_cookie("theme", ""), self.xsrf_token.decode()
        zone, now = self.viewer_zone(), self.ctx.clock()
        modules = PageModules(
            self.templates(), now=now, zone=format.zone(zone), token=token, here=self.request.uri or "/"
        )
        return {
            "_tt_modules": modules,  # what `{% module … %}` asks
            "ctx": self.ctx,
            "caller": self.caller,
            "now": now,
            "fmt": format,
            "words": labels,
            "zone": format.zone(zone),
            "zone_name": zone.replace("_", " "),
            "asset": assets().url,
            **self.settings["template_functions"],
            "_": _,
            "ngettext": ngettext,
            "lang": languages.TAGS[self.locale.code],
            "languages": [(code, languages.TAGS[code], name) for code, name in languages.NAMES.items()],
            "words_file": "" if self.locale.code == languages.ENGLISH else f"language/{self.locale.code}.js",
            "theme": theme if theme in THEMES else "",
            "navigation": [item for item in NAVIGATION if self.shows(item)],
            "incidents": banner.lines(self.ctx, self.caller),
            "upgraded": self.caller.rank >= Access.ADMIN and self.seen_version not in ("", self.ctx.version),
            "path": self.request.path,
            "pool_name": self.ctx.pool_name,
            "xsrf_token": token,
        }

    def viewer_zone(self) -> str:
        """The zone this page is written in: the one asked for, else the browser's own, else the operator's."""
        try:
            return query_params.zone_of(self)
        except ProblemError:
            return self.ctx.settings.ledger.timezone

    def form_done(self, value: Any) -> None:
        """A secret that is shown once, or an account's test, on a page of its own; else back to where the form was."""
        found = value if isinstance(value, dict) else {}
        secret = next((found[name] for name in ("url", "key", "code", "token") if found.get(name)), "")
        if secret or "result" in found:
            told = {name: found.get(name, "") for name in ("message", "qr")}
            self.page("done.html", title="Done", secret=secret, result=found.get("result"), back=self.back, **told)
        else:
            super().form_done(value)

    def shows(self, item: NavItem) -> bool:
        if self.ctx.local and item.path == "/people":
            return False  # nobody but this machine
        if item.path == "/contribute" and (self.caller.principal is None or self.caller.principal.admin):
            return False  # the operator's are on the accounts page
        return self.caller.rank >= item.rank

    def write_error_page(self, problem: ProblemError) -> None:
        if problem.status_code == 401 and self.request.method == "GET":
            self.redirect("/admin" if self.access is Access.ADMIN else "/", status=303)
            return
        self.page("error.html", title=problem.message, status=problem.status_code, problem=problem)


class LanguageChoice(PageHandler, access=Access.OPEN):
    """`POST /language`: the form at the foot of every page; remembered in a cookie, like the colours."""

    takes = JSON_OR_FORM

    def post(self) -> None:
        wanted = self.form().get("language", "")
        if wanted not in languages.NAMES:
            raise ProblemError(400, "bad_request", _("there is no such language here"))
        self.set_cookie(LANGUAGE, wanted, expires_days=365)
        self.form_done(None)
