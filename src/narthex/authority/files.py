"""Secrets that stand in files, as Kubernetes and Docker mount them: read, and again when another file stands there.

In: a path. Out: its text, or why not. A mounted volume swaps a link, not the file, so `stat` follows links and looks at
what stands behind them. Does I/O; a file system may stall, so this is not called on the loop.
Cases: `tests/authority/test_files.py`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable

MOST = 64 * 1024
"""Bytes of a file."""


class FileProblem(Exception):
    """Why a file gives no secret. Its text holds nothing of what is in it."""


def mark_of(path: str) -> Hashable:
    """Differs when another file stands there, or its contents were written anew; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def read_secret(path: str) -> str:
    """The text without the line end at its end, which editors and `echo` put there.

    Raises:
        FileProblem: It is not there, not a file, too large, not UTF-8, or empty.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO there must not hang us
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileProblem(f"{path} is not a file")
            data = file.read(MOST + 1)
    except OSError as error:
        raise FileProblem(f"{path}: {error.strerror or error}") from None
    if len(data) > MOST:
        raise FileProblem(f"{path} is larger than {MOST // 1024} KiB")
    try:
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise FileProblem(f"{path} is not UTF-8") from None
    if not text or "\0" in text:
        raise FileProblem(f"{path} is empty" if not text else f"{path} holds a NUL")
    return text
