"""An agent's answers are read whole or refused: nothing of them lets a call through by itself."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.policy.engines.opa import Nonsense, read_all, read_batch, read_fault, read_one


def provenance(**bundles: str) -> dict[str, Any]:
    return {"version": "1", "bundles": {name: {"revision": revision} for name, revision in bundles.items()}}


@pytest.mark.parametrize(
    ("said", "revision"),
    [
        pytest.param({}, "", id="nothing"),
        pytest.param({"provenance": provenance(a="r1")}, "r1", id="one bundle"),
        pytest.param({"provenance": provenance(b="r2", a="r1")}, "a=r1,b=r2", id="several, in one order"),
        pytest.param({"provenance": provenance(a="")}, "", id="a bundle without a revision"),
        pytest.param({"provenance": {"revision": "r1"}}, "r1", id="the old form"),
        pytest.param({"provenance": provenance(a="x" * 1000)}, "x" * 256, id="one without an end"),
    ],
)
def test_the_revision_that_decided(said: dict[str, Any], revision: str) -> None:
    assert read_one(json.dumps({"result": True} | said).encode()).bundle == revision


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(b'{"code": "internal_error", "message": "no"}', "HTTP 500 internal_error: no", id="OPA's own"),
        pytest.param(b'{"message": "no"}', "HTTP 500 no", id="half of it"),
        pytest.param(b"<html>", "HTTP 500", id="a page"),
        pytest.param(b"", "HTTP 500", id="nothing"),
    ],
)
def test_what_went_wrong(body: bytes, said: str) -> None:
    assert read_fault(500, body) == said


def test_a_batch_that_says_nothing_is_undefined() -> None:
    found = read_batch(b'{"batch_decision_id": "b"}', 2)
    assert [one.reason for one in found if one is not None] == ["policy_undefined"] * 2


def test_a_batch_with_an_answer_too_few_is_none() -> None:
    with pytest.raises(Nonsense):
        read_batch(b'{"responses": {"0": {"result": true}}}', 2)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["result", "responses", "allow", "0", "provenance"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_nothing_but_true_lets_anything_through(said: Any) -> None:
    body = json.dumps(said).encode()
    result = said.get("result") if isinstance(said, dict) else None
    try:
        found = read_one(body)
    except Nonsense:
        pass
    else:
        allows = result is True or (isinstance(result, dict) and result.get("allow") is True)
        assert found.effect == "deny" or allows
    for read in (read_all, read_batch):
        with contextlib.suppress(Nonsense):
            assert len(read(body, 1)) == 1
