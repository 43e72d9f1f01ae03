"""Whose is what a provider keeps: files, batches, stored responses, caches, containers …

An id that a provider minted through the pool belongs to the person whose call made it, at the account that made it.
Everybody else meets it as one that is not there.
"""

from pool_server.accounts.objects.owners import TABLES, Owned, Owners, OwnersPort, digest
from pool_server.gateway.objects import uploads
from pool_server.gateway.objects.access import Claim, ObjectAccess
from pool_server.gateway.objects.asking import ListCalls
from pool_server.gateway.objects.tracking import Tracking

__all__ = [
    "TABLES",
    "Claim",
    "ListCalls",
    "ObjectAccess",
    "Owned",
    "Owners",
    "OwnersPort",
    "Tracking",
    "digest",
    "missing",
    "uploads",
]
