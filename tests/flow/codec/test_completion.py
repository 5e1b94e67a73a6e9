"""What a completion speaks of, by rule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narthex.errors import InvalidParams
from narthex.flow.codec.completion import completed
from narthex.flow.codec.jsonrpc import Raw


def said(argument: str, context: str | None = None) -> tuple[Any, dict[str, Any]]:
    params = {"argument": Raw(argument.encode()), **({} if context is None else {"context": Raw(context.encode())})}
    arguments, told = completed(params)
    return json.loads(bytes(arguments["arguments"])), {key: json.loads(bytes(value)) for key, value in told.items()}


@pytest.mark.parametrize(
    ("argument", "context", "arguments", "told"),
    [
        pytest.param(
            '{"name":"a","value":"x"}', None, {"a": "x"}, {"argument": {"name": "a", "value": "x"}}, id="typed alone"
        ),
        pytest.param(
            '{"name":"a","value":"x"}',
            '{"arguments":{"b":"y"}}',
            {"a": "x", "b": "y"},
            {"argument": {"name": "a", "value": "x"}, "context": {"arguments": {"b": "y"}}},
            id="with those that are there",
        ),
        pytest.param(
            '{"name":"a","value":"x"}',
            '{"arguments":{"a":"z"}}',
            {"a": "x"},
            {"argument": {"name": "a", "value": "x"}, "context": {"arguments": {}}},
            id="what is typed is the one value of its name",
        ),
        pytest.param(
            '{"name":"a","value":"x","value":"y"}',
            None,
            {"a": "y"},
            {"argument": {"name": "a", "value": "y"}},
            id="a key that stands twice is sent once",
        ),
    ],
)
def test_is_read_and_told(argument: str, context: str | None, arguments: Any, told: dict[str, Any]) -> None:
    assert said(argument, context) == (arguments, told)


@pytest.mark.parametrize("argument", ["[]", "{}", '{"name":1,"value":"x"}', '{"name":"a"}', "{"])
def test_anything_else_is_refused(argument: str) -> None:
    with pytest.raises(InvalidParams):
        said(argument)
