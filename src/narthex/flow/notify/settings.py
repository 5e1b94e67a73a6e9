"""What a legacy session sets for itself: `resources/subscribe`, `resources/unsubscribe` and `logging/setLevel`.

Cases: `tests/flow/notify/test_hub.py`, `tests/flow/notify/test_levels.py`.
Source: MCP 2025-11-25, server/resources ("Subscriptions") and server/utilities/logging.
"""

from __future__ import annotations

import msgspec

from narthex.errors import MethodNotFound, NotVisible, SessionNotFound
from narthex.flow.accept.listing import Answering
from narthex.flow.codec.log_levels import read_level
from narthex.flow.codec.subscriptions import read_resource
from narthex.flow.notify.hub import Listener
from narthex.flow.notify.interests import Place
from narthex.flow.walk import not_visible
from narthex.types import Call

SETTINGS = frozenset({"resources/subscribe", "resources/unsubscribe", "logging/setLevel"})


class Setting(Answering[bool]):
    """One of these requests. The answer is empty, once it is carried out."""

    value: str = ""

    def known(self) -> bool | None:
        """Carry out what need not wait.

        Raises:
            MethodNotFound: The client has no session. Overloaded: There are too many.
            InvalidParams: The parameter has another form.
        """
        call, hub = self.call, self.front.hub
        if call.session is None:
            raise MethodNotFound(f"{call.method} needs a session")
        if call.method == "logging/setLevel":
            self.value = read_level(call.params)
            hub.session(call.session).level = self.value
            self._tell_servers()
            return True
        self.value = read_resource(call.params)
        if call.method == "resources/subscribe":
            hub.session(call.session)
            return None
        live = hub.live.get(call.session, self.front.clock())
        if live is not None and live.listener is not None:
            self._drop(live.listener)
        return True

    def answer(self, found: bool) -> None:
        self.respond(b"{}")

    def _tell_servers(self) -> None:
        """Those that are open now; others before their first call."""
        fleet, call = self.front.fleet, self.call.but(log_level=self.value)
        for name, scope in self.viewer.scopes.items():
            server = fleet.servers.get(name)
            channel = server.ready(scope) if server is not None else None
            if server is not None and channel is not None:
                self.front.levels.ask(server, channel, call)

    async def ask(self) -> bool:
        """Subscribe.

        Raises:
            NotVisible: No such resource here. MethodNotFound: Its server does not tell of its changes.
            UpstreamUnavailable, Overloaded, InvalidParams.
        """
        hub, call, uri = self.front.hub, self.call, self.value
        assert call.session is not None
        live = hub.session(call.session)
        listener = hub.listener(live, call.principal, call.endpoint)
        await hub.enlist(live, listener)
        place = (await hub.places(self.viewer, [uri], hub.admission(listener))).get(uri)
        if place is None:
            raise _no_resource(call, uri)
        if listener.subscriber is None:
            raise SessionNotFound("session not found")  # it was ended meanwhile
        hub.ask(hub.interests.subscribe(listener.subscriber, uri, place))
        listener.wanted = msgspec.structs.replace(listener.wanted, uris=listener.wanted.uris | {uri})
        source = (place.server, place.scope)
        if place.name not in (await hub.heard([source]))[source].uris:
            self._refuse(listener, place)
        return True

    def _refuse(self, listener: Listener, place: Place) -> None:
        """The server does not tell of it: it is asked no more, and the client learns that."""
        self._drop(listener)
        server = self.front.fleet.servers.get(place.server)
        if server is not None and server.ready(place.scope) is None:
            raise server.unavailable()
        raise MethodNotFound("the server of this resource does not tell of its changes")

    def _drop(self, listener: Listener) -> None:
        hub, uri = self.front.hub, self.value
        listener.wanted = msgspec.structs.replace(listener.wanted, uris=listener.wanted.uris - {uri})
        if listener.subscriber is not None:
            hub.ask(hub.interests.unsubscribe(listener.subscriber, uri))


def _no_resource(call: Call, uri: str) -> NotVisible:
    """The same as for reading it (2025-11-25, server/resources, "Error Handling")."""
    return not_visible(call.but(method="resources/read"), uri)
