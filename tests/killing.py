"""Work that is killed at a chosen step: in a child, which ends without another word just before a call that changes a
file, or with half of what it was about to write."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

CHANGING = ("write", "pwrite", "pwritev", "ftruncate", "truncate", "fsync", "fdatasync", "replace", "rename",
            "unlink", "link", "utime")  # fmt: skip
KILLED = 9
STRIDE = 1 if os.environ.get("NARTHEX_TEST_KILLS") else 6
"""Every step (`make kills`), or some of them."""


def killed_at(step: int, work: Callable[[], Any], *, half: bool = False) -> bool:
    """Run this in a child, which is killed before its call number `step`, or in the middle of it where it writes.

    Returns:
        Was it? False: it had fewer steps, and has ended well.
    """
    child = os.fork()
    if not child:
        code = 1
        try:
            _count(step, half=half)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, KILLED)
    return os.waitstatus_to_exitcode(status) == KILLED


def _count(step: int, *, half: bool) -> None:
    left = [step]

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **more: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                if half and name in ("write", "pwrite"):
                    real(args[0], args[1][: len(args[1]) // 2], *args[2:])
                elif half and name == "pwritev":
                    real(args[0], [args[1][0][: len(args[1][0]) // 2]], *args[2:])
                os._exit(KILLED)
            return real(*args, **more)

        return call

    real_open = os.open

    def opens(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            left[0] -= 1
            if not left[0]:
                os._exit(KILLED)
        return real_open(path, flags, *more, **options)

    for name in CHANGING:
        setattr(os, name, counted(name))
    os.open = opens
    from narthex.telemetry.audit import segments

    segments.sync_file = os.fdatasync
