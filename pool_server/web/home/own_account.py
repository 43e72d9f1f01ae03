"""What friends see and change of themselves: limits, use, keys, requests, set-up tickets, transcripts."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from pathlib import Path

import msgspec

from pool_server.alerts import destinations, personal
from pool_server.alerts.destinations import TargetKind
from pool_server.core.enums import NoticeWhen
from pool_server.language import gettext as _
from pool_server.transcripts import archive
from pool_server.transcripts.archive import KeptConversation, PersonWithTranscripts
from pool_server.users import Principal
from pool_server.users.consents import Notice
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import key_changes, public_address, query_params, request_rows
from pool_server.web.base.shared.names import Names

MOST = 100


class NewTicket(msgspec.Struct, forbid_unknown_fields=True):
    """`key` is the id of a key of one's own to hand out again; "" = the script brings a new one."""

    key: str = ""
    label: str = ""


class NewPassphrase(msgspec.Struct, forbid_unknown_fields=True):
    new: str
    current: str = ""


class OwnHandler(PageHandler, abstract=True):
    """A route about the caller's own things."""

    @property
    def person(self) -> Principal:
        """The caller, who has keys and limits; the admin and local mode have none."""
        if self.principal.admin:
            raise ProblemError(409, "not_a_user", _("only pool users have keys; you are not signed in as one"))
        return self.principal


class Me(OwnHandler, access=Access.FRIEND):
    """`GET /api/me`: who, limits, what is used, keys without their secrets."""

    def get(self) -> None:
        self.xsrf_token  # noqa: B018 - sets its cookie, which the next change will need
        self.answer(self.ctx.users.me(self.principal))


class Keys(OwnHandler, access=Access.FRIEND):
    """`POST /api/keys {"label"?,"expires"?,"expires_in"?,"limits"?}` → `{"id","key","label"}`, the key shown once."""

    async def post(self) -> None:
        await key_changes.create(self, self.person.user)


class OwnKey(OwnHandler, access=Access.FRIEND):
    """`PATCH /api/keys/ID {"label"?,"expires"?,"expires_in"?,"limits"?}` → the key's row; `DELETE` ends the key and
    what runs on it."""

    async def patch(self, key: str) -> None:
        await key_changes.change(self, self.person.user, key)

    async def delete(self, key: str) -> None:
        await self.ctx.users.people.revoke_key(self.person.user, key, actor=self.actor)
        self.answer({"revoked": key})


class KeyPage(OwnHandler, access=Access.FRIEND):
    """One key of one's own: its limits as they stand and to change."""

    async def get(self, key: str) -> None:
        values = await key_changes.page_values(self.ctx, self.person.user, key)
        self.page("key.html", title=values.key.label, **values._asdict(), up=("/", _("Home")), call=f"/api/keys/{key}")


class OwnRequests(OwnHandler, access=Access.FRIEND):
    """`GET /api/me/requests?limit=`: the caller's own latest exchanges, failures explained."""

    asks = frozenset(("limit",))

    async def get(self) -> None:
        try:
            limit = max(1, min(MOST, int(self.get_query_argument("limit", "20"))))
        except ValueError:
            raise ProblemError(400, "bad_request", _("limit must be a whole number")) from None
        ledger = self.ctx.ledger
        found = await ledger.ask(ledger.log.latest, self.principal.user, limit)
        self.answer({"requests": [request_rows.row(record) for record in found]})


class TicketsHandler(OwnHandler, access=Access.FRIEND):
    """`POST /api/setup-tickets` → `{"ticket","expires_in"}`, good for one script within ten minutes."""

    async def post(self) -> None:
        asked = self.body_as(NewTicket)
        self.answer(await self.ctx.users.tickets.create(self.principal, key_id=asked.key, label=asked.label))


class Passphrase(OwnHandler, access=Access.FRIEND):
    """`POST /api/me/passphrase`: a new one; every other browser is signed out."""

    async def post(self) -> None:
        asked = self.body_as(NewPassphrase)
        entry = await self.ctx.users.sign_in.change_passphrase(
            self.person, asked.current, asked.new, peer=self.peer, cookie=self.session_cookie
        )
        self.set_session(entry.cookie, entry.expires)
        self.answer({"changed": True})


class TranscriptChoice(msgspec.Struct, forbid_unknown_fields=True):
    """`delete`: what is kept goes too."""

    allowed: bool
    delete: bool = False


class TranscriptShare(msgspec.Struct, forbid_unknown_fields=True):
    shared: bool


class OwnKept(msgspec.Struct, frozen=True):
    """Whether transcripts are offered and allowed (`since`, unix seconds), and what is kept of one's own."""

    offered: bool
    allowed: bool
    since: float | None
    keep_days: float
    conversations: list[KeptConversation]


class TranscriptHandler(PageHandler, abstract=True):
    """Transcripts of the caller's own exchanges; the operator sees whose there are, and those that were shared."""

    @property
    def owner(self) -> str:
        """Whose transcripts the caller decides about."""
        if self.principal.admin and not self.principal.local:
            raise ProblemError(409, "not_a_user", _("only pool users have transcripts; you are not signed in as one"))
        return self.principal.user

    async def own(self) -> OwnKept:
        """How it stands with the caller."""
        transcripts, user = self.ctx.transcripts, self.owner
        rows = await transcripts.conversations(user)
        since = self.ctx.users.consents.given(user)
        keep_days = self.ctx.settings.transcripts.keep_days
        return OwnKept(transcripts.offered, since is not None, since, keep_days, rows)

    async def place(self, user: str, identifier: str) -> Path:
        found = await self.ctx.transcripts.find(user, identifier)
        if found is None:
            raise ProblemError(404, "not_found", _("there is no such transcript"))
        return found

    async def send(self, place: Path) -> None:
        """A conversation as JSON lines."""
        self.set_header("Content-Type", "application/jsonl; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{place.parent.name}-{place.name}.jsonl"')
        await self.stream(archive.read(place))


class OwnTranscripts(TranscriptHandler, access=Access.FRIEND):
    """`GET /api/me/transcripts` → whether they are offered and allowed, and the conversations; `PATCH
    {"allowed","delete"?}` gives or takes back one's consent; `DELETE` deletes them all."""

    async def get(self) -> None:
        self.answer(await self.own())

    async def patch(self) -> None:
        asked = self.body_as(TranscriptChoice)
        if asked.allowed and not self.ctx.transcripts.offered:
            raise ProblemError(409, "not_offered", _("the operator of this pool keeps no transcripts"))
        await self.ctx.users.consents.change(self.owner, asked.allowed, actor=self.actor)
        if asked.delete:
            await self._remove()
        self.answer(await self.own())

    async def delete(self) -> None:
        self.answer({"deleted": await self._remove()})

    async def _remove(self) -> int:
        removed = await self.ctx.transcripts.remove_person(self.owner)
        await self.ctx.users.audit(self.actor, "transcripts.delete", self.owner, {"exchanges": removed})
        return removed


class OwnTranscript(TranscriptHandler, access=Access.FRIEND):
    """`GET /api/me/transcripts/ID`: one conversation as JSON lines; `PATCH {"shared"}` lets the operator read it, or no
    longer; `DELETE`."""

    async def get(self, identifier: str) -> None:
        await self.send(await self.place(self.owner, identifier))

    async def patch(self, identifier: str) -> None:
        asked = self.body_as(TranscriptShare)
        await asyncio.to_thread(archive.share, await self.place(self.owner, identifier), asked.shared)
        action = "transcripts.share" if asked.shared else "transcripts.unshare"
        await self.ctx.users.audit(self.actor, action, self.owner, {"conversation": identifier})
        self.answer({"id": identifier, "shared": asked.shared})

    async def delete(self, identifier: str) -> None:
        removed = await self.ctx.transcripts.remove(self.owner, await self.place(self.owner, identifier))
        await self.ctx.users.audit(self.actor, "transcripts.delete", self.owner, {"exchanges": removed})
        self.answer({"deleted": removed})


class Held(PageHandler, access=Access.FRIEND):
    """`GET /api/held`: one's own requests that wait for headroom; the operator sees all."""

    async def get(self) -> None:
        found = await asyncio.to_thread(self.ctx.accounts.held.listed, whose(self.principal))
        self.answer({"held": [msgspec.to_builtins(one) for one in found]})


class OneHeld(PageHandler, access=Access.FRIEND):
    """`DELETE /api/held/ID`: the wait ends within seconds, and the client is told what is used up."""

    async def delete(self, identifier: str) -> None:
        if not await asyncio.to_thread(self.ctx.accounts.held.cancel, identifier, whose(self.principal)):
            raise ProblemError(404, "not_found", _("no such request waits"))
        self.answer({"cancelled": identifier})


def whose(principal: Principal) -> str | None:
    """Whose things a caller sees: their own, None = everybody's."""
    return None if principal.admin else principal.user


class NewCapture(msgspec.Struct, forbid_unknown_fields=True):
    """The next so many exchanges of a key of one's own, "" = of any; `texts`: they stay in it."""

    exchanges: int = 1
    key: str = ""
    texts: bool = False


class Captures(TranscriptHandler, access=Access.FRIEND):
    """`GET /api/me/captures`; `POST {"exchanges"?,"key"?,"texts"?}`: captures one's next exchanges for a bug report."""

    async def get(self) -> None:
        rows = await asyncio.to_thread(self.ctx.transcripts.reports.of, self.owner)
        self.answer({"captures": [msgspec.to_builtins(one) for one in rows]})

    async def post(self) -> None:
        asked, user = self.body_as(NewCapture), self.owner
        if asked.texts and not self.ctx.transcripts.offered:
            raise ProblemError(409, "not_offered", _("the operator of this pool keeps no texts; capture without them"))
        known = [] if self.principal.local else [key["id"] for key in self.ctx.users.me(self.principal)["keys"]]
        if asked.key and asked.key not in known:
            raise ProblemError(404, "not_found", _("there is no such key"))
        order = partial(self.ctx.transcripts.reports.order, user, asked.key, asked.exchanges, texts=asked.texts)
        try:
            made = await asyncio.to_thread(order)
        except ValueError as wrong:
            raise ProblemError(400, "bad_request", str(wrong)) from None
        detail = {"exchanges": asked.exchanges, "texts": asked.texts}
        await self.ctx.users.consents.tell(user, actor=self.actor, action="capture.order", detail=detail)
        self.answer(msgspec.to_builtins(made), 201)


class OneCapture(TranscriptHandler, access=Access.FRIEND):
    """`GET /api/me/captures/ID`: the file for a bug report, JSON lines; `DELETE` ends and deletes it."""

    async def get(self, identifier: str) -> None:
        found = await asyncio.to_thread(self.ctx.transcripts.reports.file, self.owner, identifier)
        if found is None:
            raise ProblemError(404, "not_found", _("there is no such capture"))
        self.set_header("Content-Type", "application/jsonl; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="pool-capture-{identifier}.jsonl"')
        self.finish(found)

    async def delete(self, identifier: str) -> None:
        if not await asyncio.to_thread(self.ctx.transcripts.reports.remove, self.owner, identifier):
            raise ProblemError(404, "not_found", _("there is no such capture"))
        await self.ctx.users.consents.tell(self.owner, actor=self.actor, action="capture.delete", detail={})
        self.answer({"deleted": identifier})


class AllTranscripts(TranscriptHandler, access=Access.ADMIN):
    """`GET /admin/transcripts`: of whom there are some, how many, and what was shared with the operator."""

    async def get(self) -> None:
        self.answer({"people": await people_with_transcripts(self)})


class SharedTranscript(TranscriptHandler, access=Access.ADMIN):
    """`GET /admin/transcripts/USER/ID`: one that its person shared, as JSON lines."""

    async def get(self, user: str, identifier: str) -> None:
        place = await self.place(user, identifier)
        if not archive.is_shared(place) and not (self.ctx.local and user == self.principal.user):
            raise ProblemError(403, "not_shared", _("its person has not shared this transcript with the operator"))
        await self.ctx.users.audit(self.actor, "transcripts.read", user, {"conversation": identifier})
        await self.send(place)


class TranscriptsPage(TranscriptHandler, access=Access.FRIEND):
    """One's own transcripts and the decision about them; for the operator, of whom there are some."""

    async def get(self) -> None:
        if self.principal.admin and not self.principal.local:
            people = await people_with_transcripts(self)
            self.page("transcripts.html", title="Transcripts", people=people, own=None)
        else:
            captures = await asyncio.to_thread(self.ctx.transcripts.reports.of, self.owner)
            keys = [] if self.principal.local else self.ctx.users.me(self.principal)["keys"]
            self.page(
                "transcripts.html", title="Transcripts", people=None, own=await self.own(), captures=captures, keys=keys
            )


async def people_with_transcripts(handler: TranscriptHandler) -> list[PersonWithTranscripts]:
    """A row a person: how many there are, and the conversations they shared."""
    ctx, rows = handler.ctx, []
    names = Names(ctx, query_params.viewer(handler))
    for kept in await ctx.transcripts.everybody():
        shared = [one for one in await ctx.transcripts.conversations(kept.user) if one.shared] if kept.shared else []
        rows.append(
            PersonWithTranscripts(
                kept.user, names.user(kept.user), kept.conversations, kept.exchanges, kept.bytes, kept.first, kept.last,
                shared,
            )
        )  # fmt: skip
    return rows


# -- what they are told of their limits, and where -----------------------------------------------------------------

TESTS = 5  # messages to try an address, of one person …
TESTS_S = 3600.0  # … in so long
MOST_TESTERS = 10_000


class ChosenNotice(msgspec.Struct, forbid_unknown_fields=True):
    """`target` is a mail address, an https address (an ntfy topic, a webhook that takes text), or a chat as Apprise
    writes it: discord://, tgram://, slack://, pover://."""

    target: str
    when: NoticeWhen = NoticeWhen.ALL


class OwnAlerts(PageHandler, access=Access.FRIEND):
    """`GET /api/me/alerts` → `{"target","when"}`, target without its secret, "" for none; `PUT {"target","when"?}`
    tries the address with a message and keeps it when that was taken; `DELETE` ends it."""

    @property
    def user(self) -> str:
        """Whose limits; the operator and this machine have none."""
        if self.principal.admin or self.principal.local:
            raise ProblemError(409, "not_a_user", _("only pool users have limits; you are not signed in as one"))
        return self.principal.user

    def get(self) -> None:
        found = self.ctx.users.notices.of(self.user)
        shown = destinations.shown(found.target) if found else ""
        self.answer({"target": shown, "when": found.when if found else NoticeWhen.ALL})

    async def put(self) -> None:
        user, asked = self.user, self.body_as(ChosenNotice)
        notice = Notice(asked.target.strip(), asked.when, self.locale.code)
        await self._check(notice.target)
        self._count(user)
        subject = _(personal.SUBJECT, pool=self.ctx.settings.friend_name or "the pool")
        words = _("This is where you will be told of your limits.")
        settings = self.ctx.ledger.settings.alerts
        if not await personal.deliver(notice, subject, words, settings, self.ctx.send):
            raise ProblemError(502, "not_delivered", _("a message to that address was not taken; nothing was changed"))
        await self.ctx.users.notices.change(user, notice, actor=self.actor)
        self.answer({"target": destinations.shown(notice.target), "when": notice.when})

    async def delete(self) -> None:
        await self.ctx.users.notices.change(self.user, None, actor=self.actor)
        self.answer({"target": ""})

    async def _check(self, target: str) -> None:
        kind = destinations.kind(target)
        if kind is None:
            raise ProblemError(422, "rejected", _("that is no mail, https or chat address that can be told"))
        if kind is TargetKind.MAIL and not offers_mail(self.ctx):
            raise ProblemError(422, "rejected", _("this pool sends no mail: its operator has set no mail server"))
        if kind is TargetKind.HTTPS and (why := await public_address.refusal(target)):
            raise ProblemError(422, "rejected", why)

    def _count(self, user: str) -> None:
        """The pool is nobody's means of writing to others: few tries an hour."""
        now = self.ctx.clock()
        tried = self.ctx.alert_tries
        if len(tried) >= MOST_TESTERS:
            tried.clear()
        tries = tried.setdefault(user, deque(maxlen=TESTS))
        if len(tries) == TESTS and now - tries[0] < TESTS_S:
            raise ProblemError(429, "throttled", _("too many attempts"), retry_after=max(1.0, tries[0] + TESTS_S - now))
        tries.append(now)


def offers_mail(ctx: WebContext) -> bool:
    return bool(ctx.ledger.settings.alerts.smtp_host)


def chosen(ctx: WebContext, user: str) -> tuple[str, NoticeWhen] | None:
    """What a home page shows of it."""
    found = ctx.users.notices.of(user)
    return None if found is None else (destinations.shown(found.target), found.when)
