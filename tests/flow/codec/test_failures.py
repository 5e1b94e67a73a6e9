"""Codes of one era in the other's words, one row a rule; what is not in the table stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.errors import HeaderMismatch, MethodNotFound, MissingCapability, NotVisible, Overloaded
from narthex.flow.codec.failures import code_for, for_era, status_for
from narthex.types import Era

ERAS: tuple[Era, ...] = ("legacy", "modern")
MOVED = frozenset({-32002, -32020, -32021, -32022})


@pytest.mark.parametrize(
    ("server", "code", "modern", "legacy"),
    [
        pytest.param("modern", -32020, -32020, -32603, id="headers"),
        pytest.param("modern", -32021, -32021, -32600, id="capability"),
        pytest.param("modern", -32022, -32022, -32603, id="version"),
        pytest.param("modern", -32050, -32050, -32050, id="one that the specification may define yet"),
        pytest.param("modern", -32002, -32602, -32002, id="an old code from a modern server"),
        pytest.param("legacy", -32002, -32602, -32002, id="no such resource"),
        *(
            pytest.param("legacy", code, -32603, code, id=f"{code} of a legacy server means nothing that is known")
            for code in (-32020, -32021, -32022, -32099)
        ),
        pytest.param("legacy", -32019, -32019, -32019, id="a code of an implementation"),
        pytest.param("legacy", -32100, -32100, -32100, id="beyond the reserved range"),
        pytest.param("legacy", -32042, -32603, -32042, id="URL elicitation, which the bridge turns into more"),
        pytest.param("legacy", -32601, -32601, -32601, id="method not found"),
        pytest.param("legacy", 7, 7, 7, id="an application's"),
    ],
)
def test_codes(server: Era, code: int, modern: int, legacy: int) -> None:
    assert (code_for("modern", server, code), code_for("legacy", server, code)) == (modern, legacy)


@pytest.mark.parametrize("code", [-32020, -32021, -32022, -32601])
def test_a_modern_client_sees_by_the_status_that_it_was_refused(code: int) -> None:
    assert status_for("modern", code) == (404 if code == -32601 else 400)
    assert status_for("legacy", code) == 200, "it drops the body of another one"


@given(code=st.integers().filter(lambda code: code not in {-32020, -32021, -32022, -32601}), era=st.sampled_from(ERAS))
def test_every_other_error_goes_out_with_200(code: int, era: Era) -> None:
    assert status_for(era, code) == 200


@given(code=st.integers(-40000, 40000), client=st.sampled_from(ERAS), server=st.sampled_from(ERAS))
def test_what_was_translated_needs_it_no_more(code: int, client: Era, server: Era) -> None:
    found = code_for(client, server, code)
    assert code_for(client, client, found) == found
    assert found == code or code in MOVED or (server == "legacy" and code in range(-32099, -32019))


def test_no_code_that_an_era_does_not_know() -> None:
    for server in ERAS:
        for code in range(-32100, -31999):
            assert code_for("legacy", "modern", code) not in {-32020, -32021, -32022}
            assert code_for("modern", server, code) != -32002


@pytest.mark.parametrize(
    ("error", "modern", "legacy"),
    [
        pytest.param(MissingCapability("x"), -32021, -32600, id="a capability"),
        pytest.param(HeaderMismatch("x"), -32020, -32603, id="headers"),
        pytest.param(MethodNotFound("x"), -32601, -32601, id="a method"),
        pytest.param(NotVisible("x"), -32602, -32602, id="a tool"),
        pytest.param(Overloaded("x"), -31009, -31009, id="ours"),
    ],
)
def test_errors_of_ours(error: MissingCapability, modern: int, legacy: int) -> None:
    kind = type(error)
    assert for_era(error, "modern").code == modern
    assert for_era(error, "legacy").code == legacy
    assert kind.code == modern, "only this one was changed"
