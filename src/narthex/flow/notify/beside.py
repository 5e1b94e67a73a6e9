"""What legacy clients are told outside of their calls, beside changes: logs, and how what they began elsewhere goes on.

In: log messages, states and progress of tasks, and ends of elicitations, by the scope of the channel on which they
came. Out: news for the sessions that may see them. A log message says nothing of whose it is: it goes to those who
asked for logs, at their level, and only from channels that one principal uses (`Server.used_by`). A legacy task lives
in a session of one client's own: it is that client's, and so is what it was asked to do at a URL. Modern clients hear
logs on the streams of their calls alone, and of tasks that they listen for.
Cases: `tests/flow/notify/test_beside.py`.
Source: MCP 2025-11-25, server/utilities/logging; basic/utilities/tasks ("Task Status Notification", "Progress");
client/elicitation ("Completion Notifications for URL Mode Elicitation").
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING

from narthex.errors import GatewayError
from narthex.flow.codec.capabilities import ClientCaps
from narthex.flow.codec.handles import TASK_S, Task, owner_of
from narthex.flow.codec.jsonrpc import Raw, decode_map, encode
from narthex.flow.codec.log_levels import most_verbose, passes
from narthex.flow.codec.subscriptions import Elicited, Progressed
from narthex.flow.codec.tasks import RELATED, related
from narthex.flow.notify.interests import Source, Subscriber
from narthex.flow.notify.log_lines import MOST_BYTES, Batch, LogLines, left_out
from narthex.flow.notify.task_names import TaskNames
from narthex.flow.upstream.naming import may_name
from narthex.flow.upstream.port import Channel
from narthex.types import Call

if TYPE_CHECKING:
    from narthex.flow.notify.hub import Hub, Listener

SLICE = 200
MOST_IN_PROGRESS = 10_000
"""Calls that go on as tasks and wanted progress, the latest ones."""
TELL_S = 0.02
"""Messages wait so long for more."""
_RELATED = RELATED.encode()


class Beside:
    """The part of the hub that knows logs and the tasks of legacy sessions."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lines: LogLines[Source] = LogLines()
        self._names = TaskNames()
        self._progress: OrderedDict[tuple[str, Hashable, int], tuple[str, Raw]] = OrderedDict()
        """Calls that go on as tasks: our token, on a server's channel, to their session and the token of its client."""

    # --- logs

    def log(self, server: str, scope: Hashable, params: bytes) -> None:
        """A server logs; `params` are an object."""
        if self._lines.put((server, scope), params):
            asyncio.get_running_loop().call_later(TELL_S, self._pass_on)

    def _pass_on(self) -> None:
        for (server, scope), batch in self._lines.take().items():
            self._hub.spawn(self._tell_all(server, scope, batch))

    async def _tell_all(self, server: str, scope: Hashable, batch: Batch) -> None:
        for count, (subscriber, listener) in enumerate(self._hub.listening(server, scope), 1):
            if not await self._may_hear(listener, server):
                continue
            if listener.stream is not None and (level := self._level(listener)):
                self._tell(subscriber, listener, server, batch, level)
            if count % SLICE == 0:
                await asyncio.sleep(0)

    async def _may_hear(self, listener: Listener, server: str) -> bool:
        admission, viewer = self._hub.admission(listener), self._hub.viewer(listener)
        if admission is None or admission.names(server):
            return True
        return viewer is not None and await may_name(self._hub.front.fleet, viewer, server, admission)

    def _tell(self, subscriber: Subscriber, listener: Listener, server: str, batch: Batch, level: str) -> None:
        """Messages for one client. What it has no room for is counted, and the number said."""
        interests, lost = self._hub.interests, batch.left_out
        for params in batch.lines:
            if passes(Raw(params), level):
                woken = interests.logged(subscriber, self._named(listener, server, params), MOST_BYTES)
                lost += woken is None
                self._hub.wake(woken or ())
        if lost and passes(Raw(said := left_out(server, lost)), level):
            self._hub.wake(interests.logged(subscriber, said, 2 * MOST_BYTES) or ())

    # --- their level

    def _level(self, listener: Listener) -> str:
        """What a legacy session wants to hear; empty for one that has not said, and for modern clients."""
        live = self._hub.live.by_id.get(listener.session.id) if listener.session is not None else None
        return live.level if live is not None else ""

    def opened(self, server: str, scope: Hashable, channel: Channel) -> None:
        """A new channel knows nothing of what its listeners want to hear."""
        wanted = ""
        for _, listener in self._hub.listening(server, scope):
            wanted = most_verbose(wanted, self._level(listener))
        self._want(server, scope, channel, wanted)

    def ask_level(self, listener: Listener) -> None:
        """A new listener's servers were opened before it listened."""
        viewer, servers = self._hub.viewer(listener), self._hub.front.fleet.servers
        for name, scope in viewer.scopes.items() if viewer is not None else ():
            channel = servers[name].ready(scope) if name in servers else None
            if channel is not None:
                self._want(name, scope, channel, self._level(listener))

    def _want(self, name: str, scope: Hashable, channel: Channel, level: str) -> None:
        server = self._hub.front.fleet.servers.get(name)
        if server is not None and level:
            self._hub.front.levels.want(server, channel, level, alone=server.serves_one_session(scope))

    # --- tasks

    def task(self, name: str, scope: Hashable, id_: str, params: bytes) -> None:
        """A task has another state: it is the session's that alone uses this scope, if there is such a one."""
        server = self._hub.front.fleet.servers.get(name)
        if server is None or not server.serves_one_session(scope):
            return
        for subscriber, listener in self._hub.listening(name, scope):
            if listener.session is not None:
                shown = self._name(listener, name, id_)
                news = self._named(listener, name, params)
                self._hub.wake(self._hub.interests.task_of(subscriber, shown, news))

    def elicited(self, name: str, scope: Hashable, what: Elicited) -> None:
        """What a client was to do at a URL is done: it is the session's that alone uses this scope."""
        server = self._hub.front.fleet.servers.get(name)
        if server is None or not server.serves_one_session(scope):
            return
        for subscriber, listener in self._hub.listening(name, scope):
            session = listener.session
            if session is not None and session.capabilities & ClientCaps.ELICITATION_URL:
                self._hub.wake(self._hub.interests.elicited(subscriber, what))

    def began(self, call: Call, server: str, scope: Hashable, token: int) -> None:
        """A call goes on as a task: its progress token counts as long as the task does, for the one who gave it."""
        given = call.meta.get("progressToken")
        if given is None or call.session is None:
            return
        self._progress[server, scope, token] = (call.session.id, given)
        if len(self._progress) > MOST_IN_PROGRESS:
            self._progress.popitem(last=False)

    def progressed(self, server: str, scope: Hashable, token: int, params: bytes) -> None:
        """Progress that belongs to no open call."""
        session, given = self._progress.get((server, scope, token), ("", Raw()))
        for subscriber, listener in self._hub.listening(server, scope) if session else ():
            if listener.session is not None and listener.session.id == session:
                members = {**decode_map(self._named(listener, server, params)), "progressToken": given}
                news = Progressed(bytes(given), encode(members))
                self._hub.wake(self._hub.interests.progressed(subscriber, news))

    def task_name(self, call: Call, server: str, id_: str, tool: str = "") -> str:
        """What the client of `call` knows a task of a server as."""
        make = partial(self._hub.front.handles.task_of, call, server, id_, tool)
        return make() if call.session is None else self._names.name(call.session.id, server, id_, make)

    def _name(self, listener: Listener, server: str, id_: str) -> str:
        assert listener.session is not None
        owner, task = owner_of(listener.principal, listener.endpoint), Task(server, id_, "legacy")
        make = partial(self._hub.front.handles.task, owner, task, ttl_s=TASK_S)
        return self._names.name(listener.session.id, server, id_, make)

    def _named(self, listener: Listener, server: str, params: bytes) -> bytes:
        """Parameters that say which task they belong to, by the name that this client knows."""
        if _RELATED not in params or listener.session is None:
            return params
        try:
            return bytes(related(Raw(params), partial(self._name, listener, server)))
        except GatewayError:
            return params
