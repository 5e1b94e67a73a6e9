"""What is in a gzipped tarball: the files of a policy bundle, from bytes that may be hostile.

In: the bytes. Out: each file's bytes by its path, or `NoTarball`. Strict and bounded: at most so many bytes unpacked,
so many files; no link, no device, no path out of the archive, nothing twice. Reads what Go's and GNU's tar write for
plain files (ustar, long names by pax or GNU headers); whatever else an archive may hold is refused.
Cases: `tests/flow/policy/bundles/test_tarball.py`. Source: POSIX.1-2017, pax interchange format; RFC 1952 (gzip).
"""

from __future__ import annotations

import re
import zlib

BLOCK = 512
GZIP = 31
"""Window bits for zlib: with gzip's header and checksum."""
MOST_BYTES = 64 * 1024 * 1024
MOST_FILES = 10_000
MOST_PATH = 1024
_END = bytes(BLOCK)
_OCTAL = re.compile(rb" *([0-7]{1,11})[ \0]*\Z")
_PAX = re.compile(rb"([1-9][0-9]{0,5}) ([^=\n]+)=")
_FILE, _FOLDER, _PAX_NEXT, _PAX_ALL, _GNU_NAME = b"0", b"5", b"x", b"g", b"L"


class NoTarball(Exception):
    """Why these bytes are not taken. Its text is for the operator."""


def unpack(data: bytes, *, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES) -> dict[str, bytes]:
    """The files of a gzipped tarball by path, as they stand: `./` and `/` in front taken off.

    Args:
        most_bytes: Of the archive when unpacked, headers included: a bomb is left where it has reached that.
    Raises:
        NoTarball: Cut short, damaged, too large, or something that is no plain file.
    """
    archive = inflate(data, most_bytes)
    files: dict[str, bytes] = {}
    at, name = 0, b""
    while (header := archive[at : at + BLOCK]) != _END:
        if len(header) < BLOCK:
            raise NoTarball("the archive is cut short")
        kind, header_path, size = _read_header(header)
        body = archive[at + BLOCK : at + BLOCK + size]
        if len(body) < size:
            raise NoTarball("the archive is cut short")
        at += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
        if kind == _PAX_NEXT:
            name = _pax_path(body) or name
        elif kind == _GNU_NAME:
            name = body.rstrip(b"\0")
        elif kind == _FILE:
            path, name = relative(_text(name or header_path)), b""
            if path in files:
                raise NoTarball(f"{path!r} stands in it twice")
            files[path] = body
            if len(files) > most_files:
                raise NoTarball(f"more than {most_files} files")
        elif kind == _FOLDER:
            name = b""
        elif kind != _PAX_ALL:
            raise NoTarball(f"{_text(name or header_path)[:80]!r} is no plain file")
    return files


def inflate(data: bytes, most: int) -> bytes:
    """The bytes behind one gzip stream. Raises NoTarball."""
    reader = zlib.decompressobj(GZIP)
    try:
        archive = reader.decompress(data, most + 1)
    except zlib.error:
        raise NoTarball("not gzip, or damaged") from None
    if len(archive) > most:
        raise NoTarball(f"larger than {most} bytes when unpacked")
    if not reader.eof:
        raise NoTarball("the archive is cut short")
    if reader.unused_data.strip(b"\0"):
        raise NoTarball("something stands behind its end")
    return archive


def _read_header(header: bytes) -> tuple[bytes, bytes, int]:
    """Kind, path and size of what follows. A long path may be cut here, and stand in a header before."""
    if _number(header[148:156]) != sum(header[:148]) + sum(header[156:]) + 8 * 0x20:
        raise NoTarball("not a tar archive, or damaged")
    kind = header[156:157].replace(b"\0", _FILE)
    name, prefix = header[:100].split(b"\0", 1)[0], header[345:500].split(b"\0", 1)[0]
    path = prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name
    return kind, path, _number(header[124:136])


def _number(field: bytes) -> int:
    match = _OCTAL.match(field)
    if match is None:
        raise NoTarball("a number in a header that cannot be read")
    return int(match[1], 8)


def _pax_path(body: bytes) -> bytes:
    """What a pax header says of the path that follows; empty where it speaks of other things."""
    at, found = 0, b""
    while at < len(body):
        match = _PAX.match(body, at)
        end = at + int(match[1]) if match is not None else 0
        if match is None or not match.end() < end <= len(body) or body[end - 1 : end] != b"\n":
            raise NoTarball("an extended header that cannot be read")
        if match[2] == b"path":
            found = body[match.end() : end - 1]
        elif match[2] in (b"size", b"linkpath") or match[2].startswith(b"GNU.sparse"):
            raise NoTarball("an extended header that changes what follows")
        at = end
    return found


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise NoTarball("a path that is not UTF-8") from None


def relative(path: str) -> str:
    """A path within a bundle, in one form. Raises NoTarball for one that leads out of it, or says nothing."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or len(path) > MOST_PATH or not path.isprintable() or "\\" in path:
        raise NoTarball(f"a path that is not taken: {path[:80]!r}")
    return "/".join(parts)
