"""`${…}`: the forms of Claude, Cursor and VS Code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.config.expand import Expanded, expand

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
        pytest.param("${secret:x}", "not in this version", id="stored secret"),
        pytest.param("${command:x}", "not known", id="editor command"),
        pytest.param("${open", "without '}'", id="not closed"),
        pytest.param("${}", "not known", id="empty"),
    ],
)
def test_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        expand(text, ENV, VARIABLES)


def test_the_value_does_not_show_in_a_repr() -> None:
    assert "t0p" not in repr(expand("${TOKEN}", ENV, {}))
    assert expand("${TOKEN}", ENV, {}) != Expanded("${TOKEN}", "other")
    assert hash(expand("a", {}, {})) == hash(Expanded("a", "a"))


@given(st.text(alphabet="${}:-aA_/ ", max_size=40))
def test_any_text_is_expanded_or_refused_in_words(text: str) -> None:
    try:
        assert isinstance(expand(text, {"A": "1"}, {}).value, str)
    except ValueError as error:
        assert str(error)
