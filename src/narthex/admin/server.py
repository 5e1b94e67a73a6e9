"""Runs the admin side: a Starlette app on uvicorn, in the gateway's process and on its loop.

In: the running gateway. Out: `AdminServer.address` and `url`, the ones really bound.
uvicorn touches neither signals nor logging here; those are the gateway's.
Cases: `tests/admin/test_server.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from narthex.admin.token import load_token
from narthex.admin.view import GatewayView
from narthex.config.values import show_address
from narthex.errors import ConfigError, StoreError
from narthex.types import Address, TlsFiles

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

MAX_CONNECTIONS = 256
BACKLOG = 128
GRACE_S = 2


def build_admin(gateway: GatewayView, token: str) -> ASGIApp:
    """The admin app behind its guard."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException

    from narthex.admin.activity import activity_routes
    from narthex.admin.approvals import approval_routes
    from narthex.admin.audit import audit_routes
    from narthex.admin.cache import cache_routes
    from narthex.admin.config import config_routes
    from narthex.admin.costs import cost_routes
    from narthex.admin.endpoints import endpoint_routes
    from narthex.admin.guard import Guard
    from narthex.admin.health import health_routes
    from narthex.admin.limits import limit_routes
    from narthex.admin.payloads import payload_routes
    from narthex.admin.reply import on_failure, on_http_error, on_store_error
    from narthex.admin.servers import server_routes

    routes = [
        *health_routes(gateway),
        *server_routes(gateway),
        *endpoint_routes(gateway),
        *config_routes(gateway),
        *activity_routes(gateway),
        *limit_routes(gateway),
        *cache_routes(gateway),
        *approval_routes(gateway),
        *cost_routes(gateway),
        *audit_routes(gateway),
        *payload_routes(gateway),
    ]
    handlers = {HTTPException: on_http_error, StoreError: on_store_error, Exception: on_failure}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, gateway, token)


class AdminServer:
    """The admin listener, where the gateway's snapshot says at the start: port 0 takes a free one, TLS is its own."""

    def __init__(self, gateway: GatewayView) -> None:
        self.address = gateway.snapshot.admin_listen
        self._gateway = gateway
        self._tls = gateway.snapshot.admin_tls
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bind and serve; returns once requests are taken.

        Raises:
            OSError: The address cannot be bound; `strerror` names it.
            ConfigError: The certificate, its key or the admin token cannot be used.
        """
        token = load_token(Path(self._gateway.snapshot.state_dir))
        server = _make_server(build_admin(self._gateway, token), self._tls)
        bound = bind(self.address)
        self.address = cast(Address, bound.getsockname()[:2])
        self._token = token
        await self._serve(server, bound)

    async def _serve(self, server: uvicorn.Server, bound: socket.socket) -> None:
        self._server, self._bound = server, bound.dup()  # uvicorn closes the one that it gets
        self._task = asyncio.create_task(server.serve(sockets=[bound]), name="narthex-admin")
        while not server.started:
            if self._task.done():
                bound.close()
                self._bound.close()
                await self._task
                raise OSError("the admin listener ended at once")
            await asyncio.sleep(0.001)

    @property
    def url(self) -> str:
        """Where it is reached from this machine."""
        host, port = self.address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"{'https' if self._tls else 'http'}://{show_address((host, port))}"

    async def reload_tls(self, tls: TlsFiles | None) -> None:
        """Use a renewed certificate for new connections, and other authorities of clients: these in a new server on the
        same socket. Whether there is TLS at all stays as it was started.

        Raises:
            ConfigError: The certificate or its key cannot be used; the old one stays.
        """
        context = self._server.config.ssl if self._server is not None else None
        if tls is None or not isinstance(context, ssl.SSLContext):
            return
        try:
            # Tried in a context of its own: a key that does not fit would be noticed too late in the one that serves.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key)
            if self._tls is not None and tls.of_clients == self._tls.of_clients:
                context.load_cert_chain(tls.cert, tls.key)
                return
        except (OSError, ssl.SSLError) as error:
            raise _bad_certificate(tls, error) from None
        server, bound = _make_server(build_admin(self._gateway, self._token), tls), self._bound.dup()
        await self.stop()
        await self._serve(server, bound)
        self._tls = tls

    async def stop(self) -> None:
        """Close the listener, give running requests `GRACE_S` seconds. Idempotent."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        task, self._task = self._task, None
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self._bound.close()


def bind(address: Address) -> socket.socket:
    """A listening socket. Raises OSError whose `strerror` says which address, and why not."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
        bound.listen(BACKLOG)  # here, not later: two gateways may bind one port, but only one may listen
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise OSError(
            error.errno, f"cannot listen on {show_address(address)} (admin): {error.strerror or error}"
        ) from None
    return bound


def _make_server(app: ASGIApp, tls: TlsFiles | None) -> uvicorn.Server:
    import uvicorn

    from narthex.admin.patience import PatientProtocol

    class QuietServer(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # SIGTERM and SIGINT are the gateway's: it drains first

    config = uvicorn.Config(
        app,
        http=PatientProtocol,  # of h11: it bounds the head of a request
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=tls.cert if tls else None,
        ssl_keyfile=tls.key if tls else None,
        ssl_ca_certs=tls.client_ca if tls else None,
        ssl_cert_reqs=_cert_reqs(tls),
    )
    try:
        config.load()
        if isinstance(config.ssl, ssl.SSLContext):
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    except (OSError, ssl.SSLError) as error:
        assert tls is not None
        raise _bad_certificate(tls, error) from None
    return QuietServer(config)


def _cert_reqs(tls: TlsFiles | None) -> ssl.VerifyMode:
    if tls is None or tls.client_ca is None:
        return ssl.CERT_NONE
    return ssl.CERT_OPTIONAL if tls.client_optional else ssl.CERT_REQUIRED


def _bad_certificate(tls: TlsFiles, error: Exception) -> ConfigError:
    return ConfigError([f"{tls.cert}: the admin certificate cannot be used: {error}"])
