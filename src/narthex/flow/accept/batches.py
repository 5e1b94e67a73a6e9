"""A batch under way: each of its messages goes its own way, and their answers go out together.

In: the messages of one body, and what takes one of them. Out: one JSON array, in the order of the messages; 202 where
none of them is answered. To whatever answers a message, its `Slot` is the client's connection; what is written there
is kept, within the bounds of one answer and of the bytes that all bodies may hold.
Cases: `tests/flow/accept/test_batches.py`. Source: MCP 2025-03-26, transports ("Sending Messages"); JSON-RPC 2.0 §6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from narthex.errors import CodecError, ContentBlocked, GatewayError
from narthex.flow.accept.replying import Replying
from narthex.flow.codec.batch import join_batch
from narthex.flow.codec.jsonrpc import UNSET, Id, decode_request, encode_error
from narthex.flow.held import Held

MOST_ANSWERS = 32 * 1024 * 1024
"""Bytes of all answers of a batch. One more is replaced by an error."""
JSON = b"application/json"


class Batch:
    """The answers of a batch, until all are there. It is the connection's `Exchanging`.

    Args:
        take: Has one message answered on the connection that it is given. Never raises.
        new_id: A decision id.
    """

    def __init__(
        self,
        connection: Replying,
        messages: Sequence[bytes],
        take: Callable[[Replying, bytes], None],
        new_id: Callable[[], str],
    ) -> None:
        self.held: Held = connection.held
        self.peer = connection.peer
        self.size = 0
        self.new_id = new_id
        self._connection: Replying | None = connection
        self._take = take
        self._slots = [Slot(self, message) for message in messages]
        self._waiting = list(reversed(self._slots))
        self._open = len(messages)

    def start(self) -> None:
        """Take the first message now, and one with each turn of the loop: others have their turns between them."""
        slot = self._waiting.pop()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self.start)
        self._take(slot, slot.message)

    def hold(self, size: int) -> None:
        """Raises ContentBlocked, Overloaded where so many bytes more are too many."""
        if self.size + size > MOST_ANSWERS:
            raise ContentBlocked("the answers of the batch are too large")
        self.held.take(size)
        self.size += size

    def give(self, size: int) -> None:
        """What was held is not needed."""
        self.held.give(size)
        self.size -= size

    def answered(self) -> None:
        """One more slot is done; the last one sends what there is."""
        self._open -= 1
        connection = self._connection
        if self._open or connection is None:
            return
        self._connection = None
        bodies = [slot.body for slot in self._slots if slot.body]
        statuses = {slot.status for slot in self._slots if slot.body}
        body = join_batch(bodies)
        if body:  # a legacy client drops the body of another status: only where nothing else came of it, it gets one
            connection.respond(min(statuses), JSON, (body,), len(body))
        else:
            connection.respond_empty(202)
        self.give(self.size)

    # --- Exchanging

    def client_gone(self) -> None:
        """Nobody reads the answers: what each message does about that is its own affair."""
        self._connection = None
        self.give(self.size)
        for slot in self._slots:
            slot.client_gone()

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Slot(Replying):
    """The place of one message in a batch. Its client never takes events."""

    def __init__(self, batch: Batch, message: bytes) -> None:
        super().__init__()
        self.message = message
        self.peer = batch.peer
        self.status = 200
        self.body = b""
        self.peer = batch.peer
        self._batch = batch
        self._parts: list[bytes] = []
        self._size = 0
        self._done = False

    @property
    def held(self) -> Held:
        return self._batch.held

    def respond(self, status: int, content_type: bytes, parts: Sequence[Any], size: int, extra: bytes = b"") -> None:
        self._begin(status, size)
        if not self._done:
            self._parts += parts
            self._finish()

    def respond_empty(self, status: int, extra: bytes = b"") -> None:
        self._finish()

    def begin_body(self, status: int, content_type: bytes, size: int | None, extra: bytes = b"") -> bytes:
        self._begin(status, size or 0)
        return b""

    def frame(self, data: bytes) -> bytes:
        return data

    def write(self, data: bytes) -> None:
        if not self._done:
            self._parts.append(data)

    def end_body(self, before: bytes = b"") -> None:
        self.write(before)
        self._finish()

    def abort(self) -> None:
        self._fail(GatewayError())

    def client_gone(self) -> None:
        self._done = True
        self._parts.clear()
        if self.exchange is not None:
            self.exchange.client_gone()

    # --- what is kept

    def _begin(self, status: int, size: int) -> None:
        if self._done:
            return
        self.status = status
        try:
            self._batch.hold(size)
        except GatewayError as error:
            self._fail(error)
        else:
            self._size = size

    def _fail(self, error: GatewayError) -> None:
        if self._done:
            return
        self._batch.give(self._size)
        self.status = error.status
        self._parts = [encode_error(_id_of(self.message), error, self._batch.new_id())]
        self._finish()

    def _finish(self) -> None:
        if self._done:
            return
        self._done = True
        self.exchange = None
        self.body = b"".join(self._parts)
        self._parts.clear()
        self._batch.answered()


def _id_of(message: bytes) -> Id | None:
    try:
        id_ = decode_request(message).id
    except CodecError:
        return None
    return None if id_ is UNSET else id_
