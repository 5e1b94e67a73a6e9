"""A gateway as its users run it: a process of its own, spoken to over real sockets.

`Gateway` starts `narthex serve` on free loopback ports with its state in a temporary folder and, at the end, proves
that no process is left. `Wire` speaks raw HTTP/1.1, so that a test may send what no library would. `Client` speaks MCP
in either era on top of it. Everything waits for a condition, never for a fixed time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
"""The longest a condition is waited for; generous, because only failures wait that long."""
LEGACY, MODERN = "2025-11-25", "2026-07-28"
PROTOCOL, CAPABILITIES, INFO = (
    f"io.modelcontextprotocol/{name}" for name in ("protocolVersion", "clientCapabilities", "clientInfo")
)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
NAMED_BY = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    **dict.fromkeys(("tasks/get", "tasks/update", "tasks/cancel"), "taskId"),
}
Era = Literal["legacy", "modern"]
Headers = Sequence[tuple[str, str]]
T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str = "the condition", timeout_s: float = PATIENCE_S) -> T:
    """The first true value of `condition`, asked again and again. AssertionError after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.01)
    return value


def json_lines(*files: Path) -> list[Any]:
    """What files of JSON lines say that another process may be writing: a line counts once its end is there."""
    lines = [line for file in files if file.exists() for line in file.read_bytes().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


# --- HTTP ---------------------------------------------------------------------------------------------------------


class Closed(Exception):
    """The peer closed the connection where more was expected."""


@dataclass(slots=True)
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    version: str = "1.1"

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def messages(self) -> list[Any]:
        """The JSON-RPC messages, whether they came as one JSON body or as an event stream."""
        if (self.header("content-type") or "").startswith("text/event-stream"):
            return [json.loads(data) for data in events(self.body)]
        return [self.json]

    @property
    def answer(self) -> Any:
        """The response: the one message with a result or an error."""
        answers = [message for message in self.messages if "result" in message or "error" in message]
        assert len(answers) == 1, self
        return answers[0]


def events(body: bytes) -> list[str]:
    """The data of each whole event of a stream; comments and empty events are skipped."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        lines = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
        if lines and "".join(lines):
            found.append("\n".join(lines))
    return found


class Wire:
    """One connection to a listener. Writes any bytes; reads strictly: what a careful client would refuse fails."""

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        self.path = parts.path or "/"
        self._buffer = bytearray()
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "https":
            context = tls or ssl.create_default_context()
            self._socket = context.wrap_socket(self._socket, server_hostname=parts.hostname)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Close with a TCP reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._socket.close()

    def send(self, data: bytes, *, bytewise: bool = False) -> None:
        """Write all; `bytewise` one segment a byte. A peer that has closed already is no error: its answer counts."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            if not bytewise:
                self._socket.sendall(data)
                return
            for index in range(len(data)):
                self._socket.sendall(data[index : index + 1])

    def send_some(self, data: bytes, timeout_s: float = 0.2) -> int:
        """Write what the peer takes within `timeout_s`; the number of bytes taken."""
        self._socket.settimeout(timeout_s)
        sent = 0
        try:
            while sent < len(data):
                sent += self._socket.send(data[sent : sent + 65536])
        except TimeoutError:
            pass
        finally:
            self._socket.settimeout(PATIENCE_S)
        return sent

    def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def request(
        self, method: str, path: str | None = None, headers: Headers = (), body: bytes = b"", *, host: str | None = None
    ) -> Response:
        self.send(render(method, path or self.path, [("host", host or self.host), *headers], body))
        return self.read(no_body=method == "HEAD")

    def _more(self) -> None:
        try:
            data = self._socket.recv(262144)
        except ConnectionError as error:
            raise Closed(f"reset, with {bytes(self._buffer[:200])!r} unread") from error
        if not data:
            raise Closed(f"closed, with {bytes(self._buffer[:200])!r} unread")
        self._buffer += data

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            assert len(self._buffer) < 65536, "a line without end"
            self._more()
        return self._take(end + 2)[:-2]

    def read_head(self, *, skip_interim: bool = True) -> Response:
        """The head of the next response; interim (1xx) ones are skipped unless asked for."""
        while True:
            line = self._line().decode("ascii")
            match = re.fullmatch(r"HTTP/(1\.[01]) ([1-5]\d\d) [ -~]*", line)
            assert match, f"not a status line: {line!r}"
            headers = []
            while header := self._line().decode("latin-1"):
                parts = re.fullmatch(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): *([^\r\n]*?) *", header)
                assert parts, f"not a header: {header!r}"
                headers.append((parts[1].lower(), parts[2]))
            response = Response(int(match[2]), headers, version=match[1])
            if response.status >= 200 or response.status == 101 or not skip_interim:
                return response

    def read(self, *, no_body: bool = False) -> Response:
        """The next whole response."""
        response = self.read_head()
        if not no_body and response.status not in (204, 304):
            response.body = b"".join(self.read_body(response))
        return response

    def read_body(self, head: Response) -> Iterator[bytes]:
        """The parts of the body that follows `head`, as they come."""
        length, coding = head.header("content-length"), head.header("transfer-encoding")
        assert not (length and coding), "both Content-Length and Transfer-Encoding"
        assert sum(key == "content-length" for key, _ in head.headers) < 2, "two Content-Length"
        if coding:
            assert coding == "chunked"
            while size := int(self._line(), 16):
                yield self._take(size)
                assert self._take(2) == b"\r\n"
            assert self._line() == b"", "trailers"
        elif length:
            left = int(length)
            while left:
                if not self._buffer:
                    self._more()
                part = self._take(min(left, len(self._buffer)))
                left -= len(part)
                yield part
        else:
            assert head.header("connection") == "close" or head.version == "1.0", (
                "a body without a length on keep-alive"
            )
            with contextlib.suppress(Closed):
                while True:
                    if not self._buffer:
                        self._more()
                    yield self._take(len(self._buffer))

    def events(self, head: Response) -> Iterator[Any]:
        """The JSON-RPC messages of an event stream, one by one as they come."""
        return (message for message, _ in self.raw_events(head))

    def raw_events(self, head: Response) -> Iterator[tuple[Any, bytes]]:
        """The same, each with its bytes."""
        assert (head.header("content-type") or "").startswith("text/event-stream"), head
        rest = b""
        for part in self.read_body(head):
            rest += part
            while (end := rest.find(b"\n\n")) >= 0:
                for data in events(rest[: end + 2]):
                    yield json.loads(data), data.encode()
                rest = rest[end + 2 :]

    def is_closed(self) -> bool:
        """Has the peer closed? Bytes that it sent before are kept for reading."""
        self._socket.settimeout(0.001)
        try:
            self._more()
        except Closed:
            return True
        except (TimeoutError, ssl.SSLWantReadError):
            return False
        finally:
            self._socket.settimeout(PATIENCE_S)
        return False

    def wait_closed(self, timeout_s: float = PATIENCE_S) -> bytes:
        """Wait until the peer closes; what it still sent."""
        self._socket.settimeout(timeout_s)
        with contextlib.suppress(Closed):
            while True:
                self._more()
        return bytes(self._buffer)


def render(method: str, path: str, headers: Headers, body: bytes = b"") -> bytes:
    """A request as bytes, with the Content-Length of a body (a POST always has one)."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if body or method in ("POST", "PUT"):
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def get(url: str, *, tls: ssl.SSLContext | None = None) -> Response:
    """One GET on a connection of its own."""
    with Wire(url, tls=tls) as wire:
        return wire.request("GET", headers=[("connection", "close")])


# --- MCP ----------------------------------------------------------------------------------------------------------


def message(
    method: str, params: Mapping[str, Any] | None = None, id: int | str | None = 1, *, era: Era = "modern"
) -> dict[str, Any]:
    """One request, or a notification where `id` is None; a modern one with the `_meta` that the revision asks for."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if id is not None:
        body["id"] = id
    values = dict(params or {})
    if era == "modern":
        meta = {PROTOCOL: MODERN, CAPABILITIES: {}, INFO: {"name": "e2e", "version": "1"}}
        values["_meta"] = {**meta, **values.get("_meta", {})}
    if values or params is not None:
        body["params"] = values
    return body


def routing_headers(
    body: Mapping[str, Any], *, era: Era = "modern", session: str | None = None
) -> list[tuple[str, str]]:
    """The headers that belong to `body`."""
    headers = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")]
    if era == "legacy":
        if session is not None:
            headers += [("mcp-session-id", session), ("mcp-protocol-version", LEGACY)]
        return headers
    headers += [("mcp-protocol-version", MODERN), ("mcp-method", body["method"])]
    if field_name := NAMED_BY.get(body["method"]):
        headers.append(("mcp-name", body["params"][field_name]))
    return headers


class Client:
    """An MCP client of one era on one endpoint. Connections are kept and reopened as needed."""

    def __init__(self, url: str, era: Era = "modern", *, tls: ssl.SSLContext | None = None) -> None:
        self.url, self.era, self.session = url, era, None
        self._tls, self._id = tls, 0
        self._wire: Wire | None = None
        self.initialized: Any = None
        if era == "legacy":
            self.open()

    session: str | None

    def open(self) -> None:
        """The handshake of the legacy era."""
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}}
        response = self.post("initialize", params)
        assert response.status == 200, response
        self.initialized, self.session = response.answer["result"], response.header("mcp-session-id")
        assert self.session, response
        assert self.post("notifications/initialized", None, notification=True).status == 202

    def next_id(self) -> int:
        self._id += 1
        return self._id

    def render(self, body: Mapping[str, Any], *, host: str | None = None, extra: Headers = ()) -> bytes:
        parts = urlsplit(self.url)
        headers = [("host", host or parts.netloc), *routing_headers(body, era=self.era, session=self.session), *extra]
        return render("POST", parts.path, headers, json.dumps(body).encode())

    def post(self, method: str, params: Mapping[str, Any] | None = None, *, notification: bool = False) -> Response:
        """Send one request or notification and read the whole answer."""
        body = message(method, params, None if notification else self.next_id(), era=self.era)
        data = self.render(body)
        if self._wire is not None and not self._wire.is_closed():
            with contextlib.suppress(Closed):
                self._wire.send(data)
                return self._wire.read()
        self.close()
        self._wire = Wire(self.url, tls=self._tls)
        self._wire.send(data)
        return self._wire.read()

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """The JSON-RPC response to one request: `{"result": …}` or `{"error": …}`."""
        answer = self.post(method, params).answer
        assert answer["id"] == self._id, answer
        return answer

    def result(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        answer = self.ask(method, params)
        assert "result" in answer, answer
        return answer["result"]

    def error(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        answer = self.ask(method, params)
        assert "error" in answer, answer
        return answer["error"]

    def call(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """The result of `tools/call`."""
        return self.result("tools/call", {"name": name, "arguments": dict(arguments or {})})

    def call_error(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """The error of `tools/call`."""
        return self.error("tools/call", {"name": name, "arguments": dict(arguments or {})})

    def tools(self) -> list[str]:
        return [tool["name"] for tool in self.result("tools/list")["tools"]]

    def start(
        self, method: str, params: Mapping[str, Any] | None = None, *, receive_buffer: int | None = None
    ) -> Running:
        """Send a request on a connection of its own and do not wait for the answer."""
        body = message(method, params, self.next_id(), era=self.era)
        wire = Wire(self.url, tls=self._tls, receive_buffer=receive_buffer)
        wire.send(self.render(body))
        return Running(wire, self._id)

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


@dataclass(slots=True)
class Running:
    """A request whose answer has not been read yet."""

    wire: Wire
    id: int

    def answer(self) -> Any:
        with self.wire:
            return self.wire.read().answer


def text(result: Mapping[str, Any]) -> str:
    """The text of a tool's result."""
    return "".join(item["text"] for item in result["content"] if item["type"] == "text")


def check_error(error: Mapping[str, Any], code: int, reason: str | None = None) -> Mapping[str, Any]:
    """Is it an error of ours, with all that design §5 promises? Returns its `data`."""
    assert error["code"] == code, error
    data: Mapping[str, Any] = error["data"]
    assert UUID.fullmatch(data["decisionId"]), error
    assert data["reason"] == reason or reason is None, error
    assert error["message"], error
    return data


# --- the process --------------------------------------------------------------------------------------------------


def _stat(pid: int) -> tuple[int, str, str] | None:
    """(parent, state, start time) of a process, None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), fields[0], fields[19]


def processes() -> dict[int, tuple[int, str, str]]:
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return {pid: stat for pid in pids if (stat := _stat(pid))}


def descendants(pid: int) -> set[tuple[int, str]]:
    """(pid, start time) of every living process below `pid`."""
    table, found, queue = processes(), set(), [pid]
    while queue:
        parent = queue.pop()
        for child, (above, state, start) in table.items():
            if above == parent and state != "Z":
                found.add((child, start))
                queue.append(child)
    return found


def alive(which: set[tuple[int, str]]) -> set[tuple[int, str]]:
    table = processes()
    return {(pid, start) for pid, start in which if pid in table and table[pid][1] != "Z" and table[pid][2] == start}


def listening_ports(pid: int) -> set[int | None]:
    """The TCP ports that a process listens on (Linux)."""
    found: set[int | None] = set()
    with contextlib.suppress(OSError):
        inodes = {os.readlink(link.path) for link in os.scandir(f"/proc/{pid}/fd")}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                    found.add(int(fields[1].rpartition(":")[2], 16))
    return found


def with_home(home: Path) -> set[tuple[int, str]]:
    """Every living process whose HOME is `home`: also those that left the process tree of their gateway."""
    found, wanted = set(), f"HOME={home}".encode()
    for pid, (_, state, start) in processes().items():
        with contextlib.suppress(OSError):
            if state != "Z" and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add((pid, start))
    return found


@dataclass
class Gateway:
    """`narthex serve` as a process.

    Args:
        config: The configuration as a value (written as JSON, which YAML reads), or its text.
        folder: An empty folder: the configuration, the state and the HOME of the process.
        env: Environment variables beside the inherited ones.
        file: The name of the configuration file.
        tls: How a client trusts the listeners, where they have TLS.
        listen: Where clients connect; empty for what the configuration says.
    """

    config: Mapping[str, Any] | str
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    file: str = "narthex.yaml"
    tls: ssl.SSLContext | None = None
    listen: str = "127.0.0.1:0"
    lines: list[str] = field(default_factory=list)
    mcp: str = ""
    admin: str = ""

    def write(self, config: Mapping[str, Any] | str) -> None:
        """Replace the configuration file in one step, as an editor does.

        A disk that all tests share may take its time: only tests of that are decided by it, those that set `wait`.
        """
        self.config = config
        if not isinstance(config, str) and "dir" in (audit := config.get("audit") or {}):
            config = {**config, "audit": {"wait": "60s", **audit}}
        new = self.folder / "new.tmp"
        new.write_text(config if isinstance(config, str) else json.dumps(config, indent=1))
        new.replace(self.folder / self.file)

    def start(self) -> Gateway:
        self.write(self.config)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")},
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONUNBUFFERED": "1",
            **self.env,
        }
        addresses = (*(("--listen", self.listen) if self.listen else ()), "--admin-listen", "127.0.0.1:0")
        program = "import sys; from narthex.cli.main import main; sys.exit(main())"
        command = (sys.executable, "-c", program, "serve", str(self.folder / self.file), *addresses)
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.mcp, self.admin = wait_for(self._urls, "the line that says where the gateway listens")
        except AssertionError:
            self.kill()
            raise
        return self

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def _urls(self) -> tuple[str, str] | None:
        """The addresses of the two listeners, once the line at start names them."""
        for line in list(self.lines):
            mcp = re.search(r"\bmcp=(https?://[^\s/\x22]+/mcp)", line)
            admin = re.search(r"\badmin=(https?://[^\s/\x22]+)", line)
            if mcp and admin and "//127.0.0.1:" in mcp[1]:
                return mcp[1], admin[1]
            if mcp and admin:  # the line shows the public URL
                return f"http://127.0.0.1:{self._other_port(admin[1])}/mcp", admin[1]
            if mcp:  # a line with very many endpoints is cut
                return mcp[1], f"http://127.0.0.1:{self._other_port(mcp[1])}"
        if self.process.poll() is not None:
            self._reader.join(60)
            raise AssertionError(f"exit {self.process.returncode} at start:\n" + self.log())
        return None

    def _other_port(self, url: str) -> int | None:
        return (listening_ports(self.process.pid) - {urlsplit(url).port}).pop()

    def log(self) -> str:
        return "\n".join(self.lines)

    def url(self, endpoint: str = "default") -> str:
        return self.mcp if endpoint == "default" else f"{self.mcp}/{endpoint}"

    def client(self, endpoint: str = "default", era: Era = "modern") -> Client:
        return Client(self.url(endpoint), era, tls=self.tls)

    def ready(self) -> Response:
        return get(self.admin.rstrip("/") + "/readyz", tls=self.tls)

    def rss(self) -> int:
        """Resident bytes of the gateway process alone."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """Processor time of the gateway process so far, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descendants(self, command: str = "") -> set[tuple[int, str]]:
        """The living processes below it, where given only those whose command line contains `command`."""
        found = set()
        for pid, start in descendants(self.process.pid):
            with contextlib.suppress(OSError):
                if command.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.add((pid, start))
        return found

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """The exit status, once it has ended."""
        code = self.process.wait(timeout_s)
        self._reader.join(60)
        return code

    def kill(self) -> None:
        """End everything at once, whatever state it is in."""
        left = self.descendants()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid, _ in alive(left | with_home(self.folder)):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, twice so that nobody waits for a drain; fail unless it ends well and leaves nothing behind."""
        try:
            if self.process.poll() is None:
                below = self.descendants()
                self.signal(signal.SIGTERM)
                wait_for(lambda: self.process.poll() is not None or self._draining(), "the drain")
                if self.process.poll() is None:
                    self.signal(signal.SIGTERM)
                code = self.wait()
                assert code == 0, f"exit {code}; stderr:\n{self.log()}"
                self.assert_nothing_left(below)
            assert "Traceback" not in self.log(), self.log()
            self.assert_no_secret_was_written()
        finally:
            self.kill()

    def assert_no_secret_was_written(self) -> None:
        """Neither a token, nor an API key, nor what its environment was given, stands in what it wrote to stderr."""
        log = self.log()
        assert not re.search(r"\beyJ[\w-]{8,}\.[\w-]{8,}|\bnx_[0-9A-Za-z]{8}_[0-9A-Za-z]{8,}", log), log
        assert not [name for name, value in self.env.items() if len(value) > 8 and value in log], log

    def _draining(self) -> bool:
        try:
            return self.ready().status == 503
        except (OSError, Closed):
            return True

    def assert_nothing_left(self, below: set[tuple[int, str]] = frozenset()) -> None:  # type: ignore[assignment]
        wait_for(lambda: not alive(below | with_home(self.folder)), "the end of every process of the gateway")
