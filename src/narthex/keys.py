"""The master keys of this installation: from `NARTHEX_KEY`, or from a file of our own beside the store. Design §4.

In: the state directory and the environment. Out: keys of 32 bytes, the current one first, or what to do instead.
Does I/O. Cases: `tests/test_keys.py`.
"""

from __future__ import annotations

import os
import secrets
import stat
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Mapping
from pathlib import Path

from narthex.errors import ConfigError
from narthex.flow.codec.seal import KEY_SIZE

VARIABLE = "NARTHEX_KEY"
FILE_NAME = "narthex.key"
_MAX_FILE = 64 * 1024
_MAKE_ONE = "make one with: openssl rand -base64 32"


def load_keys(state_dir: Path, env: Mapping[str, str]) -> list[bytes]:
    """The master keys. Where there are none yet, a key file is made.

    Args:
        state_dir: `.narthex`; made (0700) when a key file has to be written.
        env: The environment. `NARTHEX_KEY` holds keys in base64 or hexadecimal, separated by commas, the current first;
            while it is set, the file is not read.
    Returns:
        At least one key of 32 bytes.
    Raises:
        ConfigError: A key that is none, a file that others can read, or one that cannot be read or written.
    """
    text = env.get(VARIABLE)
    if text is not None:
        return _read_keys(text, VARIABLE)
    path = state_dir / FILE_NAME
    try:
        content = _read_file(path)
        if content is None:
            _make_file(path)
            content = _read_file(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError([f"{path}: {reason}; make {state_dir} writable for this user, or set {VARIABLE}"]) from None
    if content is None:
        raise ConfigError([f"{path}: gone again as soon as it was made"])
    return _read_keys(content, str(path))


def _read_keys(text: str, source: str) -> list[bytes]:
    """Keys from text, separated by commas or line ends. The text itself never goes into an error."""
    words = [word for word in text.replace(",", "\n").split("\n") if word.strip()]
    if not words:
        raise ConfigError([f"{source}: holds no key; {_MAKE_ONE}"])
    keys = [_read_key(word.strip()) for word in words]
    problems = [
        f"{source}: key {number} of {len(keys)} is not {KEY_SIZE} bytes in base64 or hexadecimal; {_MAKE_ONE}"
        for number, key in enumerate(keys, 1)
        if key is None
    ]
    if problems:
        raise ConfigError(problems)
    return [key for key in keys if key is not None]


def _read_key(word: str) -> bytes | None:
    """One key, None where it is none. Base64 of 32 bytes is never 64 characters long: the two forms do not overlap."""
    try:
        if len(word) == 2 * KEY_SIZE:
            key = bytes.fromhex(word)
        else:
            word = word.rstrip("=").replace("+", "-").replace("/", "_")
            key = urlsafe_b64decode(word + "=" * (-len(word) % 4))
            if b64encode(key, b"-_").decode().rstrip("=") != word:
                return None
    except ValueError:
        return None
    return key if len(key) == KEY_SIZE else None


def _read_file(path: Path) -> str | None:
    """The key file's text; None where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO there must not hang us
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigError([f"{path}: not a file; remove it, or set {VARIABLE}"])
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigError(
                [
                    f"{path}: others on this machine can read it (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}"
                    " (if somebody may have read it, put a new key in the first line, and drop the old one later)"
                ]
            )
        return file.read(_MAX_FILE).decode("ascii", errors="replace")


def _make_file(path: Path) -> None:
    """Write a new key so that the file is there whole or not at all. Where two start at once, the first one's stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(b64encode(secrets.token_bytes(KEY_SIZE)) + b"\n")
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        os.unlink(draft)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
