"""An ASGI application on a free loopback port, on a thread of this process: tests change its state while it serves."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from tests.e2e.certificates import Pair
from tests.e2e.harness import wait_for


@contextlib.contextmanager
def served(app: Any, tls: Pair | None = None, clients: str = "") -> Iterator[str]:
    """Serve `app` as long as the block runs; with `tls` over HTTPS, and with `clients` to those alone whom the
    authorities in that file have signed. Yields its base URL."""
    files: dict[str, Any] = {"ssl_certfile": tls.cert, "ssl_keyfile": tls.key} if tls else {}
    if clients:
        files |= {"ssl_ca_certs": clients, "ssl_cert_reqs": ssl.CERT_REQUIRED}
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off", **files)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive(), "the server")
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(60)
