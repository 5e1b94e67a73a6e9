"""Fuzz targets for `narthex audit`: files of a journal that somebody hands over."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from narthex.telemetry.audit.checkpoints import Signer, read_checkpoint
from narthex.telemetry.audit.exports.tail import Tail
from narthex.telemetry.audit.formats import FORMATS
from narthex.telemetry.audit.heads import Heads, read_places, stem_of, write_place
from narthex.telemetry.audit.index.cursors import read_cursor, show_cursor
from narthex.telemetry.audit.index.find import Finder
from narthex.telemetry.audit.index.follow import Follower
from narthex.telemetry.audit.matching import Wanted
from narthex.telemetry.audit.reading import Search
from narthex.telemetry.audit.segments import Segments
from narthex.telemetry.audit.verify import verify

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
KEYS = {SIGNER.id: SIGNER.public}
AT = 1_700_000_000.0
logging.getLogger("narthex.journal").addHandler(logging.NullHandler())  # what is found missing at a start


def fuzz_journal(data: bytes) -> None:
    """Never raises; and what did not come from the journal is never added to it unseen."""
    first, _, second = data.partition(b"\0")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "calls-1.jsonl").write_bytes(first)
        (folder / "checkpoints-1.jsonl").write_bytes(second)
        alone = verify(folder, KEYS)
        assert not (alone.records and not alone.chains)
        one = Segments(folder, SIGNER, "b", new_id=str)
        one.open(AT)
        one.add(b'{"n":1}')
        one.close(AT)
        (path,) = folder.glob("calls-2*")
        with path.open("ab") as file:
            file.write(first + b"\n")
        found = verify(folder, KEYS)
        assert found.fault_count > 0, "lines behind the end of a chain"


def fuzz_index(data: bytes) -> None:
    """Whatever lines stand in a segment, by the index the same records are found as by reading each."""
    with tempfile.TemporaryDirectory() as name:
        folder, index = Path(name) / "audit", Path(name) / "index.db"
        folder.mkdir()
        one = Segments(folder, SIGNER, "b", new_id=str)
        one.open(AT)
        one.close(AT)
        (path,) = folder.glob("calls-*")
        with path.open("ab") as file:
            file.write(data + b"\n")
        follower = Follower(folder, index)
        noted = follower.catch_up()
        found = list(Finder(folder, index, follower.connection).each(Wanted()))
        assert len(found) == noted == sum(1 for _ in Search(folder, Wanted()))
        assert follower.catch_up() == 0
        follower.close()
        tail = Tail(folder, {})
        assert len(tail.read(10_000, 1 << 30)) == noted and not tail.read(1, 1)


def fuzz_cursor(data: bytes) -> None:
    """A cursor is ours, of this question, or refused."""
    wanted = Wanted(principal="ada")
    try:
        place = read_cursor(wanted, data.decode(errors="replace"))
    except ValueError:
        return
    assert read_cursor(wanted, show_cursor(wanted, place)) == place


def fuzz_export(data: bytes) -> None:
    """Whatever lines a folder has, each record is one event in every form, and what is none is counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "calls-1.jsonl").write_bytes(data)
        looking = Search(folder, Wanted())
        count = 0
        for record in looking:
            count += 1
            for form, write in FORMATS.items():
                line = write(record)
                assert form == "csv" or ("\n" not in line and "\r" not in line)
        assert count + looking.unread <= data.count(b"\n") + 1


def fuzz_heads(data: bytes) -> None:
    """Whatever stands beside the store, nobody's word is taken for a signed one, and a gateway starts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "audit"
        folder.mkdir()
        path = folder.parent / f"{stem_of(folder)}-0.heads"
        path.write_bytes(data)
        alone = verify(folder, KEYS, heads=[path])
        assert not alone.chains and {fault.what for fault in alone.faults} <= {"changed", "missing"}
        heads = Heads(folder.parent, folder, write=lambda file, data, at, _: write_place(file, data, at, False))
        one = Segments(folder, SIGNER, "b", new_id=str, sync=lambda file: None, heads=heads)
        one.open(AT)
        for _ in range(2):  # both places
            one.add(b'{"n":1}')
            one.commit(AT, answers=True)
        one.close(AT)
        places = list(read_places(path.read_bytes()))
        assert [read_checkpoint(line, KEYS)[0].seq for _, line in sorted(places)] == [3, 4]
