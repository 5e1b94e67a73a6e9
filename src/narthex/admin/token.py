"""The admin token: a file in the state directory that only its owner can read. Who can read the file may write.

In: the state directory. Out: the token. Does I/O. Cases: `tests/admin/test_token.py`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
from pathlib import Path

from narthex.errors import ConfigError

FILE_NAME = "admin.token"
_SIZE = 43  # 32 random bytes in base64url
_log = logging.getLogger("narthex.admin")


def load_token(state_dir: Path) -> str:
    """The token, made on first use. A file that others could read is replaced: its token may be known.

    Args:
        state_dir: Made (0700) where it is missing.
    Raises:
        ConfigError: It can be neither read nor written.
    """
    path = state_dir / FILE_NAME
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = _read(path)
        if found is not None:
            return found
        return _create(path)
    except OSError as error:
        raise ConfigError([f"{path}: the admin token cannot be kept: {error.strerror or error}"]) from None


def _read(path: Path) -> str | None:
    """The token in the file; None when there is none, or none to rely on."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError:
        if not path.is_symlink():
            raise
        _log.warning("%s is a symbolic link: it is replaced by a new token", path)
        return None
    with os.fdopen(handle, "rb") as file:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
            _log.warning("%s could be read by others: it is replaced by a new token", path)
            return None
        text = file.read(1024).decode("ascii", "replace").strip()
    return text if len(text) >= _SIZE and text.isprintable() else None


def _create(path: Path) -> str:
    """Write a new token beside the file and move it there: nobody ever reads half of one."""
    token = secrets.token_urlsafe(32)
    temporary = path.with_name(f".{FILE_NAME}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return token
