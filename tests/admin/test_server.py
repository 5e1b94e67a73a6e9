"""Each resource of the admin side over a real socket; and the listener itself."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from narthex.admin.server import AdminServer
from narthex.admin.view import GatewayView, ServerStatus
from narthex.config.reload import ReloadOutcome
from narthex.errors import ConfigError
from narthex.flow.limit.keys import Subject
from narthex.flow.limit.spending import Spent
from narthex.flow.limit.state import State
from narthex.store.ledger import Ledger
from narthex.telemetry.accounts import OUTCOME
from narthex.telemetry.exposition import render
from narthex.types import EndpointSpec, Principal, TlsFiles

from .gateway import ADMIN, SECRET, TOKEN, Gateway, admin, ask, fetch

REFUSED = ReloadOutcome("refused", "admin", "abc", 2.0, ("narthex.yaml:1:2: wrong",))


def test_the_stand_in_keeps_the_protocol() -> None:
    view: GatewayView = Gateway()
    assert view.snapshot.revision == "abc"


def test_healthz() -> None:
    assert ask(Gateway(), "GET", "/healthz") == (200, "ok\n")


@pytest.mark.parametrize(
    ("ready", "draining", "health", "reload", "status", "word"),
    [
        pytest.param(True, False, "ok", None, 200, "ready", id="all is well"),
        pytest.param(True, False, "idle", None, 200, "ready", id="a server not needed yet"),
        pytest.param(True, False, "down", None, 200, "degraded", id="a dead server degrades"),
        pytest.param(True, False, "ok", REFUSED, 200, "degraded", id="a refused reload degrades"),
        pytest.param(False, False, "ok", None, 503, "starting", id="not ready yet"),
        pytest.param(True, True, "ok", None, 503, "draining", id="about to stop"),
    ],
)
def test_readyz(ready: bool, draining: bool, health: str, reload: ReloadOutcome | None, status: int, word: str) -> None:
    gateway = Gateway()
    gateway.ready, gateway.draining, gateway.last_reload = ready, draining, reload
    gateway.statuses = [ServerStatus("web", health, breaker="open")]  # type: ignore[arg-type]
    got, document = ask(gateway, "GET", "/readyz")
    assert (got, document["status"]) == (status, word)
    assert [one["server"] for one in document["degraded"]] == (["web"] if health == "down" else [])
    assert (document["last_reload"] is not None) == (reload is not None)


def test_a_store_that_cannot_be_used_makes_unready_and_a_missing_secret_degrades() -> None:
    gateway = Gateway()
    gateway.missing_secrets = 2
    status, document = ask(gateway, "GET", "/readyz")
    assert (status, document["status"], document["missing_secrets"]) == (200, "degraded", 2)
    gateway.store_problem = "/var/lib/narthex.db: another program keeps it locked"
    status, document = ask(gateway, "GET", "/readyz")
    assert (status, document["status"]) == (503, "store_unavailable")
    assert "narthex.db" not in str(document), "whoever asks without a token learns no path"
    gateway.store_problem, gateway.journal_problem = "", "/var/audit: No space left on device"
    status, document = ask(gateway, "GET", "/readyz")
    assert (status, document["status"], document["refusing"]) == (503, "journal_unavailable", [])
    endpoints = {name: EndpointSpec(name, (), blocks=name == "pay") for name in ("pay", "look")}
    gateway.snapshot = msgspec.structs.replace(gateway.snapshot, endpoints=endpoints)
    assert ask(gateway, "GET", "/readyz")[1]["refusing"] == ["pay"], "the other goes on"
    gateway.journal_problem = ""
    assert not ask(gateway, "GET", "/readyz")[1]["refusing"]


def test_metrics_are_what_was_counted() -> None:
    gateway = Gateway()
    for number in range(200):
        gateway.accounts.counter("default", "web", "tools/call", f"t{number}").add(OUTCOME["ok"], 0.01, 1, 1)
    status, text = ask(gateway, "GET", "/metrics")
    assert status == 200
    assert text == b"".join(render(gateway.accounts.families())).decode()
    assert 'narthex_calls_total{endpoint="default",server="web",method="tools/call",era="",outcome="ok"} 200.0' in text


def test_servers_show_their_state_and_no_secret() -> None:
    gateway = Gateway()
    gateway.statuses = [
        ServerStatus("web", "down", breaker="open", last_error=f"401 for Bearer {SECRET}", last_error_at=5.0),
        ServerStatus("local", "ok", pid=42, stderr_tail=(f"started with {SECRET}", "hello")),
        ServerStatus("gone", "ok"),
    ]
    status, document = ask(gateway, "GET", "/api/v1/servers")
    web, local = document["servers"]
    assert status == 200
    assert SECRET not in json.dumps(document)
    assert (web["url"], web["breaker"], web["last_error_at"]) == ("https://example.com/mcp", "open", 5.0)
    assert (local["command"], local["pid"], local["stderr_tail"]) == ("tool", 42, ["started with [hidden]", "hello"])
    assert ask(gateway, "GET", "/api/v1/servers/local")[1] == local
    assert ask(gateway, "GET", "/api/v1/servers/absent")[0] == 404


def test_endpoints_show_their_urls() -> None:
    _, document = ask(Gateway(), "GET", "/api/v1/endpoints")
    shown = {"name": "default", "url": "http://127.0.0.1:8080/mcp", "servers": ["web", "local"], "naming": "prefix"}
    assert document == {"endpoints": [shown]}


def test_config_shows_revision_and_warnings_and_no_secret() -> None:
    _, document = ask(Gateway(), "GET", "/api/v1/config")
    assert (document["revision"], document["warnings"]) == ("abc", ["narthex.yaml:3:1: something"])
    assert SECRET not in json.dumps(document)


def test_reload_says_what_became_of_it() -> None:
    gateway, headers = Gateway(), {"Authorization": f"Bearer {TOKEN}"}
    status, document = ask(gateway, "POST", "/api/v1/reload", headers)
    assert (status, document) == (200, msgspec.to_builtins(gateway.next_reload, str_keys=True) | {"problems": []})
    gateway.next_reload = REFUSED
    status, document = ask(gateway, "POST", "/api/v1/reload", headers)
    assert (status, document["error"], document["problems"]) == (422, "bad_configuration", list(REFUSED.problems))
    gateway.next_reload = None
    assert ask(gateway, "POST", "/api/v1/reload", headers)[0] == 409


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/api/v1/servers/", 404, "not_found"),
        ("GET", "/api/v1/reload", 405, "method_not_allowed"),
        ("DELETE", "/healthz", 405, "method_not_allowed"),
    ],
)
def test_errors_are_json(method: str, path: str, status: int, reason: str) -> None:
    got, document = ask(Gateway(), method, path, {"Authorization": f"Bearer {TOKEN}"})
    assert (got, document["error"]) == (status, reason)


def test_a_failure_of_ours_says_nothing_to_the_client() -> None:
    gateway = Gateway()
    gateway.statuses = None  # type: ignore[assignment]
    status, document = ask(gateway, "GET", "/api/v1/servers")
    assert (status, document) == (500, {"error": "internal", "message": "internal error"})


def test_a_taken_port_is_one_clear_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with admin(Gateway()) as first:
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{first.address[1]} \\(admin\\)"):
                await AdminServer(Gateway(admin_listen=first.address, state_dir=str(tmp_path))).start()

    asyncio.run(main())


def test_signals_stay_the_gateways_and_stop_is_idempotent() -> None:
    async def main() -> None:
        before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
        async with admin(Gateway()) as server:
            assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
            await server.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*server.address)

    asyncio.run(main())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    folder = tmp_path_factory.mktemp("tls")
    return make_certificate(folder, "one")


def make_certificate(folder: Path, name: str) -> TlsFiles:
    """A self-signed certificate of a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    files = TlsFiles(str(folder / f"{name}.crt"), str(folder / f"{name}.key"))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    Path(files.cert).write_bytes(certificate)
    Path(files.key).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def subject_served(address: tuple[str, int]) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(address) as plain, context.wrap_socket(plain) as secure:
        return secure.getpeercert(binary_form=True) or b""


def test_tls_and_a_renewed_certificate(certificate: TlsFiles, tmp_path: Path) -> None:
    async def main() -> None:
        async with admin(Gateway(admin_tls=certificate)) as server:
            assert server.url == f"https://127.0.0.1:{server.address[1]}"
            first = await asyncio.to_thread(subject_served, server.address)
            await server.reload_tls(make_certificate(tmp_path, "two"))
            second = await asyncio.to_thread(subject_served, server.address)
            assert first and second and first != second
            with pytest.raises(ConfigError, match="refused"):
                await server.reload_tls(TlsFiles(certificate.cert, str(tmp_path / "two.key")))
            assert await asyncio.to_thread(subject_served, server.address) == second

    asyncio.run(main())


def test_other_authorities_of_clients_are_taken_up_at_the_same_address(certificate: TlsFiles, tmp_path: Path) -> None:
    one, other = make_certificate(tmp_path, "client"), make_certificate(tmp_path, "another")

    def is_let_in(address: tuple[str, int], who: TlsFiles) -> bool:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(who.cert, who.key)
        try:
            with socket.create_connection(address) as plain, context.wrap_socket(plain) as secure:
                secure.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return secure.recv(12) == b"HTTP/1.1 200"
        except OSError:
            return False

    async def main() -> None:
        files = msgspec.structs.replace(certificate, client_ca=one.cert, ca_digest="1")
        async with admin(Gateway(admin_tls=files)) as server:
            address = server.address
            for who, tls in (
                (one, files),
                (other, msgspec.structs.replace(files, client_ca=other.cert, ca_digest="2")),
            ):
                await server.reload_tls(tls)
                assert server.address == address
                found = [await asyncio.to_thread(is_let_in, address, each) for each in (one, other)]
                assert found == [who is one, who is other]

    asyncio.run(main())


def test_a_certificate_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError) as caught:
            await AdminServer(Gateway(state_dir=str(tmp_path), admin_tls=TlsFiles("none.crt", "none.key"))).start()
        assert "none.crt" in caught.value.problems[0]

    asyncio.run(main())


def test_a_request_that_stays_half_costs_nobody_else_anything() -> None:
    async def main() -> None:
        async with admin(Gateway()) as server:
            _, writer = await asyncio.open_connection(*server.address)
            writer.write(b"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
            status, _, _ = await asyncio.to_thread(fetch, server.address[1], "GET", "/healthz")
            writer.transport.abort()
            assert status == 200

    asyncio.run(main())


def test_limits_are_shown_of_everybody_or_of_one() -> None:
    status, document = ask(Gateway(), "GET", "/api/v1/limits")
    assert (status, document["more"]) == (200, False)
    assert [one["per"]["subject"] for one in document["limits"]] == ["ada", "bob"]
    _, document = ask(Gateway(), "GET", "/api/v1/limits?principal=bob")
    assert [one["per"]["subject"] for one in document["limits"]] == ["bob"]
    assert document["limits"][0] == {
        "limit": "calls", "unit": "calls", "per": {"tenant": "default", "subject": "bob"}, "used": 1, "most": 5,
        "resets_in": 9.5, "currency": "",
    }  # fmt: skip


@pytest.mark.parametrize(("credential", "tenants"), [(TOKEN, {"default", "acme"}), (ADMIN, {"default"})])
def test_a_principal_hears_of_what_its_own_tenant_uses_and_spends(
    tmp_path: Path, credential: str, tenants: set[str]
) -> None:
    class Two(Gateway):
        async def limit_states(self, subject: str) -> list[State]:
            shared = State("all", "calls", {}, 1, 5, 9.5)
            return [shared, *(State("calls", "calls", {"tenant": one}, 1, 5, 9.5) for one in ("default", "acme"))]

    ledger = Ledger(tmp_path / "narthex.db")
    for tenant in ("default", "acme"):
        who = Subject(Principal(tenant, "https://idp", "ann"), "default", "bank", "pay")
        ledger.add(Spent(int(time.time() * 1e6), who, "USD", 5, ()))
    ledger.close()
    gateway = Two(admin_listen=("0.0.0.0", 0), store=str(tmp_path / "narthex.db"))
    headers = {"Host": "localhost", "Authorization": f"Bearer {credential}"}
    _, document = ask(gateway, "GET", "/api/v1/limits", headers)
    assert {one["per"]["tenant"] for one in document["limits"][1:]} == tenants
    assert document["limits"][0]["limit"] == "all"
    _, document = ask(gateway, "GET", "/api/v1/costs?by=tenant", headers)
    assert {one["tenant"] for one in document["rows"]} == tenants
