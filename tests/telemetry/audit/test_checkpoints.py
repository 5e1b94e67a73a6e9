"""Checkpoints are believed by their signature alone; the key is kept as a secret is."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from narthex.errors import ConfigError
from narthex.telemetry.audit.chain import Chain
from narthex.telemetry.audit.checkpoints import (
    KEY_FILE,
    BadCheckpoint,
    Head,
    Signer,
    load_signer,
    read_checkpoint,
    read_keys,
)

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEYS = {SIGNER.id: SIGNER.public}
CHAIN = Chain("i/0/b", 17, bytes(range(32)))
LINE = SIGNER.line(CHAIN, "2026-11-27T09:38:36.120345Z")


def test_a_checkpoint_names_the_head_of_its_chain() -> None:
    assert read_checkpoint(LINE, KEYS) == (Head("i/0/b", 17, bytes(range(32)).hex()),)
    assert json.loads(LINE)["event"] == "checkpoint" and json.loads(LINE)["key"] == SIGNER.id


def test_every_bit_counts() -> None:
    for bit in range(len(LINE) * 8):
        changed = bytearray(LINE)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadCheckpoint):
            read_checkpoint(bytes(changed), KEYS)


def test_another_ones_signature_is_not_taken() -> None:
    other = Signer(Ed25519PrivateKey.generate())
    with pytest.raises(BadCheckpoint, match="which is not known"):
        read_checkpoint(other.line(CHAIN, "now"), KEYS)
    with pytest.raises(BadCheckpoint, match="not that of its bytes"):
        read_checkpoint(other.line(CHAIN, "now").replace(other.id.encode(), SIGNER.id.encode()), KEYS)


def test_the_key_is_made_once_and_nobody_else_reads_it(tmp_path: Path) -> None:
    first = load_signer(tmp_path / "state")
    path = tmp_path / "state" / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and [one.name for one in path.parent.iterdir()] == [KEY_FILE]
    assert load_signer(tmp_path / "state").id == first.id
    (tmp_path / "one.pub").write_bytes(first.pem())
    assert list(read_keys([tmp_path / "one.pub"])) == [first.id]


@pytest.mark.parametrize("data", [b"", b"no key", SIGNER.pem()], ids=["empty", "text", "a public key"])
def test_a_key_file_that_cannot_be_read_is_never_replaced(tmp_path: Path, data: bytes) -> None:
    (tmp_path / KEY_FILE).write_bytes(data)
    with pytest.raises(ConfigError) as refused:
        load_signer(tmp_path)
    assert KEY_FILE in refused.value.problems[0] and (tmp_path / KEY_FILE).read_bytes() == data


def test_a_public_key_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.pub").write_text("no key")
    with pytest.raises(ValueError, match="bad.pub is no public key"):
        read_keys([tmp_path / "bad.pub"])


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not here (Debian: apt-get install openssl)")
def test_openssl_verifies_it_too(tmp_path: Path) -> None:
    signed, _, rest = LINE.partition(b',"signature":"')
    for name, data in (("key.pub", SIGNER.pem()), ("signed", signed), ("signature", b64decode(rest[:88]))):
        (tmp_path / name).write_bytes(data)
    command = "openssl pkeyutl -verify -pubin -inkey key.pub -rawin -in signed -sigfile signature"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
