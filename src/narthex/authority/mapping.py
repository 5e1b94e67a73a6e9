"""Who uses which account of a server: one table, asked when a caller first meets the server. Pure.

In: the rows of a server, a principal. Out: its `account`, a text that is part of every key of sessions and lists: the
credential's name, and for one that is made of the caller's token the scopes of that token. Cases:
`tests/authority/test_mapping.py`.
"""

from __future__ import annotations

from narthex.flow.identity.who import fits
from narthex.types import CertificateCredential, Credential, EnvCredential, Principal, TokenCredential, Use, Who

NOTHING = ""
"""Nothing is shown to the server: no table, or `use: none`."""
NOBODY = "?"
"""No row fits: the server is not for this caller. No credential can have this name."""


def row_for(table: tuple[Use, ...], principal: Principal) -> Use | None:
    """The first row that fits, None where none does."""
    return next((row for row in table if fits(row.who, principal)), None)


def account_of(table: tuple[Use, ...], principal: Principal) -> str:
    """The principal's account with a server."""
    if not table:
        return NOTHING
    row = row_for(table, principal)
    if row is None:
        return NOBODY
    if row.credential is None:
        return NOTHING
    name = row.credential.name
    if isinstance(row.credential, TokenCredential) and row.credential.of_caller:
        # Two tokens of one caller may allow different things: what is made of one is not used for the other.
        return " ".join((name, *sorted(principal.scopes)))
    return name


def shown_beside(credential: Credential | None) -> CertificateCredential | None:
    """The certificate that a server is shown together with this credential."""
    if credential is None or isinstance(credential, (EnvCredential, CertificateCredential)):
        return None
    return credential.certificate


def alias_of(account: str) -> str:
    """The credential's name, for people and for the record; empty where nothing is shown."""
    return "" if account == NOBODY else account.partition(" ")[0]


def told_apart(table: tuple[Use, ...]) -> bool:
    """Does it matter who exactly calls? Not where one row, of a credential of its own, is for everybody."""
    if not table:
        return False
    first = table[0]
    alike = first.who == Who() and not (isinstance(first.credential, TokenCredential) and first.credential.of_caller)
    return not alike
