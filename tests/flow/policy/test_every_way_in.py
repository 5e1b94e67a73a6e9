"""What is listed is exactly what is not hidden, through every way in: call, task, read, subscribe, get, complete.

For random rules, callers, catalogues, namings and shapes, at the real gateway in front of a real server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from narthex.authority.identify import Identity
from narthex.flow.policy.grants import Grants
from narthex.flow.route.names import shown_name
from narthex.flow.route.uri_templates import prefix_uri
from narthex.testing import FakeServer
from narthex.types import EndpointSpec, Grant, IdentitySpec, Principal, Selection, Snapshot, Who
from tests.flow.gateway import Answer, Client, Running, run, spec
from tests.flow.policy.judge import Judge
from tests.flow.upstream.test_fleet import tools

LONG = "x" * 60
TOOLS = ("read", "write", "delete_all", "a b", LONG)
PROMPTS = ("hello", "secret")
URIS = ("docs:a", "keys:b")
TEMPLATES = ("docs:{x}", "keys:{x}")
KEYS = {
    "nx_support__": Principal("default", "narthex/keys", "s", roles=("support",), method="api_key"),
    "nx_dev______": Principal(
        "default", "narthex/keys", "d", roles=("dev",), scopes=frozenset({"w"}), method="api_key"
    ),
    "nx_nobody___": Principal("acme", "narthex/keys", "n", method="api_key"),
}
NOT_THERE = (-32602, -32002)


class Keys:
    def find(self, presented: bytes) -> Principal | None:
        return KEYS.get(presented.decode())

    def holds(self, principal: Principal) -> bool:
        return True


def identify(snapshot: Snapshot) -> Identity:
    assert snapshot.identity is not None

    async def nowhere(*_: Any, **__: Any) -> Any:
        raise AssertionError("nobody is asked")

    return Identity(
        snapshot.identity, snapshot.endpoints, keys=Keys(), fetch=nowhere, secrets=None,
        now=lambda: 0.0, clock=lambda: 0.0, chance=lambda: 0.5,
    )  # fmt: skip


def globs(*more: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(["*", "one__*", "two__*", *more]), max_size=2).map(tuple)


GRANTS = st.lists(
    st.builds(
        Grant,
        name=st.just("g"),
        effect=st.sampled_from(["allow", "allow", "deny", "hold"]),
        who=st.builds(
            Who,
            role=st.sampled_from([(), ("support",), ("dev", "support")]),
            tenant=st.sampled_from([(), ("acme",)]),
        ),
        tools=globs("*__read", "*__delete_*", "one__write", "*__x*", "*__a b"),
        prompts=globs("*__hello", "one__s*"),
        resources=globs("*__docs:*", "one__keys:b", "*__keys:?x?"),
        when=st.sampled_from(["", "", "args.amount <= 100", "has(args.amount)"]),
        endpoints=st.sampled_from([(), (), ("other",)]),
    ),
    min_size=1,
    max_size=4,
).map(tuple)
ENDPOINTS = st.builds(
    EndpointSpec,
    name=st.just("default"),
    servers=st.just(("one",)),
    naming=st.sampled_from(["prefix", "none"]),
    max_name=st.sampled_from([34, 48]),
    resource_uris=st.sampled_from(["plain", "prefix"]),
    tools=st.builds(Selection, exclude=st.sampled_from([(), ("*__write",)])),
    scopes=st.sampled_from([(), (("*__write", ("w",)),)]),
    hide_unscoped=st.booleans(),
)


def some(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), unique=True)


CATALOGUE = st.fixed_dictionaries(
    {"tools": some(TOOLS), "prompts": some(PROMPTS), "resources": some(URIS), "templates": some(TEMPLATES)}
)


def server(has: dict[str, list[str]]) -> FakeServer:
    return FakeServer(
        tools=tools(*has["tools"]),
        prompts=[{"name": name} for name in has["prompts"]],
        resources=[{"uri": uri, "name": "r"} for uri in has["resources"]],
        templates=[{"uriTemplate": uri, "name": "t"} for uri in has["templates"]],
        answers={
            **{name: {"messages": []} for name in PROMPTS},
            **{uri: {"contents": [{"uri": uri, "text": "x"}]} for uri in (*URIS, "docs:1", "keys:1")},
            "completion/complete": {"completion": {"values": []}},
        },
    )


class Asker:
    """One client of one caller."""

    def __init__(self, client: Client, key: str, modern: bool) -> None:
        self.client, self.key, self.modern = client, key, modern

    async def __call__(self, method: str, params: Any = None) -> Answer:
        ask = self.client.modern if self.modern else self.client.legacy
        return await ask(method, params, headers={"Authorization": f"Bearer {self.key}"})

    async def listed(self, method: str, member: str, key: str) -> set[str]:
        return {one[key] for one in (await self(method)).result[member]}

    async def hides(self, method: str, params: Any) -> bool:
        """Does it answer as of what is not there? Whatever else it says, it was visible."""
        message = (await self(method, params)).messages[-1]
        return message.get("error", {}).get("code") in NOT_THERE


def ways(shown: str, kind: str, modern: bool, amount: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every request that can name a thing."""
    argument = {"name": "x", "value": ""}
    if kind == "tools":
        call = {"name": shown, "arguments": {} if amount is None else {"amount": amount}}
        yield "tools/call", call
        yield "tools/call", {**call, "task": {}}
    elif kind == "prompts":
        yield "prompts/get", {"name": shown}
        yield "completion/complete", {"ref": {"type": "ref/prompt", "name": shown}, "argument": argument}
    elif kind == "resources":
        yield "resources/read", {"uri": shown}
        if not modern:
            yield "resources/subscribe", {"uri": shown}
    else:
        yield "completion/complete", {"ref": {"type": "ref/resource", "uri": shown}, "argument": argument}


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    grants=GRANTS,
    endpoint=ENDPOINTS,
    has=CATALOGUE,
    key=st.sampled_from(sorted(KEYS)),
    modern=st.booleans(),
    warm=st.booleans(),
    amount=st.sampled_from([None, 5, 500]),
)
def test_what_is_listed_is_what_is_not_hidden(
    grants: tuple[Grant, ...],
    endpoint: EndpointSpec,
    has: dict[str, list[str]],
    key: str,
    modern: bool,
    warm: bool,
    amount: int | None,
) -> None:
    find_out(grants, endpoint, has, key, modern, warm, amount)


HIDDEN = st.sets(
    st.sampled_from(
        [("tool", name) for name in TOOLS]
        + [("prompt", name) for name in PROMPTS]
        + [(kind, uri) for kind in ("resource", "template") for uri in (*URIS, *TEMPLATES)]
    )
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    grants=st.one_of(st.just(()), GRANTS),
    hidden=HIDDEN,
    endpoint=ENDPOINTS,
    has=CATALOGUE,
    key=st.sampled_from(sorted(KEYS)),
    modern=st.booleans(),
    warm=st.booleans(),
    slow=st.booleans(),
)
def test_the_same_where_an_engine_hides(
    grants: tuple[Grant, ...],
    hidden: set[tuple[str, str]],
    endpoint: EndpointSpec,
    has: dict[str, list[str]],
    key: str,
    modern: bool,
    warm: bool,
    slow: bool,
) -> None:
    def sees(kind: str, name: str) -> bool:
        return (kind, name) not in hidden

    find_out(grants, endpoint, has, key, modern, warm, 5, sees, slow=slow)


def find_out(
    grants: tuple[Grant, ...],
    endpoint: EndpointSpec,
    has: dict[str, list[str]],
    key: str,
    modern: bool,
    warm: bool,
    amount: int | None,
    sees: Callable[[str, str], bool] | None = None,
    *,
    slow: bool = False,
) -> None:
    """Name everything in every way, then list it. `sees`: what an engine shows, by kind and name."""

    def tool(name: str) -> str:
        return shown_name("one", name, naming=endpoint.naming, max_name=endpoint.max_name)

    def uri(name: str) -> str:
        return prefix_uri("one", name) if endpoint.resource_uris == "prefix" else name

    async def main() -> None:
        rules = {"grants": grants, "identity": IdentitySpec(api_keys=True)}
        rights = Grants(grants).rights(KEYS[key], "default", 0.0) if grants else None
        engine = None
        if sees is not None:
            engine = Judge(
                lambda asked: (
                    asked["action"] != "list" or sees(asked["resource"]["kind"], asked["resource"]["upstream_name"])
                ),
                slow=slow,
            )
        async with server(has) as one:
            running = Running(
                {"one": spec("one", one.url)}, {"default": endpoint}, rules, identify=identify, engine=engine
            )
            async with running as gateway:
                client = await gateway.client()
                ask = Asker(client, key, modern)
                if not modern:
                    hello = {
                        "protocolVersion": "2025-11-25",
                        "capabilities": {},
                        "clientInfo": {"name": "t", "version": "1"},
                    }
                    client.session = (await ask("initialize", hello)).headers["mcp-session-id"]
                hidden: dict[tuple[str, str, str], list[bool]] = {}
                asked = [("tools", name, tool(name)) for name in TOOLS]
                asked += [("prompts", name, tool(name)) for name in PROMPTS]
                asked += [("resources", name, uri(name)) for name in URIS]
                asked += [("templates", name, uri(name)) for name in TEMPLATES]
                if warm:
                    await ask.listed("tools/list", "tools", "name")
                for kind, name, shown in asked:
                    said = [await ask.hides(*way) for way in ways(shown, kind, modern, amount)]
                    hidden[kind, name, shown] = said
                seen = {
                    "tools": await ask.listed("tools/list", "tools", "name"),
                    "prompts": await ask.listed("prompts/list", "prompts", "name"),
                    "resources": await ask.listed("resources/list", "resources", "uri"),
                    "templates": await ask.listed("resources/templates/list", "resourceTemplates", "uriTemplate"),
                }
                for (kind, name, shown), said in hidden.items():
                    if kind in ("tools", "prompts"):
                        assert set(said) == {shown not in seen[kind]}, (kind, shown, said)
                    elif shown in seen[kind]:
                        assert not any(said), (kind, shown, said)
                    elif (rights is not None and not rights.sees("resources", f"one__{name}")) or (
                        sees is not None and not sees("resource", name)
                    ):  # else it may be the server's, though unlisted
                        assert all(said), (kind, shown, said)

    run(main)
