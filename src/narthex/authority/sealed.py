"""The secrets of the store: opened, sealed anew, and what to do where one does not open.

In: rows and `Envelopes`. Out: values; or words for the operator, which never hold a value.
Cases: `tests/authority/test_sealed.py`, `tests/cli/test_secrets.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from narthex.authority.envelope import EnvelopeError, Envelopes
from narthex.store.port import SealedSecret, Store


class Opened(msgspec.Struct, frozen=True):
    """One row, opened or not. Its value is never shown."""

    row: SealedSecret
    value: str | None = None
    problem: str = ""
    unknown_key: str | None = None

    def __repr__(self) -> str:
        return f"Opened({self.row.tenant!r}, {self.row.name!r}, {self.problem!r})"


def open_row(row: SealedSecret, envelopes: Envelopes) -> Opened:
    """Its value, or why not and what to do."""
    try:
        return Opened(row, envelopes.open(row.sealed, row.tenant, row.name))
    except EnvelopeError as error:
        return Opened(row, None, _way_out(row.name, error, envelopes), error.unknown_key)


def _way_out(name: str, error: EnvelopeError, envelopes: Envelopes) -> str:
    if error.unknown_key is None:
        return (
            f"what the store holds for it was changed, cut, or sealed for another name or tenant; put back a backup of"
            f" the store, or set it again: narthex secrets set {name}"
        )
    return (
        f"it is sealed with the master key {error.unknown_key}, which is not here (here: {', '.join(envelopes.ids)});"
        " add that key from a backup as a further line of narthex.key, or to NARTHEX_KEY behind a comma; if it is lost,"
        f" set the secret again: narthex secrets set {name}"
    )


async def reseal_all(store: Store, envelopes: Envelopes) -> tuple[int, list[Opened]]:
    """Bring every secret of the store under the current master key.

    Returns:
        How many were sealed anew, and those that do not open: they stay as they are.
    """
    changed: list[tuple[SealedSecret, bytes]] = []
    failed: list[Opened] = []
    for row in await store.secrets():
        try:
            sealed = envelopes.reseal(row.sealed, row.tenant, row.name)
        except EnvelopeError:
            failed.append(open_row(row, envelopes))
            continue
        if sealed is not None:
            changed.append((row, sealed))
    return (await store.reseal(changed) if changed else 0), failed


def names_of(failed: Iterable[Opened]) -> str:
    """The secrets that are affected, for one line."""
    return ", ".join(sorted({one.row.name for one in failed}))
