"""A reload that leaves `policy` alone leaves the engine alone; another one is another engine."""

from __future__ import annotations

from typing import Any

from narthex.authority.fetch import Fetched
from narthex.engines.policies import Policies
from narthex.types import OpaSpec


async def nobody(url: str, **how: Any) -> Fetched:
    raise AssertionError("nothing is asked before there is a call")


def test_the_engine_lasts_as_long_as_its_spec() -> None:
    policies = Policies(fetch=nobody, secrets=str, clock=lambda: 0.0)
    one, other = OpaSpec("http://127.0.0.1:1", "a"), OpaSpec("http://127.0.0.1:1", "b")
    assert policies.make(None) is None
    first = policies.make(one)
    policies.use(one, first)
    assert policies.make(OpaSpec("http://127.0.0.1:1", "a")) is first
    second = policies.make(other)
    assert second is not first and policies.make(one) is first, "nothing has changed until it is used"
    policies.use(other, second)
    assert policies.make(other) is second
    policies.use(None, policies.make(None))
    assert policies.problem == ""
