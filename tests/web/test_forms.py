"""Pages without scripts: every form sends what it shows, to where it says, and leads on."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pytest

from pool_server.web.base.forms import nested
from tests.web.pool import ADMIN, CODE
from tests.web.site import Answer, Site

ROOT = Path(__file__).resolve().parents[2]
WORDS = "correct horse battery"


class Forms(HTMLParser):
    """The forms of a page: action, method and the fields a browser would send with them untouched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, dict[str, str]]] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {"type": "text"} | {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append((given.get("method", ""), given.get("action", ""), {}))
            self._open = True
        elif tag == "input" and self._open and "name" in given and (given["type"] != "checkbox" or "checked" in given):
            self.found[-1][2][given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = False


class Browser:
    """A browser without scripts."""

    def __init__(self, site: Site, login: tuple[str, dict[str, str]]) -> None:
        self.site = site
        entered = site.post(*login)
        self.cookie = f"pool_session={entered.cookies()['pool_session']}"

    def see(self, path: str) -> str:
        answer = self.site.get(path, Accept="text/html", Cookie=self.cookie)
        assert answer.status == 200, path
        return answer.text

    def forms(self, path: str) -> list[tuple[str, str, dict[str, str]]]:
        return Forms(self.see(path)).found

    def send(self, page: str, action: str, method: str = "POST", /, **fields: str) -> Answer:
        """Fill the page's form of this action and method, and send it."""
        found = [f for how, place, f in self.forms(page) if (how, place, f.get("_method")) == ("post", action, method)]
        assert found, (page, action)
        body = urlencode({**found[0], **{name.replace("__", "."): value for name, value in fields.items()}}).encode()
        return self.site.request(
            "POST", action, body=body, Accept="text/html", Cookie=self.cookie, Origin=self.site.url,
            Content_Type="application/x-www-form-urlencoded",
        )  # fmt: skip


@pytest.fixture
def ada(friends: Site) -> Browser:
    return Browser(friends, ("/api/friend/login", {"code": CODE, "name": "Ada", "passphrase": WORDS}))


@pytest.fixture
def boss(friends: Site) -> Browser:
    return Browser(friends, ("/admin", {"password": ADMIN}))


def test_no_template_has_a_form_that_goes_nowhere_or_a_button_that_needs_a_script() -> None:
    templates = sorted((ROOT / "templates" / "pages").glob("*.html"))
    assert len(templates) > 15
    for path in templates:
        text = path.read_text(encoding="utf-8")
        for form in re.findall(r"<form\b[^>]*>", text):
            assert 'action="' in form and ('method="post"' in form or 'method="get"' in form), (path.name, form)
        assert not re.search(r"<button[^>]*data-call", text), path.name


@pytest.mark.parametrize("path", ["/", "/accounts", "/people", "/audit", "/settings", "/analytics", "/requests"])
def test_every_form_that_changes_something_carries_the_page_s_token(friends: Site, ada: Browser, path: str) -> None:
    who = ada if path == "/" else Browser(friends, ("/admin", {"password": ADMIN}))
    for method, action, fields in who.forms(path):
        assert method in ("get", "post")
        assert action.startswith("/")
        assert method == "get" or fields["_xsrf"], action


def test_a_friend_changes_the_passphrase_and_nothing_of_it_is_in_an_address(ada: Browser) -> None:
    answer = ada.send("/", "/api/me/passphrase", current=WORDS, new="another long phrase")
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    assert ada.site.post("/api/friend/login", {"name": "Ada", "passphrase": WORDS}).status == 401
    assert ada.site.post("/api/friend/login", {"name": "Ada", "passphrase": "another long phrase"}).status == 200


def test_a_friend_makes_a_key_sees_it_once_and_revokes_it(ada: Browser) -> None:
    made = ada.send("/", "/api/keys", label="laptop")
    key = re.search(r"<code>([^<]+)</code>", made.text)
    assert made.status == 200 and key is not None
    assert ada.site.get("/status", Authorization=f"Bearer {key[1]}").status == 200
    for revoke in [place for _, place, fields in ada.forms("/") if fields.get("_method") == "DELETE"]:
        assert ada.send("/", revoke, "DELETE").status == 303
    assert ada.site.get("/status", Authorization=f"Bearer {key[1]}").status == 401


def test_the_operator_adds_limits_switches_off_and_deletes_somebody(boss: Browser) -> None:
    made = boss.send("/people", "/admin/pool-users", name="Bo")
    assert made.status == 200 and "Shown once" in made.text
    page = next(link for link in re.findall(r'href="(/people/[^"]+)"', boss.see("/people")))
    person = page.replace("/people/", "/admin/pool-users/")
    kept = boss.send(page, person, "PATCH", limits__tokens_day="500", limits__models="opus, haiku")
    assert (kept.status, kept.headers["Location"]) == (303, page)
    row = boss.site.get(person, Cookie=boss.cookie).json()
    assert row["limits"] == {"tokens_day": 500, "models": ["opus", "haiku"]}
    boss.send(page, person, "PATCH", none__limits__tokens_day="1")
    assert boss.site.get(person, Cookie=boss.cookie).json()["limits"]["tokens_day"] is None
    assert boss.send(page, f"{person}/disable").status == 303
    assert boss.site.get(person, Cookie=boss.cookie).json()["state"] == "disabled"
    gone = boss.send(page, person, "DELETE")
    assert (gone.status, gone.headers["Location"]) == (303, "/people")


def test_the_operator_makes_and_revokes_a_code(boss: Browser) -> None:
    made = boss.send("/people", "/admin/invitations", label="Cy")
    assert "Shown once" in made.text
    revoke = next(place for _, place, _ in boss.forms("/people") if place.startswith("/admin/codes/"))
    assert boss.send("/people", revoke, "DELETE").status == 303


def test_an_account_is_switched_off_and_on(boss: Browser) -> None:
    off = next(place for _, place, _ in boss.forms("/accounts") if place.endswith("/disable"))
    assert boss.send("/accounts", off).status == 303
    assert boss.send("/accounts", off.replace("/disable", "/enable")).status == 303


@pytest.mark.parametrize("method", ["", "GET", "POST", "TRACE", "CONNECT", "_by_form", "PUT", "delete"])
def test_a_form_s_method_is_one_the_route_has(boss: Browser, method: str) -> None:
    made = boss.send("/people", "/admin/invitations", label="Cy")
    assert made.status == 200
    revoke = next(place for _, place, _ in boss.forms("/people") if place.startswith("/admin/codes/"))
    assert boss.send("/people", revoke, "DELETE", _method=method).status == 405


@pytest.mark.parametrize("back", ["//evil.example", "/\\evil.example", "https://evil.example", "evil", "/a\nb", ""])
def test_a_form_leads_to_no_other_site(boss: Browser, back: str) -> None:
    off = next(place for _, place, _ in boss.forms("/accounts") if place.endswith("/disable"))
    assert boss.send("/accounts", off, _back=back).headers["Location"] == "/"


def test_what_is_wrong_in_a_form_is_told_on_a_page(boss: Browser) -> None:
    answer = boss.send("/people", "/admin/pool-users", name="")
    assert (answer.status, answer.headers["Content-Type"]) == (400, "text/html; charset=utf-8")
    forged = urlencode({"_xsrf": "x", "name": "Eve the forged"})
    refused = boss.site.request(
        "POST", "/admin/pool-users", body=forged.encode(), Accept="text/html", Cookie=boss.cookie,
        Content_Type="application/x-www-form-urlencoded",
    )  # fmt: skip
    assert refused.status == 403
    assert "Eve the forged" not in boss.see("/people")


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"_xsrf": "t", "_method": "PATCH", "name": "Bo"}, {"name": "Bo"}),
        ({"limits.tokens_day": "5", "limits.cost_day": "0.5"}, {"limits": {"tokens_day": 5, "cost_day": 0.5}}),
        ({"limits.tokens_day": "", "region": "", "note": ""}, {"note": ""}),
        ({"limits.tokens_day": "5", "none.limits.tokens_day": "1"}, {"limits": {"tokens_day": None}}),
        ({"_cleared": "priority weight", "priority": "", "weight": "2"}, {"weight": "2", "priority": None}),
        ({"plan_type": "", "label": ""}, {"label": ""}),
        ({"_percent": "reserve", "reserve": "12.5"}, {"reserve": 0.125}),
        ({"_percent": "reserve", "_cleared": "reserve", "reserve": ""}, {"reserve": None}),
        ({"limits.models": "a, b  c"}, {"limits": {"models": ["a", "b", "c"]}}),
    ],
)
def test_fields_become_what_a_program_would_send(fields: dict[str, str], body: dict[str, object]) -> None:
    assert nested(fields) == body


def test_a_limit_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match="tokens_day must be a number"):
        nested({"limits.tokens_day": "many"})
    with pytest.raises(ValueError, match="reserve must be a number"):
        nested({"_percent": "reserve", "reserve": "half"})
