"""A record is one line, whatever its text holds, and a reader that stands still stops nobody."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.telemetry.accounts import OUTCOME
from narthex.telemetry.log import LogFormat, Logs, brief, clean, field, set_up, start_line

AT = 1_700_000_000.25


@pytest.fixture
def restored_root() -> Iterator[None]:
    """`set_up` is for a process; a test gives back what it changed."""
    levels = {name: logging.getLogger(name).level for name in ("", "narthex")}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@contextmanager
def pipe() -> Iterator[tuple[IO[bytes], IO[str]]]:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as out, os.fdopen(writer, "w") as into:
        yield out, into


def lines_of(format_: LogFormat, *messages: str) -> list[str]:
    with pipe() as (out, into):
        logs = Logs(into, format_, wall=lambda: AT, capacity=100)
        for message in messages:
            logs.emit("INFO", "narthex", message)
        logs.close(60)
        into.close()
        return out.read().decode().splitlines()


def test_a_text_line_has_time_level_and_message() -> None:
    assert lines_of("text", "hello") == ["2023-11-14T22:13:20.250Z INFO  hello"]


def test_what_must_not_be_shown_is_cut_out_before_a_line_is_cut_short() -> None:
    secret = "ghp_s3cr3t-0123456789"
    with pipe() as (out, into):
        logs = Logs(into, "text", wall=lambda: AT, capacity=100, hide=lambda text: text.replace(secret, "[hidden]"))
        logs.emit("ERROR", "narthex", "x" * 4090 + secret)
        logs.call_line(endpoint="e", server="s", method="m", name="n", outcome=0, seconds=0, bytes_out=0, detail=secret)
        logs.close(60)
        into.close()
        assert b"ghp_" not in out.read()


@pytest.mark.parametrize(("level", "shown"), [("WARNING", "WARN "), ("CRITICAL", "FATAL"), ("ERROR", "ERROR")])
def test_levels_have_one_width(level: str, shown: str) -> None:
    with pipe() as (out, into):
        logs = Logs(into, "text", wall=lambda: AT, capacity=100)
        logs.emit(level, "narthex", "x")
        logs.close(60)
        into.close()
        assert f"Z {shown} x" in out.read().decode()


def test_a_json_line_is_one_object() -> None:
    (line,) = lines_of("json", "a\nb")
    assert json.loads(line) == {
        "at": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "narthex",
        "message": "a\\nb",
    }


@given(text=st.text(alphabet=st.characters(), max_size=200))
def test_no_text_makes_a_second_line_or_a_control_character(text: str) -> None:
    for shown in (clean(text), field(text)):
        assert shown.isprintable()
        assert len(shown.splitlines()) <= 1
    assert " " not in field(text) or field(text).startswith('"')


def test_long_text_is_cut() -> None:
    assert len(clean("x" * 100_000)) < 5000


def test_lines_keep_their_order() -> None:
    lines = lines_of("text", *[str(number) for number in range(50)])
    assert [line.split()[-1] for line in lines] == [str(number) for number in range(50)]


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_call_is_one_line(format_: LogFormat) -> None:
    with pipe() as (out, into):
        logs = Logs(into, format_, wall=lambda: AT, capacity=100)
        logs.call_line(
            endpoint="default",
            server="time",
            method="tools/call",
            name="a b\n2023-11-14 CALL forged",
            outcome=OUTCOME["ok"],
            seconds=0.0123,
            bytes_out=7,
            principal="local",
            detail="server said:\nno",
        )
        logs.close(60)
        into.close()
        (line,) = out.read().decode().splitlines()
    if format_ == "json":
        assert json.loads(line)["seconds"] == 0.0123
    else:
        assert line.endswith(
            r'tools/call "a b\n2023-11-14 CALL forged" ok 12.3ms out=7 principal=local detail="server said:\nno"'
        )


def test_a_full_pipe_drops_lines_counts_them_and_says_so_later() -> None:
    with pipe() as (out, into):
        logs = Logs(into, "text", wall=lambda: AT, capacity=10)
        started = time.monotonic()
        while not logs.dropped:  # the pipe fills, the writer stands still, the queue fills
            logs.emit("INFO", "narthex", "x" * 1000)
            assert time.monotonic() - started < 60
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(out.read()))
        reader.start()
        logs.close(60)
        into.close()
        reader.join(60)
    assert b"log lines dropped" in got[0]


def test_a_closed_pipe_is_no_reason_to_fail() -> None:
    with pipe() as (out, into):
        logs = Logs(into, "text", wall=lambda: AT, capacity=10)
        out.close()
        logs.emit("INFO", "narthex", "hello")
        logs.close(60)
        assert logs.dropped == 1


def test_logging_goes_through_with_exceptions_in_the_line(restored_root: None) -> None:
    with pipe() as (out, into):
        logs = set_up("text", stream=into, wall=lambda: AT)
        log = logging.getLogger("narthex.test")
        try:
            raise ValueError("bad\nvalue")
        except ValueError:
            log.exception("it failed")
        logging.getLogger("someone.else").info("not heard")
        logs.close(60)
        into.close()
        lines = out.read().decode().splitlines()
    assert len(lines) == 1
    assert r"ERROR it failed (ValueError: bad\nvalue; at test_log.py:" in lines[0]


def test_a_record_with_a_wrong_format_breaks_nobody(restored_root: None) -> None:
    with pipe() as (out, into):
        logs = set_up("text", stream=into, wall=lambda: AT)
        (handler,) = [h for h in logging.getLogger().handlers if getattr(h, "logs", None) is logs]
        handler.emit(logging.LogRecord("narthex", logging.INFO, "x.py", 7, "wrong %d", ("format",), None))
        logs.close(60)
        into.close()
        assert "unprintable record at x.py:7" in out.read().decode()


def test_no_colour_where_nobody_looks() -> None:
    with pipe() as (_, into):
        logs = Logs(into, "text", wall=lambda: AT, capacity=10)
        assert not logs.colour
        logs.close(60)


def test_brief_without_traceback() -> None:
    assert brief(ValueError("x")) == "ValueError: x"


def test_the_start_line_names_the_urls() -> None:
    line = start_line("1.0", ["mcp=http://127.0.0.1:8080/mcp"], "admin=http://127.0.0.1:8081", 2)
    assert line == "narthex 1.0 is up: mcp=http://127.0.0.1:8080/mcp admin=http://127.0.0.1:8081 servers=2"
