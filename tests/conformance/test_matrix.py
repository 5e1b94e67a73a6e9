"""Every feature, for clients of each era, with servers of each era, over each transport: carried, or refused as listed.

In: the features of `matrix.py`; `matrix.yml`, where one is not carried, with the code and the sentence that wants it.
One gateway process over five fixtures, each with an endpoint; a client of each era at each. A row that nothing needs is
an error too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.conformance import suites
from tests.conformance.matrix import FEATURES, Otherwise, Refused, Talker
from tests.conftest import StartGateway
from tests.e2e.harness import ROOT, Era, Gateway

pytestmark = pytest.mark.e2e
CLIENTS: tuple[Era, ...] = ("modern", "legacy")
PAGE = "7"
Seat = Callable[[Era, "Place"], Talker]


@dataclass(frozen=True)
class Place:
    """A server: its era, and how the gateway reaches it."""

    era: Era
    transport: str

    def __str__(self) -> str:
        return f"{self.era}-{self.transport}"


PLACES = (
    Place("modern", "http"),
    Place("modern", "stdio"),
    Place("legacy", "http"),
    Place("legacy", "sse"),
    Place("legacy", "stdio"),
)
CARRIED = "carried"


@dataclass(frozen=True)
class Row:
    """`clients` and `servers` are eras, `transports` their names."""

    feature: str
    clients: tuple[str, ...]
    servers: tuple[str, ...]
    transports: tuple[str, ...]
    outcome: str
    page: str
    sentence: str

    def fits(self, feature: str, client: Era, place: Place) -> bool:
        return (
            feature == self.feature
            and client in self.clients
            and place.era in self.servers
            and place.transport in self.transports
        )


def rows() -> list[Row]:
    table: dict[str, list[dict[str, Any]]] = yaml.safe_load((suites.HERE / "matrix.yml").read_text(encoding="utf-8"))
    every = {"clients": CLIENTS, "servers": CLIENTS, "transports": ("http", "sse", "stdio")}
    return [
        Row(feature, **{key: tuple(row.get(key, all_)) for key, all_ in every.items()},
            outcome=row["outcome"], page=row["page"], sentence=row["sentence"])
        for feature, entries in table.items()
        for row in entries
    ]  # fmt: skip


ROWS = rows()
CELLS = [(feature, client, place) for feature in FEATURES for client in CLIENTS for place in PLACES]


@pytest.fixture(scope="module")
def gateway(module_gateway: StartGateway) -> Iterator[Gateway]:
    with ExitStack() as stack:
        servers: dict[str, Any] = {}
        for place in PLACES:
            options = ("--transport", place.transport, "--page", PAGE)
            if place.transport == "stdio":
                command = ["-m", "tests.conformance.fixture", "--era", place.era, *options]
                entry: dict[str, Any] = {"command": sys.executable, "args": command, "cwd": str(ROOT)}
            else:
                entry = {"url": stack.enter_context(suites.fixture(place.era, *options))}
            servers[str(place)] = {**entry, "sharing": "session", "list_timeout": "30s"}
        endpoints = {name: {"servers": [name], "naming": "none"} for name in servers}
        yield module_gateway({"version": 1, "servers": servers, "endpoints": endpoints})


@pytest.fixture(scope="module")
def seat(gateway: Gateway) -> Seat:
    """The one client of an era that talks with a server in all of its cells."""
    taken: dict[tuple[Era, Place], Talker] = {}

    def find(era: Era, place: Place) -> Talker:
        if (era, place) not in taken:
            taken[era, place] = Talker(gateway.url(str(place)), era)
        return taken[era, place]

    return find


@pytest.mark.parametrize(
    ("feature", "client", "place"),
    CELLS,
    ids=[f"{feature}: {client} to {place}" for feature, client, place in CELLS],
)
def test_a_cell(seat: Seat, feature: str, client: Era, place: Place) -> None:
    expected = next((row.outcome for row in ROWS if row.fits(feature, client, place)), CARRIED)
    try:
        FEATURES[feature](seat(client, place))
        outcome = CARRIED
    except Refused as refused:
        outcome = f"refused {refused.code}"
        assert outcome == expected, refused.error
    except Otherwise as otherwise:
        outcome = str(otherwise)
    assert outcome == expected


def test_every_row_is_about_a_cell_and_has_its_sentence() -> None:
    for row in ROWS:
        assert any(row.fits(*cell) for cell in CELLS), row
        assert row.page.startswith("https://") or row.sentence in words((ROOT / row.page).read_text("utf-8")), row
        assert row.sentence, row


def words(page: str) -> str:
    """A page as it reads, without line breaks and marks of code."""
    return " ".join(page.replace("`", "").split())
