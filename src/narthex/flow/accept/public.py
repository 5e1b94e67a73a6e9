"""What the public listener says to who comes without MCP: at `/` where to connect, documents at exact paths, else 404.

Cases: `tests/flow/accept/test_asgi.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from narthex.flow.accept.asgi import App, Receive, Scope, Send, error_body
from narthex.types import Snapshot

_JSON = b"application/json"
_GET = ("GET", "HEAD")


class Document(msgspec.Struct, frozen=True):
    """A page or document."""

    body: bytes
    content_type: bytes = b"text/plain; charset=utf-8"
    status: int = 200


Make = Callable[[], Document]
NOT_FOUND = Document(error_body("not_found", "nothing is served here"), _JSON, 404)
NOT_ALLOWED = Document(error_body("method_not_allowed", "GET here"), _JSON, 405)


def public_app(
    snapshot: Callable[[], Snapshot],
    urls: Callable[[], Mapping[str, str]],
    documents: Mapping[str, Make] | None = None,
) -> App:
    """The ASGI app of the public listener.

    Args:
        snapshot: The configuration in force, asked for each time: a reload may change it.
        urls: Endpoint name to the URL that clients use.
        documents: Path to what makes the document (well-known ones); read only.
    """
    makers: dict[str, Make] = {"/": lambda: front_page(snapshot(), urls()), **(documents or {})}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        make = makers.get(scope["path"])
        if make is None:
            document = NOT_FOUND
        else:
            document = make() if scope["method"] in _GET else NOT_ALLOWED
        headers = [(b"content-type", document.content_type), (b"x-content-type-options", b"nosniff")]
        if document.status == 405:
            headers.append((b"allow", ", ".join(_GET).encode()))
        await send({"type": "http.response.start", "status": document.status, "headers": headers})
        await send({"type": "http.response.body", "body": document.body})

    return app


def front_page(snapshot: Snapshot, urls: Mapping[str, str]) -> Document:
    """What this is and where to connect. No name of a server: whoever reads this has not been let in."""
    lines = ["Narthex, an MCP gateway. Connect an MCP client (Streamable HTTP) to:"]
    for name, spec in snapshot.endpoints.items():
        count = len(spec.servers)
        lines.append(f"  {urls.get(name, name)}   ({count} server{'' if count == 1 else 's'})")
    return Document("\n".join([*lines, ""]).encode())
