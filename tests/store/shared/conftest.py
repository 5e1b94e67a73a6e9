"""The servers that gateways share, of both kinds, each for a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from narthex.types import SharedSpec
from tests.conftest import missing
from tests.counterparts import keeper
from tests.counterparts.keeper import Keeper


@pytest.fixture(scope="module", params=keeper.KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    if keeper.program(request.param) is None:
        missing(request.param, keeper.INSTALLED_BY[request.param])
    with keeper.serving(request.param, tmp_path_factory.mktemp("keeper")) as one:
        yield one


@pytest.fixture
def spec(server: Keeper) -> SharedSpec:
    """An empty server, and where it is. A busy machine may take its time to answer."""
    client = server.client()
    client("FLUSHALL")
    client.close()
    return SharedSpec("127.0.0.1", server.port, timeout_s=10.0)
