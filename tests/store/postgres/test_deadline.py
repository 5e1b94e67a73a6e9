"""A server that never answers, or never ends to, holds nobody longer than its time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from narthex.errors import StoreError
from narthex.store.postgres import connection
from narthex.store.postgres.connection import PostgresConnection
from narthex.store.postgres.database import Postgres
from narthex.store.postgres.deadline import Deadline
from narthex.stores import PostgresSpec
from tests.counterparts.postgres import Cluster

Then = Callable[[socket.socket, threading.Event], None]
LET_IN = b"R" + pack("!ii", 8, 0) + b"Z" + pack("!i", 5) + b"I"
SET = b"C" + pack("!i", 8) + b"SET\0" + b"Z" + pack("!i", 5) + b"I"
ENDLESS = b"N" + pack("!i", 1 << 20)
"""The beginning of a message of a mebibyte."""


def stalls(_: socket.socket, over: threading.Event) -> None:
    over.wait()


def drips(peer: socket.socket, over: threading.Event) -> None:
    """A byte now and then: no wait for the next is ever long."""
    peer.sendall(ENDLESS)
    while not over.wait(0.01):
        peer.sendall(b"x")


@contextmanager
def answering(folder: Path, *said: bytes, then: Then) -> Iterator[PostgresSpec]:
    """Listens where the database should, says one thing after each that it hears, and then no more, or never enough."""
    over = threading.Event()
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(folder / ".s.PGSQL.5432"))
        listening.listen()

        def serve() -> None:
            peer, _ = listening.accept()
            with peer, suppress(OSError):  # we hang up, which is what is wanted
                for words in said:
                    peer.recv(4096)
                    peer.sendall(words)
                then(peer, over)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield PostgresSpec(str(folder), sslmode="disable")
        finally:
            over.set()
            thread.join()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pg")  # short: the path of a socket has room for 107 bytes


@pytest.mark.parametrize("then", [stalls, drips])
def test_signing_in_has_an_end(folder: Path, then: Then, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SIGN_IN_S", 0.3)
    with answering(folder, then=then) as spec, pytest.raises(StoreError) as refused:
        Postgres(spec).open()
    assert "does not answer" in refused.value.problem


@pytest.mark.parametrize("then", [stalls, drips])
def test_a_statement_has_an_end(folder: Path, then: Then, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SLACK_S", 0.0)
    with answering(folder, LET_IN, SET, then=then) as spec:
        one = PostgresConnection(spec, answer_s=0.3)
        with pytest.raises(TimeoutError):
            one.execute("SELECT 1")
        assert not one.usable()
        one.close()


def test_each_statement_has_a_time_of_its_own(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.start()
    began: list[float] = []

    def begin(self: Deadline, seconds: float, **more: Any) -> None:
        began.append(seconds)
        before(self, seconds, **more)

    before = Deadline.begin
    monkeypatch.setattr(Deadline, "begin", begin)
    one = PostgresConnection(cluster.spec, answer_s=20.0)
    for _ in range(3):
        one.execute("SELECT 1")
    one.close()
    assert began == [connection.SIGN_IN_S, 25.0, 25.0, 25.0, 1.0]
