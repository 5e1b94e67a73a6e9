"""The admin side by grants: the role may do all that nobody denies, others what they are granted."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from narthex.flow.policy.admin import AdminRules, action_of, admin_grants, admins_of, is_for_calls
from narthex.flow.policy.decision import Decision
from narthex.types import ANONYMOUS, Grant, Principal, Who
from tests.flow.gateway import snapshot
from tests.flow.policy.judge import HOLD, Judge, allow

ADMIN = Principal("default", "i", "root", roles=("admin",), method="jwt")
LEAD = Principal("default", "i", "lead", roles=("lead",), method="jwt")
DEV = Principal("default", "i", "dev", roles=("dev",), method="jwt")


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        pytest.param("POST", "/api/v1/reload", "reload", id="an action of its own"),
        pytest.param("GET", "/api/v1/servers", "servers.read", id="a list"),
        pytest.param("HEAD", "/api/v1/servers/one", "servers.read", id="one of it"),
        pytest.param("POST", "/api/v1/approvals/17/approve", "approvals.approve", id="an action on one"),
        pytest.param("PUT", "/api/v1/keys/17", "keys.write", id="a change"),
        pytest.param("POST", "/api/v1/keys/17", "keys.write", id="a change by POST"),
        pytest.param("DELETE", "/api/v1/keys/17", "keys.delete", id="a deletion"),
        pytest.param("POST", "/api/v1/approvals/17/*", "approvals.write", id="no pattern comes from a path"),
        pytest.param("GET", "/metrics", "other", id="not of the API"),
        pytest.param("POST", "/api/v1/../reload", "other", id="no way round"),
        pytest.param("POST", "/api/v1/", "other", id="nothing"),
    ],
)
def test_action(method: str, path: str, action: str) -> None:
    assert action_of(method, path) == action


def decided(rules: AdminRules, who: Principal, action: str, address: str = "") -> Decision:
    decision = asyncio.run(rules.check(who, action, address)).decision
    assert decision is not None
    return decision


RULES = (
    Grant("leads approve", "allow", Who(role=("lead",)), admin=("approvals.*",), line=3),
    Grant("office", "allow", Who(role=("dev",)), admin=("reload",), networks=(ip_network("10.0.0.0/8"),), line=4),
    Grant("nobody", "deny", admin=("keys.delete",), line=5),
    Grant("tried", "deny", admin=("*",), shadow=True),
    Grant("calls", "allow", tools=("a__*",)),
)


@pytest.mark.parametrize(
    ("who", "action", "address", "said"),
    [
        pytest.param(ADMIN, "reload", "", ("allow", "the admin role"), id="the role"),
        pytest.param(ADMIN, "keys.delete", "", ("deny", ""), id="a denial hits the role, too"),
        pytest.param(LEAD, "approvals.approve", "", ("allow", "leads approve"), id="granted"),
        pytest.param(LEAD, "reload", "", ("deny", ""), id="not granted"),
        pytest.param(DEV, "reload", "10.1.1.1", ("allow", "office"), id="from its network"),
        pytest.param(DEV, "reload", "192.168.1.1", ("deny", "office"), id="from another"),
        pytest.param(ANONYMOUS, "approvals.read", "", ("deny", ""), id="anonymous"),
    ],
)
def test_decision(who: Principal, action: str, address: str, said: tuple[str, str]) -> None:
    decision = decided(AdminRules(admin_grants(RULES), "admin", lambda: 0.0), who, action, address)
    assert (decision.effect, decision.rule) == said


def test_a_condition_knows_the_action() -> None:
    rule = Grant("by name", "allow", admin=("*",), when='resource.kind == "admin" && resource.name == "reload"')
    rules = AdminRules(admin_grants([rule]), "admin", lambda: 0.0)
    assert [decided(rules, DEV, action).effect for action in ("reload", "keys.write")] == ["allow", "deny"]


@pytest.mark.parametrize("slow", [False, True], ids=["from memory", "later"])
@pytest.mark.parametrize(
    ("says", "who", "effect", "reason"),
    [
        pytest.param(True, ADMIN, "allow", "allowed_by_policy", id="both allow"),
        pytest.param(False, ADMIN, "deny", "denied_by_policy", id="a policy denies the role"),
        pytest.param(True, DEV, "deny", "not_granted", id="a policy alone lets nobody in"),
        pytest.param(allow(("redact", ["/x"])), ADMIN, "deny", "unknown_obligation", id="what nobody can keep here"),
        pytest.param(HOLD, ADMIN, "hold", "approval_required", id="held is not allowed"),
    ],
)
def test_an_engine_has_its_say_where_it_is_asked(
    says: Any, who: Principal, effect: str, reason: str, slow: bool
) -> None:
    async def main() -> None:
        judge = Judge(lambda asked: says, slow=slow)
        check = await AdminRules((), "admin", lambda: 0.0, engine=judge).check(who, "reload", "10.1.1.1")
        assert check.decision is not None and (check.decision.effect, check.decision.reason) == (effect, reason)
        for asked in judge.asked:
            assert (asked["action"], asked["phase"]) == ("admin", "admin")
            assert asked["resource"]["kind"] == "admin" and asked["resource"]["upstream_name"] == "reload"

    asyncio.run(main())


def test_an_engine_is_asked_only_where_the_configuration_says_so() -> None:
    judge = Judge(lambda asked: False)
    for asked, effect in ((True, "deny"), (False, "allow")):
        rules = admins_of(snapshot({}, policy_admin=asked), lambda: 0.0, judge)
        assert decided(rules, ADMIN, "reload").effect == effect


def test_what_is_for_the_admin_side_alone_is_not_for_calls() -> None:
    assert [is_for_calls(one) for one in RULES] == [False, False, False, False, True]
    assert is_for_calls(Grant("both", "allow", tools=("a__*",), admin=("reload",)))
    assert is_for_calls(Grant("nothing", "allow"))
