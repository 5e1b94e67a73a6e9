"""What a client hears through the gateway is what the server said, byte for byte, but for what a table names.

In: every call that the fixture knows, asked directly and through the gateway, in each pair of eras. `transcript.yml` is
the table: who differs from whom, in which calls, at which paths, and why. A row that nothing needs is an error too.
`known.yml` has rows of the same form for what is not built yet.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pytest
import yaml

from tests.conformance import suites
from tests.conformance.transcript import ask, cases, differences
from tests.conftest import StartGateway
from tests.e2e.harness import Client, Era, Gateway

pytestmark = pytest.mark.e2e
ERAS: tuple[Era, Era] = ("modern", "legacy")
TABLES = ("transcript.yml", "known.yml")


@dataclass(frozen=True)
class Row:
    """`pairs` are `<client's era>-<server's era>`; `calls` and `paths` are globs."""

    pairs: tuple[str, ...]
    calls: tuple[str, ...]
    paths: tuple[str, ...]
    why: str

    def fits(self, pair: str, call: str, path: str) -> bool:
        return (
            pair in self.pairs
            and any(fnmatchcase(call, glob) for glob in self.calls)
            and any(fnmatchcase(path, glob) for glob in self.paths)
        )


def rows() -> list[Row]:
    table, known = (yaml.safe_load((suites.HERE / file).read_text(encoding="utf-8")) for file in TABLES)
    every = [*table, *known.get("transcript", [])]
    return [Row(tuple(row["pairs"]), tuple(row["calls"]), tuple(row["paths"]), row["why"]) for row in every]


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with suites.fixture("dual") as url:
        yield url


@pytest.fixture(scope="module")
def gateway(upstream: str, module_gateway: StartGateway) -> Gateway:
    """One endpoint for each era that the gateway is to speak to the server."""
    return module_gateway(
        {
            "version": 1,
            "servers": {era: {"url": upstream, "era": era, "sharing": "session"} for era in ERAS},
            "endpoints": {era: {"servers": [era], "naming": "none"} for era in ERAS},
        }
    )


@pytest.mark.parametrize(("client", "server"), list(itertools.product(ERAS, ERAS)))
def test_every_answer_is_the_servers(upstream: str, gateway: Gateway, client: Era, server: Era) -> None:
    pair, table = f"{client}-{server}", rows()
    direct, through = Client(upstream, client), gateway.client(server, client)
    needed: set[Row] = set()
    unexplained = []
    for case in cases(client):
        for path in differences(ask(direct, case), ask(through, case)):
            fitting = [row for row in table if row.fits(pair, case.id, path)]
            needed.update(fitting)
            if not fitting:
                unexplained.append(f"{case.id}: {path}")
    assert not unexplained, "\n".join(unexplained)
    assert [row for row in table if pair in row.pairs and row not in needed] == [], "nothing needs these rows"
