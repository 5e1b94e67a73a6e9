"""What was handed out is shown nowhere, however it is written and however much there is."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex.flow.upstream.secrets import HIDDEN, Redactor

VALUE = "ghp_s3cr3t/+=0123"
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nshort\n-----END KEY-----"


def hidden(text: str, *values: str) -> str:
    redactor = Redactor()
    for value in values:
        redactor.add(value)
    return redactor.hide(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(f"401: bad token {VALUE}.", f"401: bad token {HIDDEN}.", id="plain"),
        pytest.param(VALUE * 2, HIDDEN * 2, id="twice"),
        pytest.param(f"/x?key={quote(VALUE, safe='')}&a", f"/x?key={HIDDEN}&a", id="in a URL"),
        pytest.param(VALUE[:-1], VALUE[:-1], id="not all of it"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_it_is_cut_out(text: str, shown: str) -> None:
    assert hidden(text, VALUE, "another-value") == shown


def test_as_it_looks_in_json_and_a_line_of_several() -> None:
    awkward = 'with "quotes" and \\'
    assert hidden(json.dumps({"token": awkward}), awkward) == json.dumps({"token": HIDDEN})
    assert hidden(f"cannot read MIIEvQIBADANBgkqhkiG9w0: {PEM!r}", PEM) == f"cannot read {HIDDEN}: '{HIDDEN}'"


def test_of_several_that_begin_alike_the_longest_goes() -> None:
    assert hidden("abcdefgh abcdef", "abcdef", "abcdefgh") == f"{HIDDEN} {HIDDEN}"


def test_what_is_too_short_to_be_told_from_words_stays() -> None:
    assert hidden("the word is: short", "short") == "the word is: short"


def test_passing_values_are_forgotten_in_turn_and_lasting_ones_never() -> None:
    redactor = Redactor(most=2)
    redactor.add("lasting-value")
    for number in range(4):
        redactor.add(f"token-number-{number}", passing=True)
    redactor.add("token-number-2", passing=True)
    redactor.add("lasting-value", passing=True)
    redactor.add("token-number-4", passing=True)
    text = " ".join(["lasting-value", *(f"token-number-{number}" for number in range(5))])
    assert redactor.hide(text) == f"{HIDDEN} token-number-0 token-number-1 {HIDDEN} token-number-3 {HIDDEN}"
    redactor.add("token-number-4")
    for number in range(10, 14):
        redactor.add(f"token-number-{number}", passing=True)
    assert redactor.hide("token-number-4 token-number-10") == f"{HIDDEN} token-number-10"


def test_it_shows_nothing_of_itself() -> None:
    redactor = Redactor()
    redactor.add(VALUE)
    assert VALUE not in repr(redactor)


@given(st.lists(st.text('ab\n"/é', min_size=6, max_size=12), max_size=5), st.text('ab\n"/é', max_size=60))
def test_no_value_is_left_in_any_text(values: list[str], text: str) -> None:
    shown = hidden(text, *values)
    for part in shown.split(HIDDEN):
        assert not any(value in part for value in values)


@given(st.text(max_size=40))
def test_nothing_else_is_touched(text: str) -> None:
    assert hidden(text, "a value that is in none") == text.replace("a value that is in none", HIDDEN)
