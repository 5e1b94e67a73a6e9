"""Requests about tasks, and calls that are to run as one: as any other call, but for the ids of tasks on the way.

In: a request that names a task by our handle, a `tools/call` with `params.task`, or a legacy `tasks/list`. Out: the
answer of the server that made the task, with the ids that this client knows.
Cases: `tests/flow/accept/test_tasking.py`, `tests/e2e/test_real_servers.py`, `tests/conformance/`.
Source: `codec/tasks.py`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

import msgspec

from narthex.errors import GatewayError, InvalidParams, MethodNotFound, UpstreamTimeout, UpstreamUnavailable
from narthex.flow.accept.exchange import Exchange
from narthex.flow.accept.lasting import lasting_of
from narthex.flow.accept.listing import CURSOR_S, Answering
from narthex.flow.accept.needs import found
from narthex.flow.codec.bridge import error_code
from narthex.flow.codec.handles import Task, owner_of
from narthex.flow.codec.jsonrpc import Incoming, Raw, encode, read_string
from narthex.flow.codec.param_headers import Said
from narthex.flow.codec.revisions import LATEST_LEGACY
from narthex.flow.codec.seal import SealError
from narthex.flow.codec.subscriptions import read_progress
from narthex.flow.codec.tasks import (
    check_speaks,
    following,
    is_answer,
    known_as,
    lists_tasks,
    read_page,
    read_place,
    related,
    runs_tasks,
    shown,
    unknown,
)
from narthex.flow.route.target import Target
from narthex.flow.upstream.fleet import Fleet, Viewer
from narthex.flow.upstream.naming import may_name
from narthex.flow.upstream.port import Channel
from narthex.flow.upstream.server import Server
from narthex.flow.walk import Send, Walk, about_task, as_task
from narthex.flow.whole import HttpRequest

_VIEW: Final = ""
"""What a cursor's list was made for: nothing but the caller decides what is in it."""
SLICE: Final = 100
"""Tasks sealed between two pauses: well under a millisecond."""


def session_servers(fleet: Fleet, viewer: Viewer) -> tuple[str, ...]:
    """Servers of an endpoint whose sessions serve one client alone, in its order: only they have legacy tasks."""
    servers = fleet.servers
    return tuple(
        name for name, scope in viewer.scopes.items() if name in servers and servers[name].serves_one_session(scope)
    )


class Tasking(Exchange):
    """A request about one task, or a call that is to run as one. It sees every message whole."""

    about: Task | None = None
    handle: str = ""
    """What the client calls it."""

    def start(self, request: HttpRequest) -> None:
        try:
            walk = self._walk = self._way(request)
        except GatewayError as error:
            self.fail(error)
        else:
            self._step(walk, walk.send, None)

    def _way(self, request: HttpRequest) -> Walk:
        call, fleet, viewer = self.call, self.front.fleet, self.viewer
        target = found(self, "tools", call.name) if call.method == "tools/call" else None
        self.lasting = lasting_of(self, target)
        alone = session_servers(fleet, viewer)
        if call.method == "tools/call":
            said = Said(request.headers, request.repeated, request.params)
            return as_task(
                call, target, said, alone, self.check,
                offered=self._was_offered(alone), limited=self.metered, durable=self.lasting is not None,
                recalls=self if self.front.cache is not None else None,
            )  # fmt: skip
        check_speaks(call)
        self.handle = call.name or read_string(call.params, "taskId")
        self.about = self._opened(alone)
        if self.front.cache is not None and self.about.tool:
            self._may_change(self.about)
        return about_task(call, self.about, self.check, durable=self.lasting is not None)

    def _may_change(self, task: Task) -> None:
        """What a task has done since it was made, nobody has said: it may have changed what its tool may change."""
        tool = self.front.fleet.planned(self.viewer, "tools", Target(task.server, task.tool, encode(task.tool)))
        if tool is not None and tool.caching is not None:
            self.recalling().goes(tool, {})

    def _was_offered(self, alone: tuple[str, ...]) -> bool:
        """Were tasks offered in `initialize`? That is answered before there is a session."""
        call, fleet = self.call, self.front.fleet
        if call.era == "modern" or call.version != LATEST_LEGACY:
            return False
        greeted = fleet.dialects(fleet.viewer(self.viewer.spec, call.principal, None))
        return any(dialect is not None and runs_tasks(dialect) for name, dialect in greeted if name in alone)

    def _opened(self, alone: tuple[str, ...]) -> Task:
        """The task that is meant. Raises NotVisible: it never existed, or might as well not have."""
        call = self.call
        try:
            task = self.front.handles.open_task(self.handle, owner_of(call.principal, call.endpoint))
        except SealError:
            raise unknown() from None
        # What was made in one era's protocol is asked about in that one.
        if task.era != call.era or task.server not in (self.viewer.scopes if task.era == "modern" else alone):
            raise unknown()
        return task

    def _send(self, need: Send) -> Any:
        try:
            return super()._send(need)
        finally:
            if self.about is not None:
                self.target_name = ""  # a task's id is no name to count calls by

    def message(self, message: Incoming) -> None:
        if message.method == "notifications/progress" and self._is_anothers(message):
            return
        try:
            message = self._shown(message)
        except GatewayError as error:
            self.turn_back(error)
        else:
            super().message(message)

    def _is_anothers(self, message: Incoming) -> bool:
        """Progress of a task names the call that began it, also on the stream of one that waits for its end."""
        server, channel, out = self.server, self.channel, self.out
        if server is None or channel is None or out is None or read_progress(message) in (None, out.id):
            return False
        server.pushed(self.viewer.scopes[self.server_name], channel, message)
        return True

    def _shown(self, message: Incoming) -> Incoming:
        channel = self.channel
        assert channel is not None
        if message.method:
            return msgspec.structs.replace(message, params=related(message.params, self.known_as))
        if not message.result or channel.dialect.era != self.call.era:
            return message
        if self.check is not None and self.check.asks_how_it_ends and not is_answer(self.call.method, message.result):
            self.check.end("failed")
        result = shown(self.call, message.result, self.known_as)
        return Incoming(message.jsonrpc, message.id, result=Raw(result))

    def known_as(self, id_: str) -> str:
        """What the client calls a task of this server."""
        if self.about is not None and id_ == self.about.id:
            return self.handle
        if self.about is None and self.out is not None:
            scope = self.viewer.scopes[self.server_name]
            self.front.hub.beside.began(self.call, self.server_name, scope, self.out.id)
        tool = self.about.tool if self.about is not None else self.target_name
        return self.front.hub.beside.task_name(self.call, self.server_name, id_, tool)

    def reply(self, body: bytes) -> None:
        """The client's answer to what a task asks says which task that is; nothing else holds this text."""
        if self.about is not None:
            body = body.replace(encode(self.handle), encode(self.about.id))
        super().reply(body)

    def splice(self, head: bytes, total: int) -> bool:
        return False


class TaskListing(Answering[tuple[list[Raw], bytes | None]]):
    """A page of a legacy client's tasks: one page of one server, then of the next. `at` is where it goes on."""

    at: tuple[str, str | None] | None = None

    def known(self) -> None:
        """Raises InvalidParams for a cursor that is none of ours, another's, of another list, or too old."""
        call = self.call
        check_speaks(call)
        if "cursor" in call.params and bytes(call.params["cursor"]) != b"null":
            cursor, owner = read_string(call.params, "cursor"), owner_of(call.principal, call.endpoint)
            self.at = read_place(self.front.handles.open_cursor(cursor, owner, "tasks", _VIEW))

    async def ask(self) -> tuple[list[Raw], bytes | None]:
        """One server's page, and where the list goes on.

        Raises:
            MethodNotFound: No server here lists tasks. UpstreamUnavailable, …: the one whose turn it is does not.
        """
        fleet = self.front.fleet
        admission = self.front.admission(self.call.principal, self.call.endpoint)
        names = [
            name
            for name in session_servers(fleet, self.viewer)
            if admission is None
            or (admission.knows("tools", name) and await may_name(fleet, self.viewer, name, admission))
        ]
        opened = await asyncio.gather(*(self._open(fleet.servers[name]) for name in names))
        channels = {name: one for name, one in zip(names, opened, strict=True) if one is not None}
        lists = [name for name, one in channels.items() if lists_tasks(one.dialect)]
        name, cursor = self.at or (lists[0] if lists else "", None)
        if name not in lists:
            if self.at is None and len(channels) == len(names):
                raise MethodNotFound("no server here lists tasks")
            raise UpstreamUnavailable("the server of these tasks is unavailable")
        server = fleet.servers[name]
        params = {} if cursor is None else {"cursor": cursor}
        try:
            async with asyncio.timeout(server.spec.list_timeout_s):
                message = await server.request(channels[name], "tasks/list", params)
        except TimeoutError:
            raise server.failed(UpstreamTimeout(f"server {name} did not answer in time")) from None
        if message.error:
            if cursor is not None and error_code(message.error) == InvalidParams.code:
                raise InvalidParams("the cursor is not valid any more")
            raise UpstreamUnavailable(
                f"server {name} does not list its tasks", detail=bytes(message.error)[:256].decode(errors="replace")
            )
        found, cursor = read_page(message.result)
        return await self._known_as(name, found), following(name, cursor, lists)

    async def _open(self, server: Server) -> Channel | None:
        try:
            return await server.open(self.viewer.scopes[server.spec.name])
        except GatewayError:
            return None  # its own tasks are missing, the others are there

    async def _known_as(self, server: str, found: list[dict[str, Raw]]) -> list[Raw]:
        handle, tasks = partial(self.front.hub.beside.task_name, self.call, server), []
        for number, task in enumerate(found, 1):
            tasks.append(Raw(encode(known_as(task, handle))))
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return tasks

    def answer(self, found: tuple[list[Raw], bytes | None]) -> None:
        tasks, place = found
        result: dict[str, Any] = {"tasks": tasks}
        if place is not None:
            owner = owner_of(self.call.principal, self.call.endpoint)
            result["nextCursor"] = self.front.handles.cursor(owner, "tasks", _VIEW, place, ttl_s=CURSOR_S)
        self.respond(encode(result))
