"""The engine that is built in, as calls and lists ask it: both ways, what goes wrong, and what is remembered."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.engines.embedded import Inline, Rego, embedded
from narthex.engines.frames import Flawed
from narthex.flow.policy.document import Document
from tests.engines.policies import ENTRY, HEAD, LOOPS, REAL, ROLES, bundle, document, source
from tests.flow.gateway import run

Way = Literal["helper", "inline"]
EACH_WAY = pytest.mark.parametrize("way", ["helper", "inline"])
CLOCK = [1_800_000_000.0]


@asynccontextmanager
async def engine(
    text: str, way: Way, data: dict[str, Any] | None = None, deadline_s: float = 5.0
) -> AsyncIterator[Rego]:
    one = await embedded(bundle(text, data), ENTRY, way, deadline_s, lambda: CLOCK[0])
    try:
        yield one
    finally:
        one.close()


async def ask(one: Rego, asked: Document) -> tuple[str, str, str]:
    found = one.known(asked) or await one.decide(asked)
    return found.effect, found.reason, found.detail


@EACH_WAY
def test_decisions(way: Way) -> None:
    async def main() -> None:
        async with engine(REAL, way, ROLES) as one:
            assert one.name == "rego" and one.bundle.startswith("sha256:") and one.reads_arguments
            assert await ask(one, document({"amount": 5}, roles=("role3",))) == (
                "allow", "allowed_by_policy", "a role grants it",
            )  # fmt: skip
            assert await ask(one, document({"amount": 500}, roles=("role3",))) == (
                "deny", "denied_by_policy", "too much at once",
            )  # fmt: skip
            found = await one.decide(document({"amount": 5}, roles=("role3",)))
            assert [(each.kind, each.value) for each in found.obligations] == [("max_results", 100)]
            seen = await one.decide_all([document(roles=roles, lists=True) for roles in (("role3",), (), ("x",))])
            assert [each.effect for each in seen] == ["allow", "deny", "deny"]

    run(main)


@EACH_WAY
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("decision := 1 / 0", ("deny", "policy_failed"), id="the engine fails"),
        pytest.param("decision := 7", ("deny", "bad_policy_result"), id="no decision"),
        pytest.param('decision := "<undefined>"', ("deny", "policy_undefined"), id="the engine's own word"),
        pytest.param('decision := {"allow": true, "obligations": {"x": 1}}', ("deny", "unknown_obligation"), id="x"),
        pytest.param("decision if false", ("deny", "policy_undefined"), id="undefined"),
    ],
)
def test_what_goes_wrong_denies(way: Way, text: str, expected: tuple[str, str]) -> None:
    lists = 'decision := true if input.action == "list"\n'
    head, _, value = text.partition(" := ")
    rule = f'{head} := {value} if input.action != "list"' if value else 'decision := true if input.action == "never"'

    async def main() -> None:
        async with engine(HEAD + lists + rule, way) as one:
            assert (await ask(one, document({"a": 1})))[:2] == expected
            assert (await ask(one, document(lists=True)))[0] == "allow", "and goes on"

    run(main)


def test_helpers_that_are_killed_or_slow_deny_with_their_own_reasons() -> None:
    async def main() -> None:
        async with engine(LOOPS, "helper", deadline_s=0.3) as one:
            assert (await ask(one, document({"loop": True})))[:2] == ("deny", "policy_timeout")
            asked = asyncio.ensure_future(ask(one, document({"loop": True, "n": 2})))
            await asyncio.sleep(0)
            os.kill(one.pids()[0], signal.SIGKILL)
            assert (await asked)[:2] == ("deny", "policy_failed")
            assert (await ask(one, document({"amount": 1})))[0] == "allow"

    run(main)


@EACH_WAY
def test_numbers_that_the_engine_would_round_are_denied(way: Way) -> None:
    async def main() -> None:
        async with engine(LOOPS, way) as one:
            big = document({"amount": 5, "id": 2**63})
            try:
                found = one.known(big) or await one.decide(big)
            except Exception as error:
                assert "64 bits" in str(error), "whoever asks makes a denial of it"
            else:
                assert (found.effect, found.reason) == ("deny", "policy_failed")
                assert "64 bits" in found.detail

    run(main)


@pytest.mark.parametrize("way", ["helper", "inline"])
def test_a_bundle_that_cannot_be_used_is_refused(way: Way) -> None:
    async def main() -> None:
        for text in ("decision := {", "decision if input.x", "default decision := f(1)\nf(x) := f(x)"):
            with pytest.raises(Flawed):
                async with engine(HEAD + text, way):
                    pass

    run(main)


@EACH_WAY
@pytest.mark.parametrize(
    "rule",
    [
        "decision if sum(input.mcp.arguments.x) == 1",
        'decision if net.cidr_contains(input.mcp.arguments.x, "1.1.1.1")',
        "decision if time.parse_rfc3339_ns(input.mcp.arguments.x) > 1",
    ],
)
def test_why_it_failed_says_nothing_of_the_arguments(way: Way, rule: str) -> None:
    """It goes into logs and records, also of those who keep no arguments in them."""

    async def main() -> None:
        async with engine(HEAD + "default decision := false\n\n" + rule, way) as one:
            effect, reason, detail = await ask(one, document({"x": "hunter2"}))
            assert (effect, reason) == ("deny", "policy_failed")
            assert detail.startswith("EngineError: it fails at this input") and "hunter2" not in detail

    run(main)


# --- what is remembered


def test_the_same_for_the_policy_is_asked_once() -> None:
    async def main() -> None:
        async with engine(REAL, "helper", ROLES) as one:
            asked = document({"amount": 5, "note": "a"}, roles=("role3",))
            assert one.known(asked) is None
            said = await one.decide(asked)
            assert one.known(document({"note": "b", "amount": 5}, roles=("role3",))) is said
            for other in (
                document({"amount": 6}, roles=("role3",)),
                document({"amount": 5.0}, roles=("role3",)),
                document({"amount": "5"}, roles=("role3",)),
                document({}, roles=("role3",)),
                document({"amount": 5}, roles=("role4",)),
                document({"amount": 5}, roles=("role3",), name="read"),
                document({"amount": 5}, roles=("role3",), address="11.0.0.1"),
            ):
                assert one.known(other) is None

    run(main)


def test_of_large_arguments_a_digest_is_remembered() -> None:
    async def main() -> None:
        async with engine(
            HEAD + "default decision := false\n\ndecision if count(input.mcp.arguments.a) > 5", "inline"
        ) as one:
            large = document({"a": "x" * 100_000})
            said = one.known(large)
            assert said is not None and one.known(document({"a": "x" * 100_000})) is said
            assert one.known(document({"a": "x" * 100_001})) is not said
            assert all(len(key) <= 4096 for keys in one.remembered._known for key in keys)

    run(main)


@pytest.mark.parametrize(
    ("rule", "remembers"),
    [
        pytest.param("decision := true", True, id="of nothing"),
        pytest.param("decision if time.now_ns() > 1", False, id="of the time"),
        pytest.param('decision if input.context.time > ""', False, id="of the time in the input"),
        pytest.param("decision if { x := input; x.action }", False, id="not known of what"),
    ],
)
def test_what_may_change_by_itself_is_not_remembered(rule: str, remembers: bool) -> None:
    async def main() -> None:
        async with engine(HEAD + rule, "helper") as one:
            await one.decide(document())
            assert (one.known(document()) is not None) is remembers
            assert (one.seen_s < 1e9) is not remembers

    run(main)


@pytest.mark.parametrize(("ttl", "for_s"), [(0, 0), (5, 5)])
def test_how_long_it_is_remembered_the_policy_may_say(ttl: int, for_s: int) -> None:
    rule = f'decision := {{"allow": time.now_ns() > 0, "obligations": {{"cache_ttl_s": {ttl}}}}}'

    async def main() -> None:
        async with engine(HEAD + rule, "helper") as one:
            await one.decide(document())
            if for_s:
                CLOCK[0] += for_s - 1
                assert one.known(document()) is not None
                CLOCK[0] += 1
            assert one.known(document()) is None

    run(main)


def test_failures_are_not_remembered() -> None:
    async def main() -> None:
        async with engine(HEAD + 'decision if 1 / input.mcp.arguments.n > 0\ndecision if input.action == "list"',
                          "helper") as one:  # fmt: skip
            await one.decide(document({"n": 0}))
            assert one.known(document({"n": 0})) is None

    run(main)


SOME = st.builds(
    document,
    st.none() | st.dictionaries(st.sampled_from(["amount", "x"]), st.sampled_from([1, 5, 1.0, 500, "5", None, True])),
    roles=st.lists(st.sampled_from(["role1", "role2", "admin"]), max_size=2).map(tuple),
    name=st.sampled_from(["refund", "delete_all", "read"]),
    server=st.sampled_from(["crm", "srv11"]),
    endpoint=st.sampled_from(["default", "internal"]),
    address=st.sampled_from(["10.0.0.1", "11.0.0.1", ""]),
    lists=st.booleans(),
)

LISTED = SOME.filter(lambda one: one.call is None)


@settings(max_examples=40, deadline=None)
@given(st.lists(SOME, max_size=30))
def test_what_is_remembered_is_what_would_be_decided(asked: list[Document]) -> None:
    remembering, fresh = Inline(source(REAL, ROLES)), Inline(source(REAL, ROLES))
    one = Rego("r", remembering.uses, remembering, lambda: 0.0)
    for each in asked:
        assert one.known(each) == Rego("r", fresh.uses, fresh, lambda: 0.0).known(each)
    remembering.close()
    fresh.close()


@settings(max_examples=60, deadline=None)
@given(LISTED, LISTED)
def test_those_who_see_the_same_are_those_of_whom_the_policy_reads_the_same(a: Document, b: Document) -> None:
    inline = Inline(source(REAL, ROLES))
    one = Rego("r", inline.uses, inline, lambda: 0.0)
    same = (a.principal.roles, a.endpoint) == (b.principal.roles, b.endpoint)
    assert (one.seen_by(a) == one.seen_by(b)) or not same
    inline.close()
