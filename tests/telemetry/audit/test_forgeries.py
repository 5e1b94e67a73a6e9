"""Nothing that is done to a journal goes unseen: every bit flipped, every line in the place of every other, every cut.

Of a few records here; of 10,000, on all cores, by `make forgeries` (`NARTHEX_TEST_EVERY_BIT=1`), with the numbers.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from narthex.cli.main import cli
from narthex.telemetry.audit.chain import Broken, follow
from narthex.telemetry.record import line_of
from narthex.telemetry.stamps import id_of
from tests.telemetry.audit import forging
from tests.telemetry.audit.forging import Segment, Tried, forged, segments_of
from tests.telemetry.audit.writing import AT, look, segments
from tests.telemetry.test_record import ENTRY

EVERY_BIT = bool(os.environ.get("NARTHEX_TEST_EVERY_BIT"))
RECORDS, SEGMENT_BYTES, SHARE, SAMPLE = (10_000, 1_500_000, 25, 100) if EVERY_BIT else (24, 8_000, 25, 4)
Kind = Callable[[Path, int, int, int], Tried]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a gateway, the first of them in several segments."""
    folder = tmp_path_factory.mktemp("forged") / "audit"
    chance = random.Random(8)
    for boot, count, at in (("b1", RECORDS - 9, AT), ("b2", 9, AT + 60)):
        one = segments(folder, boot, most_bytes=SEGMENT_BYTES)
        one.open(at)
        for number in range(count):
            one.turn(at)
            one.add(
                line_of(replace(ENTRY, name=f"tool-{number}", at=at), id_of(int(at * 1000), 0, chance.randbytes(8)))
            )
            one.flush()
            if number % 100 == 99:
                one.commit(at)
        one.close(at)
    report = look(folder)
    assert not report.faults and report.records > RECORDS and len(segments_of(folder)) > 2
    return folder


@pytest.mark.parametrize("kind", [forging.flips, forging.misplaced, forging.cuts], ids=lambda one: str(one.__name__))
def test_every_forgery_is_seen(folder: Path, kind: Kind) -> None:
    tried, began = Tried(), time.perf_counter()
    for one in done(kind, list(forging.shares(folder, SHARE))):
        tried.add(one)
    assert not tried.unseen, tried.unseen[:10]
    assert tried.forgeries > RECORDS
    print(
        f"\n{kind.__name__}: {tried.forgeries:,} forgeries of {RECORDS:,} records, all found, "
        f"{tried.read_whole:,} of them by reading all of it; {time.perf_counter() - began:.0f} s"
    )


def done(kind: Kind, shares: list[tuple[Path, int, int, int]]) -> Iterator[Tried]:
    if not EVERY_BIT:
        yield from (kind(*share) for share in shares)
        return
    with multiprocessing.get_context("spawn").Pool() as pool:
        yield from (one.get() for one in [pool.apply_async(kind, share) for share in shares])


# --- the same by the command


def flip(segments: list[Segment], chance: random.Random) -> tuple[Segment, int, bytes, list[bytes]]:
    """A file, its first line that another one stands in the place of, that one, and all lines."""
    segment = chance.choice(segments)
    number = chance.randrange(1, len(segment.lines))
    bit = chance.randrange(len(segment.lines[number]) * 8 - 8)
    line = forging.flipped(segment, number, bit)
    assert line is not None
    data = bytearray(segment.lines[number])
    data[bit // 8] ^= 1 << bit % 8
    return segment, number, line, [*segment.lines[:number], bytes(data), *segment.lines[number + 1 :]]


def leave_out(segments: list[Segment], chance: random.Random) -> tuple[Segment, int, bytes, list[bytes]]:
    segment = chance.choice(segments)
    number = chance.randrange(1, len(segment.lines) - 1)
    lines = segment.lines[:number] + segment.lines[chance.randrange(number + 1, len(segment.lines)) :]
    return segment, number, lines[number], lines


def swap(segments: list[Segment], chance: random.Random) -> tuple[Segment, int, bytes, list[bytes]]:
    segment = chance.choice(segments)
    one, other = sorted(chance.sample(range(1, len(segment.lines)), 2))
    lines = list(segment.lines)
    lines[one], lines[other] = lines[other], lines[one]
    return segment, one, lines[one], lines


def put_in(segments: list[Segment], chance: random.Random) -> tuple[Segment, int, bytes, list[bytes]]:
    segment = chance.choice(segments)
    number, line = chance.randrange(1, len(segment.lines)), chance.choice(chance.choice(segments).lines)
    if line == segment.lines[number]:
        number += 1  # behind itself
    return segment, number, line, [*segment.lines[:number], line, *segment.lines[number:]]


def splice(segments: list[Segment], chance: random.Random) -> tuple[Segment, int, bytes, list[bytes]]:
    segment, other = chance.sample(segments, 2)
    number = chance.randrange(1, len(segment.lines))
    tail = other.lines[chance.randrange(len(other.lines)) :]
    return segment, number, tail[0], [*segment.lines[:number], *tail]


@pytest.mark.parametrize("make", [flip, leave_out, swap, put_in, splice])
def test_the_command_names_the_line_that_alone_tells(
    folder: Path, make: Callable[[list[Segment], random.Random], tuple[Segment, int, bytes, list[bytes]]]
) -> None:
    segments, chance = segments_of(folder), random.Random(make.__name__)
    for _ in range(SAMPLE):
        segment, number, line, lines = make(segments, chance)
        state = segment.states[number]
        with pytest.raises(Broken) as broken:
            follow(line, *state)
        with forged(segment, b"".join(lines)) as copy:
            found = CliRunner().invoke(cli, ["audit", "verify", str(copy), "--json"])
        assert found.exit_code == 1
        faults = [(one["file"], one["line"], one["text"]) for one in json.loads(found.stdout)["faults"]]
        assert (segment.path.name, number + 1, f"record {state[0] + 1}: {broken.value}") in faults


def test_the_command_sees_each_cut(folder: Path) -> None:
    segments, chance = segments_of(folder), random.Random(1)
    for _ in range(SAMPLE):
        segment = chance.choice(segments)
        data = b"".join(segment.lines)
        with forged(segment, data[: chance.randrange(len(data))]) as copy:
            assert CliRunner().invoke(cli, ["audit", "verify", str(copy)]).exit_code == 1
