"""Which calls are equal: the key that a kept answer stands under, and which calls have none.

In: a call as it goes on after every rule has looked at it, where it goes, by whose account. Out: its `Wanted`; None
where it asks for more than its name and arguments say: a task, an answer to a question, log messages, headers and
members of `_meta` that nobody here knows. Then it goes to its server as if there were no cache.

What is compared is what is sent: the arguments as canonical JSON (RFC 8785, but for numbers, which stand as they came:
1.0 and 1.00 are two). So no spelling of one call, no name that stands twice, is taken for another's.
Cases: `tests/flow/cache/test_requests.py`.
"""

from __future__ import annotations

from collections.abc import Hashable, Set
from hashlib import sha256
from typing import Any, Final

import msgspec

from narthex.errors import GatewayError
from narthex.flow.cache.plans import Plan
from narthex.flow.codec.bridge import client_capabilities
from narthex.flow.codec.crowds import refuse_crowd
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap, encode
from narthex.flow.codec.revisions import META_CAPABILITIES, META_CLIENT, META_TASK, META_VERSION
from narthex.types import Call, Principal

MOST_ARGUMENTS: Final = 64 * 1024
"""Bytes. Larger ones are hardly ever asked for twice, and take long to be looked at."""
MOST_AUDIENCES: Final = 8192
SHORT: Final = 512
"""Bytes of arguments that stand in a key as they are: to compare them takes less time than to find a digest."""
_PLAIN: Final[dict[str, frozenset[str]]] = {
    "tools/call": frozenset({"name", "arguments", "_meta"}),
    "prompts/get": frozenset({"name", "arguments", "_meta"}),
    "resources/read": frozenset({"uri", "_meta"}),
}
"""Parameters that say nothing but what is asked for."""
RECALLED: Final = frozenset(_PLAIN)
"""Methods whose answers may be kept, and which may end kept ones."""
PASSES: Final = frozenset(
    {META_VERSION, META_CAPABILITIES, META_CLIENT, META_TASK, "progressToken", "traceparent", "tracestate"}
)
"""Members of `_meta` that change no answer: who the client is, what it speaks, how its trace goes on."""
_decode: Final = msgspec.json.Decoder(float_hook=lambda text: Raw(text.encode())).decode
_read: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


class Wanted:
    """A call whose answer may be kept: its key, and the parameters that go on, of which the key is made."""

    __slots__ = ("endpoint", "key", "params", "plan", "tenant")

    def __init__(self, plan: Plan, key: Hashable, params: RawMap, tenant: str, endpoint: str) -> None:
        self.plan: Final = plan
        self.key: Final = key
        self.params: Final = params
        self.tenant: Final = tenant
        self.endpoint: Final = endpoint

    @property
    def arguments(self) -> Any:
        """Decoded, for what clearing rules compare; None where they cannot be (1e400): then any write may mean them."""
        raw = self.params.get("arguments")
        try:
            return _read(raw) if raw is not None else None
        except BAD_JSON:
            return None

    @property
    def lots(self) -> tuple[Hashable, ...]:
        """Names of the lots that its answer belongs to."""
        return self.plan.lots(self.tenant, self.arguments if self.plan.clears else None)


def canonical_arguments(raw: Raw) -> bytes | None:
    """The one text of equal arguments; None where there is none, or it takes too long to find."""
    if len(raw) > MOST_ARGUMENTS:
        return None
    try:
        refuse_crowd(raw)
        return _encode(_decode(raw))
    except (*BAD_JSON, GatewayError, OverflowError, ValueError):
        return None


class Audiences:
    """Whose an answer is, in one piece: worked out once for each caller that comes again and again."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[int, tuple[str, ...]], tuple[Principal, bytes]] = {}

    def of(self, principal: Principal, scope: tuple[str, ...]) -> bytes:
        """A digest of the principal with all that its proof says it may, so that of one who may more or less than
        before nothing is kept; and of who shares its session with the server, by which account."""
        place = (id(principal), scope)  # a verified token gives the same object each time
        known = self._known.get(place)
        if known is not None and known[0] is principal:
            return known[1]
        rights = [
            *principal.key, principal.roles, principal.groups, sorted(principal.scopes), principal.kind,
            principal.actors, principal.method,
        ]  # fmt: skip
        made = sha256(encode([scope, rights])).digest()
        if len(self._known) >= MOST_AUDIENCES:
            del self._known[next(iter(self._known))]
        self._known[place] = (principal, made)
        return made


def wanted(
    plan: Plan,
    call: Call,
    params: RawMap,
    scope: tuple[str, ...],
    audiences: Audiences,
    passes: Set[str] = PASSES,
) -> Wanted | None:
    """The key of a call; None where its answer is its own.

    Args:
        params: As they go on, `_meta` and all.
        scope: Who shares the session with the server: its tenant and account first.
        passes: Members of `_meta` that change no answer.
    """
    if plan.rule is None or call.log_level:
        return None
    plain = _PLAIN[call.method]
    for name in params:
        if name not in plain:
            return None
    for name in call.meta:
        if name not in passes:
            return None
    said = b""
    if "arguments" in params:
        text = canonical_arguments(params["arguments"])
        if text is None:
            return None
        params = {**params, "arguments": Raw(text)}
        said = text if len(text) <= SHORT else sha256(text).digest()
    who: Hashable = scope[:2] if plan.shared else audiences.of(call.principal, scope)
    key = (plan.place, who, said, bytes(client_capabilities(call)))
    return Wanted(plan, key, params, scope[0], call.endpoint)
