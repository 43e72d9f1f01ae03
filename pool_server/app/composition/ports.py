"""The one place that decides what keeps each room's state. A port that is None is the room's own, over the two stores
of the data folder; a pool of several machines has them over its database.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pool_server.accounts.credentials.sealing import SealError, environment_keys
from pool_server.accounts.objects.owners import OwnersPort
from pool_server.accounts.ports import AccountPorts
from pool_server.accounts.selection.affinity import PinsPort
from pool_server.accounts.sign_in.records import SignInStore
from pool_server.core.settings import ConfigError, Settings
from pool_server.ledger import LedgerPort
from pool_server.ledger.ports import NotesPort
from pool_server.storage import Store
from pool_server.users.limits.admission_port import MakeAdmission
from pool_server.users.limits.periods import Calendar
from pool_server.users.limits.recent_use import Shares
from pool_server.users.ports import UserPorts

if TYPE_CHECKING:  # a pool of one machine loads none of it
    from pool_server.cluster.node import ClusterNode
    from pool_server.cluster.shared_settings import SharedSettings


class Ports(NamedTuple):
    """What the rooms are given to keep their state with."""

    users: UserPorts | None = None
    admission: MakeAdmission | None = None
    accounts: AccountPorts | None = None
    ledger: LedgerPort | None = None
    notes: NotesPort | None = None
    pins: PinsPort | None = None
    owners: OwnersPort | None = None
    sign_ins: SignInStore | None = None


log = logging.getLogger(__name__)

# What no node knows of another's: told at the start.
OWN = "transcripts, captures, held requests and last visits are each machine's own"

BuildPorts = Callable[[Settings, Store], Ports]  # from the store of what must last on this machine


def embedded(settings: Settings, durable: Store) -> Ports:
    """Everything in this machine's own stores."""
    return Ports()


def check_shared(settings: Settings) -> None:
    """Raises ConfigError where these settings cannot be those of one machine among several."""
    if not settings.friends_mode:
        raise ConfigError(
            "store_url: local mode has no people to share; set friend_code or admin_password, or unset it"
        )
    if settings.bookings.most_percent:
        raise ConfigError("store_url: what people book is not shared by machines: set bookings.most_percent = 0")
    if settings.backup.folder or settings.backup.mirror:
        raise ConfigError(
            "store_url: [backup] copies this machine's folder, and the pool is in the database: leave its places empty,"
            " and back the database up with its own tools"
        )
    if not settings.pool_users.jwt_secret and not environment_keys().names:
        raise ConfigError(
            "store_url: every machine must sign keys alike: set POOL_STORE_KEY, with which the secret is kept in the"
            " database, or POOL_JWT_SECRET, to the same on each"
        )


async def join(settings: Settings, worker: int) -> ClusterNode:
    """This worker as a node of the pool that `store_url` names. Raises ConfigError, SealError, StoreError."""
    node = _node(settings, f"{settings.node_name or socket.gethostname()}/{worker}")
    await node.start()
    log.info("this is node %s of the pool in the database; %s", node.name, OWN)
    return node


def shared_settings(node: ClusterNode) -> SharedSettings:
    """What of a node's settings counts on all machines."""
    from pool_server.cluster.shared_settings import SharedSettings

    return SharedSettings(node)


@asynccontextmanager
async def visited(settings: Settings) -> AsyncIterator[ClusterNode]:
    """The pool's database for a command: nothing runs there for it. Raises as `join`."""
    node = _node(settings, "command")
    try:
        await node.visit()
        yield node
    finally:
        await node.close()


def _node(settings: Settings, name: str) -> ClusterNode:
    check_shared(settings)
    from pool_server.cluster.node import ClusterNode
    from pool_server.storage.postgres.url import parse

    listen = settings.store_listen_url or settings.store_url
    return ClusterNode(parse(settings.store_url, os.environ), name, listen=parse(listen, os.environ))


async def over_database(node: ClusterNode, settings: Settings, *, leader: bool = True) -> BuildPorts:
    """The ports of a node; `leader`: of all processes of its machine, the one that can watch.
    What it must read within microseconds is kept by this machine's store as well."""

    from pool_server.cluster.people.shared_secret import agree

    secret = await agree(node.pool, environment_keys(), settings)

    def build(settings: Settings, durable: Store) -> Ports:
        from pool_server.cluster.credentials.sign_in_rows import DatabaseSignIns
        from pool_server.cluster.database_admission import AwayTerms, DatabaseAdmission
        from pool_server.cluster.fair_shares import FairShares
        from pool_server.cluster.ledger.database_ledger import DatabaseLedger
        from pool_server.cluster.live import SharedNotes
        from pool_server.cluster.objects import DatabaseOwners
        from pool_server.cluster.people.database_people import DatabasePeople
        from pool_server.cluster.people.door import DatabaseDoor
        from pool_server.cluster.pins import DatabasePins
        from pool_server.storage.leases import FOLD, SWEEP
        from pool_server.users.replica import Replica

        replica = Replica(durable, time.time)
        replica.known()  # a folder with people of its own is refused before anything is served
        if secret is not None:
            secret.follow(durable)
        people = DatabasePeople(node.pool, replica.apply, replica.known)
        terms = AwayTerms.of(settings)

        def admission(calendar: Calendar, shares: Shares, clock: Callable[[], float]) -> DatabaseAdmission:
            return DatabaseAdmission(
                node, calendar, clock, known=lambda: people.followed, fair=FairShares(shares, clock), terms=terms
            )

        accounts = account_ports(node, settings, leader=leader)
        return Ports(
            users=UserPorts(people, DatabaseDoor(node.pool), secret),
            admission=admission,
            accounts=accounts,
            ledger=DatabaseLedger(
                node.url, lambda: node.id, settings.ledger.timezone, mine=partial(accounts.duties.mine, FOLD)
            ),
            notes=SharedNotes(accounts.live),
            owners=DatabaseOwners(node.pool, time.time, mine=partial(accounts.duties.mine, SWEEP)),
            sign_ins=DatabaseSignIns(node.pool, environment_keys()),
            pins=DatabasePins(node, wait_s=settings.store_wait_s),
        )

    return build


def account_ports(node: ClusterNode, settings: Settings, *, leader: bool = True) -> AccountPorts:
    """Where the accounts of a node are kept; `leader` as of `over_database`. Raises ConfigError."""
    from pool_server.cluster.credentials.database_source import DatabaseSource
    from pool_server.cluster.credentials.sealed_rows import DatabaseCredentials
    from pool_server.cluster.database_leases import DatabaseLeases
    from pool_server.cluster.duties import DatabaseDuties
    from pool_server.cluster.live import DatabaseLiveBook
    from pool_server.storage.leases import DUTIES, WATCH

    try:
        rows = DatabaseCredentials(node.upkeep, environment_keys())
    except SealError as wrong:
        raise ConfigError(f"store_url: {wrong}") from None
    source = DatabaseSource(Path(settings.pool_dir), rows, time.time)
    live = DatabaseLiveBook(node, source.own_digest)
    source.inbox.look_up, source.inbox.spent_by = live.look_up_spent, live.spent_by
    node.on_feed["accounts"].append(live.follow)
    leases = DatabaseLeases(node.upkeep, lambda: node.id)
    duties = DatabaseDuties(leases, [duty for duty in DUTIES if leader or duty != WATCH])
    return AccountPorts(live, leases, duties, source)
