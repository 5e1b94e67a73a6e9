"""Syslog over TLS: frames that no text breaks, and a word for it that means that all was read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.telemetry.audit.exports.sink import SinkError, SinkSpec
from narthex.telemetry.audit.exports.syslog import SyslogSink, framed, message
from tests.telemetry.audit.exports.receivers import SyslogServer, closing, make_certificate, unframed
from tests.telemetry.audit.test_formats import RECORD, VALUES

HEAD = re.compile(
    rb"<(\d{1,3})>1 (-|\d{4}-\d\d-\d\dT[0-9:.]{8,15}Z) ([!-~]{1,255}) narthex - ([!-~]{1,32}) \[origin [^\]]*\] (.*)",
    re.DOTALL,
)
"""RFC 5424 §6, as far as we use it."""


@pytest.fixture(scope="module")
def cert(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_certificate(tmp_path_factory.mktemp("certs"), "server")


def sink(port: int, trusted: tuple[str, str], **more: Any) -> SyslogSink:
    return SyslogSink(SinkSpec("siem", f"syslog+tls://127.0.0.1:{port}", ca=trusted[0], **more), timeout_s=10)


def records(count: int) -> list[dict[str, Any]]:
    return [{**RECORD, "id": f"r{number}"} for number in range(count)]


def test_a_message() -> None:
    match = HEAD.fullmatch(message(RECORD, "jsonl", "gateway-1"))
    assert match is not None
    assert match.groups()[:4] == (b"109", b"2023-11-14T22:13:20.250000Z", b"gateway-1", b"call")
    assert json.loads(match[5]) == RECORD
    assert message({**RECORD, "decision": "deny"}, "cef", "h").startswith(b"<108>1 ")


@pytest.mark.parametrize("form", ["jsonl", "cef", "ocsf"])
@given(more=st.dictionaries(st.sampled_from([*RECORD, "policy", "cost"]), VALUES), host=st.text())
def test_whatever_stands_in_a_record_it_is_one_message(form: str, more: dict[str, Any], host: str) -> None:
    bodies = [message({**RECORD, **more}, form, host), message(RECORD, form, host)]
    assert unframed(b"".join(map(framed, bodies))) == (bodies, b"")
    match = HEAD.fullmatch(bodies[0])
    assert match is not None, bodies[0]
    assert not re.search(rb"[\x00-\x1f]", match[5]), "nothing that a receiver would take for an end"


def test_all_that_is_confirmed_was_read(cert: tuple[str, str]) -> None:
    server = SyslogServer(cert)
    with closing(server):
        one = sink(server.port, cert)
        for _ in range(3):
            assert one.send(records(2_000)) == 0
            one.confirm()
            assert len(server.messages) % 2_000 == 0 and server.messages
        one.confirm()  # nothing was sent
        assert (len(server.messages), server.connections, server.torn) == (6_000, 3, 0)


@pytest.mark.parametrize("after", [0, 1, 100_000])
def test_what_was_reset_is_not_confirmed(cert: tuple[str, str], after: int) -> None:
    server = SyslogServer(cert, reading=lambda size: size < after)
    with closing(server):
        one = sink(server.port, cert)
        with pytest.raises(SinkError):
            one.send(records(20_000))
            one.confirm()
        one.close()
        assert len(server.messages) < 20_000


def test_a_server_that_is_away(cert: tuple[str, str]) -> None:
    server = SyslogServer(cert)
    server.close()
    with pytest.raises(SinkError, match="refused"):
        sink(server.port, cert).send(records(1))


def test_who_it_is_is_checked(cert: tuple[str, str], tmp_path: Path) -> None:
    other, old = make_certificate(tmp_path, "other"), make_certificate(tmp_path, "old", days=-1)
    server, expired = SyslogServer(cert), SyslogServer(old)
    with closing(server, expired):
        for one, said in (
            (sink(server.port, other), "not trusted"),
            (sink(expired.port, old), "expired"),
            (SyslogSink(SinkSpec("s", f"syslog+tls://localhost:{server.port}", ca=cert[0])), "Hostname mismatch"),
            (sink(server.port, (str(tmp_path / "none"), "")), "No such file"),
            (sink(server.port, cert, cert=cert[0], key=other[1]), "KEY_VALUES_MISMATCH|key values mismatch"),
        ):
            with pytest.raises(SinkError, match=said):
                one.send(records(1))
        assert server.messages == expired.messages == []


def test_who_we_are_is_shown(cert: tuple[str, str], tmp_path: Path) -> None:
    ours = make_certificate(tmp_path, "ours")
    server = SyslogServer(cert, client_ca=ours[0])
    with closing(server):
        for _ in range(20):  # by TLS 1.3 a server says no after its client has begun to talk
            nobody = sink(server.port, cert)
            with pytest.raises(SinkError):
                nobody.send(records(1))
                nobody.confirm()
        assert server.messages == []
        shown = sink(server.port, cert, cert=ours[0], key=ours[1])
        shown.send(records(1))
        shown.confirm()
        assert len(server.messages) == 1
