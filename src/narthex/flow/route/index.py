"""Several servers' lists merged into what one endpoint shows, and the way back from a shown name to its server.

In: an endpoint's spec and each server's items as received. Out: an `Index`: names to targets, and the prepared items.
What is listed is what can be called: both come from here. Cases: `tests/flow/route/test_index.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Mapping, Sequence
from hashlib import sha256

import msgspec

from narthex.flow.cache.plans import Plan as CachePlan
from narthex.flow.codec.jsonrpc import BAD_JSON, Raw, RawMap, decode_map, encode
from narthex.flow.codec.param_headers import BadAnnotation, Plan, is_annotated, read_plan
from narthex.flow.route.fragments import PAGE, Fragments, PageBound, Preparing
from narthex.flow.route.names import canonical, shown_name
from narthex.flow.route.patterns import Selector
from narthex.flow.route.target import Target as Target
from narthex.flow.route.uri_templates import MAX_URI, Template, prefix_uri, scheme_authority
from narthex.types import EndpointSpec, Kind

KEY: Mapping[Kind, str] = {
    "tools": "name",
    "prompts": "name",
    "resources": "uri",
    "templates": "uriTemplate",
    "skills": "uri",
}
"""Which member names an item of a list."""
MEMBER: Mapping[Kind, str] = {
    "tools": "tools",
    "prompts": "prompts",
    "resources": "resources",
    "templates": "resourceTemplates",
    "skills": "skills",
}
"""Which member of a list result holds the items."""
SLICE = 50
"""Items merged between two pauses, of 4 KiB at most; larger ones count for more. Well under a millisecond."""


class Missing(msgspec.Struct, frozen=True):
    """A server whose items are not in the list, and why, in words that a client may read."""

    server: str
    reason: str
    claims: str = ""
    """What the caller must sign in with first (`ClaimsRequired`); empty for another reason."""


class Items(msgspec.Struct, frozen=True):
    """One server's list as received: each item's own name and its bytes.

    `public` when the server says on every page that the list is the same for everybody.
    """

    server: str
    items: tuple[tuple[str, Raw], ...]
    public: bool = False


class Index(msgspec.Struct, frozen=True):
    """What one endpoint shows of one kind. `fragments` are the items' bytes, the i-th that of the i-th of `targets`.

    `hidden` lost a clash. `templates`, `authorities` (scheme and authority of a listed URI), `roots` (directories of
    skills) and `apps` (pages that tools name) find the server of an unlisted resource. `public`: every server's list
    is, and is here with all its items. `refused`: tools that are left out, for their `x-mcp-header` (server, name,
    reason).
    """

    kind: Kind
    targets: Mapping[str, Target]
    fragments: Fragments
    missing: tuple[Missing, ...]
    hidden: tuple[tuple[str, str], ...]
    templates: tuple[tuple[Template, Target], ...] = ()
    authorities: Mapping[str, Target] = {}
    roots: Mapping[str, Target] = {}
    apps: Mapping[str, Target] = {}
    public: bool = False
    refused: tuple[tuple[str, str, str], ...] = ()

    def has_same_output(self, one: str, other: str) -> bool:
        """Do two tools, by canonical names, say the same of what they give? Looked for only where that is rare."""
        schemas = []
        for target, item in zip(self.targets.values(), self.fragments.items, strict=True):
            if canonical(target.server, target.name) in (one, other):
                schemas.append(decode_map(item).get("outputSchema", b"null"))
        try:
            return len(schemas) == 2 and msgspec.json.decode(schemas[0]) == msgspec.json.decode(schemas[1])
        except BAD_JSON:  # a number that no double holds, say
            return False


def read_items(kind: Kind, server: str, raws: Sequence[Raw], most: int, *, public: bool = False) -> tuple[Items, int]:
    """One server's items; what has no usable name is left out and counted. At most `most` are taken.

    Args:
        public: Every page says that it is the same for everybody.
    Returns: the items in the server's order, and how many were left out.
    """
    key = KEY[kind]
    named: list[tuple[str, Raw]] = []
    seen: set[str] = set()
    for raw in raws[:most]:
        try:
            name = msgspec.json.decode(decode_map(raw)[key], type=str)
        except (*BAD_JSON, KeyError):
            continue
        if name and len(name) <= 4096 and name not in seen:
            seen.add(name)
            named.append((name, raw.copy()))
    return Items(server, tuple(named), public), len(raws) - len(named)


def merge(
    spec: EndpointSpec,
    kind: Kind,
    lists: Sequence[Items],
    missing: Sequence[Missing],
    bound: PageBound = PAGE,
    stdio: Container[str] = (),
    caching: Callable[[str, str, Raw], CachePlan | None] | None = None,
) -> Generator[None, None, Index]:
    """Merge in the order of `lists` (the endpoint's order of servers, so the result is deterministic).

    A generator, so that ten thousand tools do not stop the loop: it pauses every `SLICE` items.

    Args:
        bound: Of the pages that the list is shown in.
        stdio: Servers that get no headers. A tool of any other one is left out where its `x-mcp-header` is not valid
            (2026-07-28, Streamable HTTP transport, "Schema Extension": clients MUST).
        caching: What the cache does for calls of a server's thing, by its name and bytes; None: nothing for any.
    """
    select = selector_of(spec, kind)
    targets: dict[str, Target] = {}
    prepared = Preparing(bound)
    hidden: list[tuple[str, str]] = []
    refused: list[tuple[str, str, str]] = []
    show, key = _shower(spec, kind), KEY[kind]
    apps: dict[str, Target] = {}
    excluded = False
    count = 0
    for one in lists:
        for name, raw in one.items:
            annotated = kind == "tools" and is_annotated(bytes(raw))
            count += 1 + len(raw) // (1024 if annotated else 4096)
            if count >= SLICE:
                count = 0
                yield
            if not select.allows(canonical(one.server, name)):
                excluded = True
                continue
            shown = show(one.server, name)
            if shown in targets:
                hidden.append((one.server, name))
                continue
            mirrored = one.server not in stdio
            params: Plan = ()
            if annotated:
                try:
                    params = _read_params(raw)
                except BadAnnotation as error:
                    if mirrored:
                        refused.append((one.server, name, error.detail))
                        continue
            definition = sha256(raw).digest()
            page = app_of(raw) if kind == "tools" and _APP in bytes(raw) else None
            if page and apps.setdefault(page, Target(one.server, page, encode(page))).server != one.server:
                hidden.append((one.server, page))
                raw = _without_app(raw)
            plan = caching(one.server, name, raw) if caching is not None else None
            targets[shown] = Target(one.server, name, encode(name), params, mirrored, plan, definition)
            prepared.add(shown, raw if shown == name else _renamed(raw, key, shown))
    templates: tuple[tuple[Template, Target], ...] = ()
    if kind == "templates":
        templates = tuple((Template(shown), target) for shown, target in targets.items())
    return Index(
        kind,
        targets,
        prepared.done(),
        tuple(missing),
        tuple(hidden),
        templates,
        _authorities(targets) if kind in ("resources", "skills") else {},
        {uri.removesuffix(_MANIFEST): one for uri, one in targets.items()} if kind == "skills" else {},
        apps,
        public=bool(lists) and all(one.public for one in lists) and not (missing or hidden or excluded or refused),
        refused=tuple(refused),
    )


def _read_params(tool: Raw) -> Plan:
    schema = decode_map(tool).get("inputSchema")
    return () if schema is None else read_plan(schema)


def _authorities(targets: Mapping[str, Target]) -> dict[str, Target]:
    found: dict[str, Target] = {}
    for uri, target in targets.items():
        found.setdefault(scheme_authority(uri), target)
    return found


def app_of(tool: Raw) -> str | None:
    """The page that shows a tool's results (MCP Apps): what its `_meta` says, in either of its forms."""
    try:
        found = _decode_app(tool).meta
    except BAD_JSON:
        return None
    page = found.ui.page or found.page
    return page if page.startswith("ui://") and len(page) <= MAX_URI else None


def _without_app(tool: Raw) -> Raw:
    """The tool without its page, which is another server's: its results are never shown there, but as they are."""
    members = decode_map(tool)
    meta = {key: value for key, value in decode_map(members["_meta"]).items() if key not in ("ui", "ui/resourceUri")}
    return Raw(encode({**members, "_meta": meta}))


class _Ui(msgspec.Struct):
    page: str = msgspec.field(name="resourceUri", default="")


class _AppMeta(msgspec.Struct):
    ui: _Ui = msgspec.field(default_factory=_Ui)
    page: str = msgspec.field(name="ui/resourceUri", default="")


class _AppTool(msgspec.Struct):
    meta: _AppMeta = msgspec.field(name="_meta", default_factory=_AppMeta)


_decode_app = msgspec.json.Decoder(_AppTool).decode
_APP = b"ui:"  # a slash may be escaped
_MANIFEST = "/SKILL.md"


def selector_of(spec: EndpointSpec, kind: Kind) -> Selector:
    """What the endpoint takes of this kind, by canonical names."""
    selection = spec.tools if kind == "tools" else spec.prompts if kind == "prompts" else spec.resources
    return Selector(selection.include, selection.exclude)


def _shower(spec: EndpointSpec, kind: Kind) -> Callable[[str, str], str]:
    if kind in ("tools", "prompts"):
        return lambda server, name: shown_name(server, name, naming=spec.naming, max_name=spec.max_name)
    if spec.resource_uris == "prefix":
        return prefix_uri
    return lambda server, name: name


def _renamed(raw: Raw, key: str, shown: str) -> bytes:
    """The item with another name; all else byte for byte, in its order."""
    members: RawMap = decode_map(raw)
    members[key] = Raw(encode(shown))
    return encode(members)
