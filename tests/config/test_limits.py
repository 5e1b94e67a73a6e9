"""`limits`: what they become, and what is wrong with them at which place."""

from __future__ import annotations

from pathlib import Path

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import LimitRule, SecretName, SecretText, Webhook, WhenSpent, Who

HEAD = """version: 1
servers: {git: {url: "http://localhost:2/"}}
endpoints: {default: {servers: [git]}}
limits:
"""
MINUTE = 60_000_000


def examined(tmp_path: Path, *limits: str) -> Examined:
    file = tmp_path / "narthex.yaml"
    file.write_text(HEAD + "".join(f"  - {one}\n" for one in limits))
    return examine(file, env={})


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        pytest.param(
            "{name: a, per: [principal], calls: 60, window: 1m}",
            LimitRule("a", "calls", 60, ("principal",), window=MINUTE),
            id="a sliding window by default",
        ),
        pytest.param(
            "{name: a, calls: 60, window: 1m, algorithm: bucket, burst: 5}",
            LimitRule("a", "calls", 60, algorithm="bucket", window=MINUTE, burst=5),
            id="a bucket",
        ),
        pytest.param(
            "{name: a, per: [tenant, agent], bytes: 1GiB, window: calendar day, zone: Europe/Lisbon}",
            LimitRule(
                "a", "bytes", 1 << 30, ("tenant", "agent"), algorithm="calendar", period="day", zone="Europe/Lisbon"
            ),
            id="a day of the calendar",
        ),
        pytest.param(
            "{name: a, money: 5.00 USD, window: calendar month}",
            LimitRule("a", "money", 5_000_000, algorithm="calendar", period="month", currency="USD"),
            id="money",
        ),
        pytest.param(
            '{name: a, calls: 4, window: 1m, soft: true, alerts: ["80%", "50%"]}',
            LimitRule("a", "calls", 4, window=MINUTE, soft=True, alerts=(50, 80)),
            id="soft, with alerts",
        ),
        pytest.param(
            "{name: a, concurrent: 4, per: [server]}",
            LimitRule("a", "concurrent", 4, ("server",), algorithm="concurrent"),
            id="concurrent calls",
        ),
        pytest.param(
            '{name: a, calls: 1, window: 1h, algorithm: fixed, who: {role: x}, tools: ["g*"], endpoints: [default]}',
            LimitRule(
                "a", "calls", 1, algorithm="fixed", window=60 * MINUTE, who=Who(role=("x",)), tools=("g*",),
                endpoints=("default",),
            ),
            id="of some, for some",
        ),
        pytest.param(
            '{name: a, per: ["arg:/account/id", global], calls: 1, window: 1s}',
            LimitRule("a", "calls", 1, ("arg:/account/id", "global"), window=1_000_000),
            id="an argument, over all tenants",
        ),
    ],
)  # fmt: skip
def test_a_limit(tmp_path: Path, text: str, limit: LimitRule) -> None:
    found = examined(tmp_path, text)
    assert found.snapshot is not None, found.problems
    assert found.snapshot.quotas == (limit,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("{calls: 1, window: 1m}", "'name' is missing", id="no name"),
        pytest.param("{name: a, window: 1m}", "limits nothing: say one of calls, concurrent", id="no unit"),
        pytest.param("{name: a, calls: 1, bytes: 1B, window: 1m}", "has `calls` and `bytes`", id="two units"),
        pytest.param("{name: a, calls: 1}", "'window' is missing", id="no window"),
        pytest.param("{name: a, calls: 1, window: 10ms}", "out of bounds", id="a window too short"),
        pytest.param("{name: a, calls: 1, window: calender day}", "or `calendar` and one of hour, day", id="misspelt"),
        pytest.param("{name: a, calls: 1, window: calendar year}", "the calendar has hour, day", id="no such period"),
        pytest.param('{name: a, calls: 1, window: 1m, alerts: ["101%"]}', "is no share", id="more than all"),
        pytest.param("{name: a, calls: 0, window: 1m}", "out of bounds", id="nothing at all"),
        pytest.param("{name: a, concurrent: 1, window: 1m}", "counted at a time", id="concurrent in a window"),
        pytest.param("{name: a, calls: 1, window: 1m, burst: 2}", "goes with `algorithm: bucket`", id="a burst"),
        pytest.param("{name: a, calls: 1, window: 1m, zone: UTC}", "goes with a calendar's window", id="a zone"),
        pytest.param(
            "{name: a, calls: 1, window: 1m, algorithm: calendar}", "needs a window such as", id="a calendar without"
        ),
        pytest.param(
            "{name: a, calls: 1, window: calendar day, algorithm: sliding}", "not counted as `sliding`", id="a mixture"
        ),
        pytest.param("{name: a, per: [user], calls: 1, window: 1m}", "is none of principal", id="per what"),
        pytest.param("{name: a, per: [team], calls: 1, window: 1m}", "wants `teams`", id="teams, and none"),
        pytest.param(
            '{name: a, calls: 1, window: 1m, webhook: {url: "http://localhost/"}}',
            "goes with `alerts`",
            id="told of nothing",
        ),
        pytest.param(
            '{name: a, calls: 1, window: 1m, alerts: ["50%"], webhook: {secret: x}}',
            "'url' is missing",
            id="nobody is told",
        ),
        pytest.param("{name: a, calls: 1, window: 1m, when_spent: {use: x}}", "no name such as", id="no tool"),
        pytest.param("{name: a, calls: 1, window: 1m, when_spent: {use: x__y}}", "no server 'x'", id="no server"),
        pytest.param("{name: a, calls: 1, window: 1m, when_spent: {}}", "wants `refuse`", id="nothing instead"),
        pytest.param("{name: a, calls: 1, window: 1m, when_spent: {lower: {a: 5%}}}", "no other limit", id="itself"),
        pytest.param("{name: a, concurrent: 1, when_spent: hold}", "goes with limits", id="never spent"),
        pytest.param('{name: a, per: ["claim:"], calls: 1, window: 1m}', "is not a claim", id="no claim"),
        pytest.param('{name: a, per: ["arg:id"], calls: 1, window: 1m}', "a JSON pointer", id="no pointer"),
        pytest.param("{name: a, calls: 1, window: 1m, endpoints: [x]}", "no endpoint 'x'", id="no such endpoint"),
        pytest.param("{name: a, money: 5, window: 1m}", "is not an amount", id="no currency"),
        pytest.param("{name: a, money: 0.00 USD, window: 1m}", "a budget of nothing", id="no money at all"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    found = examined(tmp_path, text)
    assert any(problem in str(one) and ":5:" in str(one) for one in found.problems), found.problems


def test_names_are_told_apart(tmp_path: Path) -> None:
    found = examined(tmp_path, "{name: a, calls: 1, window: 1m}", "{name: a, calls: 2, window: 1m}")
    assert "a limit 'a' stands there already" in str(found.problems[0])


def test_a_pattern_of_no_server_is_worth_a_warning(tmp_path: Path) -> None:
    found = examined(tmp_path, '{name: a, calls: 1, window: 1m, tools: ["gut__*"]}')
    assert any("no server 'gut'" in str(one) for one in found.warnings)


def test_teams_and_claims_are_what_a_limit_can_be_per(tmp_path: Path) -> None:
    file = tmp_path / "narthex.yaml"
    file.write_text(
        HEAD.replace("{servers: [git]}", "{servers: [git], project: atlas}")
        + '  - {name: a, per: [team, "claim:org.unit"], calls: 9, window: 1m}\n'
        + "teams: {payments: {role: pay}, guests: {anonymous: true}}\n"
        + "identity: {issuers: {corp: {issuer: 'https://idp.example.com', audiences: [x]}}}\n"
    )
    snapshot = examine(file, env={}).snapshot
    assert snapshot is not None and snapshot.identity is not None
    assert snapshot.quotas[0].per == ("team", "claim:org.unit")
    assert snapshot.teams == (("payments", Who(role=("pay",))), ("guests", Who(anonymous=True)))
    assert snapshot.endpoints["default"].project == "atlas"
    assert snapshot.identity.issuers["corp"].claims.kept == (("org.unit", ("org", "unit")),)


def test_who_is_told_of_alerts(tmp_path: Path) -> None:
    hook = "webhook: {url: 'https://ops.example.com/hook', secret: '${secret:hook}'}"
    snapshot = examined(tmp_path, f"{{name: a, calls: 9, window: 1m, alerts: ['80%'], {hook}}}").snapshot
    assert snapshot is not None
    secret = SecretText((SecretName("hook"),))
    assert snapshot.alert_hooks == {"a": Webhook("https://ops.example.com/hook", secret)}
    assert snapshot.secret_names == ("hook",)


def test_what_becomes_of_calls_once_a_limit_is_spent(tmp_path: Path) -> None:
    snapshot = examined(
        tmp_path,
        "{name: a, calls: 9, window: 1m, when_spent: hold}",
        "{name: b, calls: 9, window: 1m, when_spent: {use: git__cheap}}",
        "{name: c, calls: 9, window: 1m, when_spent: {lower: {a: 10%, b: 50%}}}",
        "{name: d, calls: 9, window: 1m, when_spent: refuse}",
    ).snapshot
    assert snapshot is not None
    assert [one.when_spent for one in snapshot.quotas] == [
        WhenSpent(hold=True), WhenSpent(use="git__cheap"), WhenSpent(lower=(("a", 10), ("b", 50))), WhenSpent(),
    ]  # fmt: skip
