"""The gateway as a resource server of Entra, as far as the emulator knows it (`tests/counterparts/entra.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.counterparts.entra import App, Entra, User, application, guid
from tests.counterparts.serving import served
from tests.e2e.certificates import Authority
from tests.e2e.harness import Gateway
from tests.faulty.server import FaultyServer
from tests.identity.rig import Caller

pytestmark = pytest.mark.e2e


@dataclass
class Place:
    """A gateway that takes the tokens of one directory for its own app registrations: one of each version."""

    gateway: Gateway
    entra: Entra
    api: App
    old_api: App
    client: App
    user: User

    def status(self, bearer: str) -> int:
        return Caller(self.gateway.mcp, bearer).try_call().status

    def token(self, **changes: Any) -> str:
        return self.entra.access_token(self.api, self.client, self.user, ("tools.read",), **changes)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("entra"))


@pytest.fixture(scope="module")
def entra(authority: Authority) -> Iterator[Entra]:
    directory = Entra(tenants=[guid()])
    with served(application(directory), authority.issue("login")) as directory.base:
        yield directory


def place(start: StartGateway, entra: Entra, authority: Authority, upstream: str, **issuer: Any) -> Place:
    api = App("api://gateway", scopes=("tools.read", "tools.write"))
    old_api = App("api://gateway-v1", version=1, scopes=api.scopes)
    client, user = App("api://agent", "secret"), User("alice@example.com", groups=("staff",), roles=("Reader",))
    entra.apps, entra.users = [api, old_api, client], [user]
    said = {"preset": "entra", "audiences": [api.client_id, old_api.uri], "scope_prefix": "api://gateway/", **issuer}
    config = {
        "version": 1,
        "servers": {"up": {"url": upstream}},
        "egress": {"ca": authority.file},
        "identity": {"issuers": {"entra": said}},
        "endpoints": {"default": {"servers": ["up"], "base_scopes": ["api://gateway/tools.read"]}},
    }
    return Place(start(config), entra, api, old_api, client, user)


@pytest.fixture(scope="module")
def one(module_gateway: StartGateway, entra: Entra, authority: Authority, faulty: FaultyServer) -> Place:
    """For one tenant. Its v1 tokens have an issuer of another name."""
    issuer = {"issuer": entra.issuer(), "aliases": [entra.issuer(version=1)]}
    return place(module_gateway, entra, authority, faulty.url(), **issuer)


def test_tokens_of_both_versions_are_let_in(one: Place) -> None:
    assert one.status(one.token()) == 200
    assert one.status(one.entra.access_token(one.old_api, one.client, one.user, ("tools.read",))) == 200


def test_a_token_without_a_type_is_let_in(one: Place) -> None:
    """Entra says `JWT`, never `at+jwt`; older issuers of the family say nothing."""
    assert one.status(one.token(typ=None)) == 200


def test_an_app_has_no_scopes(one: Place) -> None:
    """What an app may do stands in its roles: `base_scopes` are for delegated tokens, and an app has none of them."""
    one.api.app_roles[one.client.client_id] = ("Tools.Call",)
    assert one.status(one.entra.access_token(one.api, one.client)) == 403


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"aud": "00000003-0000-0000-c000-000000000000"}, id="a token for Graph"),
        pytest.param({"tid": guid()}, id="of another tenant, with its issuer"),
        pytest.param({"iss": "https://login.microsoftonline.com/common/v2.0"}, id="issuer of no tenant"),
        pytest.param({"exp": 1}, id="expired"),
        pytest.param({"typ": "pop"}, id="bound to a key of the client (PoP)"),
        pytest.param({"_claim_names": {"groups": "src1"}, "groups": None}, id="groups overage"),
        pytest.param({"hasgroups": True, "groups": None}, id="groups overage, said shortly"),
    ],
)
def test_refused(one: Place, changes: dict[str, Any]) -> None:
    assert one.status(one.token(**changes)) == 401


def test_overage_is_refused_with_the_reason_and_can_be_let_pass(
    one: Place, start_gateway: StartGateway, entra: Entra, authority: Authority, faulty: FaultyServer
) -> None:
    many = User("many@example.com", groups=tuple(guid() for _ in range(201)))
    bearer = entra.access_token(one.api, one.client, many, ("tools.read",))
    answer = Caller(one.gateway.mcp, bearer).try_call()
    assert answer.status == 401 and "groups" in (answer.header("www-authenticate") or "")
    lenient = place(start_gateway, entra, authority, faulty.url(), issuer=entra.issuer(), overage="ignore")
    bearer = entra.access_token(lenient.api, lenient.client, many, ("tools.read",))
    assert lenient.status(bearer) == 200


def test_groups_that_were_left_out_are_looked_up(
    start_gateway: StartGateway, entra: Entra, authority: Authority, faulty: FaultyServer
) -> None:
    """By the gateway's own client, at the address that the operator wrote, once for a token."""
    groups = tuple(guid() for _ in range(201))
    directory = {"url": entra.base, "client_id": guid(), "client_secret": "${secret:graph}"}
    api, client = App("api://gateway", scopes=("tools.read",)), App("api://agent", "secret")
    gateway = App("api://narthex", "graph-secret", client_id=directory["client_id"])
    graph = App(entra.base, app_roles={gateway.client_id: ("Directory.Read.All",)})
    many, other = User("many@example.com", groups=groups), User("other@example.com", groups=groups[:200] + (guid(),))
    entra.apps, entra.users = [api, client, gateway, graph], [many, other]
    issuer = {"preset": "entra", "issuer": entra.issuer(), "audiences": [api.client_id], "directory": directory}
    config = {
        "version": 1,
        "servers": {"up": {"url": faulty.url()}},
        "egress": {"ca": authority.file},
        "identity": {"issuers": {"entra": issuer}},
        "grants": [{"name": "members", "who": {"group": groups[200]}, "allow": ["*"]}],
        "secrets": {"graph": "env:GRAPH"},
    }
    one = start_gateway(config, env={"GRAPH": "graph-secret"})
    evil = {"src1": {"endpoint": f"{entra.base}/elsewhere"}}
    bearer = entra.access_token(api, client, many, ("tools.read",), _claim_sources=evil)
    for _ in range(3):
        assert "result" in Caller(one.mcp, bearer).try_call().json
    assert entra.asked_about == [many.oid]
    answer = Caller(one.mcp, entra.access_token(api, client, other, ("tools.read",))).try_call()
    assert answer.json["error"]["code"] == -32602, "the groups count"
    assert len([form for _, form in entra.requests if form.get("client_id") == gateway.client_id]) == 1
    entra.graph_status = 503
    answer = Caller(one.mcp, entra.access_token(api, client, many, ("tools.read",))).try_call()
    assert answer.status == 503, "nobody is let in on half the facts"
    assert Caller(one.mcp, bearer).try_call().status == 200, "what is known stays"
    assert (
        Caller(one.mcp, entra.access_token(api, client, User("gone"), ("tools.read",), hasgroups=True))
        .try_call()
        .status
        == 503
    )
    assert "graph-secret" not in one.log()
    entra.graph_status = 200


def test_keys_roll_over(one: Place) -> None:
    assert one.status(one.token()) == 200
    one.entra.roll_over()
    assert one.status(one.token()) == 200
    one.entra.roll_over(keep=False)
    assert one.status(one.token()) == 200


def test_many_tenants_by_the_template(
    start_gateway: StartGateway, entra: Entra, authority: Authority, faulty: FaultyServer
) -> None:
    """Only the tenants that are named, each with its own issuer, though all have the same keys."""
    theirs = entra.tenants[0]
    template = {"issuer": f"{entra.base}/{{tid}}/v2.0", "tenants": [entra.tid, theirs]}
    many = place(start_gateway, entra, authority, faulty.url(), **template)
    assert many.status(many.token()) == 200
    assert many.status(many.token(tid=theirs)) == 200
    assert many.status(many.token(tid=guid())) == 401
    assert many.status(many.token(iss=entra.issuer(theirs))) == 401, "issuer of one, tenant of another"
    assert many.status(many.token(iss=f"{entra.base}/{{tid}}/v2.0")) == 401


def test_the_wrong_authority_is_not_believed(
    start_gateway: StartGateway, entra: Entra, tmp_path: Path, faulty: FaultyServer
) -> None:
    stranger = Authority(tmp_path, "stranger")
    wrong = place(start_gateway, entra, stranger, faulty.url(), issuer=entra.issuer())
    assert wrong.status(wrong.token()) == 503
