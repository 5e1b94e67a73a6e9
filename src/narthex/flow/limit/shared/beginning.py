"""How a gateway begins to count on a server: what it asks (`begin.lua`), and what it is told.

In: who it is, and who it was before. Out: one command; the server's word, whose form was looked at: nothing worse than
`Garbled` comes of it. Cases: `tests/flow/limit/shared/test_script.py`; fuzz target `shared`.
"""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import Final

import msgspec

from narthex.flow.limit.shared.wire import LEASE_US, Garbled, command

BEGIN: Final = (files(__package__) / "begin.lua").read_bytes()
BEGIN_SHA: Final = sha1(BEGIN, usedforsecurity=False).hexdigest().encode()


def begin_command(hashes: tuple[bytes, bytes], ledger: bytes, holder: int, before: int, restored: bytes) -> bytes:
    """To begin to count (`begin.lua`); `before` 0 for none."""
    return command(
        b"EVALSHA", BEGIN_SHA, b"2", *hashes, ledger, b"%d" % holder, b"%d" % before if before else b"",
        b"%d" % LEASE_US, restored,
    )  # fmt: skip


class Begun(msgspec.Struct, frozen=True):
    """What `begin.lua` has said. `state`: 0 counts, 1 waits for another, 2 restores. `done`: -1 where nobody knows."""

    state: int
    now: int
    token: bytes
    done: int

    @property
    def since(self) -> int:
        """When it was last restored: what had ended by then is in what was restored."""
        return int(self.token[1:]) if self.state == 0 else 0


def read_begun(answer: object) -> Begun:
    """Raises Garbled."""
    if isinstance(answer, list) and len(answer) == 4:
        state, now, token, done = answer
        if type(state) is int and isinstance(now, bytes) and isinstance(token, bytes) and type(done) is int:
            sound = token[:1] == b"r" and token[1:].isdigit() if state == 0 else state in (1, 2)
            if sound and now.isdigit() and len(now) < 17 and len(token) < 80:
                return Begun(state, int(now), token, done)
    raise Garbled("no beginning")
