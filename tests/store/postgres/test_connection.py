"""One connection: values of every kind come back, many rows are few statements, TLS is proved, no password is said."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from narthex.errors import StoreError
from narthex.store.postgres import connection as module
from narthex.store.postgres.connection import PostgresConnection, translated
from narthex.store.postgres.database import Postgres
from narthex.stores import PostgresSpec
from narthex.types import SecretSource
from tests.conftest import missing
from tests.counterparts import postgres_server
from tests.counterparts.postgres import Cluster, Databases
from tests.e2e.certificates import Authority
from tests.e2e.harness import wait_for

PASSWORD = "pa ss/w@rd:ü"


@pytest.fixture(scope="module")
def spec(databases: Databases) -> PostgresSpec:
    return databases.new()


@pytest.fixture(scope="module")
def kept(spec: PostgresSpec) -> Iterator[PostgresConnection]:
    connection = PostgresConnection(spec)
    connection.script("CREATE TABLE anything (id BIGINT PRIMARY KEY, number BIGINT, text TEXT, bytes BYTEA)")
    yield connection
    connection.close()


INSERT = "INSERT INTO anything (id, number, text, bytes) VALUES (?, ?, ?, ?)"
UPSERT = f"{INSERT} ON CONFLICT DO UPDATE SET number = anything.number + excluded.number"


@given(
    number=st.none() | st.integers(-(1 << 63), (1 << 63) - 1), text=st.none() | st.text(), data=st.none() | st.binary()
)
def test_values_come_back(kept: PostgresConnection, number: int | None, text: str | None, data: bytes | None) -> None:
    kept.execute("DELETE FROM anything")
    kept.execute(INSERT, (1, number, text, data))
    said = text if text is None else text.replace("\0", "\ufffd").encode(errors="replace").decode()
    assert kept.execute("SELECT number, text, bytes FROM anything").fetchone() == [number, said, data]


@given(text=st.text(st.characters(codec=None, categories=None)))
def test_no_text_from_outside_breaks_a_statement(kept: PostgresConnection, text: str) -> None:
    kept.execute("DELETE FROM anything")
    kept.execute(INSERT, (1, 0, text, b""))
    assert len(kept.execute("SELECT text FROM anything").fetchone()[0]) == len(text)


@pytest.mark.parametrize("count", [0, 1, 7, 3000])
def test_many_rows_are_few_statements(kept: PostgresConnection, count: int) -> None:
    kept.execute("DELETE FROM anything")
    rows = [(number, 1, f"t{number}", None) for number in range(count)]
    assert kept.executemany(UPSERT, rows).rowcount == count
    assert kept.executemany(UPSERT, rows).rowcount == count
    assert kept.execute("SELECT count(*), sum(number) FROM anything WHERE text LIKE ?", ("t%",)).fetchone()[0] == count
    assert kept.executemany("UPDATE anything SET number = ? WHERE id = ?", [(9, 0), (9, 1)]).rowcount == min(count, 2)


def test_a_statement_is_prepared_once(kept: PostgresConnection) -> None:
    for number in range(5):
        assert kept.execute("SELECT ?::bigint + 1", (number,)).fetchone() == [number + 1]
    (count,) = kept.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%+ 1'").fetchone()
    assert count == 1


def test_what_is_upserted_says_by_which_key() -> None:
    assert translated("INSERT INTO a (b) VALUES (?) ON CONFLICT DO UPDATE SET b = ?") == (
        "INSERT INTO a (b) VALUES ($1) ON CONFLICT ON CONSTRAINT a_pkey DO UPDATE SET b = $2"
    )
    assert (
        translated("INSERT INTO a VALUES (?) ON CONFLICT DO NOTHING")
        == "INSERT INTO a VALUES ($1) ON CONFLICT DO NOTHING"
    )


def test_a_refused_statement_leaves_it_usable_and_a_cut_one_does_not(spec: PostgresSpec) -> None:
    database = Postgres(spec)
    connection = database.open()
    with pytest.raises(StoreError), database.explained(), database.transaction(connection):
        connection.execute("SELECT 1 / 0")
    assert connection.usable() and connection.execute("SELECT 1").fetchone() == [1]
    other = database.connect()
    (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    other.execute("SELECT pg_terminate_backend(?, 60000)", (pid,))
    other.close()
    assert not connection.usable()
    with pytest.raises(StoreError, match="store"), database.explained():
        connection.execute("SELECT 1")
    assert not connection.usable()
    connection.close()
    connection.close()


# --- signing in


@pytest.fixture(scope="module")
def guarded(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """By TLS and SCRAM, as from another machine."""
    if postgres_server.programs() is None:
        missing("PostgreSQL", postgres_server.NEEDED)
    cluster = Cluster(run_folder, tls=True)
    (cluster.folder / "data" / "pg_hba.conf").write_text(
        "local all all trust\nhostssl all certain all cert\nhostssl all all all scram-sha-256\n"
    )
    cluster.start()
    admin = PostgresConnection(cluster.spec)
    admin.script(f"SET password_encryption = 'scram-sha-256'; ALTER ROLE narthex PASSWORD '{PASSWORD}'")
    admin.close()
    Postgres(cluster.spec).migrate()
    yield cluster
    cluster.close()


def remote(cluster: Cluster) -> PostgresSpec:
    return replace(cluster.remote, password=PASSWORD)


def problem(spec: PostgresSpec) -> str:
    with pytest.raises(StoreError) as refused:
        Postgres(spec).open()
    said = refused.value.problem
    assert "pa ss" not in said + str(refused.value) + repr(spec) and "wrong" not in said.partition(": ")[2]
    return said


def test_tls_and_a_password_are_proved_both_ways(guarded: Cluster, tmp_path: Path) -> None:
    connection = Postgres(remote(guarded)).open()
    row = connection.execute("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
    assert row[0] is True and row[1] >= "TLSv1.2"
    connection.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"password": "wrong"}, "does not take the password of 'narthex'", id="a wrong password"),
        pytest.param({"password": ""}, "does not take the password", id="no password"),
        pytest.param({"user": "nobody"}, "does not take the password of 'nobody'", id="an unknown user"),
        pytest.param({"database": "nothing"}, "createdb --owner=narthex", id="an unknown database"),
        pytest.param({"ca": ""}, "its certificate is not taken", id="an authority that is not the system's"),
        pytest.param({"host": "127.0.0.1"}, "its certificate is not taken", id="another name than in its certificate"),
        pytest.param({"sslmode": "disable"}, "does not let 'narthex' in from here", id="no TLS where it is wanted"),
        pytest.param({"port": 1}, "cannot be reached", id="nobody listens"),
        pytest.param(
            {"host": "no-such-host.invalid"}, "its name 'no-such-host.invalid' is not known", id="no such host"
        ),
        pytest.param({"ca": "/no/such.pem"}, "/no/such.pem: No such file", id="no such file"),
    ],
)
def test_why_it_does_not_let_us_in(guarded: Cluster, changes: dict[str, object], said: str) -> None:
    assert said in problem(replace(remote(guarded), **changes))


def test_who_believes_more_connects_to_more(guarded: Cluster) -> None:
    for mode, host in (("verify-ca", "127.0.0.1"), ("require", "127.0.0.1")):
        Postgres(replace(remote(guarded), sslmode=mode, host=host)).open().close()
    Postgres(replace(remote(guarded), sslmode="require", ca="")).open().close()


def test_a_server_without_tls_is_not_talked_to(spec: PostgresSpec) -> None:
    """One that answers the request for TLS with `N`, as one without a certificate does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(8)
                peer.sendall(b"N")
                peer.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        said = problem(PostgresSpec("127.0.0.1", listening.getsockname()[1], password="wrong"))
        thread.join()
    assert "speaks no TLS" in said


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert "does not answer" in problem(PostgresSpec("127.0.0.1", port, sslmode="disable"))


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64, b"R\0\0\0\4", b"E\0\0\0\5\0", b"S" * 9],
    ids=["HTTP", "zeros", "cut short", "an error without words", "a size beyond all"],
)
def test_a_server_of_another_kind_is_said(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(200)
                peer.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        problem(PostgresSpec("127.0.0.1", listening.getsockname()[1], sslmode="disable"))
        thread.join()


def test_a_password_is_read_where_it_stands(guarded: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    for source in (SecretSource("file", str(file)), SecretSource("env", "DB_PASSWORD")):
        monkeypatch.setitem(os.environ, "DB_PASSWORD", PASSWORD)
        Postgres(replace(remote(guarded), password=source)).open().close()
    file.unlink()
    assert f"{file}: No such file" in problem(replace(remote(guarded), password=SecretSource("file", str(file))))


def test_a_certificate_signs_us_in(guarded: Cluster, tmp_path: Path) -> None:
    theirs = Authority(tmp_path, "ours")
    pair = theirs.issue("certain")
    admin = PostgresConnection(guarded.spec)
    admin.script("CREATE ROLE certain LOGIN; GRANT USAGE ON SCHEMA narthex TO certain;"
                 " GRANT SELECT ON ALL TABLES IN SCHEMA narthex TO certain")  # fmt: skip
    ca = guarded.folder / "clients.pem"
    ca.write_bytes(Path(theirs.file).read_bytes())
    ca.chmod(0o644)
    admin.script(f"ALTER SYSTEM SET ssl_ca_file = '{ca}'")
    admin.script("SELECT pg_reload_conf()")
    ours = replace(remote(guarded), user="certain", password="", cert=pair.cert, key=pair.key)

    def connected() -> bool:
        try:
            Postgres(ours).open().close()
        except StoreError:
            return False
        return True

    wait_for(connected, "the server to read its configuration again")
    with pytest.raises(StoreError):
        Postgres(replace(ours, cert="", key="")).open()
    admin.close()
