"""May a caller be told of a server? Where an engine decides what is visible, it is asked of what the server has listed.

In: a viewer, the name of one of its servers, an admission. Out: yes or no. A server of which nothing is visible does
not exist for them: it greets nobody, is missed by nobody, and its log is not theirs.
Cases: `tests/flow/upstream/test_naming.py`. Source: design §3 ("One admission function").
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from narthex.flow.policy.admission import Admission
from narthex.flow.policy.engines.engine import BATCH
from narthex.types import Kind

if TYPE_CHECKING:
    from narthex.flow.upstream.fleet import Fleet
    from narthex.flow.upstream.viewers import Viewer

KINDS: Final[tuple[Kind, ...]] = ("tools", "prompts", "resources", "templates", "skills")


async def may_name(fleet: Fleet, viewer: Viewer, server: str, admission: Admission | None) -> bool:
    """By what the server has listed so far; of one that has listed nothing, nothing is visible."""
    if admission is None or admission.names(server):
        return True
    if admission.sight is None or not admission.knows_of(server):
        return False
    one, scope = fleet.servers.get(server), viewer.scopes.get(server)
    if one is None or scope is None:
        return False
    for kind in KINDS:
        listed = one.listed(scope, kind)
        if listed is None or not admission.knows(kind, server):
            continue
        names = (name for name, _ in listed.items.items)
        while some := list(islice(names, BATCH)):
            await admission.look([(kind, server, name) for name in some if admission.grants(kind, server, name)])
            if admission.names(server):
                return True
    return False
