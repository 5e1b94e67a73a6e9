"""Which calls wait for the disk."""

from __future__ import annotations

from typing import Any

import pytest

from narthex.flow.policy.durability import Durability, durability_of, refusing
from narthex.flow.route.target import Target
from narthex.types import Durable, EndpointSpec
from tests.flow.gateway import snapshot

GET, PUT = (Target("one", name, b"") for name in ("get_it", "put_it"))
READS = ("one__get_*",)


@pytest.mark.parametrize(
    ("durable", "method", "target", "waits"),
    [
        pytest.param("writes", "tools/call", PUT, True, id="a tool may change something"),
        pytest.param("writes", "tools/call", GET, False, id="one that the operator calls a reading one does not"),
        pytest.param("writes", "tools/call", None, True, id="of one that is not known (yet) nobody knows"),
        pytest.param("writes", "tasks/cancel", None, True, id="a task that ends is a change"),
        pytest.param("writes", "tasks/get", None, False, id="asking for one is none"),
        pytest.param("writes", "resources/read", PUT, False, id="reading reads"),
        pytest.param("writes", "prompts/get", PUT, False, id="prompts too"),
        pytest.param("all", "resources/read", PUT, True, id="all is all"),
        pytest.param("all", "tools/call", GET, True, id="all, patterns or not"),
        pytest.param("none", "tools/call", PUT, False, id="none is none"),
    ],
)
def test_who_waits(durable: Durable, method: str, target: Target | None, waits: bool) -> None:
    assert Durability(durable, READS).asks(method, target) is waits


def test_where_nothing_is_recorded_nobody_waits() -> None:
    assert durability_of(snapshot({}, audit_durable="all", audit_blocks=True)) is None
    assert durability_of(snapshot({}, audit_dir="x")) is None, "and nobody minds what is not"
    found = durability_of(snapshot({}, audit_dir="x", audit_blocks=True))
    assert found is not None and found["default"].blocks and not found["default"].asks("tools/call", PUT)


@pytest.mark.parametrize(
    ("general", "own", "waits", "blocks"),
    [
        pytest.param(("writes", True), (None, None), True, True, id="as it is said for all"),
        pytest.param(("writes", True), ("none", False), False, False, id="less than for all"),
        pytest.param(("none", False), ("all", True), True, True, id="more than for all"),
        pytest.param(("writes", True), (None, False), True, False, id="one of the two"),
        pytest.param(("writes", False), ("none", None), False, False, id="the other"),
    ],
)
def test_an_endpoint_goes_before_what_is_said_for_all(general: Any, own: Any, waits: bool, blocks: bool) -> None:
    endpoints = {"a": EndpointSpec("a", (), durable=own[0], blocks=own[1]), "b": EndpointSpec("b", (), durable="all")}
    one = snapshot({}, endpoints, audit_dir="x", audit_durable=general[0], audit_blocks=general[1])
    found = durability_of(one)
    assert found is not None and (found["a"].asks("tools/call", PUT), found["a"].blocks) == (waits, blocks)
    assert found["b"].asks("prompts/get", None), "another has its own"
    assert found[""].asks("tools/call", PUT) == (general[0] == "writes"), "one that is gone: as it is said for all"
    assert ("a" in refusing(one)) is blocks
