"""May somebody do this on the admin side? Decided as calls are: by the same admission, grants and engine.

In: grants that speak of `admin`, the admin role; who, which action, from where. Out: the check, decided. Who has the
admin role may do all that no grant denies; others what a grant allows. The token in the file is no principal: it is the
way in when rules lock everybody out, and is recorded. Cases: `tests/flow/policy/test_admin.py`.
Source: design §6 (writes need the token or an admin role).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress

from msgspec.structs import replace

from narthex.errors import GatewayError
from narthex.flow.codec.jsonrpc import encode
from narthex.flow.policy.admissions import Admissions
from narthex.flow.policy.check import Check
from narthex.flow.policy.deciding import decided
from narthex.flow.policy.decision import HIDDEN, UNKNOWN_OBLIGATION
from narthex.flow.policy.engines.engine import Engine
from narthex.flow.policy.evidence.again import answered
from narthex.flow.policy.grants import Grants
from narthex.flow.policy.site import NOWHERE, Site
from narthex.flow.route.names import canonical
from narthex.flow.route.target import Target
from narthex.types import Call, Grant, IdentitySpec, Principal, Snapshot, Who

SERVER = "admin"
"""What stands before the action in its canonical name: `admin__reload`."""
_SEGMENT = re.compile(r"[a-z][a-z_-]{0,31}")
REVISION = "2026-07-28"
"""What an engine is told that the action is spoken in: the newest revision of MCP."""
OTHER = "other"
"""What is no action of ours: no such page, then."""


def action_of(method: str, path: str) -> str:
    """What a request would do: `servers.read`, `reload`, `approvals.approve`, `keys.write`, `keys.delete`."""
    resource, *rest = path.removeprefix("/api/v1/").split("/")
    if not path.startswith("/api/v1/") or not _SEGMENT.fullmatch(resource):
        return OTHER
    if method in ("GET", "HEAD"):
        return f"{resource}.read"
    if method == "POST" and not rest:
        return resource
    if method == "POST" and len(rest) > 1 and _SEGMENT.fullmatch(rest[-1]):
        return f"{resource}.{rest[-1]}"
    return f"{resource}.{'delete' if method == 'DELETE' else 'write'}"


def admin_grants(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """Of all grants those that speak of the admin side, with patterns on canonical names."""
    return tuple(
        replace(one, tools=tuple(canonical(SERVER, glob) for glob in one.admin), prompts=(), resources=(), admin=())
        for one in grants
        if one.admin and not one.shadow
    )


def is_for_calls(grant: Grant) -> bool:
    """Does it speak of calls? With one for the admin side alone, not all the rest of the calls is denied."""
    return not grant.admin or bool(grant.tools or grant.prompts or grant.resources)


def admins_of(snapshot: Snapshot, now: Callable[[], float], engine: Engine | None = None) -> AdminRules:
    """The rules of a configuration. `engine`: the one in force."""
    identity, site = snapshot.identity or IdentitySpec(), Site(snapshot.environment, snapshot.data)
    asked = engine if snapshot.policy_admin else None
    return AdminRules(snapshot.admin_grants, identity.admin_role, now, site, asked)


class AdminRules:
    """Who may do what on the admin side, by a configuration.

    Args:
        grants: As `admin_grants` gave them. role: who has it may do all that no grant denies.
        now: Unix seconds. engine: who must allow it, too; None: nobody.
    """

    def __init__(
        self,
        grants: tuple[Grant, ...],
        role: str,
        now: Callable[[], float],
        site: Site = NOWHERE,
        engine: Engine | None = None,
    ) -> None:
        admins = Grant("the admin role", "allow", Who(role=(role,)), tools=(canonical(SERVER, "*"),))
        self._admissions = Admissions(Grants((*grants, admins), site), {}, now, engine, site)

    async def check(self, principal: Principal, action: str, address: str) -> Check:
        """The check of one action, with its decision. What is not allowed is denied, hidden or held alike."""
        check = self._admissions.check(principal, "", address)
        target = Target(SERVER, action, encode(action))
        if not check.admission.grants("admin", SERVER, action):
            check.kind, check.target, check.decision = "admin", target, HIDDEN
            return check
        call = Call("admin", {}, {}, b"null", "modern", REVISION, principal, "", action)
        with suppress(GatewayError):  # the decision says so
            params = check.admit("admin", target, {})
            if check.pending:
                await answered(decided(check, call, "admin", target, params))
        decision = check.decision
        if decision is not None and decision.effect == "allow" and decision.obligations:
            check.decision = replace(decision, effect="deny", reason=UNKNOWN_OBLIGATION)  # nobody keeps any here
        return check
