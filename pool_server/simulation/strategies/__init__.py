"""The strategies a simulation compares: the pool's own and what others do, each by its id."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from pool_server.simulation.strategies.base import SimulatedStrategy


def strategies() -> dict[str, type[SimulatedStrategy]]:
    """All by id, the pool's own first. Every module of this package is read, so that a new file is enough."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name != "own"):
        import_module(f"{__name__}.{module.name}")
    return dict(SimulatedStrategy.registry)
