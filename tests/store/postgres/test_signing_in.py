"""A server that is not who it says it is: it gets no password, and is believed nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import pack

import pytest
from msgspec.structs import replace

from narthex.errors import StoreError
from narthex.store.postgres.connection import PostgresConnection
from narthex.store.postgres.database import Postgres
from narthex.stores import PostgresSpec
from tests.conftest import missing
from tests.counterparts import postgres_server
from tests.counterparts.postgres import Cluster

PASSWORD = "a-very-long-pass"


def asked(code: int, more: bytes = b"") -> bytes:
    """A request for authentication."""
    return b"R" + pack("!ii", 8 + len(more), code) + more


READY = b"Z" + pack("!i", 5) + b"I"


@contextmanager
def imposter(*said: bytes) -> Iterator[tuple[PostgresSpec, list[bytes]]]:
    """Listens where the database should, says one thing after each that it hears, and keeps all that it hears."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            peer, _ = listening.accept()
            with peer, suppress(ConnectionError):  # it may hang up before it has read all
                for words in said:
                    heard.append(peer.recv(4096))
                    peer.sendall(words)
                while more := peer.recv(4096):
                    heard.append(more)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        yield PostgresSpec("127.0.0.1", port, password=PASSWORD, sslmode="disable"), heard
        thread.join()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param([asked(3)], "shows it to whoever listens", id="it asks for the password itself"),
        pytest.param([asked(5, b"salt")], "shows it to whoever listens", id="it asks for what md5 makes of it"),
        pytest.param([asked(0) + READY], "lets anybody in", id="it asks for nothing"),
        pytest.param(
            [asked(10, b"SCRAM-SHA-256\0\0"), asked(0) + READY], "lets anybody in", id="it asks and does not prove it"
        ),
        pytest.param(
            [asked(10, b"SCRAM-SHA-256\0\0"), asked(11, b"r=x,s=c2FsdA==,i=1")], "fewer rounds", id="it wants to guess"
        ),
        pytest.param(
            [asked(10, b"SCRAM-SHA-256\0\0"), asked(11, b"r=x,s=c2FsdA==,i=2000000000")],
            "more than anybody uses",
            id="it wants to keep us busy",
        ),
    ],
)
def test_an_imposter_gets_no_password_and_is_not_believed(said: list[bytes], why: str) -> None:
    with imposter(*said) as (spec, heard), pytest.raises(StoreError) as refused:
        Postgres(spec).open()
    assert why in refused.value.problem and PASSWORD not in refused.value.problem
    assert PASSWORD.encode() not in b"".join(heard) and b"md5" not in b"".join(heard)
    assert b"SET search_path" not in b"".join(heard)


def test_what_an_imposter_says_moves_no_terminal() -> None:
    words = b"SERROR\0CXX000\0Mcome \x1b]0;in\x07 and\nsee\0\0"
    with imposter(b"E" + pack("!i", 4 + len(words)) + words) as (spec, _), pytest.raises(StoreError) as refused:
        Postgres(spec).open()
    assert refused.value.problem.isprintable() and "come  ]0;in  and see" in refused.value.problem


def test_a_server_that_has_proved_its_certificate_may_ask_as_it_likes(run_folder: Path) -> None:
    """A real one: without TLS it gets SCRAM or nothing, with TLS also the password."""
    if postgres_server.programs() is None:
        missing("PostgreSQL", postgres_server.NEEDED)
    cluster = Cluster(run_folder, tls=True)
    try:
        (cluster.folder / "data" / "pg_hba.conf").write_text(
            "local all all trust\nhost all plain all password\nhost all trusted all trust\n"
            "host all all all scram-sha-256\n"
        )
        cluster.start()
        admin = PostgresConnection(replace(cluster.spec, password=PASSWORD))  # a socket: nothing need be proved
        admin.script(f"SET password_encryption = 'scram-sha-256'; ALTER ROLE narthex PASSWORD '{PASSWORD}';"
                     f" CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE trusted LOGIN")  # fmt: skip
        admin.close()
        proved = replace(cluster.remote, password=PASSWORD)
        for spec in (
            proved, replace(proved, user="plain"), replace(proved, user="trusted"), replace(proved, sslmode="disable"),
            replace(proved, sslmode="disable", user="trusted", password=""),
        ):  # fmt: skip
            PostgresConnection(spec).close()
        for mode in ("disable", "require"):
            for user, why in (("plain", "shows it to"), ("trusted", "lets anybody in")):
                with pytest.raises(StoreError) as refused:
                    Postgres(replace(proved, sslmode=mode, user=user)).open()
                assert why in refused.value.problem
    finally:
        cluster.close()
