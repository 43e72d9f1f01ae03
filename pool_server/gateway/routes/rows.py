"""What one row of the route table declares: the call, and what it does with things the provider keeps."""

from __future__ import annotations

import msgspec

from pool_server.core.enums import ApiFamily, Dialect, ObjectKind, Operation, Provider
from pool_server.dialects import SPECS

Reference = tuple[ObjectKind, str]

FAMILIES = {dialect: spec.family for dialect, spec in SPECS.items()}


class Row(msgspec.Struct, frozen=True):
    """One call. `path` is written without its version; `{file}`, `{batch}` … stand for one segment that names such an
    object, `{_}` for one that is found below the object before it, `{model}` for a model.

    `makes`: the kind of the object the answer brings. `lists`: the kind whose ids the answer lists. `deletes`: the
    call ends the object its path names last. `works`: a model works for it, so that it has to name one. `socket`: it is
    a WebSocket's handshake.
    """

    method: str
    path: str
    operation: Operation
    makes: ObjectKind | None = None
    lists: ObjectKind | None = None
    deletes: bool = False
    works: bool = False
    socket: bool = False
    dialect: Dialect | None = None  # where it is not the one of the table


class Route(msgspec.Struct, frozen=True):
    """What a path means. `path` is in its normal form, without a provider prefix; `model_call` False = answered by
    the pool itself, unless it is `refused`: a call that acts on the provider's whole account.

    `ids` are the objects the path names. The other fields are those of `Row`.
    """

    dialect: Dialect
    operation: Operation
    path: str
    forced: Provider | None = None
    model_call: bool = True
    websocket: bool = False
    refused: bool = False
    ids: tuple[Reference, ...] = ()
    makes: ObjectKind | None = None
    lists: ObjectKind | None = None
    deletes: bool = False
    works: bool = False

    @property
    def family(self) -> ApiFamily:
        return FAMILIES[self.dialect]
