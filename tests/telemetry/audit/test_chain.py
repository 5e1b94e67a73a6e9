"""A line says with its hash what all lines before it were."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.telemetry.audit.chain import START, Broken, Chain, follow, place

RECORDS = [b'{"n":%d,"text":"%b"}' % (number, b"x" * number) for number in range(4)]


def sealed() -> list[bytes]:
    chain = Chain("i/0/b")
    return [chain.seal(record) for record in RECORDS]


def walk(lines: list[bytes]) -> bytes:
    head = START
    for number, line in enumerate(lines):
        head = follow(line, number, head)
    return head


def test_a_line_is_its_record_with_number_and_hash_as_the_reference_says() -> None:
    first, second, *_ = sealed()
    found = json.loads(second)
    assert list(found) == ["n", "text", "seq", "hash"] and (found["n"], found["seq"]) == (1, 2)
    before = bytes.fromhex(json.loads(first)["hash"])
    assert found["hash"] == sha256(before + second[: second.index(b',"hash"')]).hexdigest()
    assert second.endswith(b'"}\n') and place(second) == (2, bytes.fromhex(found["hash"]))


def test_what_was_written_is_followed_to_its_head() -> None:
    chain = Chain("i/0/b")
    lines = [chain.seal(record) for record in RECORDS]
    assert walk(lines) == chain.head and chain.seq == len(RECORDS)


def test_every_bit_counts() -> None:
    lines = sealed()
    for bit in range(len(lines[1]) * 8):
        changed = bytearray(lines[1])
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Broken):
            walk([lines[0], bytes(changed), *lines[2:]])


@pytest.mark.parametrize(
    ("order", "says"),
    [
        pytest.param([0, 2, 3], "record 2 is missing before it", id="one left out"),
        pytest.param([0, 3], "records 2 to 3 are missing before it", id="two left out"),
        pytest.param([0, 2, 1, 3], "record 2 is missing before it", id="two swapped"),
        pytest.param([0, 1, 1], "it is number 2, and stands behind number 2", id="one twice"),
        pytest.param([1, 2], "record 1 is missing before it", id="the beginning"),
    ],
)
def test_other_orders_are_named(order: list[int], says: str) -> None:
    lines = sealed()
    with pytest.raises(Broken, match=says):
        walk([lines[number] for number in order])


def test_a_line_of_another_chain_does_not_fit() -> None:
    other = Chain("i/0/c")
    foreign = [other.seal(b'{"other":true}') for _ in range(2)]
    with pytest.raises(Broken, match="its hash is not that of its bytes"):
        walk([sealed()[0], foreign[1]])


def test_a_number_that_is_wrong_and_sealed_is_refused() -> None:
    forger = Chain("i/0/b", seq=6)
    with pytest.raises(Broken):
        walk([forger.seal(RECORDS[0])])
    with pytest.raises(Broken, match="its number is not 1"):
        walk([Chain("i/0/b", seq=-2).seal(RECORDS[0])])


@given(st.binary(max_size=200))
def test_any_other_bytes_are_no_line(data: bytes) -> None:
    with pytest.raises(Broken):
        follow(data, 0, START)
