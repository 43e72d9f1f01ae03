"""Every row of the route table, with a key and without: what comes back cannot act on the origin that holds cookies."""

from __future__ import annotations

from pathlib import Path

from tests.fakes import account, key_account
from tests.gateway.stack import Stack, run
from tests.gateway.test_down import SAFE
from tests.gateway.test_route_table import HEADERS, ROWS, filled


def test_every_row_answers_in_the_sandbox(tmp_path: Path) -> None:
    async def test() -> None:
        pool = [account("codex:a"), *(key_account(f"{name}:b") for name in ("openai", "claude", "gemini"))]
        async with Stack(tmp_path, pool, friend_code="swim") as stack:
            key = {"Authorization": f"Bearer {await stack.key()}"}
            seen = set()
            for family, base, row in ROWS:
                for shown in (key, {}):
                    url = stack.url + base + filled(row.path, "id-1")
                    body = None if row.method in ("GET", "DELETE") else b"{}"
                    headers = {**HEADERS[family], **shown, "Content-Type": "application/json"}
                    if row.socket:  # half a handshake: without it the path is no call of any provider
                        headers |= {"Upgrade": "websocket", "Connection": "Upgrade"}
                    async with stack.client.request(row.method, url, data=body, headers=headers) as got:
                        await got.read()
                        told = {name: got.headers.get(name) for name in SAFE}
                        assert told == SAFE, (row.method, base + row.path, got.status)
                        assert shown or got.status == 401, (row.method, base + row.path, got.status)
                        seen.add(got.status)
            assert {200, 401, 404} <= seen

    run(test)
