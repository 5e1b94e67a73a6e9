"""`${…}`: the forms of Claude, Cursor and VS Code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.config.expand import Expanded, expand
from narthex.types import SecretName

ENV = {"TOKEN": "t0p", "EMPTY": "", "NESTED": "${TOKEN}"}
VARIABLES = {"workspaceFolder": "/srv/project", "/": "/"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("plain $HOME $", "plain $HOME $", id="a dollar alone is a dollar"),
        pytest.param("Bearer ${TOKEN}", "Bearer t0p", id="Claude"),
        pytest.param("${env:TOKEN}", "t0p", id="VS Code and Cursor"),
        pytest.param("${NOT_SET:-x y}", "x y", id="default"),
        pytest.param("${NOT_SET:-}", "", id="empty default"),
        pytest.param("${EMPTY:-x}", "x", id="a default replaces an empty variable"),
        pytest.param("[${EMPTY}]", "[]", id="an empty variable is set"),
        pytest.param("${env:NOT_SET:-x}", "x", id="default with env:"),
        pytest.param("${workspaceFolder}${/}a", "/srv/project/a", id="editor variables"),
        pytest.param("${NESTED}", "${TOKEN}", id="what is put in is not expanded again"),
        pytest.param("$${TOKEN}", "${TOKEN}", id="escaped"),
    ],
)
def test_expanded(text: str, value: str) -> None:
    assert expand(text, ENV, VARIABLES).value == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("${NOT_SET}", "NOT_SET is not set", id="not set"),
        pytest.param("${input:api-key}", r"narthex secrets set api-key.*\$\{env:API_KEY\}", id="VS Code's question"),
        pytest.param("${secret:x}", "secrets are for `credentials`", id="a secret where none may stand"),
        pytest.param("${command:x}", "not known", id="editor command"),
        pytest.param("${open", "without '}'", id="not closed"),
        pytest.param("${}", "not known", id="empty"),
    ],
)
def test_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        expand(text, ENV, VARIABLES)


@pytest.mark.parametrize(
    ("text", "pieces", "value"),
    [
        pytest.param(
            "Bearer ${secret:pat}", ("Bearer ", SecretName("pat")), "Bearer ${secret:pat}", id="behind a text"
        ),
        pytest.param("${secret:a}${secret:b}", (SecretName("a"), SecretName("b")), "${secret:a}${secret:b}", id="two"),
        pytest.param("${TOKEN}-$${x}", ("t0p-${x}",), "t0p-${x}", id="none: one piece"),
        pytest.param("$${secret:a}", ("${secret:a}",), "${secret:a}", id="escaped: plain text"),
        pytest.param("", (), "", id="empty"),
    ],
)
def test_a_secret_stays_a_reference(text: str, pieces: tuple[object, ...], value: str) -> None:
    found = expand(text, ENV, VARIABLES, secrets=True)
    assert (found.text.pieces, found.value, found.written) == (pieces, value, text)
    filled = found.text.fill({"pat": "ghp_1", "a": "1", "b": "2"}.__getitem__)
    assert "secret:" not in filled or text.startswith("$$")


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 65, "-x"])
def test_what_is_no_name_of_a_secret(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a secret"):
        expand(f"${{secret:{name}}}", {}, {}, secrets=True)


def test_the_value_does_not_show_in_a_repr() -> None:
    assert "t0p" not in repr(expand("${TOKEN}", ENV, {}))
    assert expand("${TOKEN}", ENV, {}) != Expanded("${TOKEN}", "other")
    assert hash(expand("a", {}, {})) == hash(Expanded("a", "a"))


@given(st.text(alphabet="${}:-aA_/ ", max_size=40))
def test_any_text_is_expanded_or_refused_in_words(text: str) -> None:
    try:
        found = expand(text, {"A": "1"}, {}, secrets=True)
        assert found.text.fill(lambda name: f"${{secret:{name}}}") == found.value
    except ValueError as error:
        assert str(error)
