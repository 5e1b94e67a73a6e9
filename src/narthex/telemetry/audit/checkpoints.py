"""Checkpoints: how far a chain had come, signed, so that nobody can cut its end off or write it anew unseen.

In: the head of a chain. Out: a line of JSON with an Ed25519 signature, as its last member, over the bytes before
`,"signature"`. The private key stays beside the store (0600); the public one lies with the records, told by its id.
Cases: `tests/telemetry/audit/test_checkpoints.py`. Source: RFC 8032 (Ed25519).
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from narthex.errors import ConfigError
from narthex.telemetry.audit.chain import Chain

KEY_FILE = "audit.key"
_SIGNATURE = b',"signature":"'
_END = b'"}\n'
_TAIL = len(_SIGNATURE) + 88 + len(_END)


class Head(msgspec.Struct, frozen=True):
    """A line of a chain: its number, its hash in hexadecimal digits."""

    chain: str
    seq: int
    hash: str


class _Checkpoint(msgspec.Struct):
    v: int
    event: str
    time: str
    heads: tuple[Head, ...]
    key: str


class BadCheckpoint(ValueError):
    """A line is no checkpoint, or nobody that we know has signed it."""


class Signer:
    """Signs for one gateway. `id`: 16 hex digits of the SHA-256 of its public key (SubjectPublicKeyInfo)."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key()
        self.id = key_id(self.public)

    def line(self, chain: Chain, time: str) -> bytes:
        """The checkpoint of a chain as it stands."""
        head = Head(chain.name, chain.seq, chain.head.hex())
        signed = msgspec.json.encode(_Checkpoint(1, "checkpoint", time, (head,), self.id))[:-1]
        return b"%b%b%b%b" % (signed, _SIGNATURE, b64encode(self._key.sign(signed)), _END)

    def pem(self) -> bytes:
        """The public key, as `openssl pkey -pubin` reads it."""
        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: Ed25519PublicKey) -> str:
    """What a checkpoint calls the key that it was signed with."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()[:16]


def read_checkpoint(line: bytes, keys: dict[str, Ed25519PublicKey]) -> tuple[Head, ...]:
    """The heads that a line with its line end names. Raises BadCheckpoint."""
    signed, tail = line[:-_TAIL], line[-_TAIL:]
    if not (tail.startswith(_SIGNATURE) and tail.endswith(_END)):
        raise BadCheckpoint("it is no checkpoint")
    try:
        found = msgspec.json.decode(signed + b"}", type=_Checkpoint)
        signature = b64decode(tail[len(_SIGNATURE) : -len(_END)], validate=True)
    except (ValueError, RecursionError):
        raise BadCheckpoint("it is no checkpoint") from None
    if b64encode(signature) != tail[len(_SIGNATURE) : -len(_END)]:
        raise BadCheckpoint("it is no checkpoint")  # bits that base64 does not read
    key = keys.get(found.key)
    if key is None:
        raise BadCheckpoint(f"it is signed with key {found.key[:16]!r}, which is not known")
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        raise BadCheckpoint("its signature is not that of its bytes") from None
    return found.heads


def load_signer(state_dir: Path) -> Signer:
    """The gateway's signing key, made where there is none yet. Raises ConfigError."""
    path = state_dir / KEY_FILE
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no PEM key"
        raise ConfigError(
            [f"{path}: {reason}; records are signed with it: put it back, or remove it for a new one"]
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError([f"{path}: it is no Ed25519 key"])
    return Signer(key)


def _make(path: Path) -> None:
    data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    ours = path.with_name(f".{path.name}.{os.getpid()}")
    file = os.open(ours, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, data)
        os.fsync(file)
        os.link(ours, path)  # whole, or not at all; the first of two gateways wins
    except FileExistsError:
        pass
    finally:
        os.close(file)
        ours.unlink()


def read_keys(files: Iterable[Path]) -> dict[str, Ed25519PublicKey]:
    """Public keys by their ids. Raises ValueError, which names the file; OSError."""
    found = {}
    for path in files:
        try:
            key = load_pem_public_key(path.read_bytes()[:4096])
        except ValueError:
            raise ValueError(f"{path} is no public key (PEM)") from None
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError(f"{path} is no Ed25519 key")
        found[key_id(key)] = key
    return found
