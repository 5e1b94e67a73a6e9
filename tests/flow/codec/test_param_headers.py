"""`x-mcp-header`: which tools have it, what we send, what of a client's we take; and that the official SDK agrees."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import (
    find_invalid_x_mcp_header,
    mcp_param_headers,
    validate_mcp_param_headers,
    x_mcp_header_map,
)

from narthex.errors import GatewayError, HeaderMismatch, InvalidParams, ParseError
from narthex.flow.codec.headers import encode_value
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.codec.param_headers import (
    KEY,
    MOST_DEPTH,
    MOST_LINES,
    MOST_NAME,
    MOST_PARAMS,
    MOST_POSITIONS,
    MOST_SCHEMA,
    PREFIX,
    SAFE,
    BadAnnotation,
    Plan,
    Said,
    check_param_headers,
    forwarded_lines,
    is_annotated,
    param_lines,
    read_plan,
)

REGION = {"type": "string", KEY: "Region"}


def schema(properties: dict[str, Any] | None = None, **more: Any) -> bytes:
    return json.dumps({"type": "object", "properties": properties or {}, **more}, ensure_ascii=False).encode()


def nested(depth: int) -> dict[str, Any]:
    """A property that as many steps lead to."""
    inner: dict[str, Any] = REGION
    for _ in range(depth - 1):
        inner = {"type": "object", "properties": {"p": inner}}
    return {"p": inner}


def found(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {param.header: param.path for param in plan}


@pytest.mark.parametrize(
    ("raw", "headers"),
    [
        pytest.param(schema(), {}, id="no property"),
        pytest.param(schema({"region": REGION}), {"Mcp-Param-Region": ("region",)}, id="a string"),
        pytest.param(schema({"n": {"type": "integer", KEY: "N"}}), {"Mcp-Param-N": ("n",)}, id="an integer"),
        pytest.param(schema({"b": {"type": "boolean", KEY: "B"}}), {"Mcp-Param-B": ("b",)}, id="a boolean"),
        pytest.param(schema({"b": {"type": "string", KEY: "Method"}}), {"Mcp-Param-Method": ("b",)}, id="a known name"),
        pytest.param(
            schema({"b": {"type": "string", KEY: "B"}, "a": {"type": "string", KEY: "A"}}),
            {"Mcp-Param-B": ("b",), "Mcp-Param-A": ("a",)},
            id="two, in their order",
        ),
        pytest.param(
            schema({"to": {"type": "object", "properties": {"": REGION}}}),
            {"Mcp-Param-Region": ("to", "")},
            id="nested",
        ),
        pytest.param(schema(nested(MOST_DEPTH)), {"Mcp-Param-Region": ("p",) * MOST_DEPTH}, id="as deep as we look"),
        pytest.param(
            schema({"région": {"type": "string", KEY: "!#$%&'*+-.^_`|~09azAZ"}}),
            {"Mcp-Param-!#$%&'*+-.^_`|~09azAZ": ("région",)},
            id="each character of a token",
        ),
        pytest.param(
            schema({KEY: {"type": "string", KEY: "Key"}}), {"Mcp-Param-Key": (KEY,)}, id="a property of that name"
        ),
        pytest.param(schema({KEY: {"type": "object"}}), {}, id="only a property of that name"),
        pytest.param(schema({"a": {"type": "string", "description": f"sets {KEY}"}}), {}, id="in a description"),
        pytest.param(schema({"a": {"default": {KEY: "A"}, "enum": [{KEY: ""}]}}), {}, id="in data"),
        pytest.param(schema({"a": {"const": {KEY: ""}, "examples": [{KEY: ""}]}}), {}, id="in data of other keywords"),
        pytest.param(
            schema({"a": {"type": "string", KEY: "A" * MOST_NAME}}), {"Mcp-Param-" + "A" * MOST_NAME: ("a",)}, id="long"
        ),
        pytest.param(
            b'{"properties":{"a":{"x-mcp\\u002Dheader":"A","type":"string"}}}', {"Mcp-Param-A": ("a",)}, id="one escape"
        ),
        pytest.param(
            b'{"properties":{"a":{"\\u0078-mcp-he\\u0061d\\u0065r":"A","type":"string"}}}',
            {"Mcp-Param-A": ("a",)},
            id="a key written with escapes",
        ),
        pytest.param(b'{"properties":[{"x-mcp-header":"A"}]}', {}, id="properties that are no object"),
        pytest.param(b'["x-mcp-header"]', {}, id="a schema that is no object"),
    ],
)
def test_what_a_schema_asks_for(raw: bytes, headers: dict[str, tuple[str, ...]]) -> None:
    assert list(found(read_plan(raw)).items()) == list(headers.items())
    assert find_invalid_x_mcp_header(json.loads(raw)) is None


PROPERTY_NAMES = [
    pytest.param("", id="empty"),
    pytest.param("My Region", id="a space"),
    pytest.param("Region:Primary", id="a colon"),
    pytest.param("Région", id="not ASCII"),
    pytest.param("Region\t1", id="a control character"),
    pytest.param("Region\r\nX-Injected: y", id="a line end"),
    pytest.param("Region\n", id="a line end at its end"),
    pytest.param("a/b", id="a separator"),
    pytest.param("\0", id="NUL"),
    pytest.param(7, id="a number"),
    pytest.param(None, id="null"),
    pytest.param(["Region"], id="a list"),
]


@pytest.mark.parametrize("name", PROPERTY_NAMES)
def test_a_name_that_is_no_token(name: object) -> None:
    refused(schema({"a": {"type": "string", KEY: name}}))


@pytest.mark.parametrize("kind", ["object", "array", "null", "number", "strings", ["string", "null"], 1, None])
def test_a_type_that_has_no_header(kind: object) -> None:
    refused(schema({"a": {"type": kind, KEY: "A"}}))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(schema({"a": {KEY: "A"}}), id="no type"),
        pytest.param(schema({"a": REGION, "b": REGION}), id="twice"),
        pytest.param(schema({"a": REGION, "b": {"type": "string", KEY: "rEGION"}}), id="twice, in another case"),
        pytest.param(json.dumps(REGION).encode(), id="on the root"),
        pytest.param(schema({"a": {"type": "array", "items": REGION}}), id="below items"),
        pytest.param(schema({"a": {"prefixItems": [REGION]}}), id="below prefixItems"),
        pytest.param(schema(oneOf=[{"properties": {"a": REGION}}]), id="below oneOf"),
        pytest.param(schema(allOf=[{"properties": {"a": REGION}}]), id="below allOf"),
        pytest.param(schema(anyOf=[REGION]), id="below anyOf"),
        pytest.param(schema({"a": {"not": REGION}}), id="below not"),
        pytest.param(schema(**{"if": {"properties": {"a": REGION}}}), id="below if"),
        pytest.param(schema(then={"properties": {"a": REGION}}), id="below then"),
        pytest.param(schema(**{"else": {"properties": {"a": REGION}}}), id="below else"),
        pytest.param(schema({"a": {"$ref": "#/$defs/a"}}, **{"$defs": {"a": REGION}}), id="where $ref leads"),
        pytest.param(schema(definitions={"a": REGION}), id="in definitions"),
        pytest.param(schema(patternProperties={".*": REGION}), id="below patternProperties"),
        pytest.param(schema(additionalProperties=REGION), id="below additionalProperties"),
        pytest.param(schema(dependentSchemas={"a": {"properties": {"b": REGION}}}), id="below dependentSchemas"),
        pytest.param(schema({"a": {"items": {"properties": {"b": REGION}}}}), id="below items, then properties"),
    ],
)
def test_an_annotation_in_a_place_that_has_none(raw: bytes) -> None:
    refused(raw)


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param({"items": [REGION]}, id="a list of items"),
        pytest.param({"items": [], "additionalItems": REGION}, id="additionalItems"),
        pytest.param({"dependencies": {"a": REGION, "b": ["a"]}}, id="dependencies"),
    ],
)
def test_places_of_older_drafts(inner: dict[str, Any]) -> None:
    refused(schema({"a": inner}), by_the_sdk_too=False)


def refused(raw: bytes, *, by_the_sdk_too: bool = True) -> None:
    with pytest.raises(BadAnnotation) as caught:
        read_plan(raw)
    assert caught.value.detail and len(caught.value.detail) < 250
    assert (find_invalid_x_mcp_header(json.loads(raw)) is not None) is by_the_sdk_too


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(schema({f"p{n}": {"type": "string", KEY: f"P{n}"} for n in range(MOST_PARAMS + 1)}), id="headers"),
        pytest.param(schema(nested(MOST_DEPTH + 1)), id="depth"),
        pytest.param(schema({"a": {"type": "string", KEY: "A" * (MOST_NAME + 1)}}), id="length of a name"),
        pytest.param(schema({"a": REGION}, description="d" * MOST_SCHEMA), id="bytes"),
        pytest.param(schema({"a": REGION}, anyOf=[{}] * MOST_POSITIONS), id="schemas"),
        pytest.param(b'{"x-mcp-header":', id="not JSON"),
        pytest.param(b'{"not":' * 20_000 + b'"x-mcp-header"', id="nested without end"),
    ],
)
def test_beyond_our_bounds(raw: bytes) -> None:
    with pytest.raises(BadAnnotation):
        read_plan(raw)


def test_a_tool_without_it_is_told_by_its_bytes() -> None:
    assert not is_annotated(schema({"a": {"type": "string", "description": "\\u0078 and \\u002d" * 99}}))
    assert read_plan(b"this is not even JSON") == ()
    assert param_lines((), Raw(b"nor this")) == b""
    check_param_headers((), {b"mcp-param-region": b"x"}, frozenset(), Raw(b"nor this"))


PLAN = read_plan(
    schema(
        {
            "region": REGION,
            "count": {"type": "integer", KEY: "Count"},
            "deep": {"type": "object", "properties": {"flag": {"type": "boolean", KEY: "Flag"}}},
        }
    )
)


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        pytest.param('{"region": "us-west1"}', b"Mcp-Param-Region: us-west1\r\n", id="plain"),
        pytest.param('{"region":"us west 1"}', b"Mcp-Param-Region: us west 1\r\n", id="inner spaces"),
        pytest.param(
            '{"region":"Hello, 世界"}', b"Mcp-Param-Region: =?base64?SGVsbG8sIOS4lueVjA==?=\r\n", id="not ASCII"
        ),
        pytest.param('{"region":" padded "}', b"Mcp-Param-Region: =?base64?IHBhZGRlZCA=?=\r\n", id="edge spaces"),
        pytest.param('{"region":"line1\\nline2"}', b"Mcp-Param-Region: =?base64?bGluZTEKbGluZTI=?=\r\n", id="line end"),
        pytest.param(
            '{"region":"=?base64?literal?="}',
            b"Mcp-Param-Region: =?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=\r\n",
            id="like the sentinel",
        ),
        pytest.param('{"region":""}', b"Mcp-Param-Region: =?base64??=\r\n", id="empty"),
        pytest.param('{"count":42}', b"Mcp-Param-Count: 42\r\n", id="an integer"),
        pytest.param('{"count":-7}', b"Mcp-Param-Count: -7\r\n", id="a negative one"),
        pytest.param('{"count":42.0}', b"Mcp-Param-Count: 42\r\n", id="an integer with a fraction of nothing"),
        pytest.param('{"count":-0}', b"Mcp-Param-Count: 0\r\n", id="minus zero"),
        pytest.param(f'{{"count":{SAFE}}}', b"Mcp-Param-Count: 9007199254740991\r\n", id="the largest"),
        pytest.param('{"count":3.25}', b"Mcp-Param-Count: 3.25\r\n", id="no integer: the server refuses it"),
        pytest.param('{"count":"x"}', b"Mcp-Param-Count: x\r\n", id="no number: the server refuses it"),
        pytest.param('{"deep":{"flag":true}}', b"Mcp-Param-Flag: true\r\n", id="nested"),
        pytest.param('{"deep":{"flag":false},"count":0}', b"Mcp-Param-Count: 0\r\nMcp-Param-Flag: false\r\n", id="two"),
        pytest.param('{"region":null,"deep":null}', b"", id="null"),
        pytest.param('{"flag":true,"other":"x"}', b"", id="not there"),
        pytest.param('{"region":{"a":1},"count":[1],"deep":[{"flag":true}]}', b"", id="objects and lists"),
        pytest.param('{"deep":{}}', b"", id="the way is there, the value not"),
        pytest.param("{}", b"", id="no arguments"),
        pytest.param("[]", b"", id="arguments that are no object"),
        pytest.param(None, b"", id="none at all"),
    ],
)
def test_what_we_send(arguments: str | None, lines: bytes) -> None:
    raw = None if arguments is None else Raw(arguments.encode())
    assert param_lines(PLAN, raw) == lines
    check_param_headers(PLAN, headers_of(lines), frozenset(), raw)


def headers_of(lines: bytes) -> dict[bytes, bytes]:
    return {key.lower(): value for key, _, value in (one.partition(b": ") for one in lines.splitlines())}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param(f'{{"count":{SAFE + 1}}}', InvalidParams, id="beyond the safe integers"),
        pytest.param('{"count":-1e300}', InvalidParams, id="far beyond them"),
        pytest.param('{"count":1%s}' % ("0" * 5000), InvalidParams, id="a number without end"),
        pytest.param('{"region":"%s"}' % ("a" * MOST_LINES), InvalidParams, id="a string too long"),
        pytest.param('{"region":"%s"}' % ("a" * 1_000_000), InvalidParams, id="a string much too long"),
        pytest.param('{"region":"a","region":"b"}', ParseError, id="an argument twice"),
        pytest.param('{"deep":{"flag":true,"x":1,"flag":false}}', ParseError, id="a nested argument twice"),
        pytest.param('{"region":"\\ud800"}', ParseError, id="half a surrogate pair"),
    ],
)
def test_what_no_header_can_say(arguments: str, error: type[GatewayError]) -> None:
    with pytest.raises(error):
        param_lines(PLAN, Raw(arguments.encode()))
    with pytest.raises((error, HeaderMismatch)):
        check_param_headers(PLAN, {}, frozenset(), Raw(arguments.encode()))


@pytest.mark.parametrize(
    ("headers", "arguments", "accepted"),
    [
        pytest.param({"Region": b"us"}, {"region": "us"}, True, id="agree"),
        pytest.param({"Region": b"US"}, {"region": "us"}, False, id="values are case-sensitive"),
        pytest.param({"Region": b" us\t "}, {"region": "us"}, True, id="spaces around the value do not count"),
        pytest.param({"Region": b"us "}, {"region": "us "}, False, id="edge spaces are not part of the value"),
        pytest.param({"Region": b" "}, {"region": ""}, True, id="spaces alone are nothing"),
        pytest.param({}, {"region": "us"}, False, id="missing"),
        pytest.param({"Region": b"us"}, {}, False, id="a header for nothing"),
        pytest.param({"Region": b"null"}, {"region": None}, False, id="a header for null"),
        pytest.param({}, {"region": None}, True, id="null has none"),
        pytest.param({"Region": b"us"}, {"region": {"x": "us"}}, False, id="a header for an object"),
        pytest.param({"Region": b"=?base64?SGVsbG8=?="}, {"region": "Hello"}, True, id="encoded without need"),
        pytest.param({"Region": b"=?base64?SGVsbG8?="}, {"region": "Hello"}, False, id="padding is missing"),
        pytest.param({"Region": b"=?base64?SGVs!!!bG8=?="}, {"region": "Hello"}, False, id="no base64"),
        pytest.param({"Region": b"SGVsbG8="}, {"region": "SGVsbG8="}, True, id="base64 without its marks is text"),
        pytest.param({"Region": b"=?base64?SGVsbG8="}, {"region": "=?base64?SGVsbG8="}, True, id="nor with one mark"),
        pytest.param({"Region": b"=?base64?SGVsbG8=?="}, {"region": "=?base64?SGVsbG8=?="}, False, id="the sentinel"),
        pytest.param({"Region": b""}, {"region": ""}, True, id="an empty header"),
        pytest.param({"Region": b"=?base64??="}, {"region": ""}, True, id="empty, encoded"),
        pytest.param({"Region": b""}, {"region": "us"}, False, id="an empty header for a value"),
        pytest.param({"Region": b"x\x00y"}, {"region": "x\x00y"}, False, id="a character that no header has"),
        pytest.param({"Region": "ü".encode()}, {"region": "ü"}, False, id="not ASCII, not encoded"),
        pytest.param({"Count": b"42"}, {"count": 42}, True, id="a number"),
        pytest.param({"Count": b"42.0"}, {"count": 42}, True, id="numbers are compared as numbers"),
        pytest.param({"Count": b"42"}, {"count": 42.0}, True, id="in the body too"),
        pytest.param({"Count": b"42.5"}, {"count": 42}, False, id="another number"),
        pytest.param({"Count": b"42.0"}, {"count": "42"}, False, id="text is compared as text"),
        pytest.param({"Count": b"0x2a"}, {"count": 42}, False, id="no number of JSON"),
        pytest.param({"Count": "٤٢".encode()}, {"count": 42}, False, id="digits of another script"),
        pytest.param({"Count": b"true"}, {"count": True}, True, id="a boolean"),
        pytest.param({"Count": b"True"}, {"count": True}, False, id="a boolean in another case"),
        pytest.param({"Count": b"1"}, {"count": True}, False, id="a boolean is no number"),
        pytest.param({"Flag": b"true"}, {"deep": {"flag": True}}, True, id="nested"),
        pytest.param({"Flag": b"true"}, {"flag": True}, False, id="nested elsewhere"),
        pytest.param({"Other": b"x"}, {}, True, id="a header that we do not know"),
    ],
)
def test_a_clients_headers(headers: dict[str, bytes], arguments: dict[str, Any], accepted: bool) -> None:
    sent = {f"mcp-param-{name.lower()}".encode(): value for name, value in headers.items()}
    assert agrees(sent, arguments) is accepted


def agrees(headers: dict[bytes, bytes], arguments: dict[str, Any], repeated: frozenset[bytes] = frozenset()) -> bool:
    try:
        check_param_headers(PLAN, headers, repeated, Raw(json.dumps(arguments).encode()))
    except HeaderMismatch as error:
        assert (error.code, error.status) == (-32020, 400)
        return False
    return True


def test_a_repeated_header_is_refused_even_when_equal() -> None:
    sent = {b"mcp-param-region": b"us"}
    assert not agrees(sent, {"region": "us"}, frozenset({b"mcp-param-region"}))
    assert agrees(sent, {"region": "us"}, frozenset({b"accept", b"mcp-param-other"}))


def test_neither_value_is_in_what_is_logged() -> None:
    with pytest.raises(HeaderMismatch) as caught:
        check_param_headers(PLAN, {b"mcp-param-region": b"s3cret"}, frozenset(), Raw(b'{"region":"hunter2"}'))
    assert "Mcp-Param-Region" in caught.value.public
    assert not {"s3cret", "hunter2"} & set(caught.value.detail.replace("'", " ").split())


# --- headers that no plan has ---------------------------------------------------------------------------------------


def forwarded(headers: dict[bytes, bytes], repeated: frozenset[bytes] = frozenset()) -> bytes:
    return forwarded_lines(PLAN, Said(headers, repeated, tuple(name for name in headers if name.startswith(PREFIX))))


@pytest.mark.parametrize(
    ("headers", "lines"),
    [
        pytest.param({}, b"", id="none"),
        pytest.param({b"mcp-name": b"x", b"mcp-param": b"y", b"accept": b"z"}, b"", id="of another name"),
        pytest.param({b"mcp-param-other": b"x y"}, b"mcp-param-other: x y\r\n", id="as it came"),
        pytest.param({b"mcp-param-region": b"us"}, b"", id="one of the plan is made anew"),
        pytest.param({b"mcp-param-other": b"=?base64?YQ==?="}, b"mcp-param-other: =?base64?YQ==?=\r\n", id="encoded"),
        pytest.param({b"mcp-param-other": b"\t x "}, b"mcp-param-other: x\r\n", id="without the spaces around it"),
        pytest.param({b"mcp-param-other": b""}, b"mcp-param-other: \r\n", id="empty"),
    ],
)
def test_what_is_forwarded(headers: dict[bytes, bytes], lines: bytes) -> None:
    assert forwarded(headers) == lines


@pytest.mark.parametrize(
    ("headers", "repeated"),
    [
        pytest.param({b"mcp-param-other": "ü".encode()}, frozenset(), id="not ASCII"),
        pytest.param({b"mcp-param-other": b"a\r\nx: y"}, frozenset(), id="a line end"),
        pytest.param({b"mcp-param-other": b"a\x00"}, frozenset(), id="a control character"),
        pytest.param({b"mcp-param-o:x": b"a"}, frozenset(), id="a name that is no token"),
        pytest.param({b"mcp-param-other": b"a"}, frozenset({b"mcp-param-other"}), id="one that came twice"),
    ],
)
def test_what_is_refused_and_not_forwarded_in_part(headers: dict[bytes, bytes], repeated: frozenset[bytes]) -> None:
    with pytest.raises(HeaderMismatch):
        forwarded(headers, repeated)


def test_what_is_forwarded_is_bounded() -> None:
    assert forwarded({b"mcp-param-%d" % n: b"x" for n in range(MOST_PARAMS)}).count(b"\r\n") == MOST_PARAMS
    with pytest.raises(InvalidParams):
        forwarded({b"mcp-param-%d" % n: b"x" for n in range(MOST_PARAMS + 1)})
    with pytest.raises(InvalidParams):
        forwarded({b"mcp-param-x": b"x" * MOST_LINES})


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_any_header_is_one_line_or_refused(name: bytes, value: bytes) -> None:
    try:
        lines = forwarded({PREFIX + name: value})
    except HeaderMismatch:
        return
    assert lines.endswith(b"\r\n") and not {0, 10, 13} & set(lines[:-2]) or not lines


# --- the official SDK, as the other side ---------------------------------------------------------------------------

NAMES = st.sampled_from(["", "A", "a", "B", "Region", "a b", "ü", "x\r\ny", "a:b", 1, None])
TYPES = st.sampled_from(["string", "integer", "boolean", "number", "object", ["string"], None])
SUBSCHEMAS = ["items", "not", "if", "then", "else", "contains", "additionalProperties", "contentSchema"]
KEYS = st.sampled_from(["p", "q", KEY, "properties", "ü"])
leaves = st.fixed_dictionaries({}, optional={"type": TYPES, KEY: NAMES, "default": st.just({KEY: "A"})})
schemas = st.recursive(
    leaves,
    lambda inner: st.fixed_dictionaries(
        {"type": TYPES},
        optional={
            "properties": st.dictionaries(KEYS, inner, max_size=3),
            "$defs": st.dictionaries(KEYS, inner, max_size=2),
            "anyOf": st.lists(inner, max_size=2),
            "enum": st.lists(inner, max_size=1),
            **dict.fromkeys(SUBSCHEMAS[:2], inner),
            KEY: NAMES,
        },
    ),
    max_leaves=6,
)


def same_verdict(tree: dict[str, Any]) -> None:
    raw = json.dumps(tree).encode()
    try:
        plan = read_plan(raw)
    except BadAnnotation:
        assert find_invalid_x_mcp_header(tree) is not None
    else:
        assert find_invalid_x_mcp_header(tree) is None
        assert found(plan) == {f"Mcp-Param-{name}": path for path, name in x_mcp_header_map(tree).items()}


@given(schemas.map(lambda inner: {"type": "object", "properties": {"top": inner}}))
def test_the_sdk_and_we_drop_the_same_tools(tree: dict[str, Any]) -> None:
    same_verdict(tree)


@pytest.mark.parametrize("keyword", [*SUBSCHEMAS, "default", "const", "x-vendor", "$ref"])
def test_the_sdk_and_we_look_into_the_same_keywords(keyword: str) -> None:
    same_verdict({"properties": {"a": {keyword: REGION}}})


SCHEMA = json.loads(
    schema({"s": {"type": "string", KEY: "S"}, "o": {"properties": {"n": {"type": "integer", KEY: "N"}}}})
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["", " a", "a\t", "=?base64?YQ==?=", "a\r\nX: y", "=?x", "a b", "\x7f", "42", "true"]
)
VALUES = st.none() | st.booleans() | st.integers(-SAFE, SAFE) | TEXT
ARGUMENTS = st.fixed_dictionaries(
    {}, optional={"s": VALUES, "o": st.none() | st.fixed_dictionaries({}, optional={"n": VALUES})}
)


@given(arguments=ARGUMENTS, other=ARGUMENTS, ascii=st.booleans())
def test_the_sdk_takes_what_we_send_and_we_take_what_it_sends(
    arguments: dict[str, Any], other: dict[str, Any], ascii: bool
) -> None:
    plan, raw = read_plan(json.dumps(SCHEMA).encode()), Raw(json.dumps(arguments, ensure_ascii=ascii).encode())
    lines = param_lines(plan, raw)
    ours = {key.decode("ascii"): value.decode("ascii") for key, value in headers_of(lines).items()}
    assert lines.count(b"\r") == lines.count(b"\n") == len(ours), "one line a header, whatever the arguments say"
    assert validate_mcp_param_headers(SCHEMA, arguments, ours) is None

    theirs = mcp_param_headers(x_mcp_header_map(SCHEMA), arguments)
    sent = {key.lower().encode(): value.encode() for key, value in theirs.items()}
    check_param_headers(plan, sent, frozenset(), raw)

    same = validate_mcp_param_headers(SCHEMA, other, theirs) is None
    try:
        check_param_headers(plan, sent, frozenset(), Raw(json.dumps(other).encode()))
    except HeaderMismatch:
        assert not same
    else:
        assert same


@given(st.binary(max_size=60), st.binary(max_size=60) | TEXT.map(encode_value))
def test_any_arguments_and_any_header_are_taken_or_refused(arguments: bytes, header: bytes) -> None:
    for raw in (Raw(arguments), Raw(b'{"region":' + arguments + b"}")):
        try:
            lines = param_lines(PLAN, raw)
            assert all(line.startswith(b"Mcp-Param-") for line in lines.splitlines())
            check_param_headers(PLAN, {b"mcp-param-region": header}, frozenset(), raw)
        except (HeaderMismatch, InvalidParams, ParseError):
            pass
