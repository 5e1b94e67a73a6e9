"""What a client declares, as bits and back: nothing is promised in its name that it did not say."""

from __future__ import annotations

import json
from functools import reduce
from operator import or_
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import ClientCapabilities

from narthex.errors import InvalidParams
from narthex.flow.codec.capabilities import IN_ERA, ClientCaps, bits_of, capabilities_of, carried
from narthex.flow.codec.jsonrpc import Raw

C = ClientCaps
APPS = {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}}
ALL = int(reduce(or_, ClientCaps))


def bits(capabilities: object) -> int:
    return bits_of(json.dumps(capabilities).encode())


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        pytest.param({}, C(0), id="none"),
        pytest.param({"elicitation": {}}, C.ELICITATION_FORM, id="2025-11-25, elicitation: an empty one means forms"),
        pytest.param({"elicitation": {"form": {}}}, C.ELICITATION_FORM, id="forms"),
        pytest.param({"elicitation": {"url": {}}}, C.ELICITATION_URL, id="URLs alone"),
        pytest.param({"elicitation": {"form": {}, "url": {}}}, C.ELICITATION_FORM | C.ELICITATION_URL, id="both"),
        pytest.param({"elicitation": {"vendor": {}}}, C.ELICITATION_FORM, id="2025-06-18: no modes yet"),
        pytest.param({"sampling": {}}, C.SAMPLING, id="sampling"),
        pytest.param({"sampling": {"tools": {}}}, C.SAMPLING | C.SAMPLING_TOOLS, id="sampling with tools"),
        pytest.param({"sampling": {"context": {"x": 1}}}, C.SAMPLING | C.SAMPLING_CONTEXT, id="sampling with context"),
        pytest.param({"roots": {}}, C.ROOTS, id="roots"),
        pytest.param({"roots": {"listChanged": True}}, C.ROOTS | C.ROOTS_CHANGED, id="roots that change"),
        pytest.param({"roots": {"listChanged": False}}, C.ROOTS, id="roots that say they do not"),
        pytest.param({"roots": {"listChanged": 1}}, C.ROOTS, id="one is not true"),
        pytest.param({"tasks": {}}, C.TASKS, id="tasks of 2025-11-25"),
        pytest.param(
            {"tasks": {"list": {}, "cancel": {}, "requests": {"sampling": {"createMessage": {}}}}},
            C.TASKS | C.TASKS_LIST | C.TASKS_CANCEL | C.TASKS_SAMPLING,
            id="tasks for sampling",
        ),
        pytest.param(
            {"tasks": {"requests": {"elicitation": {"create": {}}}}},
            C.TASKS | C.TASKS_ELICITATION,
            id="for elicitation",
        ),
        pytest.param(
            {"extensions": {"io.modelcontextprotocol/tasks": {}}}, C.TASKS_EXTENSION, id="the tasks extension"
        ),
        pytest.param({"extensions": APPS}, C.APPS, id="apps"),
        pytest.param(
            {"extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["a", "text/html;profile=mcp-app"]}}},
            C.APPS,
            id="apps among other types",
        ),
        pytest.param(
            {"extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["a"]}}}, C(0), id="other types alone"
        ),
        pytest.param({"extensions": {"com.example/x": {}}, "experimental": {"y": {}}}, C(0), id="what we do not know"),
        pytest.param({"sampling": True, "roots": [], "elicitation": None, "tasks": "yes"}, C(0), id="no objects"),
        pytest.param({"tasks": {"requests": []}, "extensions": 7}, C.TASKS, id="no objects inside"),
    ],
)
def test_what_a_client_declares(capabilities: dict[str, Any], expected: ClientCaps) -> None:
    assert bits(capabilities) == expected


@given(st.integers(0, ALL))
def test_what_is_declared_upstream_says_just_these_bits(chosen: int) -> None:
    declared = capabilities_of(chosen)
    again = bits(declared)
    inner = {"sampling": C.SAMPLING, "roots": C.ROOTS, "tasks": C.TASKS}  # said by whatever stands inside
    assert again == chosen | int(reduce(or_, (bit for key, bit in inner.items() if key in declared), C(0)))
    assert capabilities_of(again) == declared
    ClientCapabilities.model_validate(declared)


def test_bits_stand_in_handles_and_never_change() -> None:
    assert [f"{one.name} {one.value}" for one in ClientCaps] == [
        "ELICITATION_FORM 1",
        "ELICITATION_URL 2",
        "SAMPLING 4",
        "SAMPLING_TOOLS 8",
        "SAMPLING_CONTEXT 16",
        "ROOTS 32",
        "ROOTS_CHANGED 64",
        "TASKS 128",
        "TASKS_LIST 256",
        "TASKS_CANCEL 512",
        "TASKS_SAMPLING 1024",
        "TASKS_ELICITATION 2048",
        "TASKS_EXTENSION 4096",
        "APPS 8192",
    ]


def test_each_era_is_told_what_it_knows() -> None:
    modern, legacy = (capabilities_of(ALL & IN_ERA[era]) for era in ("modern", "legacy"))
    assert set(modern) == {"elicitation", "sampling", "roots", "extensions"}
    assert modern["roots"] == {}
    assert modern["extensions"] == {"io.modelcontextprotocol/tasks": {}, **APPS}
    assert set(legacy) == {"elicitation", "sampling", "roots", "tasks", "extensions"}
    assert legacy["extensions"] == APPS


def test_nobody_can_change_what_the_next_one_declares() -> None:
    capabilities_of(ALL)["extensions"]["io.modelcontextprotocol/ui"]["mimeTypes"].append("text/plain")
    assert capabilities_of(ALL)["extensions"]["io.modelcontextprotocol/ui"] == APPS["io.modelcontextprotocol/ui"]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{", id="cut"),
        pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
        pytest.param(b'{"a":' * 100_000, id="nested without end"),
        pytest.param(b'{"a":"%s"}' % (b"a" * 70_000), id="huge"),
    ],
)
def test_no_capabilities_at_all(raw: bytes) -> None:
    with pytest.raises(InvalidParams):
        bits_of(raw)


def test_large_ones_are_read_too() -> None:
    assert bits({"experimental": {"x": {"y": "y" * 5000}}, "sampling": {}}) == C.SAMPLING


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param(
            {"elicitation": {"form": {}, "x": 1}, "sampling": {}, "roots": {}}, None, id="what the revision knows"
        ),
        pytest.param(
            {
                "extensions": {
                    "io.modelcontextprotocol/ui": {"mimeTypes": ["a"], "x": 1},
                    "io.modelcontextprotocol/tasks": {},
                }
            },
            None,
            id="extensions that are carried, with their settings",
        ),
        pytest.param({"extensions": {}}, None, id="no extensions"),
        pytest.param(
            {"extensions": {"com.example/x": {}, "io.modelcontextprotocol/ui": {"y": 1.50}}, "roots": {}},
            {"extensions": {"io.modelcontextprotocol/ui": {"y": 1.50}}, "roots": {}},
            id="another extension is not declared in the client's name",
        ),
        pytest.param({"extensions": {"com.example/x": {}}}, {"extensions": {}}, id="nor if it is the only one"),
        pytest.param({"experimental": {"x": {}}, "sampling": {}}, {"sampling": {}}, id="nor what nobody knows"),
        pytest.param({"tasks": {"list": {}}}, {}, id="nor what the revision has not"),
        pytest.param(
            {"extensions": {f"x/{n}": {"y": "z" * 99} for n in range(30)}}, {"extensions": {}}, id="however large"
        ),
    ],
)
def test_what_servers_are_told_of_a_modern_client(declared: Any, told: Any) -> None:
    raw = Raw(json.dumps(declared).encode())
    found = carried(raw)
    if told is None:
        assert found is raw
    else:
        assert json.loads(bytes(found)) == told


@pytest.mark.parametrize(
    "raw", [b"[]", b'"x"', b"12", b'{"extensions":[]}', b'{"extensions":7}', b"{" + b" " * 70_000 + b"}"]
)
def test_declarations_of_another_form_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidParams):
        carried(Raw(raw))
