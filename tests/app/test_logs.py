"""What a line of the log holds: nothing that begins another one, nothing a terminal acts on."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.app.logs import REQUEST_ID, JsonLines, Redacting


def line(message: str, *args: object, error: Exception | None = None, stack: str | None = None) -> str:
    trace = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord("pool_server.x", logging.INFO, "x.py", 1, message, args, trace, sinfo=stack)
    return Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s").format(record)


@pytest.mark.parametrize(
    "model",
    ["gpt\r\n2026-01-01 00:00:00 INFO pool_server: all is well", "\x1b[2Jx", "a\x00b\x07", "\x9b31m", "a\u2028b",
     "\u202eabc", "\x7f"],
)  # fmt: skip
def test_a_models_name_forges_no_line(model: str) -> None:
    told = line("%s is served", model)
    assert len(told.splitlines()) == 1
    assert told.isprintable()


@given(st.text(), st.text())
def test_a_message_is_one_printable_line(message: str, arg: str) -> None:
    told = line(message.replace("%", "%%") + " %s", arg)
    assert len(told.splitlines()) == 1
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in told)


def test_lines_of_a_traceback_begin_with_blanks() -> None:
    try:
        raise ValueError("one\n2026-01-01 INFO pool_server: forged\r\x1b[31m")
    except ValueError as error:
        told = line("it failed", error=error)
    first, *rest = told.split("\n")
    assert first.endswith("it failed")
    assert all(one.startswith("    ") for one in rest)
    assert "\\x1b[31m" in told and "\x1b" not in told and "\r" not in told
    assert "ValueError" in told


def test_a_stack_is_told_likewise() -> None:
    told = line("where", stack="Stack:\n  File x\n\x1b[1m")
    assert [one[:4] for one in told.split("\n")[1:]] == ["    "] * 3
    assert sys.version_info >= (3, 11)


def test_secrets_are_hidden_behind_escapes_too() -> None:
    assert "sk-ant-REDACTED" not in line("key sk-ant-%s", "api03-" + "a" * 40)
    assert "aaaaaaaaaaaa" not in line("key sk-ant-%s", "api03-" + "a" * 40)


@given(st.text(), st.text(max_size=20))
def test_a_line_in_json_is_one_object(message: str, ident: str) -> None:
    record = logging.LogRecord("pool_server.x", logging.INFO, "x.py", 1, message.replace("%", "%%"), (), None)
    setattr(record, REQUEST_ID, ident)
    told = JsonLines().format(record)
    assert told.isascii() and told.isprintable()
    read = json.loads(told)
    assert (read["level"], read["logger"], read[REQUEST_ID]) == ("INFO", "pool_server.x", ident)


def test_json_tells_tracebacks_and_no_secrets() -> None:
    key = "sk-ant-api03-" + "x" * 40
    try:
        raise ValueError(f"refused with {key}")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "key %s", (key,), sys.exc_info())
    told = JsonLines().format(record)
    assert key not in told
    read = json.loads(told)
    assert "ValueError" in read["exception"]
    assert REQUEST_ID not in read
