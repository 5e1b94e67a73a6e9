"""The way to a server that is its record: lists, answers, and an error for all else; at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narthex.errors import GatewayError, NotRecorded
from narthex.flow.codec.jsonrpc import Incoming
from narthex.flow.upstream.port import Outgoing
from narthex.playback.channel import RecordedChannel
from narthex.types import Era
from tests.playback.test_script import made, script

ITEMS: Any = {"tools": {"find": b'{"name":"find"}', "send": b'{"name":"send"}'}}


class Sink:
    """Takes what a request comes to."""

    def __init__(self) -> None:
        self.messages: list[Incoming] = []
        self.error: GatewayError | None = None
        self.is_over = False

    def started(self, streaming: bool) -> None: ...

    def message(self, message: Incoming) -> None:
        self.messages.append(message)

    def splice(self, head: bytes, total: int) -> bool:
        return False

    def chunk(self, data: bytes) -> None: ...

    def finished(self) -> None:
        self.is_over = True

    def failed(self, error: GatewayError) -> None:
        self.error = error


def sent(method: str, params: Any, era: Era = "legacy", **more: Any) -> Sink:
    channel, sink = RecordedChannel("one", ITEMS, script(made(1, {"a": 1}, **more)), era), Sink()
    id_ = channel.next_id()
    body = json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}).encode()
    flight = channel.request(Outgoing(id_, method, body), sink)
    flight.pause(), flight.resume(), flight.cancel("late")
    return sink


def result(sink: Sink) -> Any:
    (message,) = sink.messages
    assert sink.is_over and message.id == 1
    return json.loads(bytes(message.result or message.error))


def test_lists_are_what_the_catalogue_says() -> None:
    assert result(sent("tools/list", {})) == {"tools": [{"name": "find"}, {"name": "send"}]}
    assert result(sent("prompts/list", {})) == {"prompts": []}
    assert result(sent("tools/list", {}, "modern"))["resultType"] == "complete"


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_call_is_answered_from_the_record(era: Era) -> None:
    found = result(sent("tools/call", {"name": "find", "arguments": {"a": 1}}, era))
    assert found == {"n": 1} if era == "legacy" else found == {"resultType": "complete", "n": 1}


def test_what_says_its_type_passes_as_it_is() -> None:
    asks = b'{"resultType":"input_required","inputRequests":{}}'
    assert result(sent("tools/call", {"name": "find", "arguments": {"a": 1}}, "modern", answer=asks)) == json.loads(
        asks
    )


def test_a_recorded_error_is_one() -> None:
    sink = sent("tools/call", {"name": "find", "arguments": {"a": 1}}, answer=b'{"code":-31001}', is_error=True)
    assert result(sink) == {"code": -31001} and sink.messages[0].error


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"name": "find", "arguments": {"a": 2}}, id="other arguments"),
        pytest.param({"name": 7}, id="no name"),
        pytest.param({}, id="nothing"),
    ],
)
def test_what_is_not_recorded_fails(params: Any) -> None:
    sink = sent("tools/call", params)
    assert isinstance(sink.error, NotRecorded) and not sink.error.counts and not sink.messages


def test_other_methods_are_not_known() -> None:
    assert result(sent("completion/complete", {}))["code"] == -32601
    assert result(sent("ping", {})) == {}
