"""Signing in at PostgreSQL: a password is shown to nobody who has not shown who they are.

The driver gives what it is asked for, the password itself to whoever listens at the port and asks for it. Here that
goes to a server alone whose certificate was proved. Any other gets SCRAM, with so many rounds that it is not worth
guessing at, and has to prove that it knows the password, too.
Cases: `tests/store/postgres/test_signing_in.py`. Source: PostgreSQL 15, 55.2.1 (start-up) and 55.3 (SASL).
"""

from __future__ import annotations

import re
from typing import Any, Final

from pg8000.core import CoreConnection, i_unpack
from pg8000.exceptions import InterfaceError

SHOWS_PASSWORD: Final = "wants the password in a way that shows it to whoever listens"
ASKS_NOTHING: Final = "lets anybody in without proving who it is"
WEAK: Final = "wants SCRAM with fewer rounds than are safe, or with more than anybody uses"
ROUNDS: Final = range(4096, 1_000_001)
"""Source: RFC 7677, 4. More would keep us busy for minutes."""
_OK, _PLAIN, _MD5, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 11, 12
_rounds = re.compile(rb",i=(\d{1,10})(?:,|$)").search


class Guarded(CoreConnection):  # type: ignore[misc]
    """Args:
    shielded: It has shown a certificate that we take. known: that, or it has a socket on this machine.
    password: Empty where we have none: then nobody can prove anything by it.
    """

    def __init__(self, *, known: bool, shielded: bool, password: str, **options: Any) -> None:
        self._shielded = shielded
        self._has_proved = known or not password
        super().__init__(password=password, **options)

    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Any) -> None:
        """Raises InterfaceError: it is not to be told, or not to be believed."""
        (code,) = i_unpack(data)
        if code in (_PLAIN, _MD5) and not self._shielded:
            raise InterfaceError(SHOWS_PASSWORD)
        if code == _OK and not self._has_proved:
            raise InterfaceError(ASKS_NOTHING)
        if code == _SASL_CONTINUE and ((found := _rounds(data)) is None or int(found[1]) not in ROUNDS):
            raise InterfaceError(WEAK)
        super().handle_AUTHENTICATION_REQUEST(data, context)
        self._has_proved = self._has_proved or code == _SASL_FINAL  # the driver has compared it
