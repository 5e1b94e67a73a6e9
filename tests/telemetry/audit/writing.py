"""Journals for tests: written by the gateway's own segments, with numbers in the place of chance and time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from narthex.telemetry.audit.checkpoints import Signer
from narthex.telemetry.audit.segments import Segments
from narthex.telemetry.audit.verify import Report, verify

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEYS = {SIGNER.id: SIGNER.public}
AT = 1_700_000_000.0  # 2023-11-14, 22:13:20 UTC


def segments(folder: Path, boot: str = "b1", **options: Any) -> Segments:
    """The writing end of a chain that is not opened yet."""
    folder.mkdir(exist_ok=True)
    return Segments(folder, SIGNER, boot, new_id=lambda at: f"id-{at}", **options)


def record(number: int, text: str = "") -> bytes:
    return b'{"v":1,"time":"2023-11-14T22:13:20Z","event":"call","n":%d,"text":"%b"}' % (number, text.encode())


def write(
    folder: Path,
    count: int,
    *,
    boot: str = "b1",
    at: float = AT,
    close: bool = True,
    step: Callable[[Segments, int], None] = lambda one, number: None,
    **options: Any,
) -> Segments:
    """A chain of `count` records; `step` may do something behind each."""
    one = segments(folder, boot, **options)
    one.open(at)
    for number in range(count):
        one.turn(at)
        one.add(record(number))
        one.flush()
        step(one, number)
    one.commit(at) if not close else one.close(at)
    return one


def look(folder: Path, *places: Path, heads: Iterable[Path] = ()) -> Report:
    return verify(folder, KEYS, places, heads=heads)


def whats(report: Report) -> list[str]:
    return [one.what for one in report.faults]


def journal(folder: Path) -> list[Path]:
    return sorted(folder.glob("calls-*"))


def points(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoints-*"))
