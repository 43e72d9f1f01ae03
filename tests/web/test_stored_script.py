"""What somebody wrote into a name, a note, a model or a message is text on every page, never a part of it."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from pool_server.core.models import Attempt
from pool_server.users import AuditActor
from pool_server.web.base.handler import Access
from pool_server.web.routes import TABLE
from tests.web.pool import ADMIN, exchange
from tests.web.site import Site
from tests.web.test_foreign_ids import GROUP, entered, paths

MARK = "zqx"
SCRIPT = f"</script></title>\"'><script>{MARK}(1)</script><img src={MARK} onerror={MARK}()>{{{{{MARK}}}}}"
ELSEWHERE = ("/metrics", "/api/live")  # no page, and no end


def written(friends: Site, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Put it wherever somebody else's text is kept; ids to look at, and the headers of the friend who wrote it."""
    ada, hers = entered(friends, "Ada")
    actor = AuditActor("admin", "admin", "admin", "127.0.0.1")
    made = friends.request("POST", "/api/keys", json_body={"label": SCRIPT[:60]}, **hers)
    assert made.status == 200, made.text
    fields = ("model", "message", "agent", "session", "answered", "project", "speed", "geo", "tier")
    told = dict.fromkeys(fields, SCRIPT)
    attempts = [Attempt("claude:work", 429, "rate", SCRIPT)]
    marked = exchange(ada, 1, status=429, outcome="exhausted", attempts=attempts, **told)
    gone = exchange(ada, 2, account=f"claude:{SCRIPT}", **told)

    async def keep() -> None:
        await friends.ctx.users.people.patch_user(ada, {"note": SCRIPT}, actor=actor)
        await friends.ctx.users.audit(actor, "key.create", SCRIPT, detail={"label": SCRIPT, SCRIPT: SCRIPT})
        await friends.ctx.ledger.record(marked)
        await friends.ctx.ledger.record(gone)

    friends.run(keep)
    file = folder / "pool" / "openai_odd.json"
    file.write_text(json.dumps({"api_key": "sk-odd", "label": SCRIPT, "models": [SCRIPT]}))
    file.chmod(0o600)
    (folder / "pool" / "<img src=zqx>.json").write_text(json.dumps({"nothing": SCRIPT}))
    friends.post("/admin/reload", Authorization=f"Bearer {ADMIN}")
    return [ada, made.json()["id"], marked.id, gone.id, "claude:work", "openai:odd", quote(SCRIPT, safe="")], hers


@pytest.mark.slow
@pytest.mark.parametrize("who", ["the operator", "the friend"])
def test_what_is_stored_is_text_on_every_page(friends: Site, tmp_path: Path, who: str) -> None:
    ids, hers = written(friends, tmp_path)
    headers = {"Authorization": f"Bearer {ADMIN}"} if who == "the operator" else hers
    plain = [path for path, handler in TABLE if not GROUP.search(path) and handler.access is not Access.OPEN]
    asked = [path for path in [*plain, "/", "/status", *paths(ids)] if path not in ELSEWHERE]
    shown = []
    for path in asked:
        answer = friends.get(path.replace("\\", ""), Accept="text/html", **headers)
        if not answer.headers.get("Content-Type", "").startswith("text/html"):
            assert answer.headers.get("X-Content-Type-Options") == "nosniff", path
            continue
        text = answer.text
        shown += [path] if MARK in text else []
        for raw in (f"<script>{MARK}", f"<img src={MARK}", f"'><script>{MARK}", f"\"'><script>{MARK}"):
            assert raw not in text, (path, text.partition(raw)[0][-200:])
    assert len(shown) >= (6 if who == "the operator" else 3), f"it is on few pages only: {shown}"
