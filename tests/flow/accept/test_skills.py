"""Skills (SEP-2640) and pages of apps (SEP-1865) of several servers on one endpoint: offered, listed, routed."""

from __future__ import annotations

from typing import Any

import pytest

from narthex.flow.notify.interests import Bounds
from narthex.types import EndpointSpec, Selection
from tests.flow.gateway import Client, Running, run, spec, until
from tests.flow.notify.hearing import Teller, listen, resources

EXTENSION = "io.modelcontextprotocol/skills"
PAIRS = pytest.mark.parametrize(
    ("client_era", "era"), [(one, other) for one in ("legacy", "modern") for other in ("legacy", "modern")]
)
KEPT = {"ttlMs": 60_000, "cacheScope": "public"}
LOST = "http://127.0.0.1:9/mcp"


def entry(path: str) -> dict[str, Any]:
    uri = f"skill://{path}/SKILL.md"
    return {"uri": uri, "frontmatter": {"name": path, "n": 1.50}, "resources": [{"uri": uri, "digest": "sha256:0"}]}


class Skilled(Teller):
    """A server with skills; its answers say who it is."""

    def __init__(self, name: str, *paths: str, era: str = "legacy", reads: bool = True, declares: bool = True) -> None:
        super().__init__(era)
        if declares:
            self.capabilities = {
                **self.capabilities,
                "extensions": {EXTENSION: {"directoryRead": True} if reads else {}},
            }
        kept = {"resultType": "complete", **KEPT} if era == "modern" else {}
        self.answers |= {
            "resources/list": {**resources(), **kept},
            "skills/list": {"skills": [entry(path) for path in paths], **kept},
            "skills/get": {"skill": {"frontmatter": {"name": name}}, **kept},
            "resources/directory/read": {"resources": [{"uri": "x", "name": name}], "nextCursor": "c2", **kept},
            "resources/read": {"contents": [{"uri": "x", "text": name}], **kept},
        }


def over(endpoint: dict[str, Any] | None = None, **servers: Any) -> Running:
    specs = {name: spec(name, one if isinstance(one, str) else one.url) for name, one in servers.items()}
    return Running(specs, {"default": EndpointSpec("default", tuple(specs), **(endpoint or {}))}, goes=True)


async def ask(client: Client, era: str, method: str, **params: Any) -> Any:
    return await (client.modern if era == "modern" else client.legacy)(method, params)


async def session(gateway: Running, era: str) -> Client:
    return await gateway.client(session=era == "legacy")


@PAIRS
def test_skills_of_several_servers_are_listed_and_each_request_goes_to_the_right_one(client_era: str, era: str) -> None:
    async def main() -> None:
        async with (
            Skilled("a", "git", era=era) as a,
            Skilled("b", "pdf", "acme/refunds", era=era) as b,
            over(a=a, b=b) as gateway,
        ):
            client = await session(gateway, client_era)
            listed = (await ask(client, client_era, "skills/list")).result
            assert listed["skills"] == [entry("git"), entry("pdf"), entry("acme/refunds")]
            assert ("ttlMs" in listed) == ("cacheScope" in listed) == (client_era == "modern")
            for uri, name in (("skill://git", "a"), ("skill://pdf", "b"), ("skill://acme/refunds", "b")):
                got = (await ask(client, client_era, "skills/get", uri=f"{uri}/SKILL.md")).result
                assert got["skill"]["frontmatter"]["name"] == name
                if client_era == "modern":
                    assert got["resultType"] == "complete"
                    assert got["cacheScope"] in ("private", "public")
                children = (await ask(client, client_era, "resources/directory/read", uri=uri, cursor="c1")).result
                assert (children["resources"][0]["name"], children["nextCursor"]) == (name, "c2")
                read = (await ask(client, client_era, "resources/read", uri=f"{uri}/x/y.md")).result
                assert read["contents"][0]["text"] == name, "a file that no list names"
            sent = b.params("resources/directory/read")[0]
            assert (sent["uri"], sent["cursor"]) == ("skill://pdf", "c1")

    run(main)


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_skills_are_offered_where_a_server_has_them(era: str) -> None:
    async def offered(**servers: Any) -> Any:
        async with over(**servers) as gateway:
            client = await gateway.client()
            if era == "modern":
                return (await client.modern("server/discover")).result["capabilities"].get("extensions")
            return (await client.initialize()).result["capabilities"].get("extensions")

    async def main() -> None:
        async with Skilled("a", reads=False) as a, Skilled("b") as b, Skilled("c", declares=False) as c:
            assert await offered(a=a, c=c) == {EXTENSION: {}}
            assert await offered(a=a, b=b) == {EXTENSION: {"directoryRead": True}}
            assert await offered(c=c) is None

    run(main)


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("endpoint", [{}, {"resource_uris": "prefix"}], ids=["no server has any", "URIs are changed"])
def test_skills_are_refused_as_a_whole_where_they_are_not_offered(era: str, endpoint: dict[str, Any]) -> None:
    async def main() -> None:
        async with Skilled("a", "git", declares=bool(endpoint)) as a, over(endpoint, a=a) as gateway:
            client = await session(gateway, era)
            for method, params in (
                ("skills/list", {}),
                ("skills/get", {"uri": "skill://git/SKILL.md"}),
                ("resources/directory/read", {"uri": "skill://git"}),
            ):
                answer = await ask(client, era, method, **params)
                assert answer.error["code"] == -32601
                assert answer.status == (404 if era == "modern" else 200)
            assert not a.count("skills/get")

    run(main)


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_what_is_no_skill_here_is_an_invalid_parameter(era: str) -> None:
    async def main() -> None:
        async with Skilled("a", "git") as a, Skilled("b", "pdf") as b, over(a=a, b=b) as gateway:
            client = await session(gateway, era)
            for method in ("skills/get", "resources/directory/read"):
                assert (await ask(client, era, method, uri="skill://unknown")).error["code"] == -32602
                assert (await ask(client, era, method)).error["code"] == -32602
            assert not a.count("skills/get") + b.count("skills/get")

    run(main)


def test_a_skill_that_is_not_listed_is_asked_of_the_only_server_that_has_any() -> None:
    async def main() -> None:
        async with Skilled("a") as a, Skilled("b", declares=False) as b, over(a=a, b=b) as gateway:
            client = await gateway.client()
            got = await client.modern("skills/get", {"uri": "skill://hidden/SKILL.md"})
            assert got.result["skill"]["frontmatter"]["name"] == "a"

    run(main)


def test_a_server_is_not_asked_for_directories_that_it_does_not_read() -> None:
    async def main() -> None:
        async with Skilled("a", "git", reads=False) as a, Skilled("b", "pdf") as b, over(a=a, b=b) as gateway:
            client = await gateway.client()
            assert (await client.modern("resources/directory/read", {"uri": "skill://git"})).error["code"] == -32601
            assert (await client.modern("resources/directory/read", {"uri": "skill://pdf"})).result["resources"]
            assert not a.count("resources/directory/read")

    run(main)


def test_a_dead_server_costs_its_own_skills_alone() -> None:
    async def main() -> None:
        async with Skilled("a", "git") as a, over(a=a, lost=LOST) as gateway:
            client = await gateway.client()
            listed = (await client.modern("skills/list")).result
            assert listed["skills"] == [entry("git")]
            assert listed["_meta"]["narthex/missing"][0]["server"] == "lost"
            assert (await client.modern("skills/get", {"uri": "skill://git/SKILL.md"})).result
        async with over(lost=LOST) as gateway:
            client = await gateway.client()
            assert (await client.modern("skills/list")).error["code"] == -31005, "it may have some"

    run(main)


def test_what_the_endpoint_excludes_is_listed_and_found_by_no_way() -> None:
    async def main() -> None:
        async with (
            Skilled("a", "git", "pdf") as a,
            over({"resources": Selection(exclude=("a__skill://git*",))}, a=a) as gateway,
        ):
            client = await gateway.client()
            assert (await client.modern("skills/list")).result["skills"] == [entry("pdf")]
            for method, uri in (
                ("skills/get", "skill://git/SKILL.md"),
                ("resources/directory/read", "skill://git"),
                ("resources/read", "skill://git/SKILL.md"),
            ):
                assert (await client.modern(method, {"uri": uri})).error["code"] == -32602
            assert not a.count("skills/get")

    run(main)


def test_a_skill_that_comes_is_a_change_of_the_resources() -> None:
    assert Bounds().debounce_s[1] < 1

    async def main() -> None:
        async with Skilled("a", "git") as a, over(a=a) as gateway:
            hearing = await listen(await gateway.client(), resourcesListChanged=True)
            await hearing.message()
            a.answers["skills/list"] = {"skills": [entry("git"), entry("pdf")]}
            await until(lambda: a.streams)
            a.tell("notifications/resources/list_changed")
            assert await hearing.told() == ("resources/list_changed", None)
            client = await gateway.client()
            assert (await client.modern("skills/list")).result["skills"] == [entry("git"), entry("pdf")]

    run(main)


# --- pages of apps


def with_page(server: Skilled, uri: str) -> None:
    tool = {"name": "show", "inputSchema": {"type": "object"}, "_meta": {"ui": {"resourceUri": uri}}}
    server.answers["tools/list"] = {**server.answers["tools/list"], "tools": [tool]}


@pytest.mark.parametrize("endpoint", [{}, {"resource_uris": "prefix"}], ids=["plain", "prefix"])
def test_a_page_is_read_from_the_server_whose_tool_names_it(endpoint: dict[str, Any]) -> None:
    async def main() -> None:
        async with Skilled("a") as a, Skilled("b") as b:
            with_page(a, "ui://panel/a")
            with_page(b, "ui://panel/b")
            async with over(endpoint, a=a, b=b) as gateway:
                client = await gateway.client()
                for name in ("b", "a", "b"):
                    read = await client.modern("resources/read", {"uri": f"ui://panel/{name}"})
                    assert read.result["contents"][0]["text"] == name
                assert (await client.modern("resources/read", {"uri": "ui://panel/c"})).error["code"] == -32602

    run(main)


def test_a_page_that_two_servers_name_is_the_first_ones_and_no_others_results_are_shown_there() -> None:
    async def main() -> None:
        async with Skilled("a") as a, Skilled("b") as b:
            with_page(a, "ui://panel")
            with_page(b, "ui://panel")
            async with over(a=a, b=b) as gateway:
                client = await gateway.client()
                tools = (await client.modern("tools/list")).result["tools"]
                assert [one.get("_meta") for one in tools] == [{"ui": {"resourceUri": "ui://panel"}}, {}]
                read = await client.modern("resources/read", {"uri": "ui://panel"})
                assert read.result["contents"][0]["text"] == "a"

    run(main)
