"""A pytest plugin for the SDKs' own suites: before each call it tells the mock vendor what to answer.

The SDK knows the type it expects; an example of that type is the vendor's answer. Runs in the suite's environment, with
the SDK's package in SUITE_PACKAGE, the mock's address in SUITE_MOCK and the report's path in SUITE_REPORT.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import types
import typing
import urllib.request
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pydantic

MOCK = os.environ["SUITE_MOCK"]
DEEP = 7  # lists and optional parts below are left out
_calls: list[list[str]] = []
_mocked = [False]  # the test's calls never leave the process
_report: dict[str, dict[str, Any]] = {}


def example(kind: Any, depth: int = 0) -> Any:
    """JSON of this type: every required field, lists with one entry."""
    origin, args = get_origin(kind), get_args(kind)
    if isinstance(kind, typing.TypeVar) or kind is Any or kind is object:
        return "any"
    if isinstance(kind, typing.TypeAliasType if hasattr(typing, "TypeAliasType") else ()):
        return example(kind.__value__, depth)
    if origin is typing.Annotated:
        return example(args[0], depth)
    if origin is Literal:
        return args[0]
    if origin in (typing.Union, types.UnionType):
        return example(next((one for one in args if one is not type(None)), args[0]), depth)
    if origin in (list, tuple, typing.Iterable) or kind is list:
        return [example(args[0], depth + 1)] if args and depth < DEEP else []
    if origin is dict or kind is dict:
        return {}
    if inspect.isclass(kind) and issubclass(kind, pydantic.BaseModel):
        return {
            (field.alias or name): example(field.annotation, depth + 1)
            for name, field in kind.model_fields.items()
            if field.is_required() or name in ("data", "output", "choices")
        }
    return _plain(kind)


def _plain(kind: Any) -> Any:
    if kind is datetime:
        return "2026-01-02T03:04:05Z"
    if kind is date:
        return "2026-01-02"
    return {str: "text", int: 1, float: 1.0, bool: True, type(None): None}.get(kind, "any")


def answer(cast_to: Any, stream: bool, stream_cls: Any) -> dict[str, Any]:
    """What the mock is to say to the next call of this path."""
    if stream:
        item = get_args(stream_cls)[0] if stream_cls is not None and get_args(stream_cls) else cast_to
        return {"type": "text/event-stream", "json": example(item)}
    if cast_to is type(None):
        return {"type": "", "json": None}
    if cast_to is str:
        return {"type": "text/plain", "text": "text"}
    if inspect.isclass(cast_to) and not issubclass(cast_to, pydantic.BaseModel) and get_origin(cast_to) is None:
        return {"type": "application/octet-stream", "text": "bytes"}
    return {"type": "application/json", "json": example(cast_to)}


def tell(cast_to: Any, options: Any, stream: bool, stream_cls: Any) -> None:
    path = options.url.partition("?")[0]
    _calls.append([options.method.upper(), path])
    body = json.dumps({"method": options.method.upper(), "path": path, **answer(cast_to, stream, stream_cls)})
    urllib.request.urlopen(urllib.request.Request(f"{MOCK}/tell", body.encode(), method="PUT"), timeout=10).close()


def patched(request: Any) -> Any:
    @functools.wraps(request)
    def told(self: Any, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None) -> Any:
        tell(cast_to, options, stream, stream_cls)
        options.max_retries = 0  # a refusal is one, and a test that fails is to fail soon
        return request(self, cast_to, options, stream=stream, stream_cls=stream_cls)

    return told


def pytest_configure(config: Any) -> None:
    base = importlib.import_module(f"{os.environ['SUITE_PACKAGE']}._base_client")
    for client in (base.SyncAPIClient, base.AsyncAPIClient):
        client.request = patched(client.request)


def pytest_runtest_setup(item: Any) -> None:
    _calls.clear()
    _mocked[0] = any(name.startswith("respx") for name in item.fixturenames)


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        why = str(report.longrepr)[-2000:] if report.failed else ""
        _report[report.nodeid] = {"outcome": report.outcome, "calls": [] if _mocked[0] else list(_calls), "why": why}


def pytest_sessionfinish() -> None:
    Path(os.environ["SUITE_REPORT"]).write_text(json.dumps(_report))
