"""Rules in shadow mode decide nothing, whatever they are and say; and the record says what they would have decided."""

from __future__ import annotations

from typing import Any

import pytest

from narthex.flow.policy.decision import Decision
from narthex.flow.policy.shadow import Shadow
from narthex.testing import FakeServer
from narthex.types import Grant, LabelRow, Patterns, RunRule, RunSpec
from tests.flow.accept.test_recording import recorded
from tests.flow.gateway import Client, Running, run, spec
from tests.flow.policy.judge import DENY, HOLD, Judge, allow
from tests.flow.upstream.test_fleet import tools

GRANTED = Grant("all", "allow", tools=("*",))
ALLOWED = ("allow", "allowed_by_policy")
NOT_PAY = Grant("no pay", "deny", tools=("one__pay",), when="args.amount > 5", line=9)
NO_PAY = Grant("no pay", "deny", tools=("one__pay",), when="args.amount > 5", line=9, shadow=True)


def runs(*, shadow: bool, effect: Any = "deny") -> dict[str, Any]:
    """After a read nothing may be paid."""
    rule = RunRule("no way out", effect, Patterns(tools=("one__pay",)), labels=("untrusted",), line=5, shadow=shadow)
    return {"runs": RunSpec(labels=(LabelRow(("untrusted",), Patterns(tools=("one__read",))),), rules=(rule,))}


async def call(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.modern("tools/call", {"name": f"one__{name}", "arguments": arguments})
    message: dict[str, Any] = answer.messages[-1]
    return message


def said(record: dict[str, Any], member: str) -> tuple[str, str]:
    return record[member]["effect"], record[member]["reason"]


def raises(asked: dict[str, Any]) -> Any:
    raise RuntimeError("the policy is broken")


@pytest.mark.parametrize("slow", [False, True], ids=["from memory", "later"])
@pytest.mark.parametrize(
    ("rule", "would"),
    [
        pytest.param(lambda asked: True, ("allow", "allowed_by_policy"), id="it would allow"),
        pytest.param(lambda asked: DENY, ("deny", "denied_by_policy"), id="it would deny"),
        pytest.param(lambda asked: HOLD, ("hold", "approval_required"), id="it would hold"),
        pytest.param(lambda asked: allow(("rewrite", {"amount": 0})), ALLOWED, id="it would rewrite"),
        pytest.param(lambda asked: allow(("redact", ("/content",))), ALLOWED, id="it would redact"),
        pytest.param(raises, ("deny", "policy_failed"), id="it fails"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("grants", [(), (GRANTED,)], ids=["alone", "beside grants"])
def test_a_policy(rule: Any, would: tuple[str, str], slow: bool, grants: tuple[Grant, ...]) -> None:
    async def main() -> None:
        engine = Judge(rule, slow=slow)
        settings = {"policy_shadow": True, "grants": grants}
        async with (
            FakeServer(tools=tools("pay")) as one,
            Running({"one": spec("one", one.url)}, settings=settings, engine=engine) as gateway,
        ):
            client, found = await gateway.client(), recorded(gateway)
            assert [tool["name"] for tool in (await client.modern("tools/list")).result["tools"]] == ["one__pay"]
            assert "result" in await call(client, "pay", amount=7)
            assert [asked["action"] for asked in engine.asked] == ["tools/call"], "it hides nothing, and is not asked"
            assert one.asked[-1].params["arguments"] == {"amount": 7}
            (record,) = found
            assert said(record, "policy") == ("allow", "granted" if grants else "no_rules")
            assert said(record, "shadow") == would and record["decision"] == "allow"
            assert "engine" not in record["policy"] and "input" not in record

    run(main)


@pytest.mark.parametrize(
    ("effect", "would"), [("deny", ("deny", "run_labels")), ("hold", ("hold", "run_labels"))], ids=["deny", "hold"]
)
def test_a_rule_over_several_calls(effect: Any, would: tuple[str, str]) -> None:
    async def main() -> None:
        async with (
            FakeServer(tools=tools("read", "pay")) as one,
            Running({"one": spec("one", one.url)}, settings=runs(shadow=True, effect=effect)) as gateway,
        ):
            client, found = await gateway.client(), recorded(gateway)
            for name in ("pay", "read", "pay"):
                assert "result" in await call(client, name)
            assert [said(one, "policy") for one in found] == [("allow", "no_rules")] * 3
            assert [said(one, "shadow") for one in found] == [("allow", "no_rules")] * 2 + [would]
            assert (found[2]["shadow"]["rule"], found[2]["shadow"]["line"]) == ("no way out", 5)

    run(main)


def test_it_says_what_all_rules_together_would_not_only_the_grants() -> None:
    """What counts of the others counts in the shadow, too: an engine's denial is no allowance of a new grant."""

    async def main() -> None:
        engine = Judge(lambda asked: asked["action"] == "list" or asked["mcp"]["arguments"].get("amount") != 8)
        settings = {"grants": (GRANTED,), "trial": (GRANTED, NO_PAY), **runs(shadow=False)}
        async with (
            FakeServer(tools=tools("read", "pay")) as one,
            Running({"one": spec("one", one.url)}, settings=settings, engine=engine) as gateway,
        ):
            client, found = await gateway.client(), recorded(gateway)
            for amount, refused in ((1, False), (7, False), (8, True)):
                assert ("error" in await call(client, "pay", amount=amount)) is refused
            await call(client, "read")
            assert (await call(client, "pay", amount=1))["error"]["data"]["reason"] == "run_labels"
            assert [said(one, "shadow") for one in found] == [
                ("allow", "allowed_by_policy"), ("deny", "denied_by_rule"), ("deny", "denied_by_policy"),
                ("allow", "allowed_by_policy"), ("deny", "run_labels"),
            ]  # fmt: skip

    run(main)


def test_without_anything_in_shadow_mode_nothing_is_said() -> None:
    async def main() -> None:
        settings = {"grants": (GRANTED, NOT_PAY), **runs(shadow=False)}
        async with (
            FakeServer(tools=tools("pay")) as one,
            Running({"one": spec("one", one.url)}, settings=settings) as gateway,
        ):
            client, found = await gateway.client(), recorded(gateway)
            await call(client, "pay", amount=1)
            assert "shadow" not in found[0]

    run(main)


YES, NO, WAIT = Decision("allow", "a"), Decision("deny", "d"), Decision("hold", "h")


@pytest.mark.parametrize(
    ("granted", "parts", "would"),
    [
        pytest.param(YES, {}, YES, id="grants alone"),
        pytest.param(YES, {"would_watch": WAIT}, WAIT, id="a hold over an allowance"),
        pytest.param(WAIT, {"would_watch": YES}, WAIT, id="not the other way"),
        pytest.param(WAIT, {"watched": NO}, NO, id="a denial over a hold"),
        pytest.param(NO, {"watched": WAIT, "would_say": YES}, NO, id="the grants deny"),
        pytest.param(YES, {"would_watch": NO, "said": YES}, NO, id="an engine allows what a rule denies"),
        pytest.param(YES, {"said": YES, "would_say": NO}, NO, id="an engine denies"),
    ],
)
def test_who_wins(granted: Decision, parts: dict[str, Decision], would: Decision) -> None:
    shadow = Shadow()
    for name, decision in parts.items():
        setattr(shadow, name, decision)
    assert shadow.decision(granted).effect == would.effect
