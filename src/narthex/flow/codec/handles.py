"""What a sealed handle stands for, kind by kind: a place in a list, the state of a request, a task, a session.

In: whose it is, what it stands for, until when. Out: a short string, and back. Only who got a handle can use it, at the
endpoint where it was made and for the request it belongs to; everybody else learns what they would of a random string.
What need not be read again (a cursor's list, a state's request) is bound and not kept: it cannot differ, and costs no
character.
Cases: `tests/flow/codec/test_handles.py`. Source: design §4; MCP 2026-07-28, basic/patterns/mrtr ("Server
Requirements", 5: principal, expiry, method and digest of the parameters), pagination (cursors are opaque, a bad one is
-32602); the tasks extension (task ids).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Literal

import msgspec

from narthex.errors import ContentBlocked
from narthex.flow.codec.seal import KeyRing, Sealer, T
from narthex.types import Call, Era, Kind, Principal

Owner = tuple[str, ...]
"""Tenant, issuer, subject, client, endpoint: whom a handle is bound to, and where."""
MAX_STATE = 32 * 1024
"""Bytes of an upstream's own `requestState`: to open one this large takes half a millisecond."""
STATE_S = 3600.0
"""How long a modern server's `requestState` opens in our seal."""
MAX_STATE_HANDLE = 44 * 1024
"""Characters: a third more than those bytes, and the rest of the envelope."""
TASK_S = 30 * 86_400.0
"""How long a task's id opens. A server may keep a task for ever, and change its mind about it."""
MAX_TASK_ID = 256
"""Bytes of an upstream's own task id: what fits, with its server, into a handle of 512 characters."""


def owner_of(principal: Principal, endpoint: str) -> Owner:
    """Whom handles that are made now are bound to: the principal, not the token that proved it."""
    return (*principal.key, endpoint)


class SessionHandle(msgspec.Struct, frozen=True, array_like=True):
    """What a legacy session's handle says. New members go to the end, with a default.

    Then a handle made before opens with that default, and a process that does not know them yet skips them.
    """

    id: str
    version: str
    expires_at: int
    slot: int
    capabilities: int = 0
    """`ClientCaps` that the client declared; its text is kept nowhere."""
    home: str = ""
    """The run of the process that made it: what servers keep for this session alone was opened there."""


class Origin(msgspec.Struct, frozen=True):
    """The request that a state belongs to: its method, the name or URI in it, its arguments in one canonical form."""

    method: str
    name: str
    arguments: bytes = b""

    def parts(self) -> tuple[str, str, str]:
        """What a handle is bound to: of the arguments the digest."""
        return self.method, self.name, sha256(self.arguments).hexdigest()


class Relayed(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The state of a modern upstream: its `requestState` as it came, JSON and all, so that it goes back unchanged;
    empty where it has none. `approvals` are what a call that was held has passed by: what held it, the id, how
    often."""

    server: str
    state: bytes
    approvals: tuple[tuple[str, str, int], ...] = ()


class HeldCall(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A call to a legacy upstream that is kept open while the client answers: in the process `slot`, under `call`."""

    server: str
    slot: int
    call: str


class Approving(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A call that waits for an approval which its own user was asked for: nothing of it has been sent.
    `slot` says what holds it."""

    server: str
    approval: str
    slot: str


RequestState = Relayed | HeldCall | Approving


class Task(msgspec.Struct, frozen=True, array_like=True):
    """A task of an upstream: which one, its own id of it, and in which era's protocol it is asked about."""

    server: str
    id: str
    era: Era
    tool: str = ""
    """The tool that it is a call of, by the name that its server gives it; empty where that is not known."""


class _State(msgspec.Struct, array_like=True):
    of: RequestState


class Handles:
    """Makes and opens handles.

    Args:
        ring: The keys; a second process with the same ones opens every handle.
        now: Wall clock, seconds.
        random: `random(n)` gives n unpredictable bytes.
    Raises (all that open):
        SealError: Not made by us, changed, expired, another's, or for something else: one error for every reason.
    """

    def __init__(self, ring: KeyRing, *, now: Callable[[], float], random: Callable[[int], bytes]) -> None:
        self._now = now
        self._random = random
        self.take_keys(ring)

    def take_keys(self, ring: KeyRing) -> None:
        """Use these keys from now on."""
        self._cursors = ring.sealer("cursor")
        self._states = ring.sealer("state", MAX_STATE_HANDLE)
        self._tasks = ring.sealer("task")

    def cursor(self, owner: Owner, kind: Kind | Literal["tasks"], view: str, place: bytes, *, ttl_s: float) -> str:
        """A cursor that goes on behind `place`, the last one shown.

        Args:
            view: Says, as a hash, what the list was made for (rights, selection). With another one it does not open.
            place: At most 256 bytes.
        """
        return self._seal(self._cursors, (*owner, kind, view), place, ttl_s)

    def open_cursor(self, handle: str, owner: Owner, kind: Kind | Literal["tasks"], view: str) -> bytes:
        """The place that a cursor goes on behind."""
        return self._open(self._cursors, (*owner, kind, view), handle, bytes)

    def state(self, owner: Owner, origin: Origin, of: RequestState, *, ttl_s: float) -> str:
        """A `requestState` that only a retry of the same request opens.

        Raises:
            ContentBlocked: The upstream's own state is larger than `MAX_STATE`.
        """
        if isinstance(of, Relayed) and len(of.state) > MAX_STATE:
            raise ContentBlocked(f"the request state of server {of.server} is too large")
        return self._seal(self._states, (*owner, *origin.parts()), _State(of), ttl_s)

    def for_retry(self, call: Call, origin: Origin, of: RequestState) -> str:
        """A state for a modern client that is to make its call again. Raises as `state`."""
        return self.state(owner_of(call.principal, call.endpoint), origin, of, ttl_s=STATE_S)

    def open_state(self, handle: str, owner: Owner, origin: Origin) -> RequestState:
        """What a `requestState` stands for."""
        return self._open(self._states, (*owner, *origin.parts()), handle, _State).of

    def task(self, owner: Owner, task: Task, *, ttl_s: float) -> str:
        """A task id.

        Raises:
            ContentBlocked: The upstream's own id is longer than `MAX_TASK_ID`.
        """
        if len(task.id.encode()) > MAX_TASK_ID:
            raise ContentBlocked(f"a task id of server {task.server} is too long")
        return self._seal(self._tasks, owner, task, ttl_s)

    def task_of(self, call: Call, server: str, id_: str, tool: str = "") -> str:
        """The id of a task that this server has made, or told of, for a client: in its own era's protocol."""
        known = tool if len(id_.encode()) + len(tool.encode()) <= MAX_TASK_ID else ""
        return self.task(owner_of(call.principal, call.endpoint), Task(server, id_, call.era, known), ttl_s=TASK_S)

    def open_task(self, handle: str, owner: Owner) -> Task:
        """The task that an id stands for."""
        return self._open(self._tasks, owner, handle, Task)

    def _seal(self, sealer: Sealer, bound: Owner, payload: object, ttl_s: float) -> str:
        expires_at = int(self._now() + ttl_s)
        return sealer.seal(payload, bound=bound, expires_at=expires_at, nonce=self._random(12))

    def _open(self, sealer: Sealer, bound: Owner, handle: str, payload_type: type[T]) -> T:
        return sealer.open(handle, payload_type, bound=bound, now=int(self._now()))
