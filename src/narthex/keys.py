"""The master keys of this installation: from `NARTHEX_KEY`, or from a file of our own beside the store. Design §4.

In: the state directory and the environment. Out: keys of 32 bytes, the current one first, or what to do instead.
A key a line, in base64 or hexadecimal; one that was replaced says until when it opens:

    u3kG…=
    9bQx…= until 2026-12-24T10:00:00Z

Does I/O. Cases: `tests/test_keys.py`.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from narthex.errors import ConfigError
from narthex.flow.codec.seal import KEY_SIZE, MasterKey

VARIABLE = "NARTHEX_KEY"
FILE_NAME = "narthex.key"
MOST_KEYS = 32
_MAX_FILE = 64 * 1024
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_MAKE_ONE = "make one with: openssl rand -base64 32"


def load_keys(state_dir: Path, env: Mapping[str, str]) -> list[MasterKey]:
    """The master keys. Where there are none yet, a key file is made.

    Args:
        state_dir: `.narthex`; made (0700) when a key file has to be written.
        env: The environment. `NARTHEX_KEY` holds keys as the file does, or separated by commas, the current first;
            while it is set, the file is not read.
    Returns:
        At least one key of 32 bytes; the first, which seals, has no end.
    Raises:
        ConfigError: A key that is none, a file that others can read, or one that cannot be read or written.
    """
    text = env.get(VARIABLE)
    if text is not None:
        return _read_keys(text, VARIABLE)
    path = state_dir / FILE_NAME
    with _explained(path):
        content = _read_file(path)
        if content is None:
            _make_file(path)
            content = _read_file(path)
    if content is None:
        raise ConfigError([f"{path}: gone again as soon as it was made"])
    return _read_keys(content, str(path))


def rotate_key(state_dir: Path, env: Mapping[str, str], *, now: float, keep_s: float) -> list[MasterKey]:
    """Put a new key first in the file; those before it still open what they sealed, for `keep_s` more seconds.

    A key that ends sooner stays so; one whose end has come is dropped. A running gateway seals with the new key from
    its next reload on (SIGHUP, or a changed configuration); what it seals until then opens no longer than the old key
    does. Nothing changes where this fails.

    Args:
        now: Seconds since 1970.
        keep_s: At least as long as the longest handle lives (`limits.session_ttl`). 0 where a key has leaked: what was
            sealed with it opens no more.
    Returns:
        The keys as they stand in the file now.
    Raises:
        ConfigError: The keys come from `NARTHEX_KEY`, the file is a link, or it cannot be read or replaced.
    """
    if env.get(VARIABLE) is not None:
        until = _written(int(now + keep_s))
        raise ConfigError(
            [f"{VARIABLE} is set: put a new key before the old one there, as: new,old until {until} ({_MAKE_ONE})"]
        )
    path = _own_file(state_dir)
    load_keys(state_dir, {})  # where there is none yet, one is made, and rotated as any other
    with _explained(path), _locked(state_dir):
        kept = _ended(path, now, keep_s, of=slice(None))
        keys = [MasterKey(secrets.token_bytes(KEY_SIZE)), *kept]
        if len(keys) > MOST_KEYS:
            raise ConfigError([f"{path}: holds {len(kept)} keys that still open; remove its last lines first"])
        _replace_file(path, keys)
    return keys


def end_old_keys(state_dir: Path, *, now: float, keep_s: float) -> list[MasterKey]:
    """Let every key but the current one end within `keep_s` seconds; what has ended is dropped.

    Returns:
        The keys as they stand in the file now.
    Raises:
        ConfigError: As from `rotate_key`.
    """
    path = _own_file(state_dir)
    with _explained(path), _locked(state_dir):
        current, *_ = load_keys(state_dir, {})
        keys = [current, *_ended(path, now, keep_s, of=slice(1, None))]
        _replace_file(path, keys)
    return keys


def _own_file(state_dir: Path) -> Path:
    path = state_dir / FILE_NAME
    if path.is_symlink():
        raise ConfigError([f"{path}: a link; put the new key first in the file that it leads to ({_MAKE_ONE})"])
    return path


def _ended(path: Path, now: float, keep_s: float, *, of: slice) -> list[MasterKey]:
    """Some keys of the file, each with an end at most `keep_s` from now; those whose end has come are left out."""
    content = _read_file(path)
    old = _read_keys(content, str(path))[of] if content is not None else []
    end = int(now + keep_s)
    ends = [end if key.until is None else min(end, key.until) for key in old]
    return [MasterKey(key.secret, until) for key, until in zip(old, ends, strict=True) if until > now]


def _read_keys(text: str, source: str) -> list[MasterKey]:
    """Keys from text, separated by commas or line ends. The text itself never goes into an error."""
    words = [word for word in text.replace(",", "\n").split("\n") if word.strip()]
    if not words:
        raise ConfigError([f"{source}: holds no key; {_MAKE_ONE}"])
    if len(words) > MOST_KEYS:
        raise ConfigError([f"{source}: holds {len(words)} keys, at most {MOST_KEYS}"])
    keys: list[MasterKey] = []
    problems: list[str] = []
    for number, word in enumerate(words, 1):
        secret, *rest = word.split()
        which = f"{source}: key {number} of {len(words)}"
        key, until = _read_key(secret), _read_end(rest)
        if key is None:
            problems.append(f"{which} is not {KEY_SIZE} bytes in base64 or hexadecimal; {_MAKE_ONE}")
        elif rest and until is None:
            problems.append(f"{which}: write only `until` and a time such as {_written(0)} behind a key")
        elif until is not None and number == 1:
            problems.append(f"{which} is the current one and must not end; {_MAKE_ONE}, and put it first")
        else:
            keys.append(MasterKey(key, until))
    if problems:
        raise ConfigError(problems)
    return keys


def _read_end(words: Sequence[str]) -> int | None:
    """The time that `until TIME` says; None where it says none."""
    if len(words) != 2 or words[0] != "until":
        return None
    try:
        return int(datetime.strptime(words[1], _TIME).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def _written(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime(_TIME)


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
    with _draft(path, [MasterKey(secrets.token_bytes(KEY_SIZE))]) as draft:
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    _sync(path.parent)


def _replace_file(path: Path, keys: Sequence[MasterKey]) -> None:
    """Put other keys in the place of the file: a reader sees the old ones or the new ones."""
    with _draft(path, keys) as draft:
        os.rename(draft, path)
    _sync(path.parent)


@contextmanager
def _draft(path: Path, keys: Sequence[MasterKey]) -> Iterator[Path]:
    """A private file with these keys beside `path`, on the disk; gone again at the end."""
    lines = [
        b64encode(key.secret).decode() + (f" until {_written(key.until)}" if key.until is not None else "") + "\n"
        for key in keys
    ]
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(descriptor)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One rotation at a time: of two at once, one would drop the other's key, and what was sealed with it."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the system refuses into an error with the way out."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError([f"{path}: {reason}; make {path.parent} writable for this user, or set {VARIABLE}"]) from None
