"""Who may talk to the admin side, one row a rule."""

from __future__ import annotations

import pytest

from narthex.admin.guard import MAX_BODY, host_name

from .gateway import ADMIN, TOKEN, Gateway, ask


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
