"""A message that came whole is read as the general readers read it, or not at all."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.connections import Messages
from narthex.flow.whole import MOST_HEADERS, MOST_TARGET, AnswerReader, HttpRequest, Line, RequestReader, line_of

REQUEST = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def agree(general: Messages, found: tuple[bytes, dict[bytes, bytes], bytes] | None) -> None:
    """`general`: the same bytes read by llhttp with functions as callbacks."""
    if found is None:
        return
    target, headers, body = found
    assert general.clean
    assert general.whole == [(target, list(headers.items()), body)]


def read(data: bytes) -> tuple[bytes, dict[bytes, bytes], bytes] | None:
    request = RequestReader().read(data)
    return None if request is None else (request.path, request.headers, request.body)


def told(request: HttpRequest | None) -> tuple[object, ...] | None:
    """All that a request says."""
    if request is None:
        return None
    one = request
    return one.method, one.path, one.query, one.headers, one.repeated, one.body, one.params


def test_a_plain_request() -> None:
    headers = {b"host": b"localhost", b"content-length": b"2"}
    assert told(RequestReader().read(REQUEST)) == (b"POST", b"/mcp", b"", headers, frozenset(), b"{}", ())


def test_parameters_are_told_with_each_request_that_has_them_and_no_other() -> None:
    reader = RequestReader()
    with_two = head(LENGTH, b"MCP-Param-A: 1", b"Mcp-Param: 0", b"mcp-param-b: 2")
    for _ in range(2):
        found = reader.read(with_two)
        assert found is not None and found.params == (b"mcp-param-a", b"mcp-param-b")
        for other in (REQUEST, with_two[:-1], with_two.replace(b"/mcp", b"/mcp?x"), head(LENGTH, b"X-A: 1")):
            found = reader.read(other)
            assert found is None or found.params == ()


def test_a_plain_answer() -> None:
    assert AnswerReader().read(ANSWER) == ({b"content-type": b"application/json", b"content-length": b"2"}, b"{}")


def head(*lines: bytes, body: bytes = b"{}", start: bytes = b"POST /mcp HTTP/1.1") -> bytes:
    return b"\r\n".join((start, *lines)) + b"\r\n\r\n" + body


LENGTH = b"Content-Length: 2"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(REQUEST[:-1], id="a byte short"),
        pytest.param(REQUEST + b"P", id="a byte more"),
        pytest.param(REQUEST + REQUEST, id="two"),
        pytest.param(REQUEST[:30], id="a part of the head"),
        pytest.param(b"\r\n" + REQUEST, id="an empty line before it"),
        pytest.param(REQUEST.replace(b"POST", b"GET"), id="another method"),
        pytest.param(REQUEST.replace(b"1.1", b"1.0"), id="an older version"),
        pytest.param(REQUEST.replace(b"/mcp", b"/mcp?a=1"), id="a query"),
        pytest.param(REQUEST.replace(b"/mcp", b"/" + b"a" * MOST_TARGET), id="a long target"),
        pytest.param(REQUEST.replace(b"/mcp", b"http://localhost/mcp"), id="an absolute target"),
        pytest.param(REQUEST.replace(b"\r\n", b"\n"), id="bare line feeds"),
        pytest.param(head(body=b""), id="no headers"),
        pytest.param(head(b"Host: a"), id="no length"),
        pytest.param(head(LENGTH, LENGTH), id="a length twice"),
        pytest.param(head(LENGTH, b"content-length: 2"), id="a length twice, written otherwise"),
        pytest.param(head(b"Content-Length: 02"), id="a length with a leading zero"),
        pytest.param(head(b"Content-Length: +2"), id="a length with a sign"),
        pytest.param(head(LENGTH, b"Host: a", b"Host: b"), id="a host twice"),
        pytest.param(head(LENGTH, b"X-A: 1", b"x-a: 1"), id="any header twice"),
        pytest.param(head(LENGTH, b"X-A: 1", b" more"), id="a folded line"),
        pytest.param(head(LENGTH, b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), id="chunks and a length"),
        pytest.param(head(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), id="chunks"),
        pytest.param(head(LENGTH, b"Connection: close"), id="the last on its connection"),
        pytest.param(head(LENGTH, b"Connection: Upgrade", b"Upgrade: h2c"), id="an upgrade"),
        pytest.param(head(LENGTH, b"Expect: 100-continue"), id="an expectation"),
        pytest.param(head(LENGTH, b"X A: 1"), id="a bad name"),
        pytest.param(head(LENGTH, b"X-A : 1"), id="a blank behind a name"),
        pytest.param(head(LENGTH, b"X-A: \x00"), id="a zero in a value"),
        pytest.param(head(LENGTH, *(b"X-%d: 1" % n for n in range(MOST_HEADERS))), id="too many headers"),
        pytest.param(head(b"Content-Length: 70000", body=b"x" * 70000), id="a large body"),
    ],
)
def test_anything_else_is_for_the_general_reader(data: bytes) -> None:
    reader = RequestReader()
    if len(data) < 70_000:  # its caller bounds the size
        assert reader.read(data) is None
    assert reader.read(REQUEST) is not None, "and the next one is read"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(ANSWER[:-1], id="a byte short"),
        pytest.param(ANSWER + b"x", id="a byte more"),
        pytest.param(ANSWER + ANSWER, id="two"),
        pytest.param(ANSWER.replace(b"200", b"404"), id="another status"),
        pytest.param(ANSWER.replace(b"200", b"2000"), id="no status"),
        pytest.param(ANSWER.replace(b"1.1", b"1.0"), id="an older version"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER, id="something before it"),
        pytest.param(head(b"Content-Type: a", start=b"HTTP/1.1 200 OK"), id="it ends where the connection ends"),
        pytest.param(head(LENGTH, b"Connection: close", start=b"HTTP/1.1 200 OK"), id="the last on its connection"),
        pytest.param(head(LENGTH, b"Transfer-Encoding: chunked", start=b"HTTP/1.1 200 OK"), id="chunks and a length"),
        pytest.param(head(LENGTH, b"Content-Length: 3", start=b"HTTP/1.1 200 OK"), id="two lengths"),
    ],
)
def test_any_other_answer_is_for_the_general_reader(data: bytes) -> None:
    reader = AnswerReader()
    assert reader.read(data) is None
    assert reader.read(ANSWER) is not None, "and the next one is read"


@pytest.mark.parametrize(
    ("reader", "start"),
    [
        pytest.param(RequestReader(), b"POST /mcp HTTP/1.1", id="request"),
        pytest.param(AnswerReader(), b"HTTP/1.1 200 OK", id="answer"),
    ],
)
def test_a_message_behind_another_does_not_move_where_the_body_begins(
    reader: RequestReader | AnswerReader, start: bytes
) -> None:
    """The length of the first, counted from the end of both, leads to an empty line in its body; and the second has as
    many headers of its own as there are lines more."""
    second = head(b"A: 1", b"B: 2", b"Content-Length: 0", body=b"", start=start)
    inside = b"x" * (len(second) - 4) + b"\r\n\r\n" + b"y" * 4
    first = head(b"Content-Length: %d" % len(inside), body=inside, start=start)
    assert reader.read(first + second) is None
    assert reader.read(first) is not None, "alone it is plain"


@pytest.mark.parametrize("value", [b"keep-alive", b"Keep-Alive"])
def test_a_connection_that_stays_may_say_so(value: bytes) -> None:
    assert RequestReader().read(head(LENGTH, b"Connection: " + value)) is not None


def test_more_names_than_are_kept() -> None:
    reader = RequestReader()
    for number in range(3000):
        request = reader.read(head(LENGTH, b"X-%d: 1" % number))
        assert request is not None
        assert request.headers == {b"content-length": b"2", b"x-%d" % number: b"1"}


PIECES = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b":",
        b"POST",
        b"GET",
        b"/mcp",
        b" HTTP/1.1",
        b"Content-Length",
        b"2",
        b"0",
        b"{}",
        b"Transfer-Encoding: chunked",
        b"Host: a",
        b"Connection: close",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"A: b",
        b"\t",
        b"\x00",
    ]
)


@given(
    lines=st.lists(
        st.sampled_from(
            [
                b"Host: a",
                b"host:b",
                b"Accept: */*",
                LENGTH,
                b"content-length: 2",
                b"X: ",
                b"X:\ty",
                b" folded",
                b"Connection: keep-alive",
                b"Connection: close",
                b"Transfer-Encoding: chunked",
                b"A b: c",
            ]
        ),
        max_size=5,
    ),
    body=st.sampled_from([b"{}", b"", b"{}\r\n", b"0\r\n\r\n", b"{}POST"]),
    junk=st.lists(PIECES, max_size=3).map(b"".join),
    at=st.integers(0, 200),
)
def test_what_is_read_is_what_the_general_reader_reads(lines: list[bytes], body: bytes, junk: bytes, at: int) -> None:
    whole = head(*lines, body=body)
    for data in (whole, whole[:at] + junk + whole[at:]):
        agree(Messages(httptools.HttpRequestParser, data), read(data))
    answer = head(*lines, body=body, start=b"HTTP/1.1 200 OK")
    for data in (answer, answer[:at] + junk + answer[at:]):
        found = AnswerReader().read(data)
        agree(Messages(httptools.HttpResponseParser, data), None if found is None else (b"", *found))


@given(st.lists(PIECES, max_size=20).map(b"".join))
def test_any_bytes(data: bytes) -> None:
    agree(Messages(httptools.HttpRequestParser, data), read(data))


@given(st.lists(st.sampled_from([REQUEST, REQUEST[:20], b"\x00", REQUEST + b"P", head(LENGTH, b"A: b")]), max_size=8))
def test_what_came_before_changes_nothing(before: list[bytes]) -> None:
    reader = RequestReader()
    for data in before:
        assert told(reader.read(data)) == told(RequestReader().read(data))


TOKEN = b"Bearer " + b"abc." * 9
SHOWN = b"Authorization: " + TOKEN


def line() -> Line:
    """The line that a client has shown."""
    found = line_of(head(b"Host: a", SHOWN, LENGTH), b"authorization", TOKEN)
    assert found is not None
    return found


def test_a_line_that_is_known_is_found_wherever_it_stands() -> None:
    for lines in ((SHOWN, LENGTH), (b"Host: a", SHOWN, LENGTH), (LENGTH, SHOWN), (LENGTH, b"Mcp-Param-A: 1", SHOWN)):
        known, data = line(), head(*lines)
        found = RequestReader().read_beside(data, known)
        assert found is not None and told(found) == told(RequestReader().read(data))
        assert found.headers[b"authorization"] is known.value, "llhttp did not read it"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(head(LENGTH), id="no such line"),
        pytest.param(head(SHOWN + b"x", LENGTH), id="a longer value"),
        pytest.param(head(SHOWN[:-1], LENGTH), id="a shorter value"),
        pytest.param(head(SHOWN.replace(b"abc.", b"abd.", 1), LENGTH), id="another value"),
        pytest.param(head(SHOWN.lower(), LENGTH), id="written otherwise"),
        pytest.param(head(b"X-" + SHOWN, LENGTH), id="another name that ends so"),
        pytest.param(head(SHOWN + b" ", LENGTH), id="a blank behind it"),
    ],
)
def test_what_is_not_the_line_is_read(data: bytes) -> None:
    known = line()
    found = RequestReader().read_beside(data, known)
    assert found is not None and told(found) == told(RequestReader().read(data))
    assert found.headers.get(b"authorization") is not known.value


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(head(SHOWN, SHOWN, LENGTH), id="twice"),
        pytest.param(head(SHOWN, b"authorization: x", LENGTH), id="another beside it"),
        pytest.param(head(b"authorization: x", SHOWN, LENGTH), id="another ahead of it"),
        pytest.param(head(SHOWN, b" folded", LENGTH), id="the next line goes on with it"),
        pytest.param(head(SHOWN, b"\tfolded", LENGTH), id="the next line goes on with it, with a tab"),
        pytest.param(head(SHOWN, b"Content-Length: 3"), id="a byte short"),
        pytest.param(SHOWN + b"\r\n\r\n", id="nothing else"),
        pytest.param(head(SHOWN, LENGTH, *(b"X-%d: 1" % n for n in range(MOST_HEADERS - 1))), id="one header too many"),
    ],
)
def test_nor_does_a_known_line_let_pass_what_is_for_the_general_reader(data: bytes) -> None:
    reader = RequestReader()
    assert reader.read_beside(data, line()) is None
    assert told(reader.read(REQUEST)) == told(RequestReader().read(REQUEST)), "and the next one is read"


def test_a_line_of_the_body_is_no_line_of_the_head() -> None:
    for body in (b"\r\n" + SHOWN + b"\r\n", b"x\r\n" + SHOWN + b"\r\n\r\n"):
        data = head(b"Content-Length: %d" % len(body), body=body)
        found = RequestReader().read_beside(data, line())
        assert found is not None and b"authorization" not in found.headers and found.body == body


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(head(b"Authorization:" + TOKEN, LENGTH), id="no blank"),
        pytest.param(head(b"Authorization:  " + TOKEN, LENGTH), id="two blanks"),
        pytest.param(head(SHOWN + b" ", LENGTH), id="a blank behind it"),
        pytest.param(head(LENGTH, body=b"\r\n" + SHOWN + b"\r\n"), id="in the body"),
    ],
)
def test_only_a_line_in_its_usual_form_is_known(data: bytes) -> None:
    assert line_of(data, b"authorization", TOKEN) is None


@given(
    lines=st.lists(
        st.sampled_from(
            [SHOWN, SHOWN + b"x", SHOWN[:-1], SHOWN.lower(), b"X-" + SHOWN, b"Authorization: x", b"Authorization:"]
            + [LENGTH, b"Host: a", b" folded", b"\tfolded", b"", b"Mcp-Param-A: 1", b"Connection: close", b"A b: c"]
        ),
        max_size=6,
    ),
    body=st.sampled_from([b"{}", b"", b"{}\r\n", b"\r\n" + SHOWN + b"\r\n", b"\r\n" + SHOWN + b"\r\n\r\n"]),
    sized=st.booleans(),
    junk=st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"\r\n\r\n", b"\r\n" + SHOWN, SHOWN]), max_size=3).map(
        b"".join
    ),
    at=st.integers(0, 200),
)
def test_a_known_line_changes_nothing(lines: list[bytes], body: bytes, sized: bool, junk: bytes, at: int) -> None:
    """What is read beside a known line is what is read without knowing it, and what the general reader reads."""
    whole = head(*lines, *([b"Content-Length: %d" % len(body)] if sized else []), body=body)
    known, reader = line(), RequestReader()
    for data in (whole, whole[:at] + junk + whole[at:]):
        beside = reader.read_beside(data, known)
        assert told(beside) == told(RequestReader().read(data))
        general = Messages(httptools.HttpRequestParser, data)
        if beside is not None:
            assert general.clean
            assert [(path, dict(headers), said) for path, headers, said in general.whole] == [
                (beside.path, beside.headers, beside.body)
            ]
