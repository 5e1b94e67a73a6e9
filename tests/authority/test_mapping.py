from __future__ import annotations

from typing import Any

import pytest

from narthex.authority.mapping import NOBODY, NOTHING, account_of, alias_of, told_apart
from narthex.flow.identity.who import fits
from narthex.types import LOCAL, Authority, HeaderCredential, Principal, SecretText, TokenCredential, Use, Who

ALICE = Principal(
    "acme",
    "https://idp",
    "alice",
    "helpdesk",
    roles=("support", "oncall"),
    groups=("eu",),
    scopes=frozenset({"b", "a"}),
)
ONE, TWO = (HeaderCredential(name, "X-Key", SecretText(("x",))) for name in ("one", "two"))
CALLERS = TokenCredential("callers", "token_exchange", Authority("gateway"))


@pytest.mark.parametrize(
    ("who", "fit"),
    [
        pytest.param(Who(), True, id="nothing given: everybody"),
        pytest.param(Who(role=("support",)), True, id="one of the roles"),
        pytest.param(Who(role=("admin", "oncall")), True, id="one of the values"),
        pytest.param(Who(role=("admin",)), False, id="another role"),
        pytest.param(Who(role=("Support",)), False, id="by case"),
        pytest.param(Who(group=("eu",), tenant=("acme",)), True, id="all keys"),
        pytest.param(Who(group=("eu",), tenant=("other",)), False, id="not all keys"),
        pytest.param(Who(subject=("alice",), issuer=("https://idp",)), True, id="a subject of an issuer"),
        pytest.param(Who(subject=("alice",), issuer=("https://other",)), False, id="a namesake"),
        pytest.param(Who(client=("helpdesk",)), True, id="the agent"),
    ],
)
def test_who_fits(who: Who, fit: bool) -> None:
    assert fits(who, ALICE) is fit


@pytest.mark.parametrize(
    ("table", "account", "alias"),
    [
        pytest.param((), NOTHING, "", id="no table"),
        pytest.param((Use(Who(), ONE),), "one", "one", id="one for all"),
        pytest.param((Use(Who(role=("support",)), ONE), Use(Who(), TWO)), "one", "one", id="the first that fits"),
        pytest.param((Use(Who(role=("admin",)), ONE), Use(Who(), TWO)), "two", "two", id="the next"),
        pytest.param((Use(Who(role=("admin",)), ONE),), NOBODY, "", id="none fits"),
        pytest.param((Use(Who(tenant=("acme",)), None), Use(Who(), TWO)), NOTHING, "", id="use: none"),
        pytest.param((Use(Who(), CALLERS),), "callers a b", "callers", id="of the caller's token, by its scopes"),
    ],
)
def test_whose_account(table: Any, account: str, alias: str) -> None:
    assert account_of(table, ALICE) == account
    assert alias_of(account) == alias


@pytest.mark.parametrize(
    ("table", "apart"),
    [
        ((), False),
        ((Use(Who(), ONE),), False),
        ((Use(Who(), None),), False),
        ((Use(Who(role=("a",)), ONE), Use(Who(), TWO)), True),
        ((Use(Who(), CALLERS),), True),
    ],
)
def test_where_it_matters_who_calls(table: Any, apart: bool) -> None:
    assert told_apart(table) is apart
    if not apart:
        assert account_of(table, LOCAL) == account_of(table, ALICE)
