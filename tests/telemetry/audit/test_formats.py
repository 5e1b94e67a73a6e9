"""Records in the forms of others: one line each, whatever stands in them."""

from __future__ import annotations

import csv as reader
import io
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.telemetry.audit.formats import COLUMNS, FORMATS, cef, csv, ocsf
from narthex.telemetry.record import line_of
from tests.telemetry.test_record import ENTRY

RECORD: dict[str, Any] = {**json.loads(line_of(ENTRY, "id-1")), "seq": 7, "hash": "ab" * 32}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda one: st.dictionaries(st.text(), one)
)


def row(record: dict[str, Any]) -> dict[str, str]:
    (cells,) = reader.reader(io.StringIO(csv(record)))
    return dict(zip(COLUMNS, cells, strict=True))


def test_a_row_has_a_cell_for_each_column() -> None:
    found = row(RECORD)
    assert (found["subject"], found["client"], found["server"], found["name"]) == (
        "u-17", "helpdesk-bot", "github", "search",
    )  # fmt: skip
    assert (found["seq"], found["seconds"], found["reason"]) == ("7", "0.012346", "")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t1", "  =1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert row({**RECORD, "name": text})["name"] == f"'{text}"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        pytest.param("a;=1+1", "a;'=1+1", id="behind a semicolon"),
        pytest.param("\t=1", "'\t'=1", id="at the beginning, too"),
        pytest.param("a\t@x", "a\t'@x", id="behind a tab"),
        pytest.param("a;\t =1;-1", "a;\t '=1;'-1", id="behind spaces, and twice"),
        pytest.param('a;"=1"', 'a;"\'=1"', id="behind a quotation mark, which is doubled"),
        pytest.param("a;\uff1d1", "a;'\uff1d1", id="in wide letters"),
        pytest.param("a\n+1", "a\n'+1", id="behind the end of a line"),
        pytest.param("a;b - c", "a;b - c", id="what is no formula stays as it is"),
        pytest.param("a=b,-c", "a=b,-c", id="nor is what stands behind a comma: it is in quotation marks"),
    ],
)
def test_nor_is_what_another_separator_would_make_a_cell(text: str, cell: str) -> None:
    assert row({**RECORD, "name": text})["name"] == cell


@given(name=st.text('=+-@;\t\r\n", a\uff1d\uff20'), role=st.text('=-;\t"a'))
def test_wherever_a_spreadsheet_splits_nothing_begins_as_a_formula(name: str, role: str) -> None:
    """Whoever splits at semicolons or tabs takes no heed of quotation marks in the middle of what is a cell then."""
    record = {**RECORD, "name": name, "principal": {**RECORD["principal"], "roles": [role]}}
    for piece in re.split("[;\t\r\n]", csv(record)):
        assert not piece.strip(' "').startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20")), piece


FULL = {
    **RECORD, "upstream": {"protocol": "2025-11-25", "status": 503, "session": "ab12", "version": "1.2.3"},
    "tokens": {"in": 12, "out": 345, "counted": "estimate"}, "taken": {"calls": 1, "spend": "0.01 USD"},
    "latency": {"admission": 0.1, "upstream": 0.2}, "definition_digest": "sha256:01", "server_seconds": 0.2,
    "run": "r1", "trace": "0a" * 16, "cost": "0.01 USD", "arguments_digest": "sha256:02",
}  # fmt: skip


def test_what_has_parts_has_a_cell_for_each_or_is_json() -> None:
    found = row(FULL)
    assert (found["upstream_status"], found["upstream_version"], found["tokens_in"], found["tokens_counted"]) == (
        "503", "1.2.3", "12", "estimate",
    )  # fmt: skip
    assert json.loads(found["taken"]) == FULL["taken"] and json.loads(found["latency"]) == FULL["latency"]
    assert found["definition_digest"] == "sha256:01" and json.loads(found["roles"]) == ["support"]


def test_a_number_is_no_formula() -> None:
    found = row({**RECORD, "code": -32602, "seconds": -0.5, "reason": "-1"})
    assert (found["code"], found["seconds"], found["reason"]) == ("-32602", "-0.5", "'-1")


def test_one_name_in_every_form() -> None:
    denied = {**RECORD, "name": "github__search", "outcome": "denied", "policy": {"resource": "github__search"}}
    for record in (RECORD, denied):
        assert row(record)["resource"] == json.loads(ocsf(record))["api"]["operation"] == "github__search"
        assert "|tools/call|github__search|" in cef(record)


def test_an_event_in_common_form() -> None:
    found = cef({**RECORD, "name": "a|b\\c", "reason": "x=y"})
    assert found.startswith("CEF:0|Narthex|Narthex|") and "|tools/call|github__a\\|b\\\\c|3|" in found
    for pair in ("suser=u-17", "src=10.0.0.7", "act=allow", "reason=x\\=y", "cs1Label=agent cs1=helpdesk-bot",
                 "rt=1700000000250"):  # fmt: skip
        assert pair in found
    assert "|6|" in cef({**RECORD, "decision": "deny"})
    full = cef(FULL)
    for pair in ("cs5Label=definition cs5=sha256:01", "cs6Label=run cs6=r1", "cn1Label=upstreamStatus cn1=503",
                 "cn2Label=tokensIn cn2=12", "cn3Label=tokensOut cn3=345"):  # fmt: skip
        assert pair in full and pair not in found


def test_an_api_activity() -> None:
    found = json.loads(ocsf(RECORD))
    assert (found["class_uid"], found["type_uid"], found["category_uid"]) == (6003, 600399, 6)
    assert (found["time"], found["status_id"], found["severity_id"]) == (1_700_000_000_250, 1, 1)
    assert found["api"]["operation"] == "github__search" and found["api"]["service"] == {"name": "github"}
    assert found["actor"]["user"]["uid"] == "u-17" and found["src_endpoint"] == {"ip": "10.0.0.7"}
    assert found["metadata"]["version"] == "1.9.0" and found["metadata"]["profiles"][0] == "record_integrity"
    assert found["attestation"]["fingerprint"] == {"algorithm_id": 3, "algorithm": "SHA-256", "value": "ab" * 32}
    assert "policy" not in found, "no rule has decided"
    assert found["actor"]["session"] == {"uid": "s1"} and "http_response" not in found and "trace" not in found
    full = json.loads(ocsf(FULL))
    assert full["api"]["service"] == {"name": "github", "version": "1.2.3"} and full["api"]["version"] == "2026-07-28"
    assert full["http_response"] == {"code": 503, "latency": 200} and full["trace"] == {"uid": "0a" * 16}
    assert "trace" in full["metadata"]["profiles"]
    for name in (
        "tokens",
        "taken",
        "latency",
        "cost",
        "definition_digest",
        "arguments_digest",
        "upstream",
        "principal",
    ):
        assert full["unmapped"][name] == FULL[name], "what has no place there is not lost"
    assert json.loads(ocsf({**RECORD, "decision": "deny", "outcome": "denied"}))["status_id"] == 2


ACTS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"event": "command", "action": "keys.create", "by": "root at the terminal", "name": "ci", "ids": ["k1"]},
     "keys.create", "root at the terminal", "k1"),
    ({"event": "approval", "step": "approved", "by": "bob", "principal": {"subject": "ann"}, "name": "push"},
     "approved", "bob", ""),
    ({"event": "config", "step": "applied", "by": "file", "changes": ["servers.git"], "revision": "c0ffee"},
     "applied", "file", "servers.git"),
    ({"event": "erase", "by": "root at the terminal", "reason": "art. 17", "concerned": {"subject": "ada"}},
     "", "root at the terminal", "ada"),
    ({"event": "hold", "step": "placed", "hold": {"id": "h1", "by": "eve at the terminal"}},
     "placed", "eve at the terminal", ""),
]  # fmt: skip


@pytest.mark.parametrize(("record", "done", "by", "what"), ACTS, ids=[one[0]["event"] for one in ACTS])
def test_who_did_what_beside_calls_is_in_every_form(record: dict[str, Any], done: str, by: str, what: str) -> None:
    cells, line, event = row(record), cef(record), json.loads(ocsf(record))
    assert done in (cells["action"] or cells["step"]) and by in (cells["by"] or cells["hold"])
    assert f"flexString1Label=by flexString1={by}" in line and (not done or f"act={done} " in line)
    assert "suser=ann" in line if "principal" in record else f"suser={by}" in line
    assert event["actor"]["user"]["uid"] == record.get("principal", {}).get("subject", by)
    assert event["activity_name"] == (done or record["event"])
    assert what in csv(record) and what in line


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=25)
@given(more=st.dictionaries(st.sampled_from([*RECORD, "policy", "cost"]), VALUES))
def test_whatever_stands_in_a_record_it_is_one_event(form: str, more: dict[str, Any]) -> None:
    line = FORMATS[form]({**RECORD, **more})
    if form == "csv":
        assert len(list(reader.reader(io.StringIO(line, newline="")))) == 1
    else:
        assert "\n" not in line and "\r" not in line
