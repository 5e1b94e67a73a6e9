"""The corpus of the fuzzer keeps its promises, without a fuzzer. What a fuzz run found and we mended is added to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.run import names
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_promises_hold(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_first_inputs() -> None:
    assert set(names()) == set(TARGETS)
    assert all(2 <= len(list((CORPUS / name).iterdir())) <= 40 for name in names())
