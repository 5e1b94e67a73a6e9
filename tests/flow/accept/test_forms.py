"""An event stream and a body that is handed on: what is written, byte for byte, however it arrives."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.accept.forms import TAIL, Events, Splice, splice
from narthex.flow.accept.listener import Connection
from narthex.flow.notify.resumability import EventLog
from narthex.types import LOCAL, Call, Era

pytestmark = pytest.mark.interpreted


class Wire:
    """A connection's writing side, without its framing."""

    def __init__(self) -> None:
        self.data = b""
        self.ends = 0
        self.aborted = False

    def begin_body(self, status: int, content_type: bytes, size: int | None, extra: bytes = b"") -> bytes:
        return b"HEAD "

    def frame(self, data: bytes) -> bytes:
        return data

    def write(self, data: bytes) -> None:
        self.data += data

    def end_body(self, before: bytes = b"") -> None:
        self.data += before
        self.ends += 1

    def respond(
        self, status: int, content_type: bytes, parts: tuple[bytes, ...], size: int, extra: bytes = b""
    ) -> None:
        self.data += b"%d %b" % (status, b"".join(parts))
        self.ends += 1

    def abort(self) -> None:
        self.aborted = True


def wire() -> Any:
    return cast(Connection, Wire())


class TestEvents:
    @pytest.mark.parametrize(
        ("status", "begun", "written"),
        [
            pytest.param(200, False, b"HEAD event: message\ndata: {}\n\n", id="the head comes with the only event"),
            pytest.param(200, True, b"event: message\ndata: {}\n\n", id="the head is written once"),
            pytest.param(400, False, b"400 {}", id="a status that can still be said is said"),
            pytest.param(400, True, b"event: message\ndata: {}\n\n", id="and one that cannot is left out"),
        ],
    )
    def test_a_response_ends_the_stream(self, status: int, begun: bool, written: bytes) -> None:
        one = wire()
        Events(begun=begun).respond(one, status, (b"{", b"}"), 2, 0.0)
        assert (one.data, one.ends) == (written, 1)

    @pytest.mark.parametrize("gap", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
    def test_a_response_in_lines_stays_one_event(self, gap: bytes) -> None:
        one = wire()
        Events(begun=True).respond(one, 200, (b"{", gap, b"}"), 2, 0.0)
        assert one.data.count(b"\n\n") == 1
        assert json.loads(b"".join(line[6:] for line in one.data.splitlines() if line.startswith(b"data: "))) == {}

    def test_what_nobody_is_there_to_read_is_kept_for_who_comes_back(self) -> None:
        log = EventLog("ab").open(None)
        events = Events(True, log)
        events.keep(b"{}", 0.0)
        events.keep(b"", 0.0)
        assert log.latest == 1, "an empty message is none"
        Events(begun=True).keep(b"{}", 0.0)  # nothing is kept for a client that cannot come back


class TestSplice:
    RESULT = b'{"jsonrpc":"2.0","id":7,"result":{"a":1,"b":"%b"}}' % (b"x" * 3 * TAIL)

    @given(cuts=st.lists(st.integers(25, len(RESULT)), max_size=8), space=st.sampled_from([b"", b"\n", b" \r\n"]))
    def test_what_is_added_stands_in_the_result_wherever_the_pieces_break(self, cuts: list[int], space: bytes) -> None:
        skip, body, one = 24, self.RESULT + space, wire()
        splice = Splice(skip, b',"c":2')
        bounds = [0, *sorted(cuts), len(body)]
        for start, end in zip(bounds, bounds[1:], strict=False):
            splice.piece(one, body[start:end])
        splice.end(one)
        assert one.data == body[skip:].replace(b"}}", b',"c":2}}')

    def test_without_anything_to_add_every_byte_goes_on(self) -> None:
        one, splice = wire(), Splice(5, b"")
        splice.piece(one, b"12345abc")
        splice.piece(one, b"def")
        splice.end(one)
        assert (one.data, one.ends) == (b"abcdef", 1)

    def test_a_body_that_ends_as_no_response_does_is_broken_off(self) -> None:
        one, splice = wire(), Splice(0, b',"c":2')
        splice.piece(one, b'{"result":[]')
        splice.end(one)
        assert one.aborted and not one.ends


@pytest.mark.parametrize(
    ("client", "server", "head", "handed_on"),
    [
        pytest.param("legacy", "legacy", b'"result":{"a', True, id="legacy: every result is complete"),
        pytest.param("modern", "legacy", b'"result":{"a', True, id="what a modern client needs is added"),
        pytest.param("modern", "modern", b'"result":{"resultType":"complete","', True, id="it says so at once"),
        pytest.param("modern", "modern", b'"result":{"a', False, id="it may be none: it must be seen whole"),
        pytest.param("legacy", "modern", b'"result":{"resultType":"input_required"', False, id="it is none"),
        pytest.param("legacy", "legacy", b'"error":{"', False, id="an error"),
        pytest.param("legacy", "legacy", b'"result":[', False, id="no object"),
        pytest.param("legacy", "legacy", b'"result":{}', False, id="an empty one is not large"),
    ],
)
def test_what_can_be_handed_on(client: Era, server: Era, head: bytes, handed_on: bool) -> None:
    call = Call("tools/call", {}, {}, b'"c"', client, "", LOCAL, "default")
    found = splice(call, 7, server, b'{"jsonrpc":"2.0","id":7,' + head)
    assert (found is not None) is handed_on
    assert splice(call, 8, server, b'{"jsonrpc":"2.0","id":7,' + head) is None, "another call's"
    if found is not None:
        assert found[0] == b'{"jsonrpc":"2.0","id":"c","result":{"'
        assert (b"resultType" in found[1].extra) is ((client, server) == ("modern", "legacy"))
