"""Arguments that mean the same are found by the same digest; others by none."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.playback.arguments import canonical, differing, keys_of

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | NUMBERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4), max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(b'{"a":1,"b":2}', b'{ "b": 2, "a": 1 }', True, id="order and spaces"),
        pytest.param(b'{"a":1.0}', b'{"a":1}', True, id="whole numbers"),
        pytest.param(b'{"a":1e3}', b'{"a":1000}', True, id="exponents"),
        pytest.param(b'{"a":-0.0}', b'{"a":0}', True, id="zero has no sign"),
        pytest.param(b'{"a":"\\u00e9"}', '{"a":"é"}'.encode(), True, id="escapes"),
        pytest.param(b"", b"{}", True, id="none at all"),
        pytest.param(b"null", b"{}", True, id="null"),
        pytest.param(b'{"a":1}', b'{"a":"1"}', False, id="a text is no number"),
        pytest.param(b'{"a":null}', b"{}", False, id="a member that is null is there"),
        pytest.param(b'{"a":[1,2]}', b'{"a":[2,1]}', False, id="the order of a list counts"),
        pytest.param(b'{"a":true}', b'{"a":1}', False, id="true is no number"),
        pytest.param(b'{"a":9007199254740993}', b'{"a":9007199254740992}', False, id="large numbers"),
        pytest.param(b'{"a":1e400}', b'{"a":null}', False, id="a number beyond all is not null"),
        pytest.param(b'{"a":', b'{"a"', False, id="no JSON"),
    ],
)
def test_same(one: bytes, other: bytes, same: bool) -> None:
    assert bool(keys_of(one) & keys_of(other)) is same


@given(values)
def test_whatever_text_a_value_has_it_is_found(value: Any) -> None:
    plain, spread = json.dumps(value).encode(), json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    assert keys_of(plain) & keys_of(spread.encode("utf-8", "replace"))
    same = canonical(plain)
    assert same is not None and canonical(same) == same


@given(st.binary())
def test_anything_has_the_digest_of_its_bytes(raw: bytes) -> None:
    assert f"sha256:{sha256(raw or b'{}').hexdigest()}" in keys_of(raw)


def test_the_names_of_members_that_differ() -> None:
    assert differing(b'{"a":1,"b":2,"c":3}', b'{"a":1,"b":3,"d":4}') == ("b", "c", "d")
    assert differing(b"[1]", b'{"a":1}') == () == differing(b"no", b"{}")


def test_depth_without_end_is_no_fault() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    assert canonical(deep) is None and len(keys_of(deep)) == 1
