"""Whatever is raised becomes words with a way out, and none of them has a password in it."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest
from pg8000.exceptions import DatabaseError, InterfaceError

from narthex.errors import StoreError
from narthex.store.postgres.problems import explained
from narthex.stores import PostgresSpec

SPEC = PostgresSpec("db", user="nx", database="gate", password="s3cret")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DatabaseError({"C": "28P01", "M": "…"}), "ALTER ROLE nx PASSWORD"),
        (DatabaseError({"C": "28000", "M": "no entry"}), "pg_hba.conf"),
        (DatabaseError({"C": "28001", "M": "no entry"}), "pg_hba.conf"),
        (DatabaseError({"C": "3D000", "M": "…"}), "createdb --owner=nx --encoding=UTF8 gate"),
        (DatabaseError({"C": "42P01", "M": "…"}), "narthex migrate"),
        (DatabaseError({"C": "42501", "M": "…"}), "docs/guides/postgresql.md"),
        (DatabaseError({"C": "25006", "M": "…"}), "name the primary"),
        (DatabaseError({"C": "53100", "M": "…"}), "its disk is full"),
        (DatabaseError({"C": "53300", "M": "…"}), "max_connections"),
        (DatabaseError({"C": "55P03", "M": "…"}), "keeps it locked"),
        (DatabaseError({"C": "57014", "M": "…"}), "takes too long"),
        (DatabaseError({"C": "57P03", "M": "…"}), "starting up"),
        (DatabaseError({"C": "XX001", "M": "invalid page"}), "is damaged, or has a fault of its own: invalid page"),
        (DatabaseError({"C": "22003", "M": "out of range {user}"}), "refuses: out of range {user} (22003)"),
        (DatabaseError({}), "refuses"),
        (DatabaseError("text"), "refuses: text"),
        (InterfaceError("network error"), "the connection has ended"),
        (caused(InterfaceError("network error"), TimeoutError("timed out")), "does not answer"),
        (caused(InterfaceError("network error"), OSError(errno.EPIPE, "Broken pipe")), "Broken pipe"),
        (InterfaceError("Server refuses SSL"), "speaks no TLS"),
        (InterfaceError("Authentication method 7 not supported by pg8000."), "scram-sha-256"),
        (socket.gaierror(-2, "Name or service not known"), "its name 'db' is not known"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "see whether it runs, and listens there"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/pw"), "/pw: No such file"),
        (ssl.SSLError(1, "handshake failure"), "TLS fails"),
        (EOFError(), "the connection has ended"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_problem_in_words(error: Exception, said: str) -> None:
    with pytest.raises(StoreError) as refused, explained(SPEC):
        raise error
    assert refused.value.problem.startswith("postgresql://nx@db:5432/gate: ") and said in refused.value.problem
    assert "s3cret" not in refused.value.problem and "db" not in refused.value.public


def test_what_is_no_fault_of_the_database_goes_through() -> None:
    with pytest.raises(ZeroDivisionError), explained(SPEC):
        raise ZeroDivisionError
