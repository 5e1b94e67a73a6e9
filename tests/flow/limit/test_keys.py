"""What a bucket is per: callers that differ in it never share one, others always do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.limit.keys import MOST_VALUES, Subject, at_pointer, digest, keys_of, with_arguments
from narthex.types import Principal

ADA = Principal("acme", "https://idp", "ada", "bot", roles=("support", "dev"))


def subject(who: Principal = ADA, endpoint: str = "default", server: str = "git", name: str = "log") -> Subject:
    return Subject(who, endpoint, server, name)


def keys(per: tuple[str, ...], one: Subject) -> list[bytes]:
    return [key for key, _ in keys_of(per, one)]


@pytest.mark.parametrize(
    ("per", "other", "shared"),
    [
        pytest.param((), subject(name="diff"), True, id="per nothing: one bucket a tenant"),
        pytest.param((), subject(Principal("other", "https://idp", "ada", "bot")), False, id="tenants never share"),
        pytest.param(("global",), subject(Principal("other", "i", "x")), True, id="but for global"),
        pytest.param(("principal",), subject(Principal("acme", "https://idp", "ada", "ide")), False, id="agents"),
        pytest.param(("subject",), subject(Principal("acme", "https://idp", "ada", "ide")), True, id="one human"),
        pytest.param(("subject",), subject(Principal("acme", "https://evil", "ada", "bot")), False, id="issuers"),
        pytest.param(("agent",), subject(Principal("acme", "i", "bob", "bot")), True, id="one agent"),
        pytest.param(("tool",), subject(name="diff"), False, id="tools"),
        pytest.param(("server",), subject(name="diff"), True, id="one server"),
        pytest.param(("endpoint",), subject(endpoint="plain"), False, id="endpoints"),
        pytest.param(("principal", "tool"), subject(name="diff"), False, id="a combination"),
    ],
)  # fmt: skip
def test_who_shares_a_bucket(per: tuple[str, ...], other: Subject, shared: bool) -> None:
    assert (keys(per, subject()) == keys(per, other)) is shared


def test_teams_projects_and_claims_tell_callers_apart() -> None:
    one = Subject(ADA, "default", "git", "log", "payments", "atlas")
    for other in (Subject(ADA, "default", "git", "log", "search", "atlas"), Subject(ADA, "default", "git", "log")):
        assert keys(("team",), one) != keys(("team",), other)
    assert keys(("project",), one) != keys(("project",), Subject(ADA, "default", "git", "log", "payments"))
    eve = Principal("acme", "https://idp", "eve", claims=(("unit", ("7",)), ("site", ("lisbon", "porto"))))
    assert len(keys(("claim:unit",), subject(eve))) == 1
    assert len(keys(("claim:site", "claim:unit"), subject(eve))) == 2
    assert keys(("claim:unit",), subject(eve)) != keys(("claim:unit",), subject())
    nobody = subject(Principal("acme", "i", "bob"))
    assert keys(("claim:unit",), nobody) == keys(("claim:unit",), subject()), (
        "who has none counts with all that have none"
    )


def test_a_caller_with_several_roles_counts_in_the_bucket_of_each() -> None:
    dev = subject(Principal("acme", "https://idp", "bob", roles=("dev",)))
    assert len(keys(("role",), subject())) == 2
    assert set(keys(("role",), dev)) < set(keys(("role",), subject()))
    nobody = subject(Principal("acme", "https://idp", "eve"))
    assert len(keys(("role",), nobody)) == 1
    many = subject(Principal("acme", "i", "x", roles=tuple(map(str, range(100)))))
    assert len(keys(("role",), many)) == MOST_VALUES


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_no_two_lists_of_values_have_one_key(left: list[str], right: list[str]) -> None:
    assert (digest(left) == digest(right)) is (left == right)


@pytest.mark.parametrize(
    ("left", "right", "shared"),
    [
        pytest.param({"id": 1}, {"id": 1.0}, True, id="numbers by value"),
        pytest.param({"id": 1}, {"id": "1"}, True, id="as a server may read them"),
        pytest.param({"id": 1}, {"id": 2}, False, id="others"),
        pytest.param({}, None, True, id="missing is a value of its own"),
        pytest.param({"id": {"a": 1, "b": 2}}, {"id": {"b": 2, "a": 1}}, True, id="members in any order"),
        pytest.param({"id": [2**70]}, {"id": [2**71]}, False, id="beyond 64 bits"),
    ],
)
def test_arguments(left: Any, right: Any, shared: bool) -> None:
    per = ("arg:/id",)
    assert (with_arguments(b"k" * 15, per, left) == with_arguments(b"k" * 15, per, right)) is shared


@pytest.mark.parametrize(
    ("pointer", "value"),
    [("/a/b", 1), ("/l/1", 2), ("/l/9", None), ("/x~1y", 3), ("/x~0y", 4), ("/a/b/c", None), ("/l/-", None)],
)
def test_a_pointer(pointer: str, value: Any) -> None:
    assert at_pointer({"a": {"b": 1}, "l": [0, 2], "x/y": 3, "x~y": 4}, pointer) == value
