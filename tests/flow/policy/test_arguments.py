"""What rules see of arguments, and that exactly that is sent on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.policy.arguments import LONG_NUMBER, fits_64_bits, read_arguments, sent
from narthex.flow.policy.unreadable import Unreadable

MOST = (1 << 63) - 1


@pytest.mark.parametrize(
    ("raw", "readable"),
    [
        pytest.param(b'{"a": 1}', True, id="an object"),
        pytest.param(b"[1]", False, id="no object"),
        pytest.param(b'"1"', False, id="a text"),
        pytest.param(b'{"a": %d}' % MOST, True, id="the largest integer of 64 bits"),
        pytest.param(b'{"a": %d}' % (MOST + 1), False, id="one more"),
        pytest.param(b'{"a": %d}' % (-MOST - 1), True, id="the smallest"),
        pytest.param(b'{"a": %d}' % (-MOST - 2), False, id="one less"),
        pytest.param(b'{"a": [{"b": %d}]}' % (MOST + 1), False, id="at any depth"),
        pytest.param(b'{"%d": "%d", "b": [true, 1e300]}' % (MOST + 1, MOST + 1), True, id="a text is no integer"),
    ],
)
def test_what_can_be_spoken_of(raw: bytes, readable: bool) -> None:
    found = read_arguments(raw)
    assert (type(found) is dict, type(found) is Unreadable) == (readable, not readable)
    assert msgspec.json.decode(sent(found)) == msgspec.json.decode(raw)


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(-(1 << 65), 1 << 65),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(value=JSON)
def test_without_a_long_number_every_integer_fits(value: Any) -> None:
    raw = msgspec.json.encode(value)
    assert LONG_NUMBER(raw) is not None or fits_64_bits(msgspec.json.decode(raw))
