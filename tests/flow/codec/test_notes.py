"""A note in a result: beside what is there, and of nothing that is no result."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.codec.notes import noted


@pytest.mark.parametrize(
    ("result", "then"),
    [
        pytest.param({}, {"_meta": {"k": 1}}, id="none before"),
        pytest.param({"a": 1, "_meta": {"b": 2}}, {"a": 1, "_meta": {"b": 2, "k": 1}}, id="beside others"),
        pytest.param({"_meta": {"k": "the server's"}}, {"_meta": {"k": 1}}, id="nobody else says it"),
    ],
)
def test_it_stands_beside_what_the_server_says(result: object, then: object) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    assert json.loads(noted(body, "k", 1) or b"null") == then


@pytest.mark.parametrize(
    "body", [b'{"error":{"code":1}}', b'{"result":5}', b'{"result":{"_meta":7}}', b"[]", b"no JSON", b""]
)
def test_what_is_no_result_has_none(body: bytes) -> None:
    assert noted(body, "k", 1) is None


@given(st.binary())
def test_no_bytes_break_it(body: bytes) -> None:
    assert isinstance(noted(body, "k", {"a": 1}), (bytes, type(None)))
