"""JSON with comments: read with places, edited without touching the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.config.document import Fault
from narthex.config.jsonc import insert_member, parse_jsonc, replace, to_python

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('abc"\\é ', max_size=4), inner, max_size=4),
    max_leaves=20,
)
gaps = st.sampled_from(["", " ", "\n", "\t", "// note\n", "/* } ] , */", " /**/ // x\n  "])


@given(values, st.sampled_from([None, 2, "\t"]))
def test_json_is_read_as_json_reads_it(value: Any, indent: Any) -> None:
    assert to_python(parse_jsonc(json.dumps(value, indent=indent))) == value


@given(st.data())
def test_comments_and_trailing_commas_change_nothing(data: st.DataObject) -> None:
    def gap() -> str:
        return data.draw(gaps)

    def written(value: Any) -> str:
        if isinstance(value, list):
            parts = [f"{gap()}{written(item)}{gap()}" for item in value]
            return "[" + ",".join(parts) + (f",{gap()}" if parts and data.draw(st.booleans()) else gap()) + "]"
        if isinstance(value, dict):
            parts = [f"{gap()}{json.dumps(key)}{gap()}:{gap()}{written(item)}{gap()}" for key, item in value.items()]
            return "{" + ",".join(parts) + (f",{gap()}" if parts and data.draw(st.booleans()) else gap()) + "}"
        return json.dumps(value)

    value = data.draw(values)
    assert to_python(parse_jsonc(gap() + written(value) + gap())) == value


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        pytest.param('{"a": 1, "a": 2}', (1, 10), "duplicate key 'a' (first on line 1)", id="duplicate key"),
        pytest.param('{"a": }', (1, 7), "a value is missing", id="no value"),
        pytest.param('{"a": 1 "b": 2}', (1, 9), "',' or '}' is missing", id="no comma"),
        pytest.param('{"a": 1\n', (2, 1), "'}' is missing (opened on line 1)", id="not closed"),
        pytest.param("{", (1, 2), "'}' is missing", id="not closed at once"),
        pytest.param("[1,,2]", (1, 4), "a value is missing", id="two commas"),
        pytest.param("[,]", (1, 2), "a value is missing", id="a comma alone"),
        pytest.param("{a: 1}", (1, 2), "a key in double quotes", id="bare key"),
        pytest.param("{'a': 1}", (1, 2), "a key in double quotes", id="single quotes"),
        pytest.param('{"a" 1}', (1, 6), "':' is missing after 'a'", id="no colon"),
        pytest.param('["a\n"]', (1, 2), "does not end on its line", id="text over lines"),
        pytest.param(r'["\x"]', (1, 2), "escape", id="bad escape"),
        pytest.param(r'["\ud800"]', (1, 2), "escape", id="half a character"),
        pytest.param("[NaN]", (1, 2), "not a JSON value", id="NaN"),
        pytest.param("[01]", (1, 2), "not a JSON value", id="leading zero"),
        pytest.param("[truely]", (1, 2), "not a JSON value", id="half a word"),
        pytest.param("1 2", (1, 3), "after the end", id="two values"),
        pytest.param("{} /* x", (1, 4), "a comment that does not end", id="comment not closed"),
        pytest.param("[" * 40, (1, 33), "nested deeper than 32", id="too deep"),
        pytest.param('{\n  "ä": x}', (2, 8), "not a JSON value", id="columns count characters"),
    ],
)
def test_refused_with_its_place(text: str, place: tuple[int, int], says: str) -> None:
    with pytest.raises(Fault) as caught:
        parse_jsonc(text)
    assert says in caught.value.text
    assert (caught.value.mark.line, caught.value.mark.column) == place


@settings(max_examples=300)
@given(st.text(alphabet='{}[]:,"/*\\ \nau1-.etrn', max_size=50))
def test_any_text_is_a_tree_or_a_fault(text: str) -> None:
    try:
        parse_jsonc(text)
    except Fault as fault:
        assert fault.text


EDITS = [
    pytest.param("{}", '{\n  "new": {\n    "url": "u"\n  }\n}', id="empty object"),
    pytest.param(
        '{\n    "a": 1 // one\n}\n',
        '{\n    "a": 1, // one\n    "new": {\n        "url": "u"\n    }\n}\n',
        id="comment beside the last member",
    ),
    pytest.param(
        '{\n\t"a": 1,\n\t// end\n}',
        '{\n\t"a": 1,\n\t"new": {\n\t\t"url": "u"\n\t},\n\t// end\n}',
        id="trailing comma, tabs, comment behind",
    ),
    pytest.param('{"a": 1}', '{"a": 1,\n  "new": {\n    "url": "u"\n  }\n}', id="one line"),
    pytest.param(
        "{\n  // nothing yet\n}", '{\n  // nothing yet\n  "new": {\n    "url": "u"\n  }\n}', id="comment only"
    ),
    pytest.param(
        '{"a": 1 /* } */ }', '{"a": 1, /* } */\n  "new": {\n    "url": "u"\n  }\n}', id="bracket in a comment"
    ),
]


@pytest.mark.parametrize(("before", "after"), EDITS)
def test_a_member_is_added_and_the_rest_stays(before: str, after: str) -> None:
    assert insert_member(before, parse_jsonc(before), "new", {"url": "u"}) == after


@given(st.data())
def test_an_edit_changes_this_one_member(data: st.DataObject) -> None:
    value = data.draw(
        st.dictionaries(
            st.sampled_from("abcd"), st.dictionaries(st.sampled_from("xy"), scalars, max_size=2), max_size=3
        )
    )
    indent = data.draw(st.sampled_from([None, 2, "\t"]))
    text = json.dumps(value, indent=indent)
    if value and data.draw(st.booleans()):
        text = text[:-1].rstrip() + data.draw(st.sampled_from([",", " // note\n", ", /* x */", " /* x */"])) + "}"
    if "a" in value:
        node = parse_jsonc(text).get("a")
        assert node is not None
        changed = replace(text, node, {"new": 1})
    else:
        changed = insert_member(text, parse_jsonc(text), "a", {"new": 1})
    assert to_python(parse_jsonc(changed)) == {**value, "a": {"new": 1}}
    assert changed.count("/*") == text.count("/*")
    assert changed.count("//") == text.count("//")
