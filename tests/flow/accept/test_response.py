"""What a client is written of one call, in each form of its answer, whether or not it is still there."""

from __future__ import annotations

from typing import Any

import pytest

from narthex.flow.accept.response import OVERFLOW, Response
from narthex.flow.notify.resumability import EventLog
from narthex.types import LOCAL, Call
from tests.flow.accept.test_forms import Wire

pytestmark = pytest.mark.interpreted
HEAD = b'{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","'
CALL = Call("tools/call", {}, {}, b'"c"', "modern", "", LOCAL, "default")


class Client(Wire):
    """A client that reads, or does not."""

    def __init__(self, unread: int = 0) -> None:
        super().__init__()
        self.paused = bool(unread)
        self._unread = unread

    def respond(self, status: int, content_type: bytes, parts: Any, size: int, extra: bytes = b"") -> None:
        super().respond(status, content_type, parts, size)
        self.data += extra

    def unread(self) -> int:
        return self._unread


def response(client: Client | None) -> Response:
    wire: Any = client
    return Response(wire, lambda: 5.0)


def spliced(client: Client) -> Response:
    one = response(client)
    assert one.splice(CALL, 7, "modern", HEAD, 100, b"")
    return one


def test_one_json_body_is_written_with_its_lines() -> None:
    client = Client()
    response(client).write((b"{", b"}"), 2, b"L: 1\r\n")
    assert (client.data, client.ends) == (b"200 {}L: 1\r\n", 1)


def test_a_stream_begins_once_and_with_what_goes_first() -> None:
    client = Client()
    one = response(client)
    assert one.stream(), "its head is to be written"
    assert one.say(b"{}", b"FIRST ")
    assert not one.stream()
    assert one.say(b"")
    assert client.data == b"HEAD FIRST event: message\ndata: {}\n\n"
    assert (one.size, one.quiet_since) == (len(client.data) - len(b"HEAD "), 5.0)


@pytest.mark.parametrize(
    ("unread", "reads"),
    [
        pytest.param(0, True, id="it reads"),
        pytest.param(OVERFLOW, True, id="it is slow"),
        pytest.param(OVERFLOW + 1, False, id="it does not"),
    ],
)
def test_whether_a_client_reads_what_it_is_told(unread: int, reads: bool) -> None:
    one = response(Client(unread))
    one.stream()
    assert one.say(b"{}") is reads


def test_a_client_that_has_gone_is_written_nothing_and_finds_what_is_kept() -> None:
    client, log = Client(), EventLog("ab").open(None)
    one = response(client)
    one.stream()
    assert one.events is not None
    one.events.log = log
    one.let_go()
    assert one.say(b"{}")
    one.write((b"{}",), 2)
    one.write_error(200, b"{}", b"")
    assert log.latest == 3 and not client.data
    back: Any = Client()
    one.resume(back, b"MISSED")
    assert back.data == b"HEAD MISSED" and one.connection is back


def test_without_a_client_and_a_stream_nothing_is_said() -> None:
    one = response(None)
    assert not one.stream() and one.say(b"{}") and not one.has_form
    one.write((b"{}",), 2)
    one.comment(7.0)
    one.break_off()
    one.abort()
    assert not one.has_form


@pytest.mark.parametrize(
    ("form", "written", "aborted"),
    [
        pytest.param("json", b"400 {}", False, id="its status can be said"),
        pytest.param("events", b"400 {}", False, id="a stream that has not begun may still be a body"),
        pytest.param("begun", b"HEAD event: message\ndata: {}\n\n", False, id="a stream that has ends with it"),
        pytest.param("spliced", b"", True, id="of a length that was promised nothing may be left out"),
    ],
)
def test_an_error_takes_the_form_that_has_begun(form: str, written: bytes, aborted: bool) -> None:
    client = Client()
    one = spliced(client) if form == "spliced" else response(client)
    if form in ("events", "begun"):
        one.stream()
    if form == "begun":
        one.say(b"")
    client.data = client.data if form == "begun" else b""
    one.write_error(400, b"{}", b"")
    assert (client.data, client.aborted) == (written, aborted)


def test_a_large_body_is_handed_on_under_its_own_id() -> None:
    client = Client()
    one = spliced(client)
    one.piece(HEAD[len(HEAD) - 20 :])
    assert client.data.startswith(b'HEAD {"jsonrpc":"2.0","id":"c","result":{"')
    one.end_pieces()
    assert client.ends == 1
    assert not one.splice(CALL, 7, "modern", HEAD, 100, b""), "it has a form"
    assert not response(None).splice(CALL, 7, "modern", HEAD, 100, b"")


def test_whoever_gives_up_gets_an_end_that_is_none_where_a_length_was_promised() -> None:
    quiet, large = Client(), Client()
    one = response(quiet)
    one.break_off()
    assert (quiet.data, quiet.ends, one.connection) == (b"HEAD ", 1, None)
    spliced(large).break_off()
    assert large.aborted


def test_a_client_that_comes_back_for_its_call_gets_a_new_answer() -> None:
    one, again = response(Client()), Client()
    one.stream()
    one.say(b"{}")
    wire: Any = again
    one.attach(wire)
    one.write((b"{}",), 2)
    assert again.data == b"200 {}" and one.size == 0
