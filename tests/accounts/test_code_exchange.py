"""The exchange of a sign-in's code: sent once, and tried once more where nothing was sent."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from pool_server.accounts.sign_in import browser
from pool_server.accounts.sign_in.records import AccountSignIn, Secrets
from pool_server.core.enums import Provider, SignInFlow
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import Settings
from pool_server.providers import SignInRefusedError

UNSENT = HttpAnswer(0, {}, error="no connection in time", unsent=True)
LOST = HttpAnswer(0, {}, error="no answer in time")
TOKENS = HttpAnswer(200, {}, msgspec.json.encode({"id_token": "a.b.c", "access_token": "d.e.f", "refresh_token": "r"}))


def exchanged(*answers: HttpAnswer) -> tuple[Any, int]:
    """(credential file or refusal, how often it was sent)."""
    sent: list[HttpRequest] = []

    async def send(request: HttpRequest) -> HttpAnswer:
        sent.append(request)
        return answers[len(sent) - 1]

    host = cast(browser.SignInHost, SimpleNamespace(send=send, settings=Settings, now=1.8e9))
    record = AccountSignIn("id", Provider.CODEX, SignInFlow.BROWSER, "", "", 0.0, 9e9)
    try:
        return asyncio.run(browser.exchange(host, record, "code", Secrets(verifier="v")))[0], len(sent)
    except SignInRefusedError as refused:
        return refused, len(sent)


def test_a_code_that_was_not_sent_is_sent() -> None:
    file, times = exchanged(UNSENT, TOKENS)
    assert file["tokens"]["refresh_token"] == "r" and times == 2


def test_it_is_tried_once_more_and_no_oftener() -> None:
    refused, times = exchanged(UNSENT, UNSENT)
    assert (refused.code, times) == ("unreachable", 2) and "spent" not in str(refused)


@pytest.mark.parametrize(
    "answer", [LOST, HttpAnswer(500, {}, b"{}"), HttpAnswer(429, {}, b""), HttpAnswer(400, {}, b"")]
)
def test_a_code_that_may_be_spent_is_not_sent_again(answer: HttpAnswer) -> None:
    refused, times = exchanged(answer, TOKENS)
    assert isinstance(refused, SignInRefusedError) and times == 1
