"""What is listed is what was called, or what a kept list says; whatever stands in it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from narthex.playback.catalogue import BadLists, derived, listed, merged, places
from narthex.playback.recorded import Recorded
from tests.playback.test_script import made


def of(calls: Iterable[Recorded]) -> dict[str, Any]:
    return {server: {kind: [json.loads(one) for one in items.values()] for kind, items in kinds.items()}
            for server, kinds in derived(calls).items()}  # fmt: skip


def test_what_was_called_is_listed_once_with_its_arguments() -> None:
    found = of([made(1, {"a": 1}), made(2, {"b": 1, "a": 1}), made(3, listed=False, name="hidden")])
    (tool,) = found["one"]["tools"]
    assert tool["name"] == "find" and list(tool["inputSchema"]["properties"]) == ["a", "b"]


def test_prompts_and_resources() -> None:
    found = of([
        made(1, {"who": "ada"}, "greet", kind="prompts"), made(2, name="file:///x/y.txt", kind="resources"),
    ])["one"]  # fmt: skip
    assert found["prompts"][0]["arguments"] == [{"name": "who"}]
    assert (found["resources"][0]["uri"], found["resources"][0]["name"]) == ("file:///x/y.txt", "y.txt")


def shows(server: str, own: str) -> list[str]:
    return [f"{server}__{own}"[:10]]


def test_a_kept_list_is_put_to_its_servers() -> None:
    calls = [made(1, name="a-long-name")]
    place = places(calls, shows)
    lists = {
        "tools": [{"name": "one__a-lon", "x": 1}, {"name": "two__b"}, {"name": "plain"}, {"name": 7}, {"no": "name"}],
        "resources": [{"uri": "file:///x", "name": "x"}],
    }
    found = listed(json.dumps(lists).encode(), place)
    assert json.loads(found["one"]["tools"]["a-long-name"]) == {"name": "a-long-name", "x": 1}
    assert set(found["one"]["tools"]) == {"a-long-name", "plain"} and set(found["two"]["tools"]) == {"b"}
    assert set(found["one"]["resources"]) == {"file:///x"}
    whole = merged(derived(calls), found)
    assert json.loads(whole["one"]["tools"]["a-long-name"])["x"] == 1 and "two" in whole


@pytest.mark.parametrize("document", [b"", b"[]", b'{"tools":7}', b'{"tools":[1]}', b"\xff"])
def test_what_is_no_document_of_lists(document: bytes) -> None:
    with pytest.raises(BadLists):
        listed(document, lambda kind, shown: None)


def test_where_nobody_knows_the_server_nothing_is_listed() -> None:
    assert listed(b'{"tools":[{"name":"x"}]}', places([], shows)) == {}
