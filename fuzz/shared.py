"""Fuzz target for what a server that keeps shared counters says: its answers, and the connection that they come on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import cast

import hiredis

from narthex.flow.limit.shared.beginning import read_begun
from narthex.flow.limit.shared.wire import Garbled, Numbers
from narthex.store.shared.connection import Connection, explain


class _Transport:
    """Takes what is sent, and ends when it is told to."""

    def __init__(self) -> None:
        self.ended = False

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.ended = True


def fuzz_shared(data: bytes) -> None:
    """Numbers or `Garbled`; a connection hands on answers, each to whoever asked, or ends, and says once why."""
    with suppress(Garbled):
        said = Numbers(data)
        assert 0 < said.now < 1 << 52
        while True:
            assert all(type(one) is int for one in said.take(2))
    closed: list[str] = []
    answers: list[object] = []
    connection, transport = Connection(closed.append), _Transport()
    connection.connection_made(cast(asyncio.BaseTransport, transport))
    for _ in range(3):
        connection.send(b"", answers.append)
    for start in range(0, len(data), 7):
        connection.data_received(data[start : start + 7])
        if not connection.alive:
            break
    assert len(answers) <= 3 and len(closed) <= 1 and transport.ended == bool(closed) != connection.alive
    for answer in answers:
        with suppress(Garbled):
            begun = read_begun(answer)
            assert begun.state in (0, 1, 2) and begun.since >= 0
        with suppress(Garbled):
            Numbers(answer)
        if isinstance(answer, hiredis.ReplyError):
            assert len(explain(answer)) < 120
