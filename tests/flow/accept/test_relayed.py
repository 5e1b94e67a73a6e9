"""The digest of a result is over the bytes that the client got, however they came."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.accept import relayed
from narthex.flow.accept.forms import splice
from narthex.flow.accept.relayed import Relayed, digest_of, value_of
from narthex.flow.accept.replying import Replying
from narthex.flow.codec.jsonrpc import Raw
from narthex.types import LOCAL, Call

HEAD = b'{"jsonrpc":"2.0","id":7,"result":'


class Client(Replying):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.body = b""

    def write(self, data: bytes) -> None:
        self.body += data

    def end_body(self, before: bytes = b"") -> None:
        self.body += before


def plain(data: bytes) -> str:
    return f"sha256:{sha256(data).hexdigest()}"


@pytest.mark.interpreted  # `Client` stands in for a connection
@given(
    st.text(max_size=300), st.lists(st.integers(1, 400), max_size=8), st.sampled_from(["", " ", "\r\n"]), st.booleans()
)
def test_of_an_answer_that_is_handed_on_it_is_that_of_the_result_as_the_client_got_it(
    text: str, cuts: list[int], behind: str, modern: bool
) -> None:
    result = b'{"content":[{"text":"%b"}]}' % text.encode().hex().encode()
    body = HEAD + result + b"}" + behind.encode()
    call = Call("tools/call", {}, {}, b'"client-id"', "modern" if modern else "legacy", "", LOCAL, "default", "x")
    found = splice(call, 7, "legacy", body)
    assert found is not None
    start, one = found
    client, digest = Client(), Relayed(one.skip, one.extra, keep=True)
    client.write(start)
    at = 0
    for cut in (*(max(cut, len(HEAD) + 2) if not at else cut for cut in cuts), len(body)):
        piece = body[at : at + cut]
        at += len(piece)
        if piece:
            digest.piece(piece)
            one.piece(client, piece)
    one.end(client)
    value = client.body[len(b'{"jsonrpc":"2.0","id":"client-id","result":') :].rstrip()[:-1]
    said, pieces = digest.end()
    assert said == plain(value) and b"".join(pieces) == value
    assert (b"resultType" in value) == modern


def test_an_answer_that_ends_as_none_does_has_no_digest() -> None:
    one = Relayed(0, b"", keep=True)
    one.piece(b'a":1}')
    assert one.end() == ("", ())


@pytest.mark.interpreted  # what is compiled has its constants in it
def test_of_a_result_that_is_too_large_nothing_is_kept_but_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relayed, "MOST_KEPT", 100)
    one = Relayed(0, b"", keep=True)
    rest = b'a":"' + b"x" * 500 + b'"}'
    for at in range(0, len(rest), 70):
        one.piece(rest[at : at + 70])
    one.piece(b"}")
    assert one.end() == (plain(b'{"' + rest), ())


@pytest.mark.parametrize(
    ("parts", "value", "is_error"),
    [
        ((b'{"jsonrpc":"2.0","id":', b"1", b',"result":', Raw(b'{"a":1}'), b"}"), b'{"a":1}', False),
        ((b'{"jsonrpc":"2.0","id":', b"1", b',"result":{', b'"a":1', b",", memoryview(b'"b":2}'), b"}"),
         b'{"a":1,"b":2}', False),
        ((b'{"jsonrpc":"2.0","id":', b"1", b',"error":', b'{"code":1}', b"}"), b'{"code":1}', True),
    ],
)  # fmt: skip
def test_of_an_answer_in_pieces(parts: tuple[bytes, ...], value: bytes, is_error: bool) -> None:
    pieces, found = value_of(parts)
    assert b"".join(bytes(one) for one in pieces) == value and found == is_error
    assert digest_of(pieces) == plain(value)
