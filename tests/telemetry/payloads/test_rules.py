"""What is kept of which calls: the first rule that fits, for each part; and a policy's word before all of them."""

from __future__ import annotations

from typing import Any

import pytest

from narthex.flow.policy.site import Site
from narthex.kept import PayloadRule, PayloadSpec
from narthex.telemetry.payloads.rules import MOST_KNOWN, KeptParts, Rules
from narthex.types import DataSpec

SITE = Site("", DataSpec({"crm": ("confidential", ""), "web": ("public", "")}))
RESULT, ARGUMENTS = frozenset({"result"}), frozenset({"arguments"})


def rules(*some: PayloadRule) -> Rules:
    return Rules(PayloadSpec(some), SITE)


def kept(one: Rules, server: str = "crm", name: str = "find", **more: Any) -> tuple[str, str] | None:
    found = one.of(more.pop("endpoint", "default"), more.pop("kind", "tools"), server, name, **more)
    return (found.arguments, found.result) if found is not None else None


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        pytest.param(PayloadRule("full"), True, id="a rule without patterns fits every call"),
        pytest.param(PayloadRule("full", tools=("crm__f*",)), True, id="a tool"),
        pytest.param(PayloadRule("full", tools=("crm__x*", "web__*")), False, id="another tool"),
        pytest.param(PayloadRule("full", prompts=("*",)), False, id="patterns of prompts fit no tool"),
        pytest.param(PayloadRule("full", prompts=("*",), tools=("*",)), True, id="any of the patterns"),
        pytest.param(PayloadRule("full", servers=frozenset({"crm"})), True, id="a server"),
        pytest.param(PayloadRule("full", servers=frozenset({"web"})), False, id="another server"),
        pytest.param(PayloadRule("full", endpoints=frozenset({"default"})), True, id="an endpoint"),
        pytest.param(PayloadRule("full", endpoints=frozenset({"x"})), False, id="another endpoint"),
        pytest.param(PayloadRule("full", classification=frozenset({"confidential"})), True, id="a class"),
        pytest.param(PayloadRule("full", classification=frozenset({"public"})), False, id="another class"),
        pytest.param(PayloadRule("full", tools=("*",), servers=frozenset({"web"})), False, id="all of it must fit"),
    ],
)  # fmt: skip
def test_a_rule_fits(rule: PayloadRule, fits: bool) -> None:
    assert kept(rules(rule)) == (("full", "full") if fits else None)


def test_the_first_that_fits_counts_for_each_part() -> None:
    one = rules(PayloadRule("redacted", RESULT), PayloadRule("none", ARGUMENTS, tools=("crm__*",)), PayloadRule("full"))
    assert kept(one) == ("none", "redacted") and kept(one, "web") == ("full", "redacted")


def test_what_is_not_classed_is_restricted() -> None:
    assert rules(PayloadRule("full")).of("default", "tools", "other", "x") == KeptParts("full", "full", "restricted")


@pytest.mark.parametrize(
    ("log", "found"),
    [("full", ("full", "full")), ("redacted", ("redacted", "redacted")), ("meta", None), ("none", None)],
)
def test_a_policy_has_the_first_word(log: str, found: tuple[str, str] | None) -> None:
    assert kept(rules(PayloadRule("full")), log=log) == found
    assert kept(rules(), log=log) == found


def test_the_task_is_kept_by_a_rule_that_names_it() -> None:
    asked = rules(PayloadRule("redacted", frozenset(["task"])), PayloadRule("full"))
    found = asked.of("default", "tools", "one", "x")
    assert found is not None and (found.task, found.arguments, found.result) == ("redacted", "full", "full")
    by_policy = asked.of("default", "tools", "one", "x", "redacted")
    assert by_policy is not None and (by_policy.task, by_policy.arguments) == ("redacted", "redacted")
    assert asked.of("default", "tools", "one", "x", "none") is None
    plain = rules(PayloadRule("full")).of("default", "tools", "one", "x")
    assert plain is not None and plain.task == "none", "a rule that names no parts is as it was"


def test_names_without_end_do_not_fill_the_memory() -> None:
    one = rules(PayloadRule("full"))
    for number in range(MOST_KNOWN + 100):
        assert kept(one, name=str(number)) == ("full", "full")
    assert len(one._known) == MOST_KNOWN
