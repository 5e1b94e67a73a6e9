"""A long list is looked through in slices: the loop has its turn in between, and the answer is the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from narthex.flow.codec.jsonrpc import Raw, encode
from narthex.flow.identity.scopes import Scopes
from narthex.flow.policy.admissions import Admissions
from narthex.flow.policy.grants import Grants
from narthex.flow.policy.slices import SLICE, finished, in_slices
from narthex.flow.route.index import Index, Items, merge
from narthex.testing import FakeServer
from narthex.types import EndpointSpec, Grant, Principal
from tests.flow.gateway import Running, run, spec
from tests.flow.upstream.test_fleet import tools

COUNT = 2 * SLICE + 20
NAMES = [f"t{number}" for number in range(COUNT)]
ENDPOINT = EndpointSpec("default", ("a",), scopes=(("a__t1*", ("write",)),), hide_unscoped=True)
RULES = Grants((Grant("even", "allow", tools=("a__t*0", "a__t*2", "a__t1*")), Grant("no", "deny", tools=("a__t12*",))))
ADA = Principal("default", "i", "ada", method="jwt")


def index() -> Index:
    items = tuple((name, Raw(encode({"name": name, "inputSchema": {}}))) for name in NAMES)
    return finished(merge(ENDPOINT, "tools", [Items("a", items)], []))


def expected(grants: Grants | None, scopes: bool) -> int:
    found = 0
    for at, name in enumerate(NAMES):
        granted = grants is None or (name[-1] in "02" or name.startswith("t1")) and not name.startswith("t12")
        found |= (granted and not (scopes and name.startswith("t1"))) << at
    return found


@pytest.mark.parametrize(
    ("grants", "scopes"), [(RULES, True), (RULES, False), (None, True)], ids=["both", "grants", "scopes"]
)
def test_a_long_list_lets_others_have_their_turn(grants: Grants | None, scopes: bool) -> None:
    admission = Admissions(grants, {"default": Scopes(ENDPOINT)} if scopes else {}, lambda: 0.0).of(ADA, "default")
    listed, turns = index(), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        assert not admission.looked_through(listed)
        beside = asyncio.ensure_future(others())
        await admission.look_through(listed)
        assert turns >= COUNT // SLICE * ((grants is not None) + scopes)
        assert admission.looked_through(listed)
        beside.cancel()

    asyncio.run(main())
    assert admission.shown(listed) == expected(grants, scopes)


def test_a_short_list_takes_no_turns() -> None:
    short = finished(merge(ENDPOINT, "tools", [Items("a", (("t0", Raw(b'{"name":"t0"}')),))], []))
    admission = Admissions(RULES, {}, lambda: 0.0).of(ADA, "default")
    assert admission.looked_through(short) and admission.shown(short) == 1


def test_a_generator_gives_its_value_either_way() -> None:
    def work() -> Any:
        yield
        yield
        return 7

    assert finished(work()) == 7 == asyncio.run(in_slices(work()))


@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
def test_a_long_list_is_the_same_at_the_gateway(modern: bool) -> None:
    async def main() -> None:
        async with (
            FakeServer(tools=tools(*NAMES)) as one,
            Running({"a": spec("a", one.url)}, settings={"grants": tuple(r.grant for r in RULES.rules)}) as gateway,
        ):
            client = await gateway.client(session=not modern)
            ask = client.modern if modern else client.legacy
            found = [tool["name"] for tool in (await ask("tools/list")).result["tools"]]
            bits = expected(RULES, False)
            assert found == [f"a__{name}" for at, name in enumerate(NAMES) if bits >> at & 1]
            assert found == [tool["name"] for tool in (await ask("tools/list")).result["tools"]]

    run(main)
