"""Fuzz targets for payloads: what is kept of them, and files of them that somebody hands over."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from narthex.telemetry.payloads.lines import Note, erased, read, whose
from narthex.telemetry.payloads.reading import Reader, files_in, lines_in
from narthex.telemetry.payloads.redacting import Redactor, Unreadable
from narthex.telemetry.payloads.writing import Owner, Payloads

CARD = "4111111111111111"
AT = 1_700_000_000.0
ID = "019ac4b2-7f10-7000-8d3e-5a0f4be0c9d1"
POINTERS = ("/result/a", "/result/structuredContent/*/b")


def fuzz_redaction(data: bytes) -> None:
    """One line of JSON, or nothing; and no card gets through that stands in it as a text of its own."""
    redactor = Redactor(POINTERS)
    try:
        body, _ = redactor.applied(data, "result")
    except Unreadable:
        return
    assert b"\n" not in body and b"\r" not in body
    with_card = b'{"v":%b,"card":"%b"}' % (body, CARD.encode())
    assert CARD.encode() not in redactor.applied(with_card, "result")[0][-40:]


def fuzz_payload(data: bytes) -> None:
    """What is kept comes back, or is refused; a file of anything is read to its end, and nothing of it is trusted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = Payloads(folder)
        note = one.put(Owner(ID, "", "", "", "", ""), "result", data, "full", "g", AT)
        one.commit()
        record = {"id": ID, "payload": {"result": msgspec.to_builtins(note)}}
        (found,) = Reader(folder).of(record)
        assert found.state == ("none" if note.kept == "none" else "here")
        for path in files_in(folder):
            path.write_bytes(data)
            for _, line in lines_in(path):
                if whose(line) is not None and line.endswith(b"\n"):
                    assert read(erased(line)).erased
            forged = Note("full", "sha256:00", 0, (), path.name, 0)
            (found,) = Reader(folder).of({"id": ID, "payload": {"result": msgspec.to_builtins(forged)}})
            assert found.state in ("missing", "changed", "erased", "sealed")
