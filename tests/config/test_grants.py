"""`grants`: what they become, and what is wrong with them at which place."""

from __future__ import annotations

from datetime import UTC, datetime, time
from ipaddress import ip_network
from pathlib import Path

import pytest

from narthex.config.compile import Examined, examine
from narthex.types import Grant, Hours, Who

HEAD = """version: 1
servers:
  billing: {url: "http://localhost:1/", classification: internal, privacy: none}
  git: {url: "http://localhost:2/", classification: public, privacy: none}
endpoints: {default: {servers: [billing, git]}, other: {servers: [git]}}
grants:
"""


def examined(tmp_path: Path, *grants: str) -> Examined:
    file = tmp_path / "narthex.yaml"
    file.write_text(HEAD + "".join(f"  - {one}\n" for one in grants))
    return examine(file, env={})


@pytest.mark.parametrize(
    ("text", "grant"),
    [
        pytest.param(
            '{name: a, who: {role: support}, allow: ["billing__get_*", "git__*"]}',
            Grant("a", "allow", Who(role=("support",)), tools=("billing__get_*", "git__*"), line=7),
            id="tools in short",
        ),
        pytest.param(
            '{name: a, allow: ["*"], classification: {at_most: internal}, privacy: [none, personal]}',
            Grant(
                "a",
                "allow",
                tools=("*",),
                classification=frozenset({"public", "internal"}),
                privacy=frozenset({"none", "personal"}),
                line=7,
            ),
            id="classes of data",
        ),
        pytest.param(
            '{name: a, deny: {tools: ["*"], prompts: ["git__p"], resources: ["git__file:*"]}}',
            Grant("a", "deny", tools=("*",), prompts=("git__p",), resources=("git__file:*",), line=7),
            id="each kind",
        ),
        pytest.param(
            '{name: a, who: {agent: [bot, ide], kind: human, scope: s}, allow: ["*"], when: "args.amount <= 100"}',
            Grant(
                "a",
                "allow",
                Who(client=("bot", "ide"), kind=("human",), scope=("s",)),
                tools=("*",),
                when="args.amount <= 100",
                line=7,
            ),
            id="agent is the client",
        ),
        pytest.param(
            '{name: a, who: {anonymous: true}, allow: ["*"], networks: [10.0.0.0/8], endpoints: [other]}',
            Grant(
                "a",
                "allow",
                Who(anonymous=True),
                tools=("*",),
                networks=(ip_network("10.0.0.0/8"),),
                endpoints=("other",),
                line=7,
            ),
            id="anonymous, from a network, at an endpoint",
        ),
        pytest.param(
            '{name: a, allow: ["*"], expires: 2026-12-31, hours: {since: "08:00", until: "18:30", days: [mon, fri], '
            "zone: Europe/Lisbon}}",
            Grant(
                "a",
                "allow",
                tools=("*",),
                hours=Hours(time(8), time(18, 30), "Europe/Lisbon", frozenset({0, 4})),
                expires_at=datetime(2026, 12, 31, tzinfo=UTC).timestamp(),
                line=7,
            ),
            id="for a time",
        ),
        pytest.param(
            '{name: a, allow: ["*"], expires: "2026-12-31T18:00:00+01:00"}',
            Grant("a", "allow", tools=("*",), expires_at=datetime(2026, 12, 31, 17, tzinfo=UTC).timestamp(), line=7),
            id="to a moment",
        ),
    ],
)
def test_read(tmp_path: Path, text: str, grant: Grant) -> None:
    found = examined(tmp_path, text)
    assert found.problems == ()
    assert found.snapshot is not None
    assert found.snapshot.grants == (grant,)
    assert not found.warnings


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param('{allow: ["*"]}', ":7:5: 'name' is missing", id="no name"),
        pytest.param("{name: a}", ":7:5: grant 'a' needs `allow`, `deny` or `hold`", id="no effect"),
        pytest.param('{name: a, allow: ["*"], deny: ["git__x"]}', "has both `allow` and `deny`", id="both effects"),
        pytest.param('{name: a, allow: ["*"], hold: ["*"]}', "has both `allow` and `hold`", id="allowed and held"),
        pytest.param('{name: a, allow: ["*"], approval: {by: user}}', "approval: it goes with", id="no hold"),
        pytest.param('{name: a, hold: ["*"], approval: {by: me}}', "wants one of approver, user", id="by whom"),
        pytest.param('{name: a, hold: ["*"], approval: {wait: 8d}}', "the most is 7d", id="too long"),
        pytest.param('{name: a, alow: ["*"]}', "unknown key 'alow'; did you mean 'allow'?", id="misspelt"),
        pytest.param('{name: a, allow: ["*"], when: "args.amount <"}', ":29: when: Syntax error", id="condition"),
        pytest.param(
            '{name: a, allow: ["*"], when: "arg.x == 1"}', "undeclared reference to 'arg.x'", id="unknown name"
        ),
        pytest.param('{name: a, allow: ["*"], when: "1 + 1"}', "neither true nor false", id="no condition"),
        pytest.param('{name: a, allow: ["*"], endpoints: [nope]}', "no endpoint 'nope'", id="endpoint"),
        pytest.param('{name: a, allow: ["*"], expires: tomorrow}', "write a date such as", id="date"),
        pytest.param(
            '{name: a, allow: ["*"], expires: "2026-12-31T18:00:00"}', "needs its zone", id="time without zone"
        ),
        pytest.param('{name: a, allow: ["*"], hours: {since: "8:00"}}', "a time of day is", id="time of day"),
        pytest.param('{name: a, allow: ["*"], hours: {zone: Mars}}', "no time zone 'Mars'", id="zone"),
        pytest.param('{name: a, allow: ["*"], who: {role: []}}', "an empty list fits nobody", id="nobody"),
        pytest.param(
            '{name: a, allow: ["*"], who: {agent: x, client: y}}', "another word for `client`", id="agent twice"
        ),
        pytest.param('{name: a, allow: "*"}', "wants a list of patterns", id="no list"),
    ],
)
def test_wrong(tmp_path: Path, text: str, says: str) -> None:
    found = examined(tmp_path, text)
    assert found.snapshot is None
    assert any(says in str(problem) for problem in found.problems), found.problems


def test_a_name_stands_once(tmp_path: Path) -> None:
    found = examined(tmp_path, '{name: a, allow: ["*"]}', '{name: a, deny: ["*"]}')
    assert [str(one).partition(":")[2] for one in found.problems] == ["8:6: a grant 'a' stands there already"]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        pytest.param("billings__get", "no server 'billings'; did you mean 'billing'?", id="misspelt server"),
        pytest.param("get_invoice", "is no canonical name", id="not canonical"),
    ],
)
def test_a_pattern_that_covers_nothing_is_worth_a_warning(tmp_path: Path, pattern: str, says: str) -> None:
    found = examined(tmp_path, f'{{name: a, allow: ["{pattern}"]}}')
    assert found.snapshot is not None
    assert any(says in str(warning) for warning in found.warnings), found.warnings


def test_the_revision_tells_grants_apart(tmp_path: Path) -> None:
    one, other = (examined(tmp_path, f'{{name: a, allow: ["{glob}"]}}').snapshot for glob in ("git__*", "billing__*"))
    assert one is not None and other is not None
    assert one.revision != other.revision


def test_grants_for_the_admin_side_alone_deny_no_calls(tmp_path: Path) -> None:
    found = examined(tmp_path, "{name: a, who: {role: lead}, allow: {admin: ['approvals.*', reload]}}")
    assert found.snapshot is not None and not found.snapshot.grants
    (grant,) = found.snapshot.admin_grants
    assert grant.tools == ("admin__approvals.*", "admin__reload")
    assert any("no grants: every caller may call everything" in str(one) for one in found.warnings)
    both = examined(tmp_path, "{name: a, allow: {tools: ['git__*'], admin: [reload]}}").snapshot
    assert both is not None and both.grants[0].tools == ("git__*",) and len(both.admin_grants) == 1


def test_grants_in_shadow_mode_do_not_count_and_are_kept_apart(tmp_path: Path) -> None:
    found = examined(tmp_path, "{name: a, allow: ['git__*']}", "{name: b, deny: ['git__x'], mode: shadow}").snapshot
    assert found is not None
    assert [one.name for one in found.grants] == ["a"]
    assert [(one.name, one.shadow) for one in found.trial] == [("a", False), ("b", True)]
    plain = examined(tmp_path, "{name: a, allow: ['git__*'], mode: enforce}").snapshot
    assert plain is not None and not plain.trial
