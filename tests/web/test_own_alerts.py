"""What a friend is told of their own limits: once each, where they chose, and never inside the pool's own network."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server import language
from pool_server.alerts import destinations, personal
from pool_server.alerts.destinations import TargetKind
from pool_server.alerts.personal import NoticeKind, PersonalAlerts, PersonalEvent, step, text, wanted
from pool_server.core.enums import NoticeWhen
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.origins import PUBLIC_ONLY
from pool_server.core.settings import Alerts, Limits
from pool_server.gateway.upstream import Upstream
from pool_server.users import SERVER as OPERATOR
from pool_server.users import LimitStanding
from pool_server.users.consents import Notice
from pool_server.web.base.assets.localized import look_up_of
from tests.ledger.test_alerts import smtp_server
from tests.web.site import Site
from tests.web.test_friends import Browser, enter

NOW = 1_790_000_000.0
NTFY = "https://ntfy.sh/ada"


def standing(percent: float) -> LimitStanding:
    return LimitStanding(Limits(tokens_day=1000), {"tokens_day": 10 * percent}, {"tokens_day": NOW + 29_160})


def kinds(percents: list[float]) -> list[tuple[str, ...]]:
    told: dict[str, int] = {}
    found = []
    for percent in percents:
        told, events = step(told, standing(percent))
        found.append(tuple(one.kind.value for one in events))
    return found


@pytest.mark.parametrize(
    ("percents", "told"),
    [
        ([10, 79.9, 80, 85, 99], [(), (), ("nearly",), (), ()]),
        ([85, 100, 250, 0, 81], [("nearly",), ("used_up",), (), ("back",), ("nearly",)]),
        ([100, 99, 100, 94, 100], [("used_up",), (), (), ("back",), ("used_up",)]),
        ([80, 79, 81, 74, 80], [("nearly",), (), (), (), ("nearly",)]),
    ],
)
def test_each_is_told_once(percents: list[float], told: list[tuple[str, ...]]) -> None:
    assert kinds(percents) == told


@given(st.lists(st.floats(0, 500), max_size=30))
def test_what_was_used_up_comes_back_before_it_is_told_again(percents: list[float]) -> None:
    said = [one for kind in kinds(percents) for one in kind if one != "nearly"]
    assert said == ["used_up", "back"] * (len(said) // 2) + ["used_up"] * (len(said) % 2)


def test_a_limit_that_is_lifted_is_forgotten_and_none_is_told_of_moments() -> None:
    told, _events = step({}, standing(100))
    assert step(told, LimitStanding(Limits(requests_per_minute=1), {"requests_per_minute": 9}, {})) == ({}, [])


def test_the_words_are_those_of_the_home_page_in_the_readers_language() -> None:
    nearly = PersonalEvent(NoticeKind.NEARLY, "tokens_day", 82, NOW + 29_160)
    events = [nearly, PersonalEvent(NoticeKind.BACK, "cost_week", 0)]
    assert text(events, NOW) == (
        "Your tokens for today are 82 % used. They reset in 8 h 6 min.\nYour budget for this week is available again."
    )
    language.speak(look_up_of("de"))
    try:
        assert text(events[:1], NOW).startswith("Deine Tokens für heute sind zu 82 % verbraucht.")
    finally:
        language.speak(None)
    assert [one.kind for one in wanted(events, NoticeWhen.USED_UP)] == [NoticeKind.BACK]


# -- where ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("ada@example.org", TargetKind.MAIL),
        (NTFY, TargetKind.HTTPS),
        ("discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", TargetKind.CHAT),
        ("tgram://123456789:abcdefg_hijk/12315544/", TargetKind.CHAT),
        *((bad, None) for bad in (
            "", "ada", "http://ntfy.sh/ada", "https://", "https://u:p@ntfy.sh/x", "https://x/#y", "file:///etc/passwd",
            "json://10.0.0.1/", "mailto://u:p@h", "ntfy://10.0.0.1/x", "discord://a/b?verify=no",
            "ada@example.org\nBcc: x@y.zz",
            "a@b.cc, d@e.ff", "ada@localhost", "https://ntfy.sh:99999/x", "https://[::1", "ａ@example.org", "x" * 400,
            "script://x", "tgram://", "slack://a b",
        )),
    ],
)  # fmt: skip
def test_addresses(target: str, kind: TargetKind | None) -> None:
    assert destinations.kind(target) == kind


@given(st.text())
def test_any_address_is_judged(target: str) -> None:
    if destinations.kind(target) is not None:
        assert "\n" not in target and destinations.shown(target)


def test_a_secret_is_not_shown() -> None:
    for target in (NTFY, "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", "https://h.example/?token=abc"):
        shown = destinations.shown(target)
        assert not {"ada", "JHMHI8", "4174216298", "abc"} & set(shown.replace("/", " ").replace("?", " ").split())


def test_the_pools_own_network_is_not_asked() -> None:
    async def told(target: str) -> bool:
        upstream = Upstream()
        try:
            return await personal.deliver(Notice(target), "s", "b", Alerts(), upstream.send)
        finally:
            await upstream.close()

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0)
        port = listening.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"):
            assert not asyncio.run(told(f"https://{host}:{port}/x"))
        with pytest.raises(BlockingIOError):
            listening.accept()


# -- the whole way --------------------------------------------------------------------------------------------------


class Net:
    """Takes what is sent, and answers `status`."""

    def __init__(self) -> None:
        self.sent: list[HttpRequest] = []
        self.status = 200

    async def __call__(self, request: HttpRequest) -> HttpAnswer:
        self.sent.append(request)
        return HttpAnswer(self.status, {})


def limited(friends: Site, tokens: int) -> tuple[Browser, str]:
    entered = enter(friends)
    ada, user = Browser(friends, entered), entered.json()["user"]["id"]
    friends.run(lambda: friends.ctx.users.people.patch_user(user, {"limits": {"tokens_day": tokens}}, actor=OPERATOR))
    return ada, user


def test_a_friend_chooses_is_told_and_stops(friends: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ada, user = limited(friends, 0)  # a limit of nothing is used up at once
    net = Net()
    friends.ctx.send = net

    async def public(url: str) -> str:
        return ""

    monkeypatch.setattr("pool_server.web.base.shared.public_address.refusal", public)
    answer = ada.send("PUT", "/api/me/alerts", {"target": NTFY, "when": "used_up"})
    assert (answer.status, answer.json()) == (200, {"target": "https://ntfy.sh/…", "when": "used_up"})
    assert net.sent[0].url == NTFY and PUBLIC_ONLY in net.sent[0].egress and b"ada" not in (net.sent[0].body or b"")
    assert "https://ntfy.sh/…" in ada.get("/", Accept="text/html").text
    watch = PersonalAlerts(friends.ctx.ledger, friends.ctx.users, net, "the pool", clock=lambda: NOW)
    net.status = 500
    assert friends.run(watch.look) == 0  # not taken: told again later, not at once
    net.status = 200
    assert friends.run(watch.look) == 0 and len(net.sent) == 2
    watch = PersonalAlerts(friends.ctx.ledger, friends.ctx.users, net, "the pool", clock=lambda: NOW)
    assert [friends.run(watch.look) for _ in range(2)] == [1, 0]
    assert "Your tokens for today are used up." in (net.sent[-1].body or b"").decode()
    again = PersonalAlerts(friends.ctx.ledger, friends.ctx.users, net, "the pool", clock=lambda: NOW)
    assert friends.run(again.look) == 0  # also after a restart
    friends.run(lambda: friends.ctx.users.people.patch_user(user, {"limits": {"tokens_day": 9}}, actor=OPERATOR))
    assert friends.run(again.look) == 1 and "available again" in (net.sent[-1].body or b"").decode()
    assert ada.send("DELETE", "/api/me/alerts").status == 200
    assert friends.ctx.users.notices.everybody() == {}
    rows, _next = friends.run(lambda: friends.ctx.users.audit_log(limit=50))
    trail = [row.action for row in rows]
    assert trail.count("alerts.choose") == 1 and "alerts.stop" in trail and "ntfy" not in str(rows)


def test_nothing_is_kept_that_was_not_taken_or_is_not_public(friends: Site) -> None:
    ada, _user = limited(friends, 5)
    net = Net()
    friends.ctx.send, net.status = net, 404
    for target, status in (
        ("https://127.0.0.1/x", 422),
        ("https://localhost/x", 422),
        ("ada@example.org", 422),
        ("nonsense", 422),
    ):
        assert ada.send("PUT", "/api/me/alerts", {"target": target}).status == status
    assert net.sent == [] and friends.ctx.users.notices.everybody() == {}


def test_tries_are_few(friends: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ada, _user = limited(friends, 5)
    friends.ctx.send = Net()

    async def public(url: str) -> str:
        return ""

    monkeypatch.setattr("pool_server.web.base.shared.public_address.refusal", public)
    assert [ada.send("PUT", "/api/me/alerts", {"target": NTFY}).status for _ in range(6)] == [200] * 5 + [429]


def test_a_deleted_persons_address_goes_too(friends: Site) -> None:
    _ada, user = limited(friends, 0)
    users = friends.ctx.users
    friends.run(lambda: users.notices.change(user, Notice(NTFY), actor=OPERATOR))
    friends.run(lambda: users.people.delete_user(user, actor=OPERATOR))
    net = Net()
    watch = PersonalAlerts(friends.ctx.ledger, users, net, "the pool", clock=lambda: NOW)
    assert friends.run(watch.look) == 0
    assert net.sent == [] and users.notices.everybody() == {}


def test_mail_goes_by_the_operators_server() -> None:
    async def no_network(request: HttpRequest) -> HttpAnswer:
        raise AssertionError

    with smtp_server() as (port, lines):
        settings = Alerts(smtp_host="127.0.0.1", smtp_port=port, smtp_tls=False, mail_from="pool@example.org")
        notice = Notice("ada@example.org")
        assert asyncio.run(personal.deliver(notice, "Your limits", "Used up.", settings, no_network))
    assert "To: ada@example.org" in lines and any("Used up." in line for line in lines)
    off: Any = msgspec.structs.replace(settings, smtp_host="")
    assert not asyncio.run(personal.deliver(notice, "s", "b", off, no_network))
