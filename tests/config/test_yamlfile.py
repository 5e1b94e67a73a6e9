"""YAML as it is read here: 1.2 scalars, no surprises, no bombs."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.config.document import Fault, decode
from narthex.config.jsonc import to_python
from narthex.config.yamlfile import parse_yaml


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("true", "flag"), ("False", "flag"), ("yes", "text"), ("no", "text"), ("on", "text"), ("off", "text"),
        ("12", "number"), ("-1", "number"), ("1.5", "number"), ("1e3", "number"), ("0x1F", "number"),
        ("0o17", "number"), ("1_000", "text"), ("12:30:45", "text"), ("2026-07-28", "text"),
        ("1.2.3", "text"), ("+", "text"), ("y", "text"),
        ("null", "null"), ("~", "null"), ("'12'", "text"), ('"true"', "text"), ("'~'", "text"), ("|\n  12", "text"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, shape: str) -> None:
    node = parse_yaml(f"key: {text}\n").get("key")
    assert node is not None
    assert node.shape == shape


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", (3, 1), "duplicate key 'a' (first on line 1)", id="duplicate key"),
        pytest.param("x: {a: 1, a: 2}\n", (1, 11), "duplicate key 'a'", id="duplicate key in flow style"),
        pytest.param("'a': 1\na: 2\n", (2, 1), "duplicate key", id="duplicate key, one quoted"),
        pytest.param("a: !!python/object:os.system x\n", (1, 4), "tags", id="tag"),
        pytest.param("a: !secret x\n", (1, 4), "tags", id="tag of an application"),
        pytest.param("a: &x {<<: 1}\n", (1, 8), "merge keys", id="merge key"),
        pytest.param("? [a]\n: 1\n", (1, 3), "a key must be a text, not a list", id="list as key"),
        pytest.param("? {a: 1}\n: 1\n", (1, 3), "a key must be a text, not a map", id="map as key"),
        pytest.param("~: 1\n", (1, 1), "a key must be a text, not empty", id="null as key"),
        pytest.param("a: 1\n---\nb: 2\n", (2, 1), "a second document", id="two documents"),
        pytest.param("a: *x\n", (1, 4), "alias '*x' has no finished", id="unknown alias"),
        pytest.param("a: &x [*x]\n", (1, 8), "alias '*x' has no finished", id="alias of itself"),
        pytest.param("a:\n\tb: 1\n", (2, 1), "a tab", id="tab"),
        pytest.param("a: [1, 2\n", (2, 1), "not YAML", id="not closed"),
        pytest.param("a: 'x\n", (2, 1), "not YAML", id="quote not closed"),
        pytest.param("a: b: c\n", (1, 5), "not YAML", id="two colons"),
        pytest.param("[" * 33 + "]" * 33, (1, 33), "nested deeper than 32", id="too deep"),
        pytest.param(
            "a:\n" + "".join("  " * n + "- \n" for n in range(1, 40)), (33, 65), "nested deeper", id="too deep, block"
        ),
    ],
)
def test_refused_with_its_place(text: str, place: tuple[int, int], says: str) -> None:
    with pytest.raises(Fault) as caught:
        parse_yaml(text)
    assert says in caught.value.text
    assert (caught.value.mark.line, caught.value.mark.column) == place


def test_an_alias_is_the_same_value_again() -> None:
    assert to_python(parse_yaml("a: &x {k: [v]}\nb: *x\n")) == {"a": {"k": ["v"]}, "b": {"k": ["v"]}}


def test_a_billion_laughs_are_refused_at_once() -> None:
    lines = ["a0: &a0 [lol, lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    began = time.thread_time()
    with pytest.raises(Fault, match="more than 100000 values"):
        parse_yaml("\n".join(lines))
    assert time.thread_time() - began < 10


@pytest.mark.parametrize("piece", ["[", "{", "? ", "- ", "a: ", "&a ", "!", "'", "*a ", "-\n ", "[[],", '"\\'])
def test_a_large_hostile_file_ends_soon(piece: str) -> None:
    began = time.thread_time()
    try:
        parse_yaml(piece * (200_000 // len(piece)))
    except Fault as fault:
        assert fault.text
    assert time.thread_time() - began < 20


@settings(max_examples=300)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#,? \n\t~1%@", max_size=60))
def test_any_text_is_a_tree_or_a_fault(text: str) -> None:
    try:
        parse_yaml(text)
    except Fault as fault:
        assert fault.mark.line >= 1
        assert fault.mark.column >= 1


@given(st.binary(max_size=80))
def test_any_bytes_are_text_or_a_fault(data: bytes) -> None:
    try:
        parse_yaml(decode(data))
    except Fault as fault:
        assert fault.text


@pytest.mark.parametrize(
    ("data", "place", "says"),
    [
        pytest.param(b"a: 1\nb: \xff\n", (2, 4), "not UTF-8", id="not UTF-8"),
        pytest.param("ä: ü\x00".encode(), (1, 5), "U+0000", id="NUL; columns count characters"),
        pytest.param("a: 1".encode("utf-16"), (1, 1), "not UTF-8", id="UTF-16"),
        pytest.param(b"#" * (4 * 1024 * 1024 + 1), (1, 1), "larger than 4MiB", id="too large"),
    ],
)
def test_bytes_refused_with_their_place(data: bytes, place: tuple[int, int], says: str) -> None:
    with pytest.raises(Fault) as caught:
        decode(data)
    assert says in caught.value.text
    assert (caught.value.mark.line, caught.value.mark.column) == place


def test_a_byte_order_mark_is_skipped() -> None:
    assert decode(b"\xef\xbb\xbfa: 1") == "a: 1"
