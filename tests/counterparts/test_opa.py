"""A gateway whose calls an Open Policy Agent decides: the real one, killed and mended, with the sample policy."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex.authority.fetch import Fetcher
from narthex.engines.counts import Counts
from narthex.engines.opa import RemoteOpa
from narthex.flow.policy.decision import Decision
from narthex.flow.policy.document import Document
from narthex.types import Egress, OpaSpec, PeerTls, Principal
from tests.conftest import StartGateway
from tests.counterparts.opa_server import OpaServer, served
from tests.counterparts.ports import Port
from tests.e2e.certificates import Authority
from tests.e2e.harness import check_error, text, wait_for
from tests.engines.test_opa import TRACE, document, listed

SAMPLE = Path(__file__).parents[2] / "examples" / "policy"
BUNDLE = SAMPLE / "bundle"
CLERK = Principal("default", "corp", "ann", roles=("support",))


@pytest.fixture(scope="module")
def agent(opa: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpaServer]:
    """The one that serves this module, with the sample policy as a bundle, logging its decisions."""
    folder = tmp_path_factory.mktemp("opa")
    whole = shutil.copytree(BUNDLE, folder / "bundle")
    shutil.copy(SAMPLE / "lists.rego", whole)
    traces = ("--set", "distributed_tracing.type=http", "--set", "distributed_tracing.address=127.0.0.1:9")
    logs = ("--set", "decision_logs.console=true", *traces)
    with served(opa, folder, "--bundle", str(whole), "--log-format", "json", *logs) as server:
        yield server


def asking(url: str, case: Callable[[RemoteOpa], Awaitable[None]], **spec: Any) -> None:
    async def main() -> None:
        fetcher = Fetcher(Egress())
        wanted = OpaSpec(url, **({"path": "narthex/decision", "deadline_s": 20.0, "list_deadline_s": 20.0} | spec))
        engine = RemoteOpa(wanted, fetch=fetcher.fetch, secrets=str, clock=lambda: 0.0, counts=Counts())
        try:
            await asyncio.wait_for(case(engine), 60)
        finally:
            fetcher.close()

    asyncio.run(main())


def said(decision: Decision) -> tuple[str, str]:
    return decision.effect, decision.reason


# --- the sample policy


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("check", "--strict", "bundle", "lists.rego", "tests"), id="check --strict"),
        pytest.param(("test", "bundle", "lists.rego", "tests"), id="test"),
        pytest.param(("fmt", "--fail", "--list", "bundle", "lists.rego", "tests"), id="fmt"),
        pytest.param(("build", "--bundle", "bundle", "-o", "/dev/null"), id="build"),
    ],
)
def test_the_sample_policy_passes(opa: str, command: tuple[str, ...]) -> None:
    done = subprocess.run([opa, *command], cwd=SAMPLE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


# --- the engine


def test_a_decision_its_id_its_revision_and_its_trace(agent: OpaServer) -> None:
    async def case(engine: RemoteOpa) -> None:
        found = await engine.decide(document("refund", meta={"traceparent": TRACE}, amount=500))
        assert said(found) == ("deny", "denied_by_policy") and found.detail == "no role grants it"
        assert found.bundle == engine.bundle == "example-1"
        while not (mine := [one for one in logged_decisions(agent) if one["decision_id"] == found.decision_id]):
            await asyncio.sleep(0.01)
        (logged,) = mine
        assert logged["trace_id"] == TRACE.split("-")[1]
        assert logged["input"]["mcp"]["arguments"] == {"amount": 500}

    asking(agent.url, case)


def logged_decisions(agent: OpaServer) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in agent.log().splitlines() if line.startswith("{")]
    return [one for one in lines if one.get("msg") == "Decision Log"]


@pytest.mark.parametrize("batch", ["", "narthex/decisions"], ids=["side by side", "at once"])
def test_a_list(agent: OpaServer, batch: str) -> None:
    async def case(engine: RemoteOpa) -> None:
        names = [f"get_{number}" for number in range(40)] + ["delete_1", "update"]
        things = [Document(CLERK, "default", "tools", "crm", name, 0.0) for name in names]
        found = await engine.decide_all(things)
        assert [one.effect for one in found] == ["allow"] * 40 + ["deny"] * 2
        assert {one.bundle for one in found} == {"example-1"}

    asking(agent.url, case, batch=batch)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        pytest.param("narthex/nothing", "policy_undefined", id="undefined"),
        pytest.param("limits", "bad_policy_result", id="data in place of a decision"),
        pytest.param("networks", "bad_policy_result", id="a list in place of a decision"),
        pytest.param("broken/conflict", "policy_failed", id="two answers at once"),
    ],
)
def test_no_decision(opa: str, tmp_path: Path, path: str, reason: str) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "policy.rego").write_text("package broken\n\nconflict := 1\n\nconflict := 2 if input.v\n")
    (broken / ".manifest").write_text('{"roots": ["broken"]}')

    async def case(engine: RemoteOpa) -> None:
        assert said(await engine.decide(document())) == ("deny", reason)
        assert {said(one) for one in await engine.decide_all(listed("a"))} == {("deny", reason)}

    with served(opa, tmp_path, "--bundle", str(BUNDLE), "--bundle", str(broken)) as server:
        asking(server.url, case, path=path)


def test_killed_and_back(opa: str, tmp_path: Path) -> None:
    with served(opa, tmp_path, "--bundle", str(BUNDLE)) as server:

        async def case(engine: RemoteOpa) -> None:
            assert said(await engine.decide(document())) == ("deny", "denied_by_policy")
            server.kill()
            assert said(await engine.decide(document())) == ("deny", "policy_failed") and engine.problem
            await asyncio.to_thread(server.start)
            assert said(await engine.decide(document())) == ("deny", "denied_by_policy") and not engine.problem

        asking(server.url, case)


# --- a gateway

POLICY = """package narthex

decision := {"allow": true, "obligations": {"cache_ttl_s": 0}} if {
	input.resource.name == "time__get_current_time"
	not input.mcp.arguments.timezone == "Europe/Paris"
}

decision := {"allow": true} if {
	input.resource.name == "time__convert_time"
	input.action == "list"
}
"""


def test_a_gateway_that_asks(
    opa: str, tmp_path: Path, start_gateway: StartGateway, python_servers: Callable[[str], str]
) -> None:
    policy = tmp_path / "policy.rego"
    policy.write_text(POLICY)
    time = python_servers("mcp-server-time")
    with served(opa, tmp_path, str(policy)) as server:
        gateway = start_gateway(
            {
                "version": 1,
                "servers": {"time": {"command": time, "args": ["--local-timezone", "UTC"]}},
                "policy": {
                    "opa": {"url": server.url, "deadline": "10s", "list_deadline": "10s"},
                    "decision_logs": {"file": "decisions.jsonl", "mask": ["/input/subject"], "every": "100ms"},
                },
            }
        )
        client = gateway.client()
        assert client.tools() == ["time__get_current_time", "time__convert_time"]
        assert "UTC" in text(client.call("time__get_current_time", {"timezone": "UTC"}))
        refused = client.call_error("time__get_current_time", {"timezone": "Europe/Paris"})
        check_error(refused, -31001, "policy_undefined")
        check_error(client.call_error("time__convert_time", {}), -31001, "policy_undefined")
        server.kill()
        refused = client.call_error("time__get_current_time", {"timezone": "UTC"})
        check_error(refused, -31001, "policy_failed")
        assert server.url.removeprefix("http://") not in json.dumps(refused), "where the agent is, is nobody's business"
        ready = gateway.ready().json
        assert ready["status"] == "degraded" and ready["policy_problem"]
        server.start()
        wait_for(lambda: "UTC" in str(client.ask("tools/call", {"name": "time__get_current_time",
                                                                "arguments": {"timezone": "UTC"}})))  # fmt: skip
        assert gateway.ready().json["policy_problem"] == ""
    gateway.stop()
    logged = [json.loads(line) for line in (gateway.folder / "decisions.jsonl").read_text().splitlines()]
    said = [one.get("result", one.get("error"))["code" if "error" in one else "reason"] for one in logged]
    assert said[:4] == ["allowed_by_policy", "policy_undefined", "policy_undefined", "policy_failed"]
    assert said[-1] == "allowed_by_policy" and logged[-1]["erased"] == ["/input/subject"]
    assert logged[0]["input"]["mcp"]["arguments"] == {"timezone": "UTC"}


# --- over TLS, shown who we are


def test_it_is_asked_over_tls_with_our_certificate(opa: str, tmp_path: Path) -> None:
    servers, clients = Authority(tmp_path, "servers"), Authority(tmp_path, "clients")
    theirs, mine, port = servers.issue("opa"), clients.issue("gateway"), Port()
    strange = Authority(tmp_path, "strangers").issue("stranger")
    files = ("--tls-cert-file", theirs.cert, "--tls-private-key-file", theirs.key, "--tls-ca-cert-file", clients.file)
    url = f"https://127.0.0.1:{port.number}"

    async def decides(engine: RemoteOpa) -> None:
        assert said(await engine.decide(document())) == ("allow", "allowed_by_policy")
        assert [one.effect for one in await engine.decide_all(listed("a", "b"))] == ["allow", "allow"]

    async def denies(engine: RemoteOpa) -> None:
        assert said(await engine.decide(document())) == ("deny", "policy_failed")
        assert {one.effect for one in await engine.decide_all(listed("a", "b"))} == {"deny"}

    with served(opa, tmp_path, "--addr", url, "--authentication", "tls", *files) as server:
        server.put_policy("p", "package narthex\n\ndecision := true\n")
        asking(url, decides, tls=PeerTls(servers.file, mine.cert, mine.key))
        asking(url, denies, tls=PeerTls(servers.file))
        asking(url, denies, tls=PeerTls(servers.file, strange.cert, strange.key))
        asking(url, denies, tls=PeerTls(clients.file, mine.cert, mine.key))
        asking(url, denies)
