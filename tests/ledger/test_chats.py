"""Alerts in chats: the real Apprise to a loopback service, and no token in the log whatever goes wrong."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from pool_server.alerts import AlertEvent, AlertRule, Incident
from pool_server.alerts.notify import chat
from pool_server.core.settings import Alerts, ConfigError
from pool_server.core.settings_file import _checked, _Source
from tests.ledger.ledger_kit import NOW

# Of Apprise's own imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

DISK = AlertEvent(Incident(AlertRule.DISK, "data", "only 1 MiB is free", NOW), False, NOW)
OVER = AlertEvent(Incident(AlertRule.LEDGER, "ledger", "the ledger cannot be written", NOW), True, NOW)
TOKEN = "t0ken-of-the-chat"


@pytest.fixture
def service() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A chat service: its port, and what it was told."""
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, told
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_every_chat_is_told_all_events_at_once(service: tuple[int, list[dict[str, Any]]]) -> None:
    pytest.importorskip("apprise", reason="apprise is not installed")
    port, told = service
    url = f"json://127.0.0.1:{port}/{TOKEN}"
    assert chat([DISK, OVER], Alerts(chat_urls=[url, url]))
    assert len(told) == 2
    assert told[0]["title"] == "pool-server: 1 new, 1 resolved"
    assert told[0]["message"] == "New: only 1 MiB is free\nResolved: the ledger cannot be written"


def test_a_chat_that_fails_is_counted_and_the_others_are_told(
    service: tuple[int, list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("apprise", reason="apprise is not installed")
    caplog.set_level(logging.DEBUG)
    port, told = service
    urls = [f"nosuch://{TOKEN}", f"json://127.0.0.1:1/{TOKEN}", f"json://127.0.0.1:{port}/{TOKEN}"]
    assert not chat([DISK], Alerts(chat_urls=urls))
    assert len(told) == 1
    ours = [record.message for record in caplog.records if record.name.startswith("pool_server")]
    assert ours == ["2 of 3 chats did not take an alert"]
    assert not [record for record in caplog.records if TOKEN in record.message]


def test_without_apprise_the_log_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert not chat([DISK], Alerts(chat_urls=[f"ntfy://host/{TOKEN}"]))
    assert "pool-server[chats]" in caplog.text
    assert TOKEN not in caplog.text


def test_an_address_is_one_and_is_never_shown() -> None:
    source = _Source("file", "config.toml", strict=True)
    assert _checked("alerts.chat_urls", ["ntfy://host/topic"], source) == ["ntfy://host/topic"]
    for wrong in (["no address"], ["://x"], [f"discord://{TOKEN} and more"]):
        with pytest.raises(ConfigError) as told:
            _checked("alerts.chat_urls", wrong, source)
        assert TOKEN not in str(told.value)
    assert TOKEN not in repr(Alerts(chat_urls=[f"tgram://{TOKEN}/1"]))
