"""What is said of a credential whose trial failed: refused by its vendor, or not judged at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import account, faults, plays
from tests.web.server import Running, running
from tests.web.test_sign_ins import begin, state, ticket

JUDGED = {
    "401": (faults.unauthorized(), "did not accept it"),
    "500": (faults.server_error(500), "could not be asked"),
    "503": (faults.server_error(503), "could not be asked"),
    "a bot check": (faults.challenge(), "could not be asked"),
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Path(tmp_path_factory.mktemp("trials")), [account(f"{one}:a") for one in VENDORS]) as made:
        yield made


VENDORS = ("claude", "gemini", "qwen")


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendor_that_fails_has_refused_nothing_and_the_line_still_works(pool: Running, vendor: str) -> None:
    file = json.dumps(pool.fakes.accounts[f"{vendor}:a"].file()).encode()
    made = begin(pool, vendor, name=f"{vendor}-hers")
    answers: list[plays.Play] = []
    pool.fakes.director = lambda _account, _call: answers[0] if answers else None
    for name, (play, words) in JUDGED.items():
        answers[:] = [play]
        status, said = pool.ask(
            "POST", f"/contribute/{ticket(made)}", file, Authorization="", Content_Type="text/plain"
        )
        assert status == 422 and words in said["error"]["message"], (name, said)
        assert state(pool, made)["state"] == "waiting"
    answers.clear()
    status, said = pool.ask("POST", f"/contribute/{ticket(made)}", file, Authorization="", Content_Type="text/plain")
    assert status == 201 and said["account"] == f"{vendor}:{vendor}-hers"


def test_an_endpoint_that_lists_no_model_has_refused_nothing(pool: Running) -> None:
    body = {"provider": "openai", "api_key": "sk-1234567", "base_url": f"{pool.fakes.origin}/nowhere", "name": "bare"}
    status, said = pool.ask("POST", "/admin/accounts", body)
    assert status == 422 and said["error"]["message"].startswith("it cannot be tested: no model to ask"), said


def test_a_host_that_is_down_is_named_and_not_its_models(pool: Running) -> None:
    body = {"provider": "openai", "api_key": "sk-1234567", "base_url": "http://127.0.0.1:1/v1", "name": "down"}
    status, said = pool.ask("POST", "/admin/accounts", body)
    assert status == 422 and "could not be asked about it now" in said["error"]["message"], said
