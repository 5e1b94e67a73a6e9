"""Nothing is done because of a record that we have not signed."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from narthex.telemetry.audit.chain import Chain
from narthex.telemetry.audit.checkpoints import Signer
from narthex.telemetry.audit.segments import BY_HAND
from narthex.telemetry.audit.signed import signed_lines
from tests.telemetry.audit.writing import AT, KEYS, journal, points, record, segments
from tests.telemetry.audit.writing import write as write_chain

CALL = b'"event":"call"'


def write(folder: Path) -> Path:
    """Three calls, of which two are signed."""
    one = segments(folder, slot=BY_HAND)
    one.open(AT)
    for number in range(3):
        one.add(record(number))
        one.flush() if number == 2 else one.commit(AT)
    return journal(folder)[0]


def test_lines_up_to_the_last_signature(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert signed_lines(path, CALL, KEYS) == path.read_bytes().splitlines(keepends=True)[1:3]


def test_compressed_and_in_several_segments(tmp_path: Path) -> None:
    write_chain(tmp_path, 30, most_bytes=2_000)
    for path in (*journal(tmp_path), *points(tmp_path)):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert sum(len(signed_lines(path, CALL, KEYS)) for path in journal(tmp_path)) == 30


@pytest.mark.parametrize("what", ["no key", "another key", "no signature", "bent", "empty", "cut"])
def test_nothing_of_anybody_else(tmp_path: Path, what: str) -> None:
    path, (point,) = write(tmp_path), points(tmp_path)
    if what == "no signature":
        point.unlink()
    elif what == "another key":
        chain, forger = Chain("evil/cli/b"), Signer(Ed25519PrivateKey.generate())
        first, *rest = path.read_bytes().splitlines()
        path.write_bytes(b"".join(chain.seal(line[: line.rindex(b',"seq":')] + b"}") for line in (first, *rest)))
        point.write_bytes(forger.line(chain, "now"))
    elif what == "bent":
        path.write_bytes(path.read_bytes().replace(b'"n":0', b'"n":7'))
    elif what in ("empty", "cut"):
        path.write_bytes(path.read_bytes()[: 0 if what == "empty" else 50])
    assert signed_lines(path, CALL, {} if what == "no key" else KEYS) == []
