"""Fuzz targets for what is kept and handed in: API keys, sealed secrets, answers of a Vault."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from narthex.authority.api_keys import KeyTable
from narthex.authority.envelope import EnvelopeError, Envelopes
from narthex.authority.fetch import Fetched
from narthex.authority.hashicorp import VaultReader
from narthex.authority.secrets import SecretBook
from narthex.errors import SecretMissing
from narthex.flow.codec.seal import MasterKey
from narthex.flow.identity.api_keys import is_whole, make_key
from narthex.flow.upstream.secrets import Redactor
from narthex.store.port import ApiKey
from narthex.types import SecretSource, VaultSpec

NEW = make_key(lambda size: bytes(range(size)))
VALUE = "ghp_0123456789"
SPEC = VaultSpec("https://vault.example.com", token=SecretSource("env", "VAULT_TOKEN"))
WANTED = {"pat": SecretSource("vault", "secret/team/github", "token")}


@cache
def _table() -> KeyTable:
    table = KeyTable(lambda: 1000.0)
    table.load([ApiKey(NEW.id, "ci", NEW.digest, 1)])
    return table


@cache
def _envelopes() -> Envelopes:
    return Envelopes([MasterKey(bytes(range(32)))], lambda size: bytes(size))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def fuzz_api_key(data: bytes) -> None:
    """Only the key itself opens anything, alone or behind what everybody may see; with one character changed it is not
    whole. (Its checksum tells typing errors; another key with the same one can be made.)"""
    table, key = _table(), NEW.text.encode()
    for presented in (data, key[:12] + data, data + key, key + data):
        assert (table.find(presented) is not None) == (presented == key)
    if len(data) > 1:
        at = data[0] % len(key)
        mistyped = key[:at] + data[1:2] + key[at + 1 :]
        assert is_whole(mistyped) == (mistyped == key)


def fuzz_envelope(data: bytes) -> None:
    """No bytes open but those that were sealed, for that name."""
    envelopes = _envelopes()
    sealed = envelopes.seal(VALUE, "default", "pat")
    for bytes_ in (data, sealed[:9] + data, sealed[: len(data)] + data, sealed + data):
        for name in ("pat", "other"):
            try:
                assert envelopes.open(bytes_, "default", name) == VALUE
                assert bytes_ == sealed and name == "pat"
            except EnvelopeError:
                assert bytes_ != sealed or name == "other"


def fuzz_vault(data: bytes) -> None:
    """Whatever a Vault says, a value is a text, and what is missing is said in a line without a value."""
    first, _, body = data.partition(b"\0")
    status = int(first) if first.isdigit() and len(first) == 3 else 200
    redactor = Redactor()
    book = SecretBook(redactor)

    async def fetch(url: str, **_: Any) -> Fetched:
        return Fetched(status, {}, body or data, url)

    reader = VaultReader(SPEC, WANTED, book, env={"VAULT_TOKEN": "root"}, fetch=fetch, chance=lambda: 0.0)
    _loop().run_until_complete(reader.look())
    try:
        value = book.get("pat")
    except SecretMissing as missing:
        assert missing.detail.isprintable() and len(missing.detail) < 500
    else:
        assert value and isinstance(value, str)
        assert len(value) < 6 or value not in redactor.hide(f"x{value}x")
