"""What a server asks on a stream that calls share: to whom it goes, and who is refused. One row a rule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narthex.flow.codec.jsonrpc import decode_incoming
from narthex.flow.upstream.multiplex import Answer
from narthex.flow.upstream.port import NOBODY, Behalf, Sink
from narthex.flow.upstream.pushes import MANY_CALLS, NO_CALL, place_notification, place_request, subscription_of
from tests.flow.gateway import run
from tests.flow.upstream.test_http import Heard

ALL: dict[str, Any] = {"sampling": {}, "elicitation": {}, "roots": {}}
ALONE = Behalf(ALL, one_session=True)
SOME = Behalf({"sampling": {}}, one_session=True)


def calls(clients: int, ours: int = 0) -> dict[int, Sink]:
    return {**{n: Heard() for n in range(clients)}, **{100 + n: Answer() for n in range(ours)}}


@pytest.mark.parametrize(
    ("method", "behalf", "clients", "ours", "answer"),
    [
        pytest.param("sampling/createMessage", ALONE, 1, 0, None, id="one call: it is that call's"),
        pytest.param("elicitation/create", ALONE, 1, 3, None, id="requests of ours are no calls"),
        pytest.param("roots/list", ALONE, 1, 0, None, id="roots"),
        pytest.param("roots/list", ALONE, 0, 0, (-32600, NO_CALL), id="no call"),
        pytest.param("roots/list", ALONE, 0, 2, (-32600, NO_CALL), id="no call but ours"),
        pytest.param("elicitation/create", ALONE, 2, 0, (-32600, MANY_CALLS), id="nobody knows which"),
        pytest.param("ping", ALONE, 2, 0, {}, id="a ping is ours to answer"),
        pytest.param("ping", NOBODY, 0, 0, {}, id="always"),
        pytest.param("roots/list", NOBODY, 1, 0, (-32601, "capability"), id="nothing was declared"),
        pytest.param("roots/list", SOME, 1, 0, None, id="one call that lacks it: it has an answer to that itself"),
        pytest.param("roots/list", SOME, 0, 0, (-32601, "capability"), id="this was not declared"),
        pytest.param("elicitation/create", SOME, 2, 0, (-32602, "capability"), id="nor any mode of this"),
        pytest.param("roots/list", Behalf(ALL, False), 1, 0, (-32601, "capability"), id="many clients share it"),
        pytest.param("tasks/get", ALONE, 1, 0, (-32601, "capability"), id="an unknown request"),
        pytest.param("elicitation/createx", ALONE, 1, 0, (-32601, "capability"), id="nearly a known one"),
    ],
)
@pytest.mark.parametrize("id_", [0, 7, "a"])
def test_a_request(method: str, behalf: Behalf, clients: int, ours: int, answer: Any, id_: int | str) -> None:
    async def main() -> None:
        message = decode_incoming(json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": {}}).encode())
        waiting = calls(clients, ours)
        placed = place_request(message, behalf, waiting)
        if answer is None:
            assert placed is waiting[0]
            return
        assert isinstance(placed, bytes)
        said = json.loads(placed)
        assert said["id"] == id_
        if isinstance(answer, tuple):
            assert said["error"]["code"] == answer[0]
            assert answer[1] in said["error"]["message"]
        else:
            assert said["result"] == answer

    run(main)


@pytest.mark.parametrize(
    ("method", "behalf", "clients", "taken"),
    [
        pytest.param("notifications/message", ALONE, 1, True, id="a log line of the only call"),
        pytest.param("notifications/message", Behalf({}, True), 1, True, id="nothing need be declared for it"),
        pytest.param("notifications/cancelled", ALONE, 1, True, id="the server gives up what it asked"),
        pytest.param("notifications/message", ALONE, 2, False, id="whose is it?"),
        pytest.param("notifications/message", ALONE, 0, False, id="nobody's"),
        pytest.param("notifications/message", NOBODY, 1, False, id="it may come of another client's call"),
        pytest.param("notifications/tools/list_changed", ALONE, 1, False, id="changes are everybody's"),
        pytest.param("notifications/resources/updated", ALONE, 1, False, id="of resources too"),
        pytest.param("notifications/tasks/status", ALONE, 1, False, id="of tasks too"),
    ],
)
def test_a_notification(method: str, behalf: Behalf, clients: int, taken: bool) -> None:
    message = decode_incoming(json.dumps({"jsonrpc": "2.0", "method": method}).encode())

    async def main() -> None:
        waiting = calls(clients)
        assert place_notification(message, behalf, waiting) is (waiting[0] if taken else None)

    run(main)


STAMP = "io.modelcontextprotocol/subscriptionId"


@pytest.mark.parametrize(
    ("params", "stamp"),
    [
        ({"_meta": {STAMP: 3}}, 3),
        ({"_meta": {STAMP: "3"}}, None),
        ({"_meta": {STAMP: True}}, None),
        ({"_meta": {}}, None),
        ({"_meta": []}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_stamp_of_a_subscription_is_an_id_of_ours(params: Any, stamp: int | None) -> None:
    message = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": params}
    assert subscription_of(decode_incoming(json.dumps(message).encode())) == stamp
