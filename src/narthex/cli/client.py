"""A small MCP client over Streamable HTTP, for trying things: either era, one request at a time, no dependency.

In: a URL, a method, parameters. Out: the response as it came. `list` and `call` are built on it.
Cases: `tests/cli/test_client.py`. Source: MCP 2026-07-28 and 2025-11-25, Streamable HTTP transport.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import click
import msgspec

from narthex import __version__
from narthex.cli.amounts import span
from narthex.errors import GatewayError
from narthex.flow.codec.headers import NAMED_BY, encode_value
from narthex.flow.codec.jsonrpc import BAD_JSON, Incoming, Raw, decode_incoming, encode
from narthex.flow.codec.revisions import LATEST_LEGACY, LEGACY, META_CAPABILITIES, META_CLIENT, META_VERSION, MODERN
from narthex.flow.codec.sse import EventParser
from narthex.types import Era

DEFAULT_URL = "http://127.0.0.1:8080/mcp"
TIMEOUT_S = 90.0
"""Seconds without a byte; above the 60 s that a gateway gives a call."""
MAX_ANSWER = 64 * 1024 * 1024
MOST_PAGES = 1000
CLIENT_INFO = {"name": "narthex-cli", "version": __version__}
METHOD_NOT_FOUND, HEADER_MISMATCH = -32601, -32020
_MODERN_ERRORS = (-32020, -32021, -32022)
_PIECE = 65536
_FAR_S = 10 * 366 * 86_400
"""Seconds; nobody waits longer, so what a server says beyond is no time."""
EraChoice = Literal["auto", "modern", "legacy"]
F = TypeVar("F", bound=Callable[..., Any])


class ClientError(click.ClickException):
    """Something that the user must be told; exit code 1."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo(f"narthex: {one_line(self.message)}", err=True)


class Failure(msgspec.Struct):
    """A JSON-RPC error as it came."""

    code: int = 0
    message: str = ""
    data: Any = None


class Response(msgspec.Struct):
    """A JSON-RPC response: its bytes as they came, and taken apart."""

    raw: bytes
    message: Incoming

    @property
    def failure(self) -> Failure | None:
        """The error, None for a result."""
        if not self.message.error:
            return None
        try:
            return msgspec.json.decode(self.message.error, type=Failure)
        except BAD_JSON:
            return Failure(message="an error that is malformed")

    def result(self) -> dict[str, Raw]:
        """The result's members. Raises ClientError for an error, or for a result that is no object."""
        failure = self.failure
        if failure is not None:
            raise ClientError(explain(failure))
        try:
            return msgspec.json.decode(self.message.result, type=dict[str, Raw])
        except BAD_JSON:
            raise ClientError("the answer's result is not an object") from None


class McpClient:
    """A conversation with one endpoint. Close it: a legacy session is then ended politely."""

    def __init__(self, url: str, era: EraChoice = "auto", credential: Credential = "") -> None:
        parts = urlsplit(url)
        self.url = url
        self._credential = credential
        self.era: Era = "legacy" if era == "legacy" else "modern"
        self._version = LATEST_LEGACY if era == "legacy" else MODERN[0]
        self._session: str | None = None
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._next_id = 0
        host = parts.hostname or ""
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._http: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, parts.port, timeout=TIMEOUT_S, context=context
            )
        else:
            self._http = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
        if era == "auto":
            self.era = self._find_era()
        if self.era == "legacy":
            self._initialize()

    def __enter__(self) -> McpClient:
        return self

    def __exit__(self, *_: object) -> None:
        if self._session is not None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._http.request("DELETE", self._target, headers=self._headers("", {}))
                self._http.getresponse().read(_PIECE)
        self._http.close()

    def request(self, method: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
        """Send one request and wait for its response; everything else that arrives is passed over.

        Raises:
            ClientError: There is no response: unreachable, not MCP, broken off.
        """
        response, status = self._exchange(method, params, headers or {})
        if response is None:
            raise ClientError(_said(status, self.url, known=bool(self._credential)))
        return response

    def listed(self, method: str, member: str) -> tuple[list[Raw], list[str]]:
        """All pages of a list, items as received; and the servers that the gateway says are missing from it.

        A server that does not know the method has none.
        """
        items: list[Raw] = []
        missing: list[str] = []
        params: dict[str, Any] = {}
        for _ in range(MOST_PAGES):
            response = self.request(method, params)
            if response.failure is not None and response.failure.code == METHOD_NOT_FOUND:
                return [], []
            result = response.result()
            try:
                items += msgspec.json.decode(result.get(member, b"[]"), type=list[Raw])
                cursor = msgspec.json.decode(result.get("nextCursor", b"null"), type=str | None)
                meta = msgspec.json.decode(result.get("_meta", b"{}"), type=_Meta)
            except BAD_JSON:
                raise ClientError(f"the answer to {method} is malformed") from None
            missing += [f"{one.server} ({one.reason})" for one in meta.missing]
            if not cursor:
                return items, missing
            params = {"cursor": cursor}
        raise ClientError(f"the answer to {method} has more than {MOST_PAGES} pages")

    # --- the two eras

    def _find_era(self) -> Era:
        """Ask as a modern client; whoever does not understand is legacy (2026-07-28, versioning)."""
        response, status = self._exchange("server/discover", {}, {})
        if status in (401, 403):
            raise ClientError(_said(status, self.url, known=bool(self._credential)))
        if response is None:
            return "legacy"
        failure = response.failure
        if failure is None:
            return "modern"
        return "modern" if failure.code in _MODERN_ERRORS and status == 400 else "legacy"

    def _initialize(self) -> None:
        self._version = LATEST_LEGACY
        params = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": CLIENT_INFO}
        result = self.request("initialize", params).result()
        version = result.get("protocolVersion", b"")
        self._version = next((one for one in LEGACY if version == b'"%b"' % one.encode()), LATEST_LEGACY)
        self._exchange("notifications/initialized", {}, {}, notify=True)

    def _headers(self, method: str, params: Mapping[str, Any]) -> dict[str, str]:
        headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        headers["User-Agent"] = f"narthex-cli/{__version__}"
        if method != "initialize":
            headers["MCP-Protocol-Version"] = self._version
        if self._session is not None:
            headers["Mcp-Session-Id"] = self._session
        if self._credential:
            headers["Authorization"] = f"Bearer {self._credential}"
        if self.era == "modern":
            headers["Mcp-Method"] = method
            if method in NAMED_BY:
                headers["Mcp-Name"] = encode_value(str(params[NAMED_BY[method]])).decode()
        return headers

    def _body(self, method: str, params: Mapping[str, Any], id_: int | None) -> bytes:
        if self.era == "modern":
            meta = {META_VERSION: self._version, META_CAPABILITIES: {}, META_CLIENT: CLIENT_INFO}
            params = {**params, "_meta": meta}
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        return encode(message if id_ is None else {**message, "id": id_})

    # --- HTTP

    def _exchange(
        self, method: str, params: Mapping[str, Any], extra: Mapping[str, str], *, notify: bool = False
    ) -> tuple[Response | None, int]:
        """One POST: the response if there is one, and the HTTP status."""
        self._next_id += 1
        id_ = None if notify else self._next_id
        body = self._body(method, params, id_)
        with _told(self.url):
            self._http.request("POST", self._target, body, {**self._headers(method, params), **extra})
            answer = self._http.getresponse()
            session = answer.headers.get("Mcp-Session-Id")
            if method == "initialize" and session and answer.status == 200:
                self._session = session
            kind = answer.headers.get_content_type()
            try:
                for data in _events(answer) if kind == "text/event-stream" else [_whole(answer)]:
                    response = _response(data, id_)
                    if response is not None:
                        return response, answer.status
            finally:
                if not answer.isclosed():
                    self._http.close()  # the rest of a stream is not waited for
        return None, answer.status


class _Missing(msgspec.Struct):
    server: str = ""
    reason: str = ""


class _Meta(msgspec.Struct):
    """What the gateway says beside a list."""

    missing: list[_Missing] = msgspec.field(name="narthex/missing", default_factory=list)


def _response(data: bytes, id_: int | None) -> Response | None:
    """The response to request `id_` in `data`, if it is that; an error without an id is taken for it."""
    try:
        message = decode_incoming(data)
    except GatewayError:
        return None
    if not message.result and not message.error:
        return None
    return Response(data, message) if message.id == id_ or (message.error and message.id is None) else None


def _whole(answer: http.client.HTTPResponse) -> bytes:
    data = answer.read(MAX_ANSWER + 1)
    if len(data) > MAX_ANSWER:
        raise ClientError(f"the answer is larger than {MAX_ANSWER} bytes")
    if answer.length:
        raise http.client.IncompleteRead(data, answer.length)
    return data


def _events(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    parser = EventParser(MAX_ANSWER)
    while data := answer.read1(_PIECE):
        for event in parser.feed(data):
            yield event.data


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn what goes wrong on the way into a sentence."""
    shown = safe_url(url)
    try:
        yield
    except ConnectionRefusedError:
        raise ClientError(f"nothing answers at {shown}: is `narthex serve` running?") from None
    except TimeoutError:
        raise ClientError(f"no answer from {shown} within {TIMEOUT_S:.0f} s") from None
    except ssl.SSLCertVerificationError as error:
        said = (
            f"the certificate of {shown} is not trusted: {error.verify_message}; SSL_CERT_FILE names another authority"
        )
        raise ClientError(said) from None
    except (OSError, http.client.HTTPException, GatewayError) as error:
        raise ClientError(f"no answer from {shown}: {error or type(error).__name__}") from None


def safe_url(url: str) -> str:
    """A URL to show: its query may be a secret."""
    return url.partition("?")[0]


def _said(status: int, url: str, *, known: bool) -> str:
    """Why there is no answer of MCP; `known`: a credential went along."""
    if status == 401:
        help_ = "`narthex whoami` says what is wrong with this credential" if known else "give --key or --token"
        return f"{safe_url(url)} does not let this client in (HTTP 401): {help_}"
    if status == 403:
        return f"{safe_url(url)} does not let this client in (HTTP 403): the credential lacks a scope"
    return f"{safe_url(url)} did not answer with MCP (HTTP {status}): is this the URL of an MCP endpoint?"


def explain(failure: Failure) -> str:
    """An error as one line: code, message, our reason where it has one; ids to ask about it with, and when again."""
    data = failure.data if isinstance(failure.data, dict) else {}
    reason, again = data.get("reason"), data.get("retryAfterSeconds")
    more = [f"{key} {data[key]}" for key in ("decisionId", "approvalId") if isinstance(data.get(key), str)]
    if isinstance(again, int | float) and not isinstance(again, bool) and 0 <= again < _FAR_S:
        more.append(f"again in {span(again)}")
    said = f"error {failure.code}: {failure.message}" + (f" ({reason})" if isinstance(reason, str) else "")
    return one_line("; ".join([said, ", ".join(more)]) if more else said)


# --- what the commands share


def one_line(text: str, most: int = 500) -> str:
    """Text of others for one line of a terminal: what does not print, escapes first of all, becomes a blank."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: most * 4]).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def as_it_was(text: str) -> str:
    """The whole of a text of others for one line of a terminal, with each blank that it has: only what does not print
    is another one."""
    return "".join(c if c.isprintable() else " " for c in text)


Credential = str
"""A key or token, empty for none."""


def credential_options(command: F) -> F:
    """`--key` and `--token`, one of which becomes `credential`; `-` reads it from stdin, unseen on a terminal."""

    @functools.wraps(command)
    def wrapper(*args: Any, key: str | None, token: str | None, **rest: Any) -> Any:
        if key is not None and token is not None:
            raise click.UsageError("--key or --token, not both")
        credential = _credential(key, "Key") if token is None else _credential(token, "Token")
        return command(*args, credential=credential, **rest)

    for option in (
        click.option("--token", metavar="TOKEN", help="An access token; - reads it from stdin."),
        click.option("--key", metavar="KEY", help="An API key (nx_…); - reads it from stdin."),
    ):
        wrapper = option(wrapper)
    return wrapper  # type: ignore[return-value]


def _credential(given: str | None, what: str) -> Credential:
    if given == "-" and sys.stdin.isatty():
        given = str(click.prompt(what, hide_input=True, err=True))
    text = (sys.stdin.readline() if given == "-" else given or "").strip()
    if given is not None and (not text or not text.isascii() or not text.isprintable() or " " in text):
        raise click.UsageError("a key or token is one word of ASCII")
    return text


def target_options(command: F) -> F:
    """The options that say where to connect, and how."""
    command = credential_options(command)
    for option in (
        click.option(
            "--era", type=click.Choice(["auto", "modern", "legacy"]), default="auto", help="The MCP era to speak."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Take the URL from this configuration.",
        ),
        click.option("--endpoint", default="default", show_default=True, help="The endpoint of the gateway."),
        click.option("--url", metavar="URL", help="The URL itself: of a gateway, or of any MCP server."),
    ):
        command = option(command)
    return command


def find_url(url: str | None, config: Path | None, endpoint: str) -> str:
    """Where to connect: `--url`, else what the configuration says, else the default address.

    Raises:
        click.UsageError: Options that contradict each other, or a URL or endpoint that cannot be.
        ConfigError: The configuration cannot be used.
    """
    from narthex.config.load import find_config
    from narthex.config.values import split_url

    if url is None:
        config = config or find_config(Path())
        if config is not None:
            return _url_in(config, endpoint)
        return DEFAULT_URL if endpoint == "default" else f"{DEFAULT_URL}/{endpoint}"
    if config is not None or endpoint != "default":
        raise click.UsageError("--url says where to connect already; leave --config and --endpoint out.")
    try:
        split_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None
    return url


def _url_in(config: Path, endpoint: str) -> str:
    from narthex.config.compile import endpoint_url, load_snapshot
    from narthex.config.document import suggest

    snapshot = load_snapshot(config, env=os.environ)
    if endpoint not in snapshot.endpoints:
        said = f"{config} has no endpoint '{endpoint}'{suggest(endpoint, snapshot.endpoints)}"
        raise click.BadParameter(said, param_hint="--endpoint")
    if snapshot.listen[1] == 0 and not snapshot.public_url:
        raise click.UsageError(f"{config} listens on port 0, so the port is known only once it runs; give --url.")
    return endpoint_url(snapshot, endpoint)
