"""`store` to what the gateway works with.

In: its settings, the secrets that the configuration names. Out: a path or a `PostgresSpec`, None where nothing is said;
or a fault at the place it stands at, which never has the URL in it. Cases: `tests/config/test_store.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import replace

from narthex.config.document import Reading
from narthex.config.expand import Expanded
from narthex.config.schema.store import StoreSettings, is_in_the_clear, parse_store
from narthex.stores import NO_DRIVER, PostgresSpec
from narthex.types import SecretName, SecretSource


def compile_store(
    settings: StoreSettings | None, secrets: Mapping[str, SecretSource], reading: Reading, base: Path
) -> Path | PostgresSpec | None:
    """Args:
    base: What paths are relative to.
    """
    at = ("store",)
    if settings is None:
        return None
    if settings.url is None:
        if (*at, "url") not in reading.marks:
            reading.fault(at, "store: 'url' is missing: sqlite:/// and a path, or postgresql://USER@HOST/DATABASE")
        return None
    place = parse_store(settings.url.value)
    if not isinstance(place, PostgresSpec):
        if settings.password is not None:
            reading.fault((*at, "password"), "password: a file of SQLite has none")
        return Path(os.path.normpath(base / place))
    files = {name: str(base / text) for name in ("ca", "cert", "key") if (text := getattr(place, name))}
    for name, file in files.items():
        if not Path(file).is_file():
            reading.fault(at, f"store: {_NAMES[name]}: no file {file!r}")
    if place.key and not place.cert:
        reading.fault(at, "store: sslcert is missing beside sslkey")
    if find_spec("pg8000") is None:
        reading.warn(at, f"store: {NO_DRIVER}")
    if is_in_the_clear(place):
        reading.warn(at, "store: the database is spoken to in the clear; write sslmode=verify-full")
    elif place.sslmode == "require":
        reading.warn(at, "store: sslmode=require believes any server; write verify-full, and sslrootcert=FILE")
    if place.password and _is_written(settings.url):
        reading.warn(at, "store: the password can be read here; write `password: ${env:VAR}` beside `url`")
    if settings.password is not None:
        if place.password:
            reading.fault((*at, "password"), "password: one stands in the URL already")
        place = replace(place, password=_password(settings.password, secrets, reading, base))
    return replace(place, **files)


_NAMES = {"ca": "sslrootcert", "cert": "sslcert", "key": "sslkey"}


def _is_written(url: Expanded) -> bool:
    """Does the password itself stand in the configuration, and no reference?"""
    try:
        return "$" not in (urlsplit(url.written).password or "$")
    except ValueError:
        return False


def _password(given: Expanded, secrets: Mapping[str, SecretSource], reading: Reading, base: Path) -> str | SecretSource:
    pieces = given.text.pieces
    names = [piece.name for piece in pieces if isinstance(piece, SecretName)]
    if not names:
        return given.value
    at = ("store", "password")
    source = secrets.get(names[0])
    if len(pieces) > 1:
        reading.fault(at, "password: either a text or one ${secret:NAME}, nothing beside it")
    elif source is None or source.kind == "vault":
        reading.fault(
            at,
            f"password: what opens the store cannot lie in it; write secrets: {{{names[0]}: 'env:VAR' or 'file:PATH'}}",
        )
    elif source.kind == "file":
        return replace(source, where=str(base / source.where))
    else:
        return source
    return ""
