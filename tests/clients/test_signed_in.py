"""An account signed in by each flow of Codex, the line with the real program, and the real Codex that works on it."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.settings import TokenUrls
from tests.clients.cases import CODEX, binary, missing, path
from tests.clients.jail import why_not
from tests.clients.stage import Stage, stage
from tests.fakes import account
from tests.fakes.openai_auth import FakeSignInService
from tests.web.test_sign_in_lines import run_line
from tests.web.test_sign_ins import PATIENCE_S, person

pytestmark = pytest.mark.clis

ID = "codex:hers"


@pytest.fixture
def vendor() -> Iterator[FakeSignInService]:
    with FakeSignInService() as made:
        yield made


def admin(made: Stage, method: str, where: str, body: Any = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(made.page + where, data, method=method)
    asked.add_header("Authorization", "Bearer admin")
    asked.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(asked, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def signed_in(made: Stage, vendor: FakeSignInService, flow: str, folder: Path) -> None:
    who = made.fakes.add(person("hers"))
    vendor.person = who  # allows whatever device code is asked for
    begun = admin(made, "POST", "/admin/sign-ins", {"provider": "codex", "flow": flow, "name": "hers", "consent": True})
    one = f"/admin/sign-ins/{begun['id']}"
    if flow == "browser":
        admin(made, "POST", one, {"code": vendor.consent(begun["url"], who)})
    elif flow == "line":
        programs = folder / "bin"
        programs.mkdir()
        (programs / "codex").write_text(
            f'#!/bin/sh\nexec "{binary("codex")}" "$@" --experimental_issuer {vendor.origin}\n'
        )
        (programs / "codex").chmod(0o755)
        over_ssh = {"DISPLAY": "", "SSH_CONNECTION": "a b", "PATH": f"{programs}:{path()}"}
        code, heard = run_line(begun["line"], programs, folder / "tmp", b"", **over_ssh)
        assert code == 0 and "Done." in heard, heard
        assert who.access not in heard and who.refresh not in heard
        assert list((folder / "tmp").iterdir()) == [], "its home is gone"
    deadline = time.monotonic() + PATIENCE_S
    while (now := admin(made, "GET", one))["state"] == "waiting" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert now["state"] == "done" and now["account"] == ID, now


@pytest.mark.parametrize("flow", ["line", "device", "browser"])
def test_codex_works_on_an_account_that_was_signed_in(flow: str, tmp_path: Path, vendor: FakeSignInService) -> None:
    if why := why_not() or missing("codex"):
        pytest.skip(why)
    urls = TokenUrls(codex=f"{vendor.origin}/oauth/token")
    with stage(CODEX[0], tmp_path, only=[account("qwen:other")], sign_in=vendor.urls(), token_urls=urls) as made:
        signed_in(made, vendor, flow, tmp_path)
        ran = made.run(CODEX[0].first)
        assert ran.code == 0 and f"Hello from {ID}" in ran.out, made.told(ran)
    kept = json.loads((tmp_path / "pool/codex_hers.json").read_text())
    assert kept["tokens"]["refresh_token"] == vendor.person.refresh  # type: ignore[union-attr]
