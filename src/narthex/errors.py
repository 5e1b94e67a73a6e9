"""Everything raised on purpose, and what it becomes on the wire. `tests/test_errors.py` checks this table.

GatewayError               -32603  500  internal
├── CodecError             -32600  400  invalid_request
│   ├── ParseError         -32700  400  parse_error
│   ├── HeaderMismatch     -32020  400  header_mismatch
│   ├── UnsupportedVersion -32022  400  unsupported_version
│   ├── MissingCapability  -32021  400  missing_capability
│   ├── MethodNotFound     -32601  404  method_not_found
│   └── InvalidParams      -32602  400  invalid_params
├── NotVisible             -32602  200  not_found
├── SessionNotFound        -32600  404  session_not_found
├── HttpRefusal            -32600  (as given)  (as given)
├── Unauthorized           -31001  401  unauthorized
│   └── InsufficientScope  -31001  403  insufficient_scope
├── Denied                 -31001  200  (as given)
├── RateLimited            -31002  200  rate_limited
│   └── BudgetExhausted    -31003  200  budget_exhausted
├── ApprovalRequired       -31004  200  approval_required
├── AuthorityUnavailable   -31005  503  authority_unavailable
├── UpstreamUnavailable    -31005  200  upstream_unavailable
│   ├── NotRecorded        -31005  200  not_recorded
│   └── CredentialUnavailable  -31005  200  credential_unavailable
│       ├── SecretMissing  -31005  200  credential_unavailable
│       └── ClaimsRequired -31001  401  claims_required
├── UpstreamTimeout        -31006  200  upstream_timeout
├── ContentBlocked         -31007  200  content_blocked
├── Overloaded             -31009  200  overloaded
│   ├── AuditUnavailable   -31009  200  audit_unavailable
│   └── LimitsUnavailable  -31009  200  limits_unavailable
├── ConfigError            -32603  500  bad_configuration
└── StoreError             -32603  500  store_unavailable

Source: JSON-RPC 2.0 §5.1; MCP 2026-07-28 (codes -32020..-32022); our own codes lie outside -32768..-32000.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class GatewayError(Exception):
    """Base of the tree.

    Args:
        public: What the client may read. Never holds a secret or an upstream's text.
        detail: For the operator's log; never sent to a client.
        data: Extra members of the error's `data`, beside `reason` and `decisionId`.
    """

    code, status, reason = -32603, 500, "internal"

    def __init__(
        self, public: str = "internal error", *, detail: str = "", data: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(public)
        self.public = public
        self.detail = detail
        self.data = data


class CodecError(GatewayError):
    """The bytes are HTTP, but not the request that the protocol asks for."""

    code, status, reason = -32600, 400, "invalid_request"


class ParseError(CodecError):
    """The body is not JSON (UTF-8, bounded depth, one value a key)."""

    code, reason = -32700, "parse_error"


class HeaderMismatch(CodecError):
    """A routing header is missing, repeated, or contradicts the body."""

    code, reason = -32020, "header_mismatch"

    def __init__(self, name: str, got: object = "", want: object = "") -> None:
        super().__init__(f"header {name} does not match the body", detail=f"got {got!r}, body says {want!r}")


class UnsupportedVersion(CodecError):
    """The protocol version asked for is not one of ours."""

    code, reason = -32022, "unsupported_version"


class MissingCapability(CodecError):
    """The server needs a client capability that was not declared. To a legacy client this is -32600, at HTTP 200."""

    code, reason = -32021, "missing_capability"


class MethodNotFound(CodecError):
    """No such method, or not in this version. HTTP 404 for a modern client, 200 for a legacy one."""

    code, status, reason = -32601, 404, "method_not_found"


class InvalidParams(CodecError):
    """The parameters do not have the method's form."""

    code, reason = -32602, "invalid_params"


class NotVisible(GatewayError):
    """No such tool, prompt or resource for this caller: missing and hidden answer alike (design §3)."""

    code, status, reason = -32602, 200, "not_found"


class SessionNotFound(GatewayError):
    """The session handle does not open: expired, ended, foreign, forged or never made."""

    code, status, reason = -32600, 404, "session_not_found"


class HttpRefusal(GatewayError):
    """Refused before it is a message: a status of HTTP decides (405, 413, 415, 421, 431, 503 …)."""

    code = -32600

    def __init__(
        self, status: int, reason: str, public: str, *, detail: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(public, detail=detail)
        self.status = status
        self.reason = reason
        self.headers = headers


class Unauthorized(GatewayError):
    """No credential, or one that proves nothing. The answer carries a challenge: what to come back with.

    Args:
        error: The code of RFC 6750 §3.1; empty where no credential was sent.
        scopes: What the challenge asks for.
    """

    code, status, reason = -31001, 401, "unauthorized"

    def __init__(self, public: str, *, detail: str = "", error: str = "", scopes: tuple[str, ...] = ()) -> None:
        super().__init__(public, detail=detail)
        self.error = error
        self.scopes = scopes


class Denied(GatewayError):
    """The policy says no. `reason` is the decision's code (`flow.policy.decision`): the same words as in the record.
    `retry_after_s`: when it would say yes, as far as time alone decides; None: not by waiting."""

    code, status, reason = -31001, 200, "denied"

    def __init__(self, reason: str, *, detail: str = "", retry_after_s: float | None = None) -> None:
        data = {"retryAfterSeconds": max(1, math.ceil(retry_after_s))} if retry_after_s is not None else None
        super().__init__("denied by policy", detail=detail, data=data)
        self.reason = reason


class RateLimited(GatewayError):
    """A limit of the operator's is reached; `limit` names it. Nothing was sent, and the call counts nowhere.

    Args:
        retry_after_s: When there is room again if nobody else takes it; None: never for a call like this.
    """

    code, status, reason = -31002, 200, "rate_limited"
    WORDS = "the limit"

    def __init__(self, limit: str, retry_after_s: float | None) -> None:
        data: dict[str, Any] = {"limit": limit}
        if retry_after_s is not None:
            data["retryAfterSeconds"] = max(1, math.ceil(retry_after_s))
        super().__init__(f"{self.WORDS} '{limit}' is reached", data=data)
        self.limit = limit
        self.holds = False
        self.use = ""
        """What the limit says of such a call: a person may let it through, this tool answers in its place."""
        self.lines = b""
        """Header lines that say what is left of the limits that the client is told of."""


class BudgetExhausted(RateLimited):
    """A budget of the operator's, of money or tokens, is spent; `limit` names it. Nothing was sent."""

    code, reason = -31003, "budget_exhausted"
    WORDS = "the budget"


class ApprovalRequired(GatewayError):
    """A person must approve this very call. The same call, made again in time once that was done, passes once.
    `data.approvalId` names it; `narthex approvals` and the admin API decide it."""

    code, status, reason = -31004, 200, "approval_required"

    def __init__(self, approval_id: str, *, retry_after_s: float) -> None:
        data = {"approvalId": approval_id, "retryAfterSeconds": max(1, round(retry_after_s))}
        super().__init__("a person must approve this call; then make the same call again", data=data)


class InsufficientScope(Unauthorized):
    """The token is good, and lacks scopes: the challenge names all that the operation needs (RFC 6750 §3.1)."""

    status, reason = 403, "insufficient_scope"

    def __init__(self, public: str, *, scopes: tuple[str, ...], detail: str = "") -> None:
        super().__init__(public, detail=detail, error="insufficient_scope", scopes=scopes)


class AuthorityUnavailable(GatewayError):
    """An issuer, a token endpoint or a vault cannot be asked, or may not be: nothing was decided.

    Args:
        refused: True where we did not ask: the address is one that nobody may send us to.
        answered: True where it did answer, with more than is read.
    """

    code, status, reason = -31005, 503, "authority_unavailable"
    RETRY_AFTER_S = 5

    def __init__(
        self,
        public: str = "an authority cannot be asked",
        *,
        detail: str = "",
        refused: bool = False,
        answered: bool = False,
    ) -> None:
        super().__init__(public, detail=detail, data={"retryAfterSeconds": self.RETRY_AFTER_S})
        self.refused = refused
        self.answered = answered


class UpstreamUnavailable(GatewayError):
    """The server cannot be reached, broke off, or speaks garbage. `sent` says whether it may have acted on the call.

    Args:
        retry_after_s: When a new try makes sense; None where nobody knows.
        sent: True once a byte of the request was written.
        counts: False where the server is not to blame: it answered, and refused what it was asked.
    """

    code, status, reason = -31005, 200, "upstream_unavailable"

    def __init__(
        self,
        public: str,
        *,
        detail: str = "",
        retry_after_s: float | None = None,
        sent: bool = False,
        counts: bool = True,
    ) -> None:
        data: dict[str, Any] = {"sent": sent}
        if retry_after_s is not None:
            data["retryAfterSeconds"] = max(1, round(retry_after_s))
        super().__init__(public, detail=detail, data=data)
        self.sent = sent
        self.counts = counts


class NotRecorded(UpstreamUnavailable):
    """A dry replay has no answer: the record has no such call, or not what it was answered. Nothing was sent."""

    reason = "not_recorded"

    def __init__(self, public: str) -> None:
        super().__init__(public, counts=False)


class CredentialUnavailable(UpstreamUnavailable):
    """What a server is to be shown cannot be had: nothing was sent. The server is not to blame."""

    reason = "credential_unavailable"

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        public = "the gateway has no credential for this server at present"
        super().__init__(public, detail=detail, retry_after_s=retry_after_s, counts=False)


class SecretMissing(CredentialUnavailable):
    """A secret that a server's credential needs is not there, or cannot be opened."""

    def __init__(self, name: str, way_out: str) -> None:
        super().__init__(f"secret '{name}': {way_out}")
        self.name = name


class ClaimsRequired(CredentialUnavailable):
    """What the server is shown is made of the caller's own token, and the issuer wants the caller to sign in again
    with more (a second factor, say). The answer carries its challenge on: only the caller can meet it.

    Args:
        claims: What the issuer wants, its JSON in base64, as clients hand it to their sign-in.
    """

    code, status, reason = -31001, 401, "claims_required"
    error, scopes = "insufficient_claims", ()

    def __init__(self, claims: str, detail: str = "") -> None:
        super().__init__(detail)
        self.public = "the issuer of the token wants more of its owner: sign in again, with the claims of the challenge"
        self.claims = claims


class UpstreamTimeout(GatewayError):
    """The deadline of the call has passed."""

    code, status, reason = -31006, 200, "upstream_timeout"


class ContentBlocked(GatewayError):
    """An answer may not be relayed: too large, or a check refused it."""

    code, status, reason = -31007, 200, "content_blocked"


class Overloaded(GatewayError):
    """A bound of ours is reached: refused early, nothing was sent."""

    code, status, reason = -31009, 200, "overloaded"

    def __init__(self, public: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(public, data={"retryAfterSeconds": max(1, round(retry_after_s))})


class AuditUnavailable(Overloaded):
    """The call cannot be recorded, and what is not recorded is not done. Where its server had answered already, that
    answer is withheld: `data.sent` says so, and the call may have had its effect."""

    reason = "audit_unavailable"

    def __init__(self, detail: str, *, sent: bool = False) -> None:
        super().__init__("the gateway cannot record calls at present", retry_after_s=5)
        self.detail = detail
        self.data = {**(self.data or {}), "sent": sent}


class LimitsUnavailable(Overloaded):
    """The counters that several gateways share cannot be asked, and without them no limited call may go on. Nothing was
    sent."""

    reason = "limits_unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__("the gateway cannot check its limits at present", retry_after_s=1)
        self.detail = detail


class ConfigError(GatewayError):
    """A configuration that cannot be used. `problems` are lines of `file:line:column: text`."""

    reason = "bad_configuration"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("configuration refused", detail="\n".join(problems))
        self.problems = problems


class StoreError(GatewayError):
    """What is kept cannot be read or written. `problem` names the file and the way out, for the operator."""

    reason = "store_unavailable"

    def __init__(self, problem: str) -> None:
        super().__init__("the gateway cannot reach its store", detail=problem)
        self.problem = problem
