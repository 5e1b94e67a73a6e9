"""Records of what is done at the terminal: a chain of its own for each command, with or without a running gateway.

In: acts, the folder of a journal, the key of the installation. Out: one more chain in that folder, opened, synced,
signed and closed, and its head beside the store. Cases: `tests/cli/test_audit_kept.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from narthex.telemetry.acts import Event, line_of_act
from narthex.telemetry.audit.checkpoints import load_signer
from narthex.telemetry.audit.elsewhere import Elsewhere
from narthex.telemetry.audit.heads import Heads
from narthex.telemetry.audit.segments import BY_HAND, Segments
from narthex.telemetry.stamps import id_of


def record_by_hand(
    folder: Path,
    state_dir: Path,
    acts: Iterable[tuple[Event, Mapping[str, Any]]],
    *,
    second: str = "",
    now: Callable[[], float] = time.time,
    random: Callable[[int], bytes] = os.urandom,
) -> None:
    """Record what is about to be done, or was done: when this returns, it is on the disk.

    Args:
        second: The second place for checkpoints; one that takes none is said in the log, and holds up for seconds.
    Raises:
        OSError: It cannot be written. ConfigError: There is no key to sign it with.
    """
    number = -1

    def new_id(at: float) -> str:
        nonlocal number
        number += 1
        return id_of(int(at * 1000), number & 0xFFF, random(8))

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    signer, elsewhere = load_signer(state_dir), Elsewhere(Path(second)) if second else None
    put = elsewhere.put if elsewhere is not None else None
    try:
        heads = Heads(state_dir, folder, slot=BY_HAND)
        try:
            one = Segments(folder, signer, new_id(now()), new_id=new_id, slot=BY_HAND, elsewhere=put, heads=heads)
            one.open(now())
            for event, particulars in acts:
                one.add(line_of_act(event, particulars, now(), new_id(now())))
            one.close(now())
        finally:
            heads.close()
    finally:
        if elsewhere is not None:
            elsewhere.close()
