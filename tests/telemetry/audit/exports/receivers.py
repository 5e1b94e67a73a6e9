"""Receivers for tests: syslog over TLS, and OTLP over HTTP, that can be slow, refuse, cut off, and go away."""

from __future__ import annotations

import gzip
import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.counterparts.ports import Port


def make_certificate(folder: Path, name: str, *, days: int = 1) -> tuple[str, str]:
    """Files of a self-signed certificate for 127.0.0.1, and of its key. `days` below zero: it has run out."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=30)).not_valid_after(now + timedelta(days))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = builder.add_extension(names, False).add_extension(x509.BasicConstraints(True, None), True)
    cert, file = folder / f"{name}.crt", folder / f"{name}.key"
    cert.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(cert), str(file)


def unframed(data: bytes) -> tuple[list[bytes], bytes]:
    """The messages of a stream in frames of RFC 5425, and what is left behind the last whole one."""
    found = []
    while b" " in data[:11]:
        length, _, rest = data.partition(b" ")
        assert length.isdigit() and length[:1] != b"0", "no frame begins here"
        if len(rest) < int(length):
            break
        found.append(rest[: int(length)])
        data = rest[int(length) :]
    return found, data


class SyslogServer:
    """Takes syslog over TLS. `messages`: whole ones, in the order in which they came.

    Args:
        reading: Is asked before each read, with how many bytes have come; False: the connection is reset.
        client_ca: Whose certificates clients must show.
    """

    def __init__(
        self, cert: tuple[str, str], *, port: int = 0, client_ca: str = "", reading: Callable[[int], bool] | None = None
    ) -> None:
        self.messages: list[bytes] = []
        self.connections = 0
        self.torn = 0
        self._reading = reading or (lambda size: True)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*cert)
        if client_ca:
            self._context.load_verify_locations(client_ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._held = Port()  # for one that comes after this, as long as anybody knows this one
        self.port = port or self._held.number
        self._socket = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(60)

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            plain.settimeout(300)
            with suppress(OSError), self._context.wrap_socket(plain, server_side=True) as line:
                self._read(line)

    def _read(self, line: ssl.SSLSocket) -> None:
        data, size = b"", 0
        while True:
            if not self._reading(size):
                linger = b"\1\0\0\0\0\0\0\0"  # close resets
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                break
            part = line.recv(65536)
            if not part:
                break
            size += len(part)
            found, data = unframed(data + part)
            self.messages += found
        self.torn += bool(data)


class OtlpServer:
    """Takes OTLP over HTTP. `bodies`: of each request, unpacked. `answer`: gives status and body for each."""

    def __init__(
        self,
        answer: Callable[[bytes], tuple[int, bytes]] = lambda body: (200, b"{}"),
        cert: tuple[str, str] | None = None,
    ) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        ours = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
                status, said = answer(body)
                if status == 200:
                    ours.bodies.append(body)
                    ours.headers.append(dict(self.headers.items()))
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if cert is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*cert)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def closing(*servers: SyslogServer | OtlpServer) -> Iterator[None]:
    try:
        yield
    finally:
        for one in servers:
            one.close()
