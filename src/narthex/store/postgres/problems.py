"""What PostgreSQL, its driver, the network and TLS refuse, as a `StoreError` that names the database and the way out.

In: an exception, where the database is. Out: words without a password. Pure.
Cases: `tests/store/postgres/test_problems.py`. Source: PostgreSQL 15, appendix A (SQLSTATE).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from pg8000.exceptions import DatabaseError, Error

from narthex.errors import StoreError
from narthex.store.postgres.connection import NOT_UNDERSTOOD
from narthex.store.postgres.signing_in import ASKS_NOTHING, SHOWS_PASSWORD, WEAK
from narthex.stores import PostgresSpec

MIGRATE = "run `narthex migrate`"
_BY_CODE = {
    "28P01": "does not take the password of '{user}'; set it anew (ALTER ROLE {user} PASSWORD …), or mend the one in"
    " `store`",
    "28000": "does not let '{user}' in from here; see pg_hba.conf of the server",
    "3D000": "there is no database '{database}'; createdb --owner={user} --encoding=UTF8 {database}",
    "3F000": f"has no tables of Narthex yet; {MIGRATE}",
    "42P01": f"has no tables of Narthex yet; {MIGRATE}",
    "42501": "'{user}' may not do that there; GRANT it what docs/guides/postgresql.md lists",
    "25006": "takes no writes: it is a standby, or told to be read-only; name the primary in `store`",
    "53100": "its disk is full",
    "53200": "has no memory left",
    "53300": "has no connection left for us; raise max_connections, or see pg_stat_activity for who has them",
    "55P03": "another program keeps it locked; try again, or see in pg_locks which one",
    "40P01": "another program keeps it locked; try again",
    "57014": "takes too long to answer; see pg_stat_activity",
    "57P01": "it is being shut down",
    "57P02": "it has crashed and comes up again",
    "57P03": "it is starting up, or shutting down",
    "57P05": "it has ended a connection that was idle for too long",
}
_BY_CLASS = {
    "08": "the connection has failed",
    "28": "does not let '{user}' in; see pg_hba.conf of the server",
    "53": "is short of something: {said}",
    "58": "cannot read or write its disk: {said}",
    "XX": "is damaged, or has a fault of its own: {said}; see its log",
}


@contextmanager
def explained(spec: PostgresSpec) -> Iterator[None]:
    """Raises StoreError in the place of what the driver, the system and TLS raise."""
    try:
        yield
    except (Error, OSError, EOFError) as error:
        raise StoreError(f"{spec.name}: {words_for(error, spec)}") from None


def code_of(error: BaseException) -> str:
    """The SQLSTATE; empty where the server did not say one."""
    said = error.args[0] if isinstance(error, DatabaseError) and error.args else None
    code = str(said.get("C", "")) if isinstance(said, dict) else ""
    return code if code.isalnum() and len(code) == 5 else ""


def words_for(error: BaseException, spec: PostgresSpec) -> str:
    """What is the matter, and what to do."""
    if isinstance(error, DatabaseError):
        said = error.args[0] if error.args else ""
        text = str(said.get("M", "")) if isinstance(said, dict) else str(said)
        text = "".join(c if c.isprintable() else " " for c in text[:300])  # it may be anybody's, and goes to terminals
        code = code_of(error)
        words = _BY_CODE.get(code) or _BY_CLASS.get(code[:2]) or "refuses: {said} ({code})"
        return words.format(user=spec.user, database=spec.database, said=text, code=code)
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not taken: {cause.verify_message}; name its authority (sslrootcert=FILE), and the"
            " server by the name in its certificate"
        )
    if isinstance(cause, ssl.SSLError):
        return f"TLS fails: {getattr(cause, 'reason', None) or cause}"
    if isinstance(cause, TimeoutError):
        return "does not answer; see whether it runs, and whether a firewall lies between"
    if isinstance(cause, socket.gaierror):
        return f"its name '{spec.host}' is not known: {cause.strerror}"
    if isinstance(cause, OSError):
        if cause.filename:
            return f"{cause.filename}: {cause.strerror}"
        return f"cannot be reached: {cause.strerror or cause}; see whether it runs, and listens there"
    if "refuses SSL" in str(error):
        return "speaks no TLS; turn it on (ssl = on), or write sslmode=disable where nobody can listen"
    if str(error) == SHOWS_PASSWORD:
        return (
            f"{SHOWS_PASSWORD}; use scram-sha-256 in pg_hba.conf and set the password anew, or TLS with"
            " sslmode=verify-full"
        )
    if str(error) == ASKS_NOTHING:
        return f"{ASKS_NOTHING}; use scram-sha-256 in pg_hba.conf, or TLS with sslmode=verify-full"
    if str(error) == WEAK:
        return f"{WEAK}; set scram_iterations to 4096 or more, and the password anew"
    if "Authentication method" in str(error):
        return "wants a way of signing in that is not known here; use scram-sha-256 in pg_hba.conf"
    if NOT_UNDERSTOOD in str(error):
        return f"{error}; see whether that is its host and port"
    return "the connection has ended; see whether it runs"
