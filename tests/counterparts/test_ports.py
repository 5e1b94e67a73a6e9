"""A held port is refused, nobody else's, and can be served at again and again."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from tests.counterparts.ports import Port


def test_nobody_listens_at_it_until_a_program_does() -> None:
    held = Port()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", held.number))
        with socket.create_server(("127.0.0.1", held.number)), socket.create_connection(("127.0.0.1", held.number)):
            pass


def test_whoever_takes_any_port_gets_another() -> None:
    held = Port()
    with socket.socket() as careless, pytest.raises(OSError, match="in use"):
        careless.bind(("127.0.0.1", held.number))
    others = [socket.create_server(("127.0.0.1", 0)) for _ in range(200)]
    assert held.number not in {one.getsockname()[1] for one in others}
    for one in others:
        one.close()


@pytest.mark.skipif(sys.platform != "linux", reason="where ports of connections come from is the system's own")
def test_no_connection_comes_from_it() -> None:
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    held = [Port() for _ in range(50)]
    assert all(lowest <= one.number <= highest for one in held)
    numbers = {one.number for one in held}
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = [socket.create_connection(server.getsockname()) for _ in range(100)]
        assert not numbers & {one.getsockname()[1] for one in there}
        for one in there:
            one.close()
