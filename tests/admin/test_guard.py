"""Who may talk to the admin side, one row a rule."""

from __future__ import annotations

import pytest

from narthex.admin.guard import MAX_BODY, host_name
from narthex.types import Grant, Who

from .gateway import ADMIN, TOKEN, WORKER, Gateway, ask


@pytest.mark.parametrize(
    ("host", "status"),
    [
        pytest.param("localhost", 200, id="loopback by name"),
        pytest.param("LOCALHOST:1234", 200, id="in capitals, with a port"),
        pytest.param("127.0.0.1", 200, id="loopback by address"),
        pytest.param("[::1]:9", 200, id="loopback by IPv6 address"),
        pytest.param("admin.example", 200, id="named by the operator"),
        pytest.param("ported.example:8081", 200, id="named with this port"),
        pytest.param("ported.example:8082", 403, id="named with another port"),
        pytest.param("evil.example", 403, id="any other name: DNS rebinding"),
        pytest.param("10.0.0.1", 403, id="any other address"),
        pytest.param("localhost.evil.example", 403, id="a name that begins well"),
        pytest.param("localhost:x", 403, id="a port that is none"),
        pytest.param("localhost@evil.example", 403, id="user information"),
        pytest.param("127.0.0.1/evil.example", 403, id="a path"),
        pytest.param("", 403, id="empty"),
    ],
)
def test_host(host: str, status: int) -> None:
    gateway = Gateway(allowed_hosts=("admin.example", "ported.example:8081"))
    assert ask(gateway, "GET", "/healthz", {"Host": host})[0] == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        pytest.param("http://localhost:8081", 200, id="this very host and port"),
        pytest.param("https://admin.example", 200, id="named by the operator"),
        pytest.param("http://localhost:3000", 403, id="another port of this machine"),
        pytest.param("http://evil.example", 403, id="another site"),
        pytest.param("null", 403, id="null"),
        pytest.param("", 403, id="empty"),
        pytest.param("file://localhost:8081", 403, id="another scheme"),
    ],
)
def test_origin(origin: str, status: int) -> None:
    gateway = Gateway(allowed_hosts=("admin.example",))
    assert ask(gateway, "GET", "/api/v1/config", {"Host": "localhost:8081", "Origin": origin})[0] == status


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        pytest.param(f"Bearer {TOKEN}", 200, id="the token"),
        pytest.param(f"bearer {TOKEN}", 200, id="schemes have no case"),
        pytest.param(f"Bearer {ADMIN}", 200, id="somebody with the admin role"),
        pytest.param(None, 401, id="none"),
        pytest.param("Bearer ", 401, id="empty"),
        pytest.param(f"Bearer {TOKEN}x", 401, id="longer"),
        pytest.param(f"Bearer {TOKEN[:-1]}", 401, id="shorter"),
        pytest.param(f"Basic {TOKEN}", 401, id="another scheme"),
        pytest.param("Bearer \xe9", 401, id="not ASCII"),
    ],
)
def test_writes_need_the_token(authorization: str | None, status: int) -> None:
    gateway = Gateway()
    got, _ = ask(gateway, "POST", "/api/v1/reload", {"Authorization": authorization} if authorization else {})
    assert got == status
    assert gateway.reloads == (["admin"] if status == 200 else [])
    assert gateway.turned_away == (["127.0.0.1"] if status == 401 and authorization else []), "for the record"


LEADS = (
    Grant(
        "workers reload",
        "allow",
        Who(role=("support",)),
        tools=("admin__reload",),
        when='context.address == "127.0.0.1"',
    ),
    Grant("no reload by bosses", "deny", Who(subject=("boss",)), tools=("admin__reload",), line=4),
)


@pytest.mark.parametrize(
    ("who", "grants", "status"),
    [
        pytest.param(ADMIN, (), 200, id="the role may, as ever"),
        pytest.param(WORKER, (), 403, id="others may not"),
        pytest.param(WORKER, LEADS, 200, id="whom a grant lets"),
        pytest.param(ADMIN, LEADS, 403, id="a denial hits the role"),
        pytest.param(TOKEN, LEADS, 200, id="the token opens whatever rules say"),
    ],
)
def test_rules_decide_what_is_done_and_it_is_recorded(who: str, grants: tuple[Grant, ...], status: int) -> None:
    gateway = Gateway(admin_grants=grants)
    got, body = ask(gateway, "POST", "/api/v1/reload", {"Authorization": f"Bearer {who}"})
    assert (got, gateway.reloads) == (status, ["admin"] if status == 200 else [])
    (record,) = gateway.recorded
    assert (record["event"], record["method"], record["source"]) == ("admin", "reload", "127.0.0.1")
    assert (record["decision"], record["outcome"]) == (("allow", "ok") if status == 200 else ("deny", "denied"))
    subject = {ADMIN: "boss", WORKER: "worker", TOKEN: "admin.token"}[who]
    assert record["principal"]["subject"] == subject
    assert (record["principal"]["proof"] == "admin_token") == (who == TOKEN) == ("policy" not in record)
    did = {"status": "applied", "revision": "def", "problems": 0}
    assert record.get("did") == (did if status == 200 else None)
    if status == 403:
        assert body["error"] == "denied"


def test_what_fails_is_recorded_as_it_ended_and_reads_are_not() -> None:
    gateway = Gateway()
    gateway.next_reload = None
    assert ask(gateway, "POST", "/api/v1/reload", {"Authorization": f"Bearer {TOKEN}"})[0] == 409
    assert ask(gateway, "POST", "/api/v1/nothing", {"Authorization": f"Bearer {ADMIN}"})[0] == 404
    assert ask(gateway, "GET", "/api/v1/config")[0] == 200
    assert ask(gateway, "POST", "/api/v1/reload")[0] == 401
    found = [(one["method"], one["outcome"], one["reason"]) for one in gateway.recorded]
    assert found == [("reload", "invalid_request", "http_409"), ("nothing", "not_found", "http_404")]


def test_a_large_body_is_refused_before_anything_runs() -> None:
    gateway = Gateway()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(gateway, "POST", "/api/v1/reload", headers, b"x" * (MAX_BODY + 1))[0] == 413
    assert gateway.reloads == []


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("A.example", "a.example"),
        ("[0:0::1]:1", "::1"),
        ("[::1", None),
        ("a b", None),
        ("a:99999", None),
        ("[x:y]", None),
    ],
)
def test_host_name(host: str, name: str | None) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize(
    ("path", "authorization", "status"),
    [
        pytest.param("/api/v1/config", None, 401, id="the API, nobody"),
        pytest.param("/api/v1/config", "Bearer x", 401, id="the API, somebody"),
        pytest.param("/api/v1/config", f"Bearer {TOKEN}", 200, id="the API, the token"),
        pytest.param("/api/v1/config", f"Bearer {ADMIN}", 200, id="the API, the role"),
        pytest.param("/api/v1/config", f"Bearer {WORKER}", 403, id="the API, somebody else"),
        pytest.param("/healthz", None, 200, id="a probe"),
        pytest.param("/readyz", None, 200, id="a load balancer"),
        pytest.param("/metrics", None, 200, id="Prometheus"),
    ],
)
def test_where_other_machines_reach_it_reads_need_a_credential(
    path: str, authorization: str | None, status: int
) -> None:
    headers = {"Host": "localhost", **({"Authorization": authorization} if authorization else {})}
    assert ask(Gateway(admin_listen=("0.0.0.0", 0)), "GET", path, headers)[0] == status
