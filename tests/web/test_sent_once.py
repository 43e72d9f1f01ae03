"""A form that makes something does it once, however often it is sent, and answers each time as the first time."""

from __future__ import annotations

import asyncio
import re
from unittest import mock
from urllib.parse import urlencode

import pytest

from pool_server.web.base import forms
from tests.web.pool import ADMIN, CODE
from tests.web.site import Answer, Site
from tests.web.test_forms import ROOT, WORDS, Browser, Forms

KIND = "application/x-www-form-urlencoded"
MADE = r'action="[^"]*/(keys|rotate|test|sign-ins|bookings|invitations|pool-users|tokens|captures|accounts)"'
OPERATORS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("/people", "/admin/invitations", {"label": "Cy", "uses": "1"}),
    ("/people", "/admin/pool-users", {"name": "Bo"}),
    ("/settings", "/admin/tokens", {"label": "robot", "scopes": "read"}),
    ("/accounts", "/admin/accounts/claude:work/test", {}),
)


def form_of(page: str, action: str, fields: dict[str, str]) -> dict[str, str]:
    found = next(known for _, place, known in Forms(page).found if place == action and "_once" in known)
    return {**found, **fields}


def send(site: Site, action: str, fields: dict[str, str], cookie: str = "", *, times: int = 1) -> list[Answer]:
    """The answers to one form that is sent so many times at once."""
    headers = {"Accept": "text/html", "Cookie": cookie, "Origin": site.url, "Content-Type": KIND}

    async def all_at_once() -> list[Answer]:
        body = urlencode(fields).encode()
        return list(await asyncio.gather(*(site._fetch("POST", action, body, headers) for _ in range(times))))

    found: list[Answer] = site.run(all_at_once)
    return found


def rows(site: Site) -> int:
    """How many changes the audit log knows."""
    return len(site.run(lambda: site.ctx.users.audit_log(limit=500))[0])


def test_every_form_that_makes_something_has_a_name_of_its_own() -> None:
    forgotten = [
        (path.name, form)
        for path in sorted((ROOT / "templates" / "pages").glob("*.html"))
        for form in re.findall(
            r'<form[^>]*method="post"[^>]*>\{% module hidden\("POST"[^)]*\)', path.read_text("utf-8")
        )
        if re.search(MADE, form) and "once=True" not in form
    ]
    assert not forgotten


@pytest.mark.parametrize(("page", "action", "fields"), OPERATORS)
def test_the_operators_form_sent_three_times_at_once_and_once_more(
    friends: Site, page: str, action: str, fields: dict[str, str]
) -> None:
    boss = Browser(friends, ("/admin", {"password": ADMIN}))
    form, before = form_of(boss.see(page), action, fields), rows(friends)
    answers = [*send(friends, action, form, boss.cookie, times=3), *send(friends, action, form, boss.cookie)]
    assert [one.status for one in answers] == [200] * 4, answers[-1].text
    assert len({one.text for one in answers}) == 1, "each shows the secret of the first"
    assert rows(friends) == before + 1
    again = form_of(boss.see(page), action, {**fields, **({"name": "Di"} if "name" in fields else {})})
    assert send(friends, action, again, boss.cookie)[0].text != answers[0].text or action.endswith("/test")
    assert rows(friends) == before + 2, "a form of another page is another form"


def test_a_friend_who_presses_join_again_and_again_gets_one_key_and_sees_it_each_time(friends: Site) -> None:
    door = friends.get("/", Accept="text/html")
    xsrf = f"_xsrf={door.cookies()['_xsrf']}"
    form = form_of(door.text, "/api/friend/login", {"code": CODE, "name": "Ada", "passphrase": WORDS})
    answers = [
        *send(friends, "/api/friend/login", form, xsrf, times=3),
        *send(friends, "/api/friend/login", form, xsrf),
    ]
    keys = {re.search(r'id="first-key"[^>]*>([^<]+)<', one.text)[1] for one in answers}  # type: ignore[index]
    assert len(keys) == 1 and all(one.cookies()["pool_session"] for one in answers)
    [ada] = friends.run(lambda: friends.ctx.users.people.list_users(limit=9)[0])
    assert len(friends.run(lambda: friends.ctx.users.people.list_keys(ada["id"]))) == 1


def test_what_was_refused_is_tried_again_and_another_text_is_another_form(friends: Site) -> None:
    boss = Browser(friends, ("/admin", {"password": ADMIN}))
    form = form_of(boss.see("/people"), "/admin/pool-users", {"name": ""})
    assert [one.status for _ in range(2) for one in send(friends, "/admin/pool-users", form, boss.cookie)] == [400, 400]
    form["name"] = "Bo"
    assert send(friends, "/admin/pool-users", form, boss.cookie)[0].status == 200
    for name, status in (("Cy", 200), ("Cy", 200), ("bo", 409)):
        assert send(friends, "/admin/pool-users", {**form, "name": name}, boss.cookie)[0].status == status, name


def test_of_a_form_whose_first_answer_never_comes_nothing_is_done_twice(friends: Site) -> None:
    boss = Browser(friends, ("/admin", {"password": ADMIN}))
    form = form_of(boss.see("/people"), "/admin/pool-users", {"name": "Bo"})
    with mock.patch.object(forms.Sending, "done", mock.AsyncMock()):  # as of a process that dies
        assert send(friends, "/admin/pool-users", form, boss.cookie)[0].status == 200
    with mock.patch.object(forms, "WAIT_S", 0.0):
        told = send(friends, "/admin/pool-users", form, boss.cookie)[0]
    assert told.status == 409 and "sent before" in told.text


def test_what_is_kept_of_an_answer_tells_nothing_without_the_form(friends: Site) -> None:
    boss, kept = Browser(friends, ("/admin", {"password": ADMIN})), []
    leave = friends.ctx.users.tickets.leave

    async def watched(what: str, text: str, seconds: float) -> None:
        kept.append(what + text)
        await leave(what, text, seconds)

    form = form_of(boss.see("/people"), "/admin/pool-users", {"name": "Bo"})
    with mock.patch.object(friends.ctx.users.tickets, "leave", watched):
        page = send(friends, "/admin/pool-users", form, boss.cookie)[0].text
    [said] = kept
    secret = re.search(r"<code>([^<]+)</code>", page)
    # Whole parts of the key: three letters stand in one of some hundred sealed texts by chance.
    assert secret and not [part for part in (*secret[1].split("."), form["_once"]) if part in said]
