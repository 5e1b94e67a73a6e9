"""The identity of a snapshot at the public listener: what a request presents, where it waits, how it is challenged.

In: a connection and a request, which may bring anything. Out: a principal for `Front`, or the refusal with its
challenge; the protected-resource metadata. What another could have written is never taken for a proof: a header that
tells of a client certificate counts only from a trusted proxy, and is refused from anybody else. Imported only where an
identity is configured: what it needs takes its time to load.
Cases: `tests/flow/accept/test_gate.py`. Source: RFC 9728 §3, RFC 6750 §3; MCP 2026-07-28, authorization.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from functools import lru_cache
from ssl import cert_time_to_seconds
from typing import TYPE_CHECKING, Any

from narthex.authority.identify import Found, Identity, Presented, is_key
from narthex.errors import GatewayError, HttpRefusal, Overloaded
from narthex.flow.accept.forms import JSON
from narthex.flow.accept.hosts import HostCheck, is_trusted
from narthex.flow.accept.listener import Connection
from narthex.flow.accept.replying import Replying
from narthex.flow.identity.certificates import Certificate, of_peer, read_xfcc
from narthex.flow.identity.challenge import WELL_KNOWN, metadata_path, resource_document
from narthex.flow.identity.tokens import TID
from narthex.flow.whole import HttpRequest
from narthex.types import EndpointSpec, Principal, Proof, Snapshot

if TYPE_CHECKING:
    from narthex.flow.accept.front import Front

XFCC = b"x-forwarded-client-cert"
_WELL_KNOWN = WELL_KNOWN.encode()
_read_xfcc = lru_cache(maxsize=1024)(read_xfcc)


class Gate:
    """Lets in, or says what to come back with.

    Args:
        paths: The endpoints by the paths that lead to them.
    """

    def __init__(
        self, identity: Identity, snapshot: Snapshot, hosts: HostCheck, paths: Mapping[bytes, EndpointSpec]
    ) -> None:
        self.identity = identity
        self.mark = identity.mark
        self.now = identity.now
        self.scoped = {name: one for name, one in identity.scopes.items() if one.by_tool}
        """The endpoints where single tools need scopes."""
        spec = identity.spec
        self._xfcc = spec.certificates is not None and spec.certificates.xfcc
        self._asks_certificates = snapshot.tls is not None and snapshot.tls.client_ca is not None
        self._trusted = snapshot.trusted_proxies
        self._hosts = hosts
        self._paths = paths
        self._issuers = [one.issuer for one in spec.issuers.values() if one.issuer.startswith("http")]
        self._forms: dict[str, list[str]] = {}
        for path, endpoint in paths.items():
            self._forms.setdefault(endpoint.name, []).append(path.decode())

    def known(self, connection: Connection, header: bytes, endpoint: str) -> Principal | None:
        """The principal of a credential that was seen before; None: `identify`. A connection remembers its last."""
        identity = self.identity
        connection.shown = shown = identity.shown(header, endpoint)
        if shown is None:
            return identity.known(header, endpoint) if is_key(header) else None
        return shown.principal(header, endpoint, self.mark, identity.now())

    def identify(self, connection: Connection, request: HttpRequest, endpoint: EndpointSpec) -> Found:
        """Who this is. Raises Unauthorized, InsufficientScope, AuthorityUnavailable, HttpRefusal."""
        certificate, by = self._certificate(connection, request)
        base = self._hosts.base_url(connection.peer[0], request)
        presented = Presented(
            header=request.headers.get(b"authorization"),
            query=request.query,
            certificate=certificate,
            by=by,
            audiences=frozenset(base + form for form in self._forms[endpoint.name]),
        )
        return self.identity.identify(presented, endpoint)

    def _certificate(self, connection: Connection, request: HttpRequest) -> tuple[Certificate | None, Proof]:
        """The client's certificate: told by a trusted proxy where it is asked to, else shown by the TLS peer."""
        if self._xfcc:
            said = request.headers.get(XFCC)
            trusted = is_trusted(connection.peer[0], self._trusted)
            if said is not None:
                if not trusted:
                    raise HttpRefusal(400, "identity_header_refused", "a header that only a trusted proxy may send")
                if XFCC in request.repeated:
                    raise HttpRefusal(400, "identity_header_refused", "X-Forwarded-Client-Cert came twice")
                try:
                    return _read_xfcc(said), "xfcc"
                except ValueError as error:
                    raise HttpRefusal(
                        400, "identity_header_refused", "X-Forwarded-Client-Cert is malformed", detail=str(error)
                    ) from None
            if trusted:
                return None, "xfcc"  # the TLS peer is the proxy
        return (self._peer(connection) if self._asks_certificates else None), "mtls"

    def _peer(self, connection: Connection) -> Certificate | None:
        if connection.certificate is None:
            tls = connection.transport.get_extra_info("ssl_object")
            der = tls.getpeercert(binary_form=True) if tls is not None else None
            if der is None:
                return None
            said = tls.getpeercert()
            connection.certificate = of_peer(der, said, cert_time_to_seconds(said["notAfter"]))
        return connection.certificate

    @staticmethod
    def wait(
        front: Front,
        connection: Connection,
        request: HttpRequest,
        endpoint: EndpointSpec,
        path: bytes,
        work: Coroutine[Any, Any, Principal],
    ) -> None:
        """Go on with a request once it is known whose it is. Raises Overloaded: too many wait for that."""
        if len(front.identifying) >= front.snapshot.limits.max_calls:
            work.close()
            raise Overloaded("the gateway has too many calls")
        Identifying(front, connection, request, endpoint, path, work)

    # --- challenges and documents

    def metadata_url(self, connection: Replying, request: HttpRequest, path: bytes) -> str:
        """Where the metadata of the endpoint at this path is; empty where no issuer could give a token."""
        if not self._issuers:
            return ""
        base = self._hosts.base_url(connection.peer[0], request)
        return base + metadata_path(path.decode("ascii", "replace"))

    def answer_document(self, connection: Connection, request: HttpRequest, path: bytes) -> bool:
        """Answer with the protected resource metadata at a path; False where there is none."""
        body = self._document(connection, request, path)
        if body is None:
            return False
        if request.method not in (b"GET", b"HEAD"):
            raise HttpRefusal(405, "method_not_allowed", "GET here", headers=(("Allow", "GET, HEAD"),))
        parts = () if request.method == b"HEAD" else (body,)
        connection.respond(200, JSON, parts, len(body), b"Cache-Control: max-age=300\r\n")
        return True

    def _document(self, connection: Connection, request: HttpRequest, path: bytes) -> bytes | None:
        """`/mcp` stands for no path at all. Issuers of several tenants are named by what all of these sign in at."""
        if not path.startswith(_WELL_KNOWN) or not self._issuers:
            return None
        resource = path[len(_WELL_KNOWN) :] or b"/mcp"
        endpoint = self._paths.get(resource)
        if endpoint is None:
            return None
        base = self._hosts.base_url(connection.peer[0], request)
        issuers = [issuer.replace(TID, "organizations") for issuer in self._issuers]
        name = f"Narthex, endpoint {endpoint.name}"
        return resource_document(base + resource.decode(), issuers, endpoint.base_scopes, name)


class Identifying:
    """A request whose credential is being looked at. It is its connection's `Exchanging` meanwhile.

    A reload may come first: what was found out by the configuration before lets nobody in, and the request begins anew.
    """

    def __init__(
        self,
        front: Front,
        connection: Connection,
        request: HttpRequest,
        endpoint: EndpointSpec,
        path: bytes,
        work: Coroutine[Any, Any, Principal],
    ) -> None:
        self._front = front
        self._gate = front.gate
        self._connection: Connection | None = connection
        self._request = request
        self._endpoint = endpoint
        self._path = path
        connection.exchange = self
        front.identifying.add(self)
        self.task = asyncio.ensure_future(work)
        self.task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[Principal]) -> None:
        front, connection = self._front, self._connection
        front.identifying.discard(self)
        if task.cancelled():
            error: BaseException | None = GatewayError()
        else:
            error = task.exception()
        if connection is None:
            return
        connection.exchange = None
        if front.gate is not self._gate:
            front.handle(connection, self._request)
        elif error is None:
            front.let_in(connection, self._request, self._endpoint, task.result())
        elif isinstance(error, Exception):
            front.turn_away(connection, self._request, self._endpoint, self._path, error)

    def client_gone(self) -> None:
        self._connection = None
        self.task.cancel()

    def pause(self) -> None: ...

    def resume(self) -> None: ...
