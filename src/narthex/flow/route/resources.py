"""Which server a URI leads to, on an endpoint with several servers. Pure.

In: what the servers list, merged; a URI that a client asks for. Out: the target, or None. Servers read more than they
list: what a template names, what lies in a skill's directory, an app's page that only its tool names. In the order
below the first that knows a URI has it. A clash was settled when the lists were merged: for the server that is first.

| a URI leads to | because |
| --- | --- |
| `ui://…` | a tool's `_meta` names it (MCP Apps, SEP-1865): the server of that tool |
| what is listed | the list |
| what lies in a skill's directory | its `SKILL.md` is listed there (SEP-2640); the innermost directory of several |
| what a template matches | the template's server |
| the rest | a listed resource, or a skill, of the same scheme and authority |

Cases: `tests/flow/route/test_resources.py`. Source: design §4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from narthex.flow.codec.jsonrpc import encode
from narthex.flow.route.index import Index, Target
from narthex.flow.route.names import canonical
from narthex.flow.route.patterns import Selector
from narthex.flow.route.uri_templates import MAX_URI, scheme_authority, unprefix_uri
from narthex.types import EndpointSpec, Kind

APP = "ui://"
_says_another = re.compile(
    r"(?:[/\\:?#=&]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\?#&]|%2f|%5c|\Z)"  # a segment that leads up, or nowhere
    r"|%(?:2d|2e|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9a])",  # what needs no escape: - . _ digits, letters
    re.IGNORECASE,
).search


def find_resource(spec: EndpointSpec, known: Mapping[Kind, Index], uri: str) -> Target | None:
    """Whose resource a URI is. What the endpoint's patterns exclude is not found in any way.

    Args:
        known: What is in memory; of resources at least.
    """
    if uri.startswith(APP) and (tools := known.get("tools")) is not None and (page := tools.apps.get(uri)) is not None:
        return allowed(spec, page.server, uri)
    resources = known["resources"]
    target = resources.targets.get(uri)
    if target is not None:
        return target
    if len(uri) > MAX_URI:
        return None  # it would stand in headers, metrics and caches
    prefixed = spec.resource_uris == "prefix"
    skills = known.get("skills") if not prefixed else None
    found = _in_directory(skills, uri) if skills is not None else None
    if found is None and (templates := known.get("templates")) is not None:
        found = next((one for template, one in templates.templates if template.matches(uri)), None)
    if found is None and not prefixed:
        place = scheme_authority(uri)
        found = _by_authority(resources, uri, place) or (
            _by_authority(skills, uri, place) if skills is not None else None
        )
    if found is None:
        return None
    split = unprefix_uri(uri) if prefixed else None
    return allowed(spec, found.server, split[1] if split else uri)


def find_skill(spec: EndpointSpec, skills: Index, uri: str) -> Target | None:
    """Whose skill, or directory of one, a URI is: listed, else by its directory, else by scheme and authority."""
    target = skills.targets.get(uri)
    if target is not None or len(uri) > MAX_URI:
        return target
    found = _in_directory(skills, uri) or _by_authority(skills, uri, scheme_authority(uri))
    return allowed(spec, found.server, uri) if found is not None else None


def _by_authority(index: Index, uri: str, place: str) -> Target | None:
    """The server of what is listed there, if both write scheme and authority in the same case."""
    found = index.authorities.get(place)
    return found if found is not None and uri.startswith(found.name[: len(place)]) else None


def _in_directory(skills: Index, uri: str) -> Target | None:
    """The server of the innermost skill whose directory this URI is, or lies in."""
    end = len(uri)
    while end > 0:
        found = skills.roots.get(uri[:end])
        if found is not None:
            return found
        end = uri.rfind("/", 0, end)
    return None


def allowed(spec: EndpointSpec, server: str, uri: str) -> Target | None:
    """A server's resource that it does not list, where the endpoint's patterns let it be seen.

    Patterns and grants match URIs as text. One that says what another says (RFC 3986 §6.2.2: dot segments, escapes of
    what needs none) could be read as that one by its server, and slip past them: it leads nowhere.
    """
    if _says_another(uri):
        return None
    select = Selector(spec.resources.include, spec.resources.exclude)
    return Target(server, uri, encode(uri)) if select.allows(canonical(server, uri)) else None
