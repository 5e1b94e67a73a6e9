"""A server as somebody else would write one: the tools of the fixture behind the official Python SDK, in both eras.

`python -m tests.conformance.reference [--port N]` prints `ready URL` and serves until SIGTERM. Sessions, streams, eras,
headers and everything else on the wire are the SDK's; so the gateway is put in front of something that was not written
for it. `make conformance UPSTREAM=URL` does that. The SDK knows no tasks and no skills, and neither does this.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import socket
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata

from tests.conformance.fixture import content, tools
from tests.conformance.fixture.call import LEVELS, Call, Failure, Json, ToolFailed, text
from tests.conformance.fixture.world import World
from tests.e2e.harness import MODERN

Context = ServerRequestContext[Any, Any]
ASKED: dict[str, tuple[type[Any], type[Any]]] = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}
"""How a question is sent to a legacy client, and what its answer is read as."""
CHANGES: dict[str, tuple[type[Any], Any]] = {
    "notifications/tools/list_changed": (types.ToolListChangedNotification, ToolsListChanged),
    "notifications/prompts/list_changed": (types.PromptListChangedNotification, PromptsListChanged),
    "notifications/resources/updated": (types.ResourceUpdatedNotification, ResourceUpdated),
}
"""How a change is told in the legacy era, and in the modern one."""
RETRY_MS = 100


class Asked(Exception):
    """A modern call ends here, with questions."""


class SdkCall(Call):
    """A call that reached us through the SDK. What it says on the way is sent in order, before its answer."""

    def __init__(self, reference: Reference, ctx: Context) -> None:
        params = ctx.params or {}
        declared = ctx.session.client_capabilities
        super().__init__(dict(params.get("arguments") or {}), dump(declared) if declared else {})
        self.modern = ctx.protocol_version >= MODERN
        self.required: Json = {}
        self._ctx, self._reference = ctx, reference
        self._before: Json = json.loads(params.get("requestState") or "{}") if self.modern else {}
        self._answers = self._before | (params.get("inputResponses") or {})
        self._said: asyncio.Task[None] | None = None

    def refuse(self, required: Json) -> Exception:
        if self.modern:
            return Failure(-32021, "the client lacks a capability", {"requiredCapabilities": required})
        return ToolFailed(f"The client does not support {', '.join(required)}")

    def log(self, level: str, data: str) -> None:
        if self.modern or LEVELS.index(level) >= LEVELS.index(self._reference.level_of(self._ctx)):
            session, id_ = self._ctx.session, self._ctx.request_id
            self._say(session.send_log_message(level, data, "reference", related_request_id=id_))  # type: ignore[arg-type]

    def progress(self, progress: float, total: float) -> None:
        self._say(self._ctx.session.report_progress(progress, total))

    def _say(self, said: Any) -> None:
        async def after(before: asyncio.Task[None] | None) -> None:
            if before is not None:
                await before
            await said

        self._said = asyncio.create_task(after(self._said))

    async def all_said(self) -> None:
        if self._said is not None:
            await self._said

    async def ask(self, questions: Mapping[str, Json], *, stateful: bool = False) -> Json:
        open_questions = {key: asked for key, asked in questions.items() if key not in self._answers}
        if lacking := self.lacking(open_questions):
            raise self.refuse(lacking)
        if not self.modern:
            answers = await asyncio.gather(*(self._push(asked) for asked in open_questions.values()))
            self._answers |= dict(zip(open_questions, answers, strict=True))
        elif open_questions:
            self.required = {"resultType": "input_required", "inputRequests": open_questions}
            if stateful or self._before:
                self.required["requestState"] = json.dumps(self._answers)
            raise Asked
        return {key: self._answers[key] for key in questions}

    async def _push(self, asked: Json) -> Json:
        request, result = ASKED[asked["method"]]
        belongs = ServerMessageMetadata(related_request_id=self._ctx.request_id)
        try:
            return dump(await self._ctx.session.send_request(request.model_validate(asked), result, metadata=belongs))
        except MCPError as error:
            raise ToolFailed(str(error)) from error

    def drop_stream(self) -> None:
        if self._ctx.close_sse_stream is not None:
            self._say(self._ctx.close_sse_stream())


@dataclass
class Events(EventStore):
    """The events of all legacy streams, for clients that come back; kept for as long as a test runs."""

    kept: list[tuple[str, Any]] = field(default_factory=list)

    async def store_event(self, stream_id: str, message: Any) -> str:
        self.kept.append((stream_id, message))
        return str(len(self.kept))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id) if last_event_id.isdecimal() else 0
        if not 0 < last <= len(self.kept):
            return None
        stream = self.kept[last - 1][0]
        for number, (of, message) in enumerate(self.kept[last:], last + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


class Reference:
    """The handlers of the SDK's server, over the same world that the fixture has."""

    def __init__(self) -> None:
        self.world = World()
        self.world.listeners.add(self._tell)
        self._bus = InMemorySubscriptionBus()
        self._sessions: dict[str, Any] = {}
        self._levels: dict[str, str] = {}
        self._subscribed: dict[str, set[str]] = {}
        self._telling: set[asyncio.Task[None]] = set()

    def server(self) -> Server[Any]:
        hint = CacheHint(ttl_ms=300_000, scope="public")
        lists = ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "server/discover")
        server: Server[Any] = Server(
            "reference",
            version="1.0.0",
            cache_hints=dict.fromkeys(lists, hint),  # type: ignore[arg-type]
            get_tool_input_schema=self._schema,
            on_list_tools=self._listed(types.ListToolsResult, "tools", self._tools),
            on_list_prompts=self._listed(types.ListPromptsResult, "prompts", lambda: content.prompts(self.world)),
            on_list_resources=self._listed(types.ListResourcesResult, "resources", lambda: content.RESOURCES),
            on_list_resource_templates=self._listed(
                types.ListResourceTemplatesResult, "resourceTemplates", lambda: content.TEMPLATES
            ),
            on_call_tool=self._call,
            on_get_prompt=self._prompt,
            on_read_resource=self._read,
            on_completion=self._complete,
            on_subscribe_resource=self._subscribe,
            on_unsubscribe_resource=self._unsubscribe,
            on_set_logging_level=self._set_level,
            on_subscriptions_listen=ListenHandler(self._bus),
        )
        server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience="reference"))
        told = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        plain = server.create_initialization_options
        server.create_initialization_options = lambda *_, **__: plain(told)  # type: ignore[method-assign]
        return server

    def level_of(self, ctx: Context) -> str:
        return self._levels.get(session_of(ctx), "info")

    # --- what is there

    def _tools(self) -> list[Json]:
        """Those that need no task to run in."""
        return [one for one in tools.listed(self.world, legacy=True) if "execution" not in one]

    def _schema(self, name: str) -> Mapping[str, Any] | None:
        return next((one["inputSchema"] for one in self._tools() if one["name"] == name), None)

    def _listed(self, kind: type[Any], key: str, entries: Any) -> Any:
        async def listed(ctx: Context, params: Any) -> Any:
            self._seen(ctx)
            return kind.model_validate({key: entries()})

        return listed

    async def _read(self, ctx: Context, params: types.ReadResourceRequestParams) -> Any:
        found = failing(content.read, params.uri, self.world, not_found=self._not_found(ctx))
        return types.ReadResourceResult.model_validate(found)

    async def _complete(self, ctx: Context, params: types.CompleteRequestParams) -> Any:
        return types.CompleteResult.model_validate(failing(content.complete, dump(params)))

    # --- calls

    async def _call(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        self._seen(ctx)
        tool, call = failing(tools.find, params.name, self.world), SdkCall(self, ctx)
        if tool.task:
            raise MCPError(-32602, f"Unknown tool: {params.name}")
        return await self._run(types.CallToolResult, call, tool.run(call, self.world))

    async def _prompt(self, ctx: Context, params: types.GetPromptRequestParams) -> Any:
        call = SdkCall(self, ctx)
        return await self._run(types.GetPromptResult, call, content.get_prompt(params.name, call))

    async def _run(self, kind: type[Any], call: SdkCall, running: Any) -> Any:
        try:
            return kind.model_validate(await running)
        except Asked:
            return types.InputRequiredResult.model_validate(call.required)
        except ToolFailed as failed:
            return types.CallToolResult.model_validate({**text(str(failed)), "isError": True})
        except Failure as failed:
            raise MCPError(failed.code, str(failed), failed.data) from failed
        finally:
            await call.all_said()

    # --- changes

    def _seen(self, ctx: Context) -> None:
        """Remember a legacy session, for news that belong to no call."""
        if session_id := session_of(ctx):
            self._sessions[session_id] = ctx.session

    @staticmethod
    def _not_found(ctx: Context) -> int:
        return -32602 if ctx.protocol_version >= MODERN else -32002

    async def _subscribe(self, ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        failing(content.read, params.uri, self.world, not_found=self._not_found(ctx))
        self._seen(ctx)
        self._subscribed.setdefault(session_of(ctx), set()).add(str(params.uri))
        return types.EmptyResult()

    async def _unsubscribe(self, ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        self._subscribed.get(session_of(ctx), set()).discard(str(params.uri))
        return types.EmptyResult()

    async def _set_level(self, ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        self._levels[session_of(ctx)] = params.level
        return types.EmptyResult()

    def _tell(self, method: str, params: Json) -> None:
        if method in CHANGES:
            notification, event = CHANGES[method]
            task = asyncio.get_running_loop().create_task(self._told(notification, event, params))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _told(self, notification: Any, event: Any, params: Json) -> None:
        await self._bus.publish(event(**params))
        for session_id, session in list(self._sessions.items()):
            if "uri" in params and params["uri"] not in self._subscribed.get(session_id, ()):
                continue
            await session.send_notification(notification.model_validate({"params": params} if params else {}))


def session_of(ctx: Context) -> str:
    """The id of a legacy session, empty where there is none."""
    return "" if ctx.protocol_version >= MODERN else str(ctx.request.headers.get("mcp-session-id", ""))


def dump(model: Any) -> Json:
    return dict(model.model_dump(by_alias=True, mode="json", exclude_none=True))


def failing(run: Any, *arguments: Any, **named: Any) -> Any:
    """Run it; a failure of the fixture is the SDK's."""
    try:
        return run(*arguments, **named)
    except Failure as failed:
        raise MCPError(failed.code, str(failed), failed.data) from failed


def main() -> None:
    parser = argparse.ArgumentParser(prog="reference", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")  # logging is deprecated, and still to be served
    listener = socket.create_server(("127.0.0.1", options.port))
    app = Reference().server().streamable_http_app(event_store=Events(), retry_interval=RETRY_MS)
    print(f"ready http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=0)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
