"""Bytes that many hold together, each owner a part of them at most. Pure."""

from __future__ import annotations


class BudgetFullError(Exception):
    """There is no room for more: of the owner's part (`owners`), or of all."""

    def __init__(self, *, owners: bool) -> None:
        super().__init__("the owner's part is used up" if owners else "all is used up")
        self.owners = owners


class ByteBudget:
    """`total` and `per_owner` are caps in bytes, which may change; `used` is what is held now."""

    def __init__(self, total: int, per_owner: int) -> None:
        self.total = total
        self.per_owner = per_owner
        self.used = 0
        self._of: dict[str, int] = {}

    def take(self, owner: str, size: int) -> None:
        """Room for `size` bytes. Raises BudgetFullError; then nothing was taken."""
        mine = self._of.get(owner, 0) + size
        if mine > self.per_owner:
            raise BudgetFullError(owners=True)
        if self.used + size > self.total:
            raise BudgetFullError(owners=False)
        self._of[owner] = mine
        self.used += size

    def give_back(self, owner: str, size: int) -> None:
        """What was taken is free again."""
        left = self._of.get(owner, 0) - size
        self.used -= size
        if left > 0:
            self._of[owner] = left
        else:
            self._of.pop(owner, None)


class BudgetShare:
    """What one thing holds of a budget, changed as it grows and shrinks."""

    __slots__ = ("_budget", "_owner", "size")

    def __init__(self, budget: ByteBudget, owner: str) -> None:
        self._budget = budget
        self._owner = owner
        self.size = 0

    def resize(self, size: int) -> None:
        """Holds `size` bytes from now on. Raises BudgetFullError; then it holds what it held."""
        if size > self.size:
            self._budget.take(self._owner, size - self.size)
        elif size < self.size:
            self._budget.give_back(self._owner, self.size - size)
        self.size = size
