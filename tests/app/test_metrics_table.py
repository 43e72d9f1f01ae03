"""The table of metrics is what `/metrics` tells, and the dashboard and the alert rules name nothing else."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from pool_server.accounts.describe import ProviderStatus
from pool_server.core.enums import AccountState, Provider
from pool_server.web.admin import system

ROOT = Path(__file__).resolve().parent.parent.parent
ROW = re.compile(r"^\| `(pool_\w+)` \| (counter|gauge|histogram) \| (.*?) \|", re.MULTILINE)
NAME = re.compile(r"\bpool_\w+")
DASHBOARD = ROOT / "deploy/grafana/pool-server.json"
RULES = ROOT / "deploy/prometheus/rules.yml"


class NoAccounts:
    """As much of the pages' context as a scrape needs."""

    started_at = 0.0
    accounts: Any
    ledger: Any

    def __init__(self) -> None:
        self.accounts = self.ledger = self
        self.healthy, self.waiting, self.unlogged = True, 0, 0

    def clock(self) -> float:
        return 1.0

    def summary(self) -> list[ProviderStatus]:
        return [
            ProviderStatus(
                Provider.CLAUDE, {}, ready=0, total=0, room_percent=40.0, windows=[], next_return=None, in_flight=0,
                unreachable=0, returning=0,
            )
        ]  # fmt: skip

    def offered(self) -> list[str]:
        return ["claude"]


def table() -> dict[str, tuple[str, frozenset[str]]]:
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in ROW.findall(text)}


def import_what_counts() -> None:
    """Every module that makes a metric makes it at import."""
    for path in (ROOT / "pool_server").rglob("*.py"):
        if "prometheus_client" in path.read_text(encoding="utf-8"):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def told() -> dict[str, tuple[str, frozenset[str]]]:
    import_what_counts()
    found: dict[str, tuple[str, frozenset[str]]] = {}
    snapshot: Any = system.Snapshot(NoAccounts())  # type: ignore[arg-type]
    for metric in snapshot.collect():
        labels = frozenset(name for sample in metric.samples for name in sample.labels)
        found[metric.name] = (metric.type, labels)
    for collector in list(REGISTRY._collector_to_names):
        name, kind = getattr(collector, "_name", ""), getattr(collector, "_type", "")
        if name.startswith("pool_"):
            suffix = "_total" if kind == "counter" else ""
            found[name + suffix] = (kind, frozenset(collector._labelnames))  # type: ignore[attr-defined]
    return found


def test_the_table_is_what_a_scrape_tells() -> None:
    assert table() == told()


def base(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name) if name not in table() else name


@pytest.mark.parametrize("file", [DASHBOARD, RULES], ids=lambda file: file.name)
def test_dashboard_and_rules_name_metrics_that_are_there(file: Path) -> None:
    named = {base(name) for name in NAME.findall(file.read_text(encoding="utf-8"))}
    assert named
    assert named <= table().keys(), named - table().keys()


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    for panel in panels:
        assert panel["title"] and panel["datasource"]["uid"] == "${source}"
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")"), target["expr"]


def test_a_rule_on_an_age_is_not_silent_where_it_never_happened() -> None:
    text = RULES.read_text(encoding="utf-8")
    times = {name for name in table() if name.endswith("_timestamp_seconds")}
    assert times, "there is something to look at"
    for name in times:
        assert not re.search(rf"{name} (>|!=) 0", text), f"0 is never: an alert on {name} must fire then"


def test_states_and_labels_in_the_rules_are_the_server_s() -> None:
    text = RULES.read_text(encoding="utf-8")
    assert set(re.findall(r'state="(\w+)"', text)) <= {state.value for state in AccountState}
    labels = {label for _, found in table().values() for label in found} | {"le"}
    assert {name.strip() for group in re.findall(r"by \(([^)]+)\)", text) for name in group.split(",")} <= labels
    assert len(re.findall(r"- alert: (\w+)", text)) == len(set(re.findall(r"- alert: (\w+)", text)))
