"""The way to a server that is its record: what a dry replay has where others have HTTP and stdio.

It lists what the catalogue says, and answers calls from the script, at once and in this process; there is no way from
here to any server. Cases: `tests/playback/test_channel.py`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from narthex.errors import GatewayError, NotRecorded
from narthex.flow.codec.bridge import missing_members
from narthex.flow.codec.headers import NAMED_BY
from narthex.flow.codec.jsonrpc import BAD_JSON, Incoming, Raw, RawMap, decode_map
from narthex.flow.codec.revisions import LATEST_LEGACY, MODERN
from narthex.flow.upstream.lists import METHOD
from narthex.flow.upstream.port import Dialect, Flight, Outgoing, Sink
from narthex.flow.walk import KIND_OF
from narthex.playback.catalogue import MEMBERS, Items
from narthex.playback.script import Script
from narthex.types import Era, Kind

_KINDS: Final[dict[str, Kind]] = {METHOD[kind]: kind for kind in MEMBERS}
_UNKNOWN: Final = Raw(b'{"code":-32601,"message":"a dry replay knows no such method"}')


class _Request(msgspec.Struct):
    params: dict[str, msgspec.Raw] = {}


class _Over(Flight):
    """A request that was answered when it was sent."""

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return

    def cancel(self, reason: str) -> None:
        return


_OVER: Final = _Over()


class RecordedChannel:
    """See `flow.upstream.port.Channel`.

    Args:
        era: `modern` where a client of that era was answered: so its answers pass as they are.
    """

    def __init__(self, server: str, items: Items, script: Script, era: Era) -> None:
        version = MODERN[0] if era == "modern" else LATEST_LEGACY
        capabilities: dict[str, Any] = {MEMBERS[kind]: {} for kind, some in items.items() if some}
        self.dialect = Dialect(era, version, capabilities, {"name": server, "version": "as recorded"})
        self.alive = True
        self.last_used = 0.0
        self.open_calls = 0
        self._server, self._items, self._script = server, items, script
        self._ids = 0

    def next_id(self) -> int:
        self._ids += 1
        return self._ids

    def request(self, out: Outgoing, sink: Sink) -> Flight:
        try:
            message = self._answer(out, msgspec.json.decode(out.body, type=_Request).params)
        except GatewayError as error:
            sink.failed(error)
        else:
            sink.message(message)
            sink.finished()
        return _OVER

    def notify(self, body: bytes) -> None:
        return

    async def close(self) -> None:
        self.alive = False

    def _answer(self, out: Outgoing, params: RawMap) -> Incoming:
        if (kind := _KINDS.get(out.method)) is not None:
            items = b",".join(self._items.get(kind, {}).values())
            return self._result(out, b'{"%b":[%b]}' % (MEMBERS[kind].encode(), items))
        if out.method == "ping":
            return self._result(out, b"{}")
        name = NAMED_BY.get(out.method)
        if name is None:
            return Incoming("2.0", out.id, error=_UNKNOWN)
        given = self._script.answer(
            KIND_OF[out.method], self._server, _text(params.get(name)), bytes(params.get("arguments", b""))
        )
        if given.is_error:
            return Incoming("2.0", out.id, error=Raw(given.body))
        return self._result(out, given.body)

    def _result(self, out: Outgoing, body: bytes) -> Incoming:
        """A result in the dialect of this channel: a modern one says that it is complete."""
        if self.dialect.era == "modern":
            members = decode_map(Raw(body))
            if extra := missing_members(out.method, members):
                body = b"{%b%b%b" % (extra, b"," if members else b"", body.lstrip()[1:])
        return Incoming("2.0", out.id, result=Raw(body))


def _text(raw: Raw | None) -> str:
    try:
        return msgspec.json.decode(raw if raw is not None else b"", type=str)
    except BAD_JSON:
        raise NotRecorded("the call names nothing") from None
