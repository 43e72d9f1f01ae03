"""Keys of another pool that go on working here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Denial
from pool_server.core.settings import PoolUsers
from pool_server.users import (
    Denied,
    ImportedSecret,
    ImportedUser,
    OtherPool,
    Principal,
    hashed_mark,
    person_mark,
    token_mark,
)
from pool_server.users.identity.imported.proofs import proof

from . import old_keys
from .site import NOON, SHELL, Site

FORMS = pytest.mark.parametrize("form", old_keys.FORMS, ids=lambda form: form.__name__)
USERS = st.text("abcdef0123456789-@.~|", min_size=1, max_size=60)
ANNA, BERTA = "5f2b8c1d9e3a4f60", "77"


def bring(site: Site, *people: ImportedUser, secrets: list[ImportedSecret] | None = None) -> list[Any]:
    async def work() -> list[Any]:
        return await site.users.import_people(list(people), secrets or [], actor=SHELL)

    return site.run(work)


def denial(answer: Principal | Denied) -> Denial:
    assert isinstance(answer, Denied)
    return answer.denial


def codex_pool(until: float | None = None) -> list[ImportedSecret]:
    return [ImportedSecret(OtherPool.CODEX_POOL, old_keys.SECRET, until)]


@FORMS
@given(user=USERS)
def test_a_genuine_key_proves_whose_it_is(form: Callable[..., str], user: str) -> None:
    found = proof(form(user), old_keys.SECRET)
    assert found is not None and found.user == user
    assert proof(form(user, "another secret"), old_keys.SECRET) is None


@FORMS
@given(at=st.integers(0, 400), to=st.characters(codec="ascii", exclude_characters="\0"))
def test_a_changed_key_proves_nobody_else(form: Callable[..., str], at: int, to: str) -> None:
    """Base64 has spare bits: a changed last character may spell the same bytes, never another person's."""
    key = form(ANNA)
    at %= len(key)
    found = proof(key[:at] + to + key[at + 1 :], old_keys.SECRET)
    assert found is None or found.user == ANNA


@given(
    st.text(max_size=300) | st.builds(str.__add__, st.sampled_from(["ya29.pool-", "AIzaSy-pool-", "a.b."]), st.text())
)
def test_any_text_is_judged(text: str) -> None:
    assert proof(text, old_keys.SECRET) is None


@pytest.mark.parametrize("key", ["poolrt_77_abcdef0123456789", "sk-ant-oat01-pool-", "AIzaSy-pool-..", "ya29.pool-_"])
def test_what_is_unsigned_is_no_key(open_site: Callable[..., Site], key: str) -> None:
    site = open_site()
    bring(site, ImportedUser("1", "Berta", marks=(person_mark(BERTA),)), secrets=codex_pool())
    assert denial(site.users.authenticate(key)) is Denial.BAD_KEY


@FORMS
def test_an_old_key_is_its_persons(open_site: Callable[..., Site], form: Callable[..., str]) -> None:
    site = open_site()
    anna, _ = bring(
        site,
        ImportedUser("1", "Anna", marks=(person_mark(ANNA),)),
        ImportedUser("2", "Berta", marks=(person_mark(BERTA),), disabled=True),
        secrets=codex_pool(),
    )
    found = site.users.authenticate(form(ANNA))
    assert isinstance(found, Principal) and (found.user, found.name) == (anna.user, "Anna")
    assert denial(site.users.authenticate(form(BERTA))) is Denial.USER_DISABLED
    assert denial(site.users.authenticate(form("nobody"))) is Denial.BAD_KEY
    assert denial(site.users.authenticate(form(ANNA, "guessed"))) is Denial.BAD_KEY
    (key,) = site.users.people.list_keys(anna.user)
    assert (found.key, key["label"]) == (key["id"], "from the pool before")


@FORMS
def test_adoption_ends_by_date_and_what_was_shown_lives_on(
    open_site: Callable[..., Site], form: Callable[..., str]
) -> None:
    site = open_site()
    people = [ImportedUser(name, name, marks=(person_mark(name),)) for name in ("shown", "late")]
    bring(site, *people, secrets=codex_pool(NOON + 60))
    assert isinstance(site.users.authenticate(form("shown")), Principal)
    site.clock.now += 61
    worker = site.worker()  # which remembers nothing
    assert isinstance(worker.authenticate(form("shown")), Principal)
    assert denial(worker.authenticate(form("late"))) is Denial.BAD_KEY


def test_a_key_with_an_end_ends(open_site: Callable[..., Site]) -> None:
    site = open_site()
    bring(
        site,
        ImportedUser("1", "Anna", marks=(person_mark(ANNA),)),
        ImportedUser("2", "Berta", marks=(token_mark("sk-berta-of-old"),), expires=NOON + 50),
        secrets=codex_pool(),
    )
    old = old_keys.codex(ANNA, ends=NOON + 50)
    for key in (old, "sk-berta-of-old"):
        assert isinstance(site.users.authenticate(key), Principal)
    site.clock.now += 51
    for key in (old, "sk-berta-of-old"):
        assert denial(site.users.authenticate(key)) is Denial.EXPIRED_KEY
    assert isinstance(site.users.authenticate(old_keys.claude(ANNA)), Principal)


def test_a_hashed_key_is_hashed_anew_at_its_first_use(open_site: Callable[..., Site]) -> None:
    site, pepper = open_site(), "thirty-two characters of pepper."
    digest = hashlib.sha256(("cr_abc" + pepper).encode()).digest()
    secrets = [ImportedSecret(OtherPool.CRS, pepper, NOON + 60)]
    bring(site, ImportedUser("1", "Anna", marks=(hashed_mark(digest),)), secrets=secrets)
    assert isinstance(site.users.authenticate("cr_abc"), Principal)
    site.clock.now += 61
    assert isinstance(site.worker().authenticate("cr_abc"), Principal)
    assert denial(site.worker().authenticate("cr_abd")) is Denial.BAD_KEY


def test_revoking_ends_all_forms_at_once_and_for_good(open_site: Callable[..., Site]) -> None:
    site = open_site()
    (anna,) = bring(site, ImportedUser("1", "Anna", marks=(person_mark(ANNA),)), secrets=codex_pool())
    keys = [form(ANNA) for form in old_keys.FORMS]
    assert all(isinstance(site.users.authenticate(key), Principal) for key in keys)
    (known,) = site.users.people.list_keys(anna.user)
    site.run(lambda: site.users.people.revoke_key(anna.user, known["id"], actor=SHELL))
    for worker in (site.users, site.worker()):
        assert {denial(worker.authenticate(key)) for key in keys} == {Denial.BAD_KEY}


def test_the_first_of_two_sources_keeps_a_key(open_site: Callable[..., Site]) -> None:
    site = open_site()
    mark = token_mark("sk-shared-by-two")
    first, second = bring(site, ImportedUser("1", "Anna", marks=(mark,)), ImportedUser("2", "Berta", marks=(mark,)))
    assert (first.why, second.user) == ("", "")
    assert "came over before" in second.why
    found = site.users.authenticate("sk-shared-by-two")
    assert isinstance(found, Principal) and found.user == first.user


def test_nobody_takes_a_name_by_an_import(open_site: Callable[..., Site]) -> None:
    site = open_site()
    here, _ = site.run(lambda: site.friend("Anna"))
    (row,) = bring(site, ImportedUser("1", "anna", marks=(token_mark("sk-of-another-anna"),)))
    assert (row.user, "taken" in row.why) == ("", True)
    assert denial(site.users.authenticate("sk-of-another-anna")) is Denial.BAD_KEY
    assert [row["id"] for row in site.users.people.list_users()[0]] == [here.user]


def test_another_worker_takes_them_without_a_restart(open_site: Callable[..., Site]) -> None:
    site = open_site()
    other = site.worker()
    key = old_keys.claude(ANNA)
    assert denial(other.authenticate(key)) is Denial.BAD_KEY
    bring(site, ImportedUser("1", "Anna", marks=(person_mark(ANNA),)), secrets=codex_pool())
    other._follow()
    assert isinstance(other.authenticate(key), Principal)


def test_codex_pools_own_settings_keep_its_keys(open_site: Callable[..., Site], tmp_path: Path) -> None:
    path = tmp_path / "pool_users.json"
    path.write_text(json.dumps([{"id": ANNA, "email": "anna@example.org"}]))
    site = open_site(pool_users=PoolUsers(storage_path=str(path), jwt_secret=old_keys.SECRET))
    site.users.load()
    for form in old_keys.FORMS:
        assert isinstance(site.users.authenticate(form(ANNA)), Principal)


def test_people_who_came_before_ids_were_kept_get_their_keys(open_site: Callable[..., Site], tmp_path: Path) -> None:
    path = tmp_path / "pool_users.json"
    path.write_text(json.dumps([{"email": "anna@example.org"}]))  # what was kept of an entry then
    site = open_site(pool_users=PoolUsers(storage_path=str(path), jwt_secret=old_keys.SECRET))
    site.users.load()
    site.durable.write(lambda txn: txn.delete("users.meta", b"codex-pool ids"))
    path.write_text(json.dumps([{"id": ANNA, "email": "anna@example.org"}, {"id": BERTA, "email": "b@example.org"}]))
    site.users.load()
    (row,) = site.users.people.list_users()[0]
    found = site.users.authenticate(old_keys.claude(ANNA))
    assert isinstance(found, Principal) and found.user == row["id"]
    assert denial(site.users.authenticate(old_keys.claude(BERTA))) is Denial.BAD_KEY


def test_nothing_of_a_key_or_secret_is_in_the_store_or_the_log(open_site: Callable[..., Site], tmp_path: Path) -> None:
    site = open_site()
    bring(site, ImportedUser("1", "Anna", marks=(person_mark(ANNA), token_mark("sk-plain"))), secrets=codex_pool())
    key = old_keys.claude(ANNA)
    assert isinstance(site.users.authenticate(key), Principal)
    (kept,) = tmp_path.rglob("imported_secrets")
    assert kept.stat().st_mode & 0o777 == 0o600
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != kept:
            raw = path.read_bytes()
            assert not any(one.encode() in raw for one in (key, "sk-plain", old_keys.SECRET)), path
    assert old_keys.SECRET not in repr(codex_pool()) + repr(site.audit_log())


def test_a_damaged_file_of_secrets_stops_the_start_with_a_line(open_site: Callable[..., Site]) -> None:
    site = open_site()
    folder = Path(site.settings.data_dir)
    (folder / "imported_secrets").write_bytes(b"{")
    os.chmod(folder / "imported_secrets", 0o600)
    with pytest.raises(ValueError, match="imported_secrets is damaged"):
        site.worker()
