"""Who may write to the folder, and has no key, cannot take a signed record away and be told that the journal is whole.

Files are removed, cut off, swapped by their names; chains are written anew from any line on, with hashes that fit;
chains of their own are put beside them, with records which say that all of it was removed by its age. Whatever is
done, with the second place of the checkpoints out of their reach, either `verify` finds a fault, or every signed
record is still there.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narthex.telemetry.audit.chain import Broken, Chain, place
from tests.telemetry.audit.writing import AT, SIGNER, journal, look, points, write

FILES: dict[str, bytes] = {}
"""A journal of two chains, the first of them in several segments."""
EVERYTHING = {
    "records_until": "9999", "payloads_until": {"confidential": "9999"},
    "heads": [{"chain": f"{SIGNER.id}/0/{boot}", "seq": 1 << 40, "hash": "0" * 64} for boot in ("b1", "b2")],
}  # fmt: skip


def original() -> dict[str, bytes]:
    if not FILES:
        with TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, 30, most_bytes=2_000)
            write(folder, 8, boot="b2", at=AT + 1)
            assert not look(folder).faults
            FILES.update({path.name: path.read_bytes() for path in folder.iterdir()})
    return FILES


SIGNED = frozenset(line for name, data in original().items() if name.startswith("calls-") for line in data.splitlines())
LINES = st.integers(0, 12)
WHICH = st.integers(0, 20)
HEADS = st.builds(
    lambda chain, seq, hash_: {"chain": chain, "seq": seq, "hash": hash_},
    st.sampled_from([f"{SIGNER.id}/0/b1", f"{SIGNER.id}/0/b2", "x/0/b"]),
    st.one_of(st.integers(-2, 40), st.just(1 << 40)),
    st.sampled_from(["0" * 64, "", "zz", "00"]),
)
STEPS = st.one_of(
    st.tuples(st.just("remove"), WHICH),
    st.tuples(st.just("remove points"), WHICH),
    st.tuples(st.just("cut"), WHICH, LINES),
    st.tuples(st.just("swap"), WHICH, WHICH),
    st.tuples(st.just("previous"), WHICH, HEADS),
    st.tuples(st.just("anew"), WHICH, LINES),
    st.tuples(st.just("removed"), st.booleans()),
)


@given(st.lists(STEPS, max_size=6))
@settings(max_examples=100, deadline=None)
def test_no_signed_record_goes_unseen(steps: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as name:
        folder, second = Path(name) / "audit", Path(name) / "second"
        for place_ in (folder, second):
            place_.mkdir()
        for file, data in original().items():
            (folder / file).write_bytes(data)
            if file.startswith("checkpoints-"):
                (second / file).write_bytes(data)
        for step in steps:
            do(folder, *step)
        left = {line for path in journal(folder) for line in path.read_bytes().splitlines()}
        assert look(folder, second).faults or left >= SIGNED, steps


def do(folder: Path, what: str, *how: Any) -> None:
    files, signatures = journal(folder), points(folder)
    path = files[how[0] % len(files)] if files else folder / "none"
    if what == "removed":
        chain = Chain("evil/0/b9")
        said = json.dumps({"v": 1, "event": "retention", **EVERYTHING}, separators=(",", ":")).encode()
        lines = [header("open", "evil/0/b9", None), said] + ([b'{"event":"close"}'] if how[0] else [])
        (folder / "calls-20990101T000000000-9.jsonl").write_bytes(b"".join(map(chain.seal, lines)))
    elif what == "remove points":
        if signatures:
            signatures[how[0] % len(signatures)].unlink()
    elif not files:
        return
    elif what == "remove":
        path.unlink()
    elif what == "cut":
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: how[1]]))
    elif what == "swap":
        other = files[how[1] % len(files)]
        one, two = path.read_bytes(), other.read_bytes()
        path.write_bytes(two)
        other.write_bytes(one)
    elif what == "previous":
        first, *rest = path.read_bytes().splitlines(keepends=True) or [b"{}"]
        said: dict[str, Any] = {}
        with suppress(ValueError):  # it was bent before
            said = json.loads(first)
        said["previous"] = how[1]
        path.write_bytes(b"".join([json.dumps(said, separators=(",", ":")).encode() + b"\n", *rest]))
    else:
        anew(path, how[1])


def header(event: str, chain: str, previous: dict[str, Any] | None) -> bytes:
    said: dict[str, Any] = {"v": 1, "id": "e", "time": "2023-11-14T22:13:21.000000Z", "event": event, "chain": chain}
    said |= {"key": SIGNER.id, "gateway": "0"} | ({"previous": previous} if previous is not None else {})
    return json.dumps(said, separators=(",", ":")).encode()


def previous_of(line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line).get("previous") or {}
    except ValueError:
        return {}


def anew(path: Path, number: int) -> None:
    """Another text in a line, and hashes that fit from there on."""
    lines = path.read_bytes().splitlines(keepends=True)
    if number >= len(lines) or b',"seq":' not in lines[number]:
        return
    seq, head = 0, bytes(32)
    with suppress(Broken):  # the line before was bent
        seq, head = place(lines[number - 1]) if number else (seq, head)
    if not number and (before := previous_of(lines[0])):
        seq, head = int(before["seq"]), bytes.fromhex(before["hash"]) if len(before["hash"]) == 64 else bytes(32)
    chain = Chain("any", seq, head)
    done = [chain.seal(line[: line.rindex(b',"seq":')].replace(b'"call"', b'"cell"') + b"}") for line in lines[number:]]
    path.write_bytes(b"".join([*lines[:number], *done]))


@pytest.mark.parametrize(
    ("chain", "seq", "hash_"),
    [
        pytest.param("b1", 0, "0" * 64, id="a number that no record has"),
        pytest.param("b1", -1, "0" * 64, id="a number below all"),
        pytest.param("b1", 5, "zz", id="a hash that is none"),
        pytest.param("b2", 5, "0" * 64, id="another chain"),
    ],
)
def test_a_first_line_that_is_bent_hides_nothing(tmp_path: Path, chain: str, seq: int, hash_: str) -> None:
    """One file is left of a chain, and says that it goes on behind nothing."""
    for file, data in original().items():
        (tmp_path / file).write_bytes(data)
    first, second, *rest = journal(tmp_path)[:-1]
    for path in (first, *rest):
        path.unlink()
    do(tmp_path, "previous", 0, {"chain": f"{SIGNER.id}/0/{chain}", "seq": seq, "hash": hash_})
    do(tmp_path, "removed", False)
    assert journal(tmp_path)[0] == second
    assert any(one.what == "changed" and one.file == second.name for one in look(tmp_path).faults)


@pytest.mark.parametrize("closed", [False, True])
def test_what_nobody_signed_explains_nothing(tmp_path: Path, closed: bool) -> None:
    for file, data in original().items():
        (tmp_path / file).write_bytes(data)
    for path in journal(tmp_path)[:-1]:
        path.unlink()
    do(tmp_path, "removed", closed)
    report = look(tmp_path)
    assert "missing" in {one.what for one in report.faults}
    assert any("counts for nothing" in note for note in report.notes)
