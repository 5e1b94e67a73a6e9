"""Who shares an upstream session, and with it what is seen of an endpoint."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.upstream import viewers as module
from narthex.flow.upstream.viewers import Caller, Viewer, Viewers, declared, scope_of
from narthex.testing import FakeServer
from narthex.types import LOCAL, EndpointSpec, Principal, Session
from tests.flow.gateway import run
from tests.flow.upstream.test_fleet import OTHER, rig, tools

SESSION = Session("s1", "2025-11-25", 10**10)
ANOTHER = Principal("default", "x", "another")


@pytest.mark.parametrize(
    ("sharing", "principal", "session", "bits", "same"),
    [
        pytest.param("tenant", ANOTHER, None, 0, True, id="tenant: its principals share"),
        pytest.param("tenant", OTHER, None, 0, False, id="tenant: never across tenants"),
        pytest.param("principal", LOCAL, SESSION, 0, True, id="principal: all its sessions share"),
        pytest.param("principal", ANOTHER, None, 0, False, id="principal: nobody else"),
        pytest.param("session", LOCAL, SESSION, 0, False, id="session: each its own"),
        pytest.param("session", LOCAL, None, 4, False, id="session: and by what its client can be asked"),
    ],
)
def test_scopes(sharing: Any, principal: Principal, session: Session | None, bits: int, same: bool) -> None:
    mine = scope_of(sharing, LOCAL, None)
    assert (scope_of(sharing, principal, session, bits) == mine) is same
    assert mine[0] == LOCAL.tenant


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param(scope_of("session", LOCAL, SESSION, 4), {"sampling": {}}, id="session: what its client can"),
        pytest.param(scope_of("session", LOCAL, SESSION, 4096), {}, id="but no tasks"),
        pytest.param(scope_of("principal", LOCAL, SESSION, 4), {}, id="principal: nothing"),
        pytest.param(scope_of("tenant", LOCAL, SESSION, 4), {}, id="tenant: nothing"),
    ],
)
def test_declared(scope: tuple[str, ...], expected: Any) -> None:
    assert declared(scope) == expected


@pytest.mark.parametrize(
    ("sharing", "principal", "session", "same"),
    [
        pytest.param("tenant", ANOTHER, None, True, id="tenant: its principals see the same"),
        pytest.param("tenant", OTHER, None, False, id="tenant: another tenant does not"),
        pytest.param("principal", LOCAL, SESSION, True, id="principal: its sessions see the same"),
        pytest.param("principal", ANOTHER, None, False, id="principal: another does not"),
        pytest.param("session", LOCAL, SESSION, False, id="session: each its own"),
    ],
)
def test_who_shares_a_viewer_and_its_lists(
    sharing: Any, principal: Principal, session: Session | None, same: bool
) -> None:
    async def main() -> None:
        fake = FakeServer(tools=tools("x"))
        async with rig(("a", fake), sharing=sharing) as one:
            mine, others = one.viewer(), one.viewer(principal=principal, session=session)
            assert (others is mine) is same
            assert one.viewer(principal=principal, session=session) is others
            assert await one.names(mine) == await one.names(others) == ["a__x"]
            assert len(fake.requests("tools/list")) == (1 if same else 2)

    run(main)


def test_who_goes_on_with_a_viewer_that_is_forgotten_still_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_VIEWERS", 3)

    async def main() -> None:
        async with rig(("a", FakeServer(tools=tools("x")))) as one:
            first = one.viewer()
            for number in range(3):
                one.viewer(principal=Principal("t", "i", str(number)))
            assert one.viewer() is not first, "the one made longest ago went first"
            assert await one.names(first) == ["a__x"]

    run(main)


SPECS = {name: EndpointSpec(name, ("a",)) for name in "xy"}
CALLERS = st.tuples(st.sampled_from("xy"), st.sampled_from(["t", "u"]), st.integers(0, 9), st.integers(0, 4))


@given(asked=st.lists(CALLERS | st.none(), max_size=60), most=st.integers(1, 4), most_callers=st.integers(1, 6))
def test_viewers_are_bounded_and_shared_by_the_same_scopes(
    asked: list[tuple[str, str, int, int] | None], most: int, most_callers: int
) -> None:
    """Each asks for endpoint, tenant, who it is, and the scope that it shares with others; None lets time pass."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_VIEWERS", most)
        patch.setattr(module, "MOST_CALLERS", most_callers)
        viewers = Viewers()
        latest: dict[tuple[str, str, int], Viewer] = {}
        for one_asks in asked:
            if one_asks is None:
                viewers.age()
                continue
            endpoint, tenant, who, group = one_asks
            caller: Caller = (endpoint, (tenant, "i", f"{who} of {group}", ""), "", 0, None)
            known = viewers.of.get(caller)
            found = known or viewers.add(caller, SPECS[endpoint], {"a": (tenant, str(group))})
            assert found.spec is SPECS[endpoint]
            assert found.scopes == {"a": (tenant, str(group))}
            of_scopes = latest.setdefault((endpoint, tenant, group), found)
            assert found is of_scopes or not of_scopes.callers, "another one only when that is forgotten"
            latest[endpoint, tenant, group] = found
            assert len(viewers.of) <= most_callers
            assert len({id(one) for one in viewers.of.values()}) <= most
            everybody = viewers._before | viewers.of
            for one in latest.values():
                assert one.callers == {key for key, value in everybody.items() if value is one}
            assert {id(one) for one in viewers._shared.values()} == {id(one) for one in everybody.values()}


def test_who_does_not_come_again_is_forgotten_and_who_does_keeps_its_viewer() -> None:
    viewers, scopes = Viewers(), {"a": ("t", "1")}
    one: Caller = ("x", ("t", "i", "one", ""), "", 0, None)
    two: Caller = ("x", ("t", "i", "two", ""), "", 0, None)
    first = viewers.add(one, SPECS["x"], scopes)
    other = viewers.add(two, SPECS["x"], {"a": ("t", "2")})
    for _ in range(3):
        viewers.age()
        assert viewers.of == {}
        assert viewers.add(one, SPECS["x"], scopes) is first
    assert viewers.add(two, SPECS["x"], {"a": ("t", "2")}) is not other and not other.callers
    viewers.age()
    viewers.age()
    assert not (viewers.of or viewers._before or viewers._shared)
