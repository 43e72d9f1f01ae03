"""The line with the real program of Kimi, signed in by its device code at a fake of its service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pool_server.core.settings import TokenUrls
from tests.clients.cases import binary, missing, path
from tests.web.server import Running, running
from tests.web.test_kimi_sign_in import FakeKimi
from tests.web.test_sign_in_lines import run_line
from tests.web.test_sign_ins import begin, state

pytestmark = pytest.mark.clis


class FakeKimiService(FakeKimi):
    """Allows a device code when it is asked for the second time, unless it is `denied`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.denied = 0, False

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path.endswith("/device_authorization"):
            page = {"verification_uri": f"{self.origin}/v", "verification_uri_complete": f"{self.origin}/v?c=1"}
            code = {"user_code": "WXYZ-1", "device_code": "dev-1", "expires_in": 600, "interval": 1}
            return web.json_response(page | code)
        if request.path.endswith("/models"):
            return web.json_response({"data": [{"id": "kimi-for-coding", "object": "model", "context_length": 262144}]})
        return await super()._answer(request)

    def _token(self, form: dict[str, list[str]]) -> web.Response:
        if "device_code" not in form:
            return super()._token(form)
        self.asked += 1
        if self.denied or self.asked == 1:
            return web.json_response({"error": "access_denied" if self.denied else "authorization_pending"}, status=400)
        return web.json_response({name: value for name, value in self.file().items() if name != "expires_at"})


@pytest.fixture
def kimi() -> Iterator[FakeKimiService]:
    made = FakeKimiService()
    with made:
        yield made


@pytest.fixture
def pool(tmp_path: Path, kimi: FakeKimiService) -> Iterator[Running]:
    urls = TokenUrls(kimi=f"{kimi.origin}/api/oauth/token")
    with running(tmp_path, [], moved={"kimi": kimi.origin}, token_urls=urls) as made:
        yield made


def run(pool: Running, kimi: FakeKimiService, folder: Path, made: dict[str, Any]) -> tuple[int, str]:
    """The line over SSH, without a browser, with a home of the person's own beside the one it makes."""
    if why := missing("kimi"):
        pytest.skip(why)
    own = folder / "tmp" / "home" / ".kimi-code" / "credentials"
    own.mkdir(parents=True)
    (own / "kimi-code.json").write_text("mine")
    programs = folder / "bin"
    programs.mkdir()
    hosts = f"KIMI_CODE_OAUTH_HOST={kimi.origin} KIMI_CODE_BASE_URL={kimi.origin}/coding/v1"
    (programs / "kimi").write_text(f'#!/bin/sh\n{hosts} KIMI_CODE_NO_AUTO_UPDATE=1 exec {binary("kimi")} "$@"\n')
    (programs / "kimi").chmod(0o755)
    over_ssh = {"DISPLAY": "", "SSH_CONNECTION": "a b", "PATH": f"{programs}:{path()}"}
    code, heard = run_line(made["line"], programs, folder / "tmp", b"", **over_ssh)
    assert (own / "kimi-code.json").read_text() == "mine", "a sign-in of their own is not touched"
    assert [one.name for one in (folder / "tmp").iterdir()] == ["home"], "the line's own home is gone"
    assert kimi.access not in heard and kimi.refresh not in heard
    return code, heard


def test_the_real_program_is_signed_in(pool: Running, kimi: FakeKimiService, tmp_path: Path) -> None:
    """Where its host is not its first one, as that of kimi.ai, it names its file after the host."""
    made = begin(pool, "kimi", name="hers")
    code, heard = run(pool, kimi, tmp_path, made)
    assert code == 0 and "Done." in heard, heard
    assert state(pool, made)["account"] == "kimi:hers" and pool.file("kimi_hers.json")["user_id"] == "u-kimi-1"


def test_what_the_person_denies_leaves_nothing(pool: Running, kimi: FakeKimiService, tmp_path: Path) -> None:
    kimi.denied = True
    made = begin(pool, "kimi")
    code, heard = run(pool, kimi, tmp_path, made)
    assert code == 1 and "did not come to its end" in heard, heard
    assert state(pool, made)["state"] == "waiting" and list(pool.pool.glob("*.json")) == []
