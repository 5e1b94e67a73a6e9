"""Open Policy Agent as a server of a test: on a free loopback port, its policies put there by its REST API."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.counterparts.ports import Port

PATIENCE_S = 60.0
"""How long it may take to come up. Generous: only a failure waits that long."""


class OpaServer:
    """One process. `start` again after `kill` serves at the same URL, with nothing in it but `arguments`."""

    def __init__(self, program: str, folder: Path, *arguments: str) -> None:
        self._program, self._arguments, self._log = program, arguments, folder / "opa.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = Port()
        self.url = f"http://127.0.0.1:{self._port.number}"

    def start(self) -> None:
        """Serve."""
        options = ("--addr", self.url, "--skip-version-check", "--shutdown-grace-period", "0")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "run", "--server", *options, *self._arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + PATIENCE_S
        while self._process.poll() is None and time.monotonic() < end:
            try:
                if _request(self.url, "GET", "/health")[0] == 200:
                    return
            except OSError:
                time.sleep(0.02)
        self.kill()
        raise AssertionError(self._log.read_text(errors="replace")[-3000:])

    def kill(self) -> None:
        """As an out-of-memory killer does it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def put_policy(self, name: str, text: str) -> None:
        status, answer = _request(self.url, "PUT", f"/v1/policies/{name}", text.encode())
        assert status == 200, answer

    def delete_policy(self, name: str) -> None:
        _request(self.url, "DELETE", f"/v1/policies/{name}")

    def put_data(self, path: str, value: Any) -> None:
        status, answer = _request(self.url, "PUT", f"/v1/data/{path}", json.dumps(value).encode())
        assert status == 204, answer

    def ask(self, path: str, document: Mapping[str, Any]) -> tuple[int, Any]:
        """Status and answer of a query."""
        status, answer = _request(self.url, "POST", f"/v1/data/{path}", json.dumps({"input": document}).encode())
        return status, json.loads(answer)

    def log(self) -> str:
        return self._log.read_text(errors="replace")


@contextmanager
def served(program: str, folder: Path, *arguments: str) -> Iterator[OpaServer]:
    """One that ends with the block."""
    server = OpaServer(program, folder, *arguments)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _request(url: str, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
