"""What tests share: the counterparts made by others, and gateways that run as processes.

A test that needs a program which is missing is skipped with the command that installs it; with `CI=true` it fails.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from narthex import FORM
from tests.counterparts import postgres_server
from tests.counterparts.keycloak import install as keycloak_install
from tests.counterparts.keycloak import server as keycloak_server
from tests.counterparts.keycloak.server import Keycloak
from tests.counterparts.oidc import Oidc
from tests.counterparts.postgres import Cluster, Databases
from tests.e2e.harness import Gateway
from tests.faulty.server import FaultyServer

HERE = Path(__file__).parent
# Timing decides no test: on a busy machine it may take its time to generate an example.
settings.register_profile("narthex", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("narthex")
INSTALLED_BY = {
    "npm": "apt-get install npm",
    "openssl": "apt-get install openssl",
    "promtool": "apt-get install prometheus",
    "rsyslogd": "apt-get install rsyslog rsyslog-gnutls",
}
StartGateway = Callable[..., Gateway]


def missing(what: str, command: str) -> None:
    """Skip with the installing command; on CI nothing is skipped."""
    said = f"{what} is not installed here: {command}"
    if os.environ.get("CI") == "true":
        pytest.fail(said)
    pytest.skip(said)


@pytest.fixture(autouse=True)
def _needs(request: pytest.FixtureRequest) -> None:
    for marker in request.node.iter_markers("needs"):
        for program in marker.args:
            if shutil.which(program) is None:
                missing(program, INSTALLED_BY.get(program, f"apt-get install {program}"))


@pytest.fixture(scope="session")
def python_servers() -> Callable[[str], str]:
    """The path of an official Python server, by its command. `NARTHEX_TEST_SERVERS_BIN` names another environment."""
    folder = Path(os.environ.get("NARTHEX_TEST_SERVERS_BIN") or Path(sys.executable).parent)

    def find(command: str) -> str:
        if not (folder / command).exists():
            missing(command, f"uv pip install {command}")
        return str(folder / command)

    return find


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Where the npm counterparts are."""
    folder = HERE / "counterparts" / "node_modules"
    if not (folder / ".narthex-installed").exists():
        missing("the set of npm counterparts", "tests/counterparts/install")
    return folder


@pytest.fixture(scope="session")
def node(node_modules: Path) -> str:
    """A Node that is new enough for every counterpart."""
    pinned = sorted(node_modules.glob("node-*/bin/node"))
    found = str(pinned[0]) if pinned else shutil.which("node")
    if not found:
        missing("node", "apt-get install nodejs")
    return str(found)


@pytest.fixture(scope="session")
def go_programs() -> Path:
    """Where the programs built with the Go SDK are: `client`, and its own `everything-server`."""
    folder = HERE / "counterparts" / "go" / "bin"
    if not (folder / ".built").exists():
        missing("what is built with the Go SDK", "make counterparts, or make go where there is no new Go")
    return folder


@pytest.fixture(scope="session")
def opa() -> str:
    """Open Policy Agent itself: the server, `opa check`, `opa test`, `opa build`, `opa sign`."""
    folder = HERE / "counterparts" / "go" / "opa" / "bin"
    if not (folder / ".built").exists():
        missing("Open Policy Agent", "make counterparts, or make go where there is no new Go")
    return str(folder / "opa")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Nothing can stand in for a compiled class: such tests run on the sources."""
    if FORM.name == "compiled":
        left_out = [item for item in items if item.get_closest_marker("interpreted")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def _early(request: pytest.FixtureRequest, run_folder: Path) -> None:
    """What is slow to come up starts before the first test that needs it; until then others run."""
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    if "keycloak" in wanted and "NARTHEX_TEST_KEYCLOAK" not in os.environ and keycloak_install.installed():
        keycloak_server.start(run_folder)
    if "databases" in wanted and postgres_server.programs() is not None:
        Databases(run_folder).start()


@pytest.fixture(scope="session")
def keycloak(run_folder: Path) -> Keycloak:
    """The realm `corp` of the one Keycloak of this run. `NARTHEX_TEST_KEYCLOAK` is the URL of one that runs already."""
    if url := os.environ.get("NARTHEX_TEST_KEYCLOAK"):
        return Keycloak(url)
    if not keycloak_install.installed():
        missing("Keycloak", keycloak_install.NEEDED)
    return Keycloak(keycloak_server.start(run_folder).url())


@pytest.fixture(scope="session")
def oidc(run_folder: Path, node: str) -> Oidc:
    """The npm `oidc-provider` of this run: up in a second, with opaque tokens."""
    return Oidc.start(run_folder, node)


@pytest.fixture(scope="session")
def databases(run_folder: Path) -> Databases:
    """The one PostgreSQL of this run; each test has a schema of its own there."""
    if postgres_server.programs() is None:
        missing("PostgreSQL", postgres_server.NEEDED)
    return Databases(run_folder)


@pytest.fixture
def cluster(run_folder: Path) -> Iterator[Cluster]:
    """A PostgreSQL that the test may kill."""
    if postgres_server.programs() is None:
        missing("PostgreSQL", postgres_server.NEEDED)
    found = Cluster(run_folder)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def faulty() -> Iterator[FaultyServer]:
    """One misbehaving upstream for the module."""
    with FaultyServer() as server:
        yield server


def _starter(folders: Callable[[], Path]) -> Iterator[StartGateway]:
    started: list[Gateway] = []

    def start(config: Mapping[str, Any] | str, **options: Any) -> Gateway:
        gateway = Gateway(config, folders(), **options)
        started.append(gateway)
        return gateway.start()

    failed: list[BaseException] = []
    try:
        yield start
    finally:
        for gateway in started:
            try:
                if hasattr(gateway, "process"):
                    gateway.stop()
            except BaseException as error:
                failed.append(error)
        if failed:
            raise failed[0]


@pytest.fixture(scope="module")
def module_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartGateway]:
    """Start gateways that live as long as the module; each is stopped and must leave nothing behind."""
    yield from _starter(lambda: tmp_path_factory.mktemp("gateway"))


@pytest.fixture
def start_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartGateway]:
    """Start gateways for one test; each is stopped and must leave nothing behind."""
    yield from _starter(lambda: tmp_path_factory.mktemp("gateway"))
