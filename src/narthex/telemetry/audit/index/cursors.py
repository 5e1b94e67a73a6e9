"""Where the next page goes on, as a text that whoever gets it need not understand.

In: a place in the index, what was asked. Out: a text, bound to the question; it opens nothing: who may not ask may not
go on either. Pure. Cases: `tests/telemetry/audit/index/test_cursors.py`.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

import msgspec

from narthex.telemetry.audit.matching import Wanted


def show_cursor(wanted: Wanted, place: int) -> str:
    """Empty where there is no next page."""
    return urlsafe_b64encode(place.to_bytes(8) + _bound(wanted)).decode() if place else ""


def read_cursor(wanted: Wanted, text: str) -> int:
    """The place. Raises ValueError: it is none, or of another question."""
    try:
        found = urlsafe_b64decode(text.encode("ascii"))
    except ValueError:
        raise ValueError("no cursor of ours") from None
    place = int.from_bytes(found[:8])
    if show_cursor(wanted, place) != text or not 0 < place < 1 << 63:
        raise ValueError("the cursor is of another question")
    return place


def _bound(wanted: Wanted) -> bytes:
    return sha256(msgspec.json.encode(wanted)).digest()[:7]
