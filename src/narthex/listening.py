"""The socket that clients connect to: one for the life of the process, with the certificates of the snapshot in force.

In: what all connections share, the snapshot's TLS files. Out: connections. Cases: `tests/e2e/test_lifecycle.py`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Any, Final

from narthex.flow.accept.listener import Shared
from narthex.flow.identity.certificates import NO_PROOF
from narthex.types import Address, Snapshot, TlsFiles

BACKLOG: Final = 1024
HANDSHAKE_S: Final = 10.0


class Listening:
    """Opened once, closed once; `apply` swaps the certificates in between. `address` is where it listens."""

    def __init__(self, shared: Shared) -> None:
        self.address: Address = ("", 0)
        self._shared = shared
        self._server: asyncio.Server | None = None
        self._context: ssl.SSLContext | None = None

    async def open(self, snapshot: Snapshot) -> None:
        """Listen where it says.

        Raises:
            OSError: The address is taken, or a certificate cannot be read.
        """
        if snapshot.tls is not None:
            self._context = server_context(snapshot.tls)
        host, port = snapshot.listen
        self._server = await self._listen(host=host, port=port)
        self.address = self._server.sockets[0].getsockname()[:2]

    async def apply(self, before: TlsFiles | None, files: TlsFiles | None) -> None:
        """Take new connections with these certificates. Raises OSError where they do not fit; then nothing changes."""
        if files is None or self._context is None:
            return
        context = server_context(files)  # apart: a key that does not fit must not spoil the one that serves
        if before is not None and files.of_clients == before.of_clients:
            self._context.load_cert_chain(files.cert, files.key)
        else:
            await self._listen_anew(context)

    def close(self) -> None:
        """Take no new connections, and let go of those that nobody uses. May be said several times."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._shared.connections):
            if connection.idle():
                connection.abort()

    async def _listen_anew(self, context: ssl.SSLContext) -> None:
        """Take new connections with this context, at the same socket: a context forgets no authority."""
        before, self._context = self._server, context
        if before is None or not before.sockets:  # nobody is taken any more
            return
        self._server = await self._listen(sock=socket.socket(fileno=os.dup(before.sockets[0].fileno())))
        before.close()
        for connection in list(self._shared.connections):
            if connection.certificate is not None:  # who had signed it may be trusted no more
                connection.certificate = NO_PROOF
                if connection.idle():
                    connection.abort()

    async def _listen(self, **where: Any) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            self._shared.connect, **where, backlog=BACKLOG, ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_S if self._context is not None else None,
        )  # fmt: skip


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The TLS context of a listener: TLS 1.2 or newer, HTTP/1.1 said in ALPN, client certificates where asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(files.cert, files.key)
    if files.client_ca is not None:
        context.load_verify_locations(files.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL if files.client_optional else ssl.CERT_REQUIRED
    return context
