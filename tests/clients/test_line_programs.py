"""The line with the real programs of Claude, Gemini and Qwen, which know their vendors by no other names: these lead to
a fake of them within the jail. Then the real program works on the account that came of it."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.cases import CLAUDE, GEMINI, QWEN, Case, missing, path
from tests.clients.jail import Jail, why_not
from tests.clients.stage import Stage, stage
from tests.clients.terminal import Terminal, terminal
from tests.clients.test_signed_in import admin
from tests.clients.vendor_pages import HOSTS, VendorPages
from tests.fakes import FakeAccount, account

pytestmark = pytest.mark.clis

WELCOMED_S = 60.0


class Desk:
    """Somebody's machine with the line in its terminal. `home` is their own, `scratch` where the line makes its own."""

    def __init__(self, made: Stage, vendors: VendorPages, folder: Path) -> None:
        self.made, self.vendors = made, vendors
        self.home, self.scratch = folder / "theirs", folder / "scratch"
        self.begun: dict[str, Any] = {}
        self.scratch.mkdir()
        self.home.mkdir()

    @contextlib.contextmanager
    def line(self, provider: str, **more: Any) -> Iterator[Terminal]:
        """The line over SSH, without a browser."""
        asked = {"provider": provider, "flow": "line", "name": "hers", "consent": True, **more}
        self.begun = admin(self.made, "POST", "/admin/sign-ins", asked)
        env = {
            "PATH": path(), "HOME": str(self.home), "TMPDIR": str(self.scratch), "TERM": "xterm-256color",
            "LANG": "C.UTF-8", "SSH_CONNECTION": "a b", "NODE_EXTRA_CA_CERTS": str(self.vendors.authority),
        }  # fmt: skip
        words = self.begun["line"].replace(self.made.page, Jail.url)
        with terminal(self.made.jail, ["sh", "-c", words], env=env, cwd=self.home) as screen:
            yield screen

    def after(self) -> dict[str, Any]:
        return admin(self.made, "GET", f"/admin/sign-ins/{self.begun['id']}")


@contextlib.contextmanager
def desk(case: Case, folder: Path, who: FakeAccount) -> Iterator[Desk]:
    if why := why_not() or missing(case.client):
        pytest.skip(why)
    vendors = VendorPages(folder, who)
    with stage(case, folder, only=[account("codex:other")], hosts=HOSTS) as made:
        made.fakes.add(who)
        assert made.jail.at_hosts is not None
        vendors.start(made.jail.at_hosts)
        try:
            yield Desk(made, vendors, folder)
        finally:
            vendors.stop()


def ended(screen: Terminal, at: Desk, words: str) -> None:
    """The line is over and said so; of the sign-in nothing is left there, and nothing of it was shown."""
    screen.wait(words, WELCOMED_S)
    assert screen.ended(WELCOMED_S), screen.text
    assert list(at.scratch.iterdir()) == [], "the line's own home is gone"
    shown = "".join(screen.seen)
    assert at.vendors.person.access not in shown and at.vendors.person.refresh not in shown


def test_claude_signs_in_and_works_on_the_account(tmp_path: Path) -> None:
    who = account("claude:hers", used_5h=10, used_7d=20)
    with desk(CLAUDE[0], tmp_path, who) as at:
        with at.line("claude") as screen:
            screen.wait("Paste code here", WELCOMED_S)
            asked = re.sub(r"\s", "", screen.text)
            state = re.findall(r"state=([\w-]{43})", asked)[-1]
            assert "claude.com/cai/oauth/authorize" in asked
            screen.type(f"{at.vendors.code()}#{state}")
            screen.settle()
            screen.type("\r")
            ended(screen, at, r"Done\.")
        after = at.after()
        assert (after["state"], after["account"]) == ("done", "claude:hers") and after["test"]["ok"], after
        kept = json.loads((tmp_path / "pool/claude_hers.json").read_text())["claudeAiOauth"]
        assert kept["refreshToken"] == who.refresh and kept["refreshTokenExpiresAt"] / 1000 > time.time() + 86_400
        assert ("platform.claude.com", "/v1/oauth/token") in at.vendors.calls
        ran = at.made.run(CLAUDE[0].first)
        assert ran.code == 0 and "Hello from claude:hers" in ran.out, at.made.told(ran)


def test_a_wrong_code_of_claude_leaves_nothing(tmp_path: Path) -> None:
    """Its program ends; so does the line, after it has offered a setup token in vain."""
    with desk(CLAUDE[0], tmp_path, account("claude:hers")) as at:
        with at.line("claude") as screen:
            screen.wait("Paste code here", WELCOMED_S)
            state = re.findall(r"state=([\w-]{43})", re.sub(r"\s", "", screen.text))[-1]
            screen.type(f"not-the-code-at-all#{state}")
            screen.settle()
            screen.type("\r")
            screen.wait("setup token instead", WELCOMED_S)
            screen.type("\x03")
            screen.ended(WELCOMED_S)
        assert at.after()["state"] == "waiting" and list(at.scratch.iterdir()) == []
        assert not (tmp_path / "pool/claude_hers.json").exists()


def test_gemini_signs_in_and_works_on_the_account(tmp_path: Path) -> None:
    who = account("gemini:hers")
    with desk(GEMINI[0], tmp_path, who) as at:
        with at.line("gemini") as screen:
            screen.wait("authorization code", WELCOMED_S)
            screen.type(at.vendors.code())
            screen.settle()
            screen.type("\r")
            screen.wait("Type your message", WELCOMED_S)
            screen.enter("/quit")
            ended(screen, at, r"Done\.")
        after = at.after()
        assert (after["state"], after["account"]) == ("done", "gemini:hers") and after["test"]["ok"], after
        assert not (at.home / ".gemini").exists(), "nothing of theirs was touched"
        ran = at.made.run(GEMINI[0].first)
        assert ran.code == 0 and "Hello from gemini:hers" in ran.out, at.made.told(ran)


def test_qwen_offers_no_sign_in_any_more_and_the_line_says_so(tmp_path: Path) -> None:
    with desk(QWEN, tmp_path, account("qwen:hers")) as at:
        with at.line("qwen") as screen:
            screen.wait("ended its free sign-in", WELCOMED_S)
            ended(screen, at, "signs nobody in any more")
        assert at.after()["state"] == "waiting" and at.vendors.calls == []
