"""What one exchange does with objects: asks whose they are before, writes whose the new ones are after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from urllib.parse import quote

from pool_server import dialects
from pool_server.accounts.objects.owners import Owned, Reference
from pool_server.core.enums import ApiFamily, ObjectKind, Operation, Provider
from pool_server.core.models import ClientError, Peek
from pool_server.gateway.objects import spending
from pool_server.gateway.objects.access import Claim, ObjectAccess
from pool_server.gateway.objects.uploads import Headers, Upload, brought_back
from pool_server.gateway.routes import Route
from pool_server.ledger import job_key
from pool_server.users import LimitStanding, Principal

_MODEL_CALLS = frozenset({Operation.RESPONSES, Operation.MESSAGES, Operation.CHAT})
# What the body of a call can be about, where that is not everything. A name of any other kind is one of a field that
# the call's API has not: whoever answers need not have read it, so that it leads to no account and proves none.
_KNOWN: dict[Operation, frozenset[ObjectKind]] = {
    Operation.CHAT: frozenset({ObjectKind.FILE, ObjectKind.VOICE}),
    Operation.MESSAGES: frozenset({ObjectKind.FILE, ObjectKind.CONTAINER, ObjectKind.SKILL}),
    Operation.COUNT_TOKENS: frozenset({ObjectKind.FILE, ObjectKind.CONTAINER, ObjectKind.SKILL, ObjectKind.CACHE}),
    Operation.COMPLETIONS: frozenset(),
    Operation.EMBEDDINGS: frozenset({ObjectKind.FILE}),
    Operation.MODERATIONS: frozenset(),
    Operation.RERANK: frozenset(),
    Operation.IMAGES: frozenset({ObjectKind.FILE}),
    Operation.AUDIO: frozenset({ObjectKind.VOICE}),
}


class Tracking:
    """One exchange's objects. `holder` is the account that must serve it, "" when any may; `expected` are the tokens of
    prompts and of answers that a new batch is likely to use, by model."""

    def __init__(self, access: ObjectAccess, principal: Principal, route: Route) -> None:
        self._access = access
        self._principal = principal
        self._route = route
        self._model_call = route.operation in _MODEL_CALLS
        self._stored = False
        self._most: dict[str, int] = {}  # tokens the requests of a batch may use, by model
        self.expected: dict[str, tuple[int, int]] = {}
        self._claim = Claim()
        self._kept: set[Reference] = set()
        self.upload: Upload | None = None
        self.located: list[Reference] = []  # what the answer's Location names
        self.translated = False  # the answer is of another API: its ids mean nothing to the client

    @property
    def holder(self) -> str:
        return self._claim.account

    @property
    def batch(self) -> str:
        """The ledger's key of the batch whose results the file holds that the call names, "" without one."""
        return self._claim.batch

    def claim(
        self, peek: Peek, providers: Iterable[Provider], *, skip: Iterable[Reference] = (), forced: bool = False
    ) -> ClientError | None:
        """Whether the caller may touch what the call names; the error when not.

        `skip` are ids that are known to be the caller's otherwise; with `forced` the caller has chosen an account that
        is theirs, where everything is.
        """
        self._stored, self._most, self.expected = peek.stored, peek.batch, peek.batch_expected
        wanted = [one for one in self._named(peek) if one not in skip]
        if wanted and not forced:
            providers = tuple(providers)
            about = [one for one in wanted if self._is_about(one)]
            self._claim = self._access.claim(self._principal, self._route.family, about, providers)
            for one in () if self._claim.error or len(about) == len(wanted) else wanted:
                if one not in about:  # it leads nowhere, and may be nobody else's all the same
                    found = self._access.claim(self._principal, self._route.family, (one,), providers)
                    self._claim.error = self._claim.error or found.error
            if self._route.makes is ObjectKind.BATCH and self._route.family is ApiFamily.OPENAI:
                self._add_files()
        return self._claim.error

    def _named(self, peek: Peek) -> list[Reference]:
        named = [*self._route.ids, *peek.objects]
        if self.upload is not None and not self.upload.started:
            named.append((ObjectKind.UPLOAD, self.upload.ticket))
        return named

    def _is_about(self, reference: Reference) -> bool:
        known = _KNOWN.get(self._route.operation)
        return known is None or reference[0] in known or reference in self._route.ids

    async def look_up(self, peek: Peek) -> None:
        """See to it that `claim` knows whose the things are that a call names. Never raises."""
        await self._access.owners.fetch(self._route.family, self._named(peek))

    def _add_files(self) -> None:
        """What the requests of a new batch are, as its files were read when they were uploaded."""
        most, expected = dict(self._most), dict(self.expected)
        for owned in self._files():
            for model, tokens in owned.models.items():
                most[model] = most.get(model, 0) + tokens
            for model, (prompts, answers) in owned.expected.items():
                before = expected.get(model, (0, 0))
                expected[model] = (before[0] + prompts, before[1] + answers)
        self._most, self.expected = most, expected

    def _files(self) -> list[Owned]:
        return [owned for owned, (kind, _) in self._claim.mine if kind is ObjectKind.FILE]

    def spending_refused(
        self, peek: Peek, held_to: Callable[[], Sequence[LimitStanding]], price: Callable[[str, int], float | None]
    ) -> ClientError | None:
        """What the caller's limits forbid of a call that has no single model in view; asked after `claim`."""
        route = self._route
        if self._principal.admin or self._principal.local:
            return None
        if route.operation is Operation.BATCHES and route.makes is not None:
            by_file = peek.batch_by_file
            if route.family is ApiFamily.OPENAI:
                by_file = not all(owned.models for owned in self._files())
            return spending.file_not_read() if by_file else spending.batch_refused(self._most, held_to(), price)
        if peek.beside and (error := spending.beside_refused(peek.beside, held_to())) is not None:
            return error
        if route.works and not peek.model:
            return spending.unnamed_model(held_to())
        return None

    def brought(self, meter: dialects.Meter) -> list[Reference]:
        """The objects that the answer has brought so far and whose they are is not written yet."""
        if self._model_call and not (self._stored or self._claim.unknown or meter.made) and self.upload is None:
            return []  # a model's answer that makes nothing which could be asked for later, as nearly all
        return [one for one in self._brought(meter) if one[1] and one not in self._kept]

    async def keep(self, account: str, brought: list[Reference]) -> None:
        """Writes whose the objects are that an answer has `brought`; returns when that is durable."""
        self._kept.update(brought)
        key = self._principal.key if self.upload is not None else ""
        await self._access.owners.keep(
            self._principal.user,
            self._route.family,
            brought,
            account,
            models=self._most,
            key=key,
            expected=self.expected,
            batch=self._batch_told_of(account),
        )

    def brought_back(self, headers: Headers) -> Headers:
        """An answer's headers with the pool's address of what they name in place of the provider's."""
        if self.upload is not None:
            headers = brought_back(headers, self.upload)
        if not self.located:
            return headers
        return headers + [("Location", f"/v1/realtime/calls/{quote(call, safe='')}") for _, call in self.located]

    def beside_refused(
        self, models: Collection[str], held_to: Callable[[], Sequence[LimitStanding]]
    ) -> ClientError | None:
        """What the caller's limits forbid of models that a live conversation sets to work."""
        exempt = not models or self._principal.admin or self._principal.local
        return None if exempt else spending.beside_refused(models, held_to())

    def _batch_told_of(self, account: str) -> str:
        """The ledger's key of the batch that the answer tells of, and so of the files it names; "" of anything else."""
        ids = self._route.ids
        if self._route.family is not ApiFamily.OPENAI or not ids or ids[-1][0] is not ObjectKind.BATCH:
            return ""
        return job_key(account, ids[-1][1])

    async def ended(self, account: str, meter: dialects.Meter) -> None:
        """The answer came to its good end: writes what it made, moved or deleted, before its last byte goes out."""
        owners, route = self._access.owners, self._route
        if brought := self.brought(meter):
            await self.keep(account, brought)
        if route.deletes and route.ids:
            everybody = self._principal.admin or self._principal.local
            await owners.forget(route.family, route.ids[-1], "" if everybody else self._principal.user)
            return
        for owned, reference in self._claim.mine:
            await owners.used(owned, route.family, reference)

    def _brought(self, meter: dialects.Meter) -> list[Reference]:
        route = self._route
        if self.translated:
            return []
        if self.upload is not None and self.upload.started:
            return [(ObjectKind.UPLOAD, self.upload.ticket)]
        if self.located:
            return list(self.located)
        if route.operation in _MODEL_CALLS:
            brought = list(meter.made)
            if self._stored and route.operation is not Operation.MESSAGES:
                kind = ObjectKind.RESPONSE if route.operation is Operation.RESPONSES else ObjectKind.COMPLETION
                brought.append((kind, meter.response_id))
            return brought + self._claim.unknown
        if not meter.body or route.lists is not None or not (route.makes or self._own_path()):
            return self._claim.unknown if meter.complete else []
        return dialects.made(route.dialect, route.makes, meter.body) + self._claim.unknown

    def _own_path(self) -> bool:
        """Is what the answer names the caller's, because the object it is about is?"""
        own = {reference for _, reference in self._claim.mine}
        return bool(self._route.ids) and (self._principal.local or own.issuperset(self._route.ids))
