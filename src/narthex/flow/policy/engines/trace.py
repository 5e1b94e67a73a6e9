"""Which lines of a policy in Rego were looked at for one question, as its engine says: for `narthex explain` alone.

In: a coverage report of the engine that is built in, or a trace of an Open Policy Agent; bytes that may be anything.
Out: a `Trace`, bounded in lines and in their length; its texts are as they came, and not fit for a terminal.
Cases: `tests/flow/policy/engines/test_trace.py`; with the real engines `tests/cli/test_explain_policy.py`,
`tests/counterparts/test_opa_trace.py`. Source: Open Policy Agent, REST API, "Explanations"; regorus, coverage report.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec

from narthex.flow.codec.jsonrpc import BAD_JSON

MOST_LINES = 500
"""Lines of a policy that are shown; how many more there are is said."""
MOST_TEXT = 200
MOST_EVENT = 4096
"""Characters of an event that are read."""
QUERY = "query"
"""The file, by the agent's word, of the question itself."""
Verdict = Literal["held", "failed", "evaluated", "not reached"]
_event = re.compile(r"(.{1,1024}?):([0-9]{1,7}) +((?:\| )*)(Enter|Eval|Fail|Exit) (.+)").fullmatch


class Unreadable(Exception):
    """It is no report, or no trace. The text is for the operator."""


class Line(msgspec.Struct, frozen=True):
    """A line, counted from 1. `text`: as it stands in the file, or the expression on it as the agent writes it."""

    file: str
    line: int
    verdict: Verdict
    text: str


class Trace(msgspec.Struct, frozen=True):
    """`more` lines were left out. `problem`: why there is no trace, or why it ends early; empty where all is well."""

    lines: tuple[Line, ...] = ()
    more: int = 0
    problem: str = ""


class _File(msgspec.Struct):
    path: str
    code: str
    covered: list[int]
    not_covered: list[int]


class _Report(msgspec.Struct):
    files: list[_File]


class _Traced(msgspec.Struct):
    explanation: list[str] | None = None


_read_report = msgspec.json.Decoder(_Report).decode
_read_traced = msgspec.json.Decoder(_Traced).decode


def read_coverage(report: bytes, problem: str = "") -> Trace:
    """The lines of a coverage report; files of which none was reached come last. Raises Unreadable."""
    try:
        files = _read_report(report).files
    except BAD_JSON as error:
        raise Unreadable(f"the engine's report cannot be read: {str(error)[:MOST_TEXT]}") from None
    found: list[Line] = []
    for file in sorted(files, key=lambda one: (not one.covered, one.path)):
        code = file.code.split("\n")
        reached = set(file.covered)
        for number in sorted(reached | set(file.not_covered)):
            text = code[number - 1] if 0 < number <= len(code) else ""
            found.append(_line(file.path, number, "evaluated" if number in reached else "not reached", text.strip()))
    return _bounded(found, problem)


class _Seen:
    """What happened on one line."""

    def __init__(self) -> None:
        self.entered = ""
        self.held = False
        self.evaluated: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def said(self) -> tuple[Verdict, str]:
        """A rule that was left by its end holds. An expression failed that did so each time; one below `not` may."""
        if self.held:
            return "held", self.entered or next(iter(self.evaluated), "")
        for text, times in self.failed.items():
            if times >= self.evaluated[text] and f"not {text}" not in self.evaluated:
                return "failed", text
        return "evaluated", next(iter(self.evaluated), self.entered)


def read_trace(body: bytes) -> Trace:
    """The lines in an agent's answer to `explain=full&pretty=true`, by file and line. Raises Unreadable."""
    try:
        events = _read_traced(body).explanation
    except BAD_JSON as error:
        raise Unreadable(f"its trace cannot be read: {str(error)[:MOST_TEXT]}") from None
    seen: dict[tuple[str, int], _Seen] = {}
    for event in events or ():
        parts = _event(event[:MOST_EVENT])
        if parts is None or parts[1] == QUERY:
            continue
        one = seen.setdefault((parts[1], int(parts[2])), _Seen())
        match parts[4]:
            case "Enter":
                one.entered = one.entered or parts[5]
            case "Eval":
                one.evaluated[parts[5]] += 1
            case "Fail":
                one.failed[parts[5]] += 1
            case _:
                one.held = True
    if not seen:
        raise Unreadable("its answer has no trace of a policy")
    return _bounded([_line(file, number, *one.said()) for (file, number), one in sorted(seen.items(), key=_place)])


def _place(item: tuple[tuple[str, int], _Seen]) -> tuple[str, int]:
    return item[0]


def _line(file: str, number: int, verdict: Verdict, text: str) -> Line:
    return Line(file[:MOST_TEXT], number, verdict, text[:MOST_TEXT])


def _bounded(lines: Sequence[Line], problem: str = "") -> Trace:
    return Trace(tuple(lines[:MOST_LINES]), max(0, len(lines) - MOST_LINES), problem)
