"""What was used: the narrower grants allow every call that was allowed, and none that was not."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from narthex.flow.policy.evidence.again import Again
from narthex.flow.policy.evidence.recorded import Recorded
from narthex.flow.policy.evidence.usage import Excess, Usage, excess, review
from narthex.flow.policy.grants import Grants
from narthex.types import Grant, Principal, Who
from tests.flow.policy.evidence.test_replay import decided, recorded
from tests.flow.policy.test_grants import ARGS, EVERYBODY, GRANTS, NAMES, NOW, SUPPORT

CALLS = st.lists(st.tuples(st.sampled_from(EVERYBODY), NAMES | st.just("a__x*"), ARGS), min_size=1, max_size=12)


def used(grants: tuple[Grant, ...], records: list[Recorded]) -> Usage:
    async def main() -> Usage:
        usage, again = Usage(grants), Again(Grants(grants), {})
        for one in records:
            await usage.take(one, again)
        return usage

    return asyncio.run(main())


def suggested(grants: tuple[Grant, ...], found: list[Excess]) -> tuple[Grant, ...]:
    narrower = {one.grant.name: one.narrower for one in found if one.narrower is not None}
    unused = {one.grant.name for one in found if one.is_unused}
    return tuple(replace(one, **narrower.get(one.name, {})) for one in grants if one.name not in unused)


@given(st.lists(GRANTS, min_size=1, max_size=5, unique_by=lambda one: one.name), CALLS)
def test_the_narrower_set_allows_what_was_allowed_and_nothing_that_was_not(
    grants: list[Grant], calls: list[tuple[Principal, str, dict[str, Any]]]
) -> None:
    import json

    rules = Grants(tuple(grants))
    records = [recorded(*decided(rules, who, name, json.dumps(args).encode())) for who, name, args in calls]
    found = list(excess(used(tuple(grants), records)))
    less = suggested(tuple(grants), found)
    before, after = Again(rules, {}), Again(Grants(less), {})
    for one in records:
        was, now = asyncio.run(before.decide(one.asked)), asyncio.run(after.decide(one.asked))
        assert (was.effect, was.rule) == (now.effect, now.rule) or (was.effect, now.effect) == ("deny", "deny")
    for name in ("a__x", "a__xy", "a__delete_x", "b__x", "b__", "a__b__x", "é__ü", "a__*", "a__x*"):
        check, call = decided(rules, SUPPORT, name, b"{}")
        other, _ = decided(Grants(less), SUPPORT, name, b"{}")
        assert check.decision is not None and other.decision is not None
        assert check.decision.effect != "deny" or other.decision.effect == "deny", "what was denied is not opened"


def test_a_hold_is_never_narrowed() -> None:
    grants = (Grant("held", "hold", tools=("a__*",)), Grant("all", "allow", tools=("a__x", "a__y")))
    found = list(excess(used(grants, [recorded(*decided(Grants(grants), SUPPORT, "a__x", b"{}"))])))
    assert [one.grant.name for one in found] == ["all"]


def test_many_names_keep_their_pattern() -> None:
    grants = (Grant("all", "allow", tools=("a__*",)),)
    records = [recorded(*decided(Grants(grants), SUPPORT, f"a__t{number}", b"{}")) for number in range(51)]
    (one,) = excess(used(grants, records))
    assert (one.used, one.narrower) == (51, None)


def test_a_review_has_only_what_counts_for_the_caller_now() -> None:
    grants = (
        Grant("reads", "allow", tools=("a__x",)),
        Grant("old", "allow", tools=("a__y",), expires_at=NOW - 1),
        Grant("others", "allow", Who(role=("nobody",)), tools=("a__z",)),
        Grant("spare", "allow", prompts=("a__*",)),
        Grant("never", "deny", tools=("b__*",)),
    )
    usage = used(grants, [recorded(*decided(Grants(grants), SUPPORT, "a__x", b"{}"))])
    rows = [(row.kind, row.resource, row.rule, one is not None) for row, one in review(usage, NOW)]
    assert rows == [("tools", "a__x", "reads", True), ("prompts", "a__*", "spare", False)]


def test_one_use_of_a_grant_does_not_hide_its_other_patterns() -> None:
    grants = (Grant("all", "allow", tools=("a__*", "b__*", "*__x"), prompts=("a__*",)),)
    usage = used(grants, [recorded(*decided(Grants(grants), SUPPORT, "a__x", b"{}"))])
    rows = [(row.kind, row.resource) for row, one in review(usage, NOW) if one is None]
    assert rows == [("tools", "b__*"), ("prompts", "a__*")]


def test_a_call_that_a_person_did_not_approve_is_no_use() -> None:
    grants = (Grant("held", "hold", tools=("a__x",)),)
    one = recorded(*decided(Grants(grants), SUPPORT, "a__x", b"{}"))
    assert [used(grants, [replace(one, went=went)]).allowed for went in (True, False)] == [1, 0]
