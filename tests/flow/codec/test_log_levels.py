"""Log levels, one row a rule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narthex.errors import InvalidParams
from narthex.flow.codec.jsonrpc import Raw
from narthex.flow.codec.log_levels import LEVELS, asked_level, most_verbose, passes, read_level
from narthex.flow.codec.revisions import META_LOG_LEVEL


def raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_read(level: str) -> None:
    assert read_level({"level": raw(level)}) == asked_level({META_LOG_LEVEL: raw(level)}) == level


@pytest.mark.parametrize("level", ["Info", "", "trace", None, 3, ["info"]])
def test_no_level(level: Any) -> None:
    with pytest.raises(InvalidParams):
        read_level({"level": raw(level)})
    assert asked_level({META_LOG_LEVEL: raw(level)}) == ""


def test_nothing_asked_for() -> None:
    with pytest.raises(InvalidParams):
        read_level({})
    assert asked_level({}) == ""


@pytest.mark.parametrize(
    ("params", "least", "expected"),
    [
        pytest.param({"level": "warning"}, "warning", True, id="as severe"),
        pytest.param({"level": "error"}, "warning", True, id="more severe"),
        pytest.param({"level": "notice"}, "warning", False, id="less severe"),
        pytest.param({"level": "debug"}, "", True, id="nothing was said"),
        pytest.param({"level": "loud"}, "emergency", True, id="an unknown level"),
        pytest.param({"level": 7}, "emergency", True, id="no level at all"),
        pytest.param([], "emergency", True, id="no object"),
    ],
)
def test_what_passes(params: Any, least: str, expected: bool) -> None:
    assert passes(raw(params), least) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "", ""), ("info", "", "info"), ("", "info", "info"), ("info", "debug", "debug"), ("alert", "error", "error")],
)
def test_the_most_verbose(one: str, other: str, expected: str) -> None:
    assert most_verbose(one, other) == expected
