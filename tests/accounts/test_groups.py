"""Groups in whose name an account is shared: who is in one now may use it, and a group of nobody is nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts.credentials import files
from pool_server.core.enums import Refusal
from pool_server.core.models import group_names
from pool_server.providers import CredentialRejectedError
from tests.accounts.kit import Pool, ask, claude

GROUPS = {"ada": {"family"}, "bob": {"lab", "family"}, "cyd": {"lab"}, "dan": set()}


def pool_of(folder: Path, told: dict[str, set[str]], **options: Any) -> Pool:
    pool = Pool(folder, {"claude_one.json": claude(**options)})
    pool.accounts.follow_people(lambda said: said, lambda user: frozenset(told.get(user, ())))
    return pool


def served(pool: Pool) -> set[str]:
    found = set()
    for user in (*GROUPS, "stranger", ""):
        decision = pool.accounts.select(ask(user))
        if decision.account is not None:
            found.add(user)
        else:
            assert decision.refused == {Refusal.NOT_SHARED: 1}
    return found


@pytest.mark.parametrize(
    ("options", "who"),
    [
        ({"groups": ["family"]}, {"ada", "bob"}),
        ({"groups": ["family", "lab"]}, {"ada", "bob", "cyd"}),
        ({"groups": [" Family ", "FAMILY"]}, {"ada", "bob"}),
        ({"groups": ["family"], "people": ["dan"]}, {"ada", "bob", "dan"}),
        ({"groups": ["family"], "people": []}, {"ada", "bob"}),
        ({"groups": ["family"], "owner": "cyd"}, {"ada", "bob", "cyd"}),
        ({"groups": ["nobody here"]}, set()),
        ({"groups": ["nobody here"], "owner": "cyd"}, {"cyd"}),
        ({"groups": []}, set()),
        ({"groups": [], "people": ["dan"]}, {"dan"}),
        ({"groups": ["famil"]}, set()),
    ],
)
def test_who_may_use_it(tmp_path: Path, options: dict[str, Any], who: set[str]) -> None:
    assert served(pool_of(tmp_path, GROUPS, **options)) == who


def test_without_people_and_groups_it_is_everybodys(tmp_path: Path) -> None:
    assert served(pool_of(tmp_path, GROUPS)) == {*GROUPS, "stranger", ""}


def test_before_anybody_told_of_groups_they_are_nobody(tmp_path: Path) -> None:
    assert served(Pool(tmp_path, {"claude_one.json": claude(groups=["family"])})) == set()


def test_who_joins_or_leaves_is_heard_at_once_also_in_a_conversation(tmp_path: Path) -> None:
    told = {"ada": {"family"}}
    pool = pool_of(tmp_path, told, groups=["family"])
    asked = ask("ada", "s1")
    assert pool.accounts.select(asked).account == "claude:one"
    pool.accounts.bind(asked, "claude:one")
    told["ada"] = set()
    assert pool.accounts.select(asked).account is None
    told["ada"] = {"family", "other"}
    assert pool.accounts.select(asked).account == "claude:one"


@pytest.mark.parametrize("said", ["family", 7, {"a": 1}, ["x" * 41], ["/"], [7], [[]], [f"g{n}" for n in range(21)]])
def test_what_is_no_list_of_groups_rejects_the_file(said: Any) -> None:
    with pytest.raises(CredentialRejectedError, match="group"):
        files.options({"groups": said})


@pytest.mark.parametrize(("said", "names"), [("", ()), (" , ,", ()), ("A,b , a", ("a", "b")), (["Ä b"], ("ä b",))])
def test_names_have_one_form(said: Any, names: tuple[str, ...]) -> None:
    assert group_names(said) == names
