"""Is a principal among those whom a rule of the operator is for? Pure.

Cases: `tests/flow/identity/test_who.py`.
"""

from __future__ import annotations

from narthex.types import Principal, Who


def includes(who: Who, principal: Principal) -> bool:
    """The same of rows that also name those who call without a credential, whom `anonymous: true` alone means."""
    return (not who.anonymous or principal.method == "anonymous") and fits(who, principal)


def fits(who: Who, principal: Principal) -> bool:
    """Everything that is given must fit, each by one of its values; nothing given fits everybody."""
    return (
        (not who.tenant or principal.tenant in who.tenant)
        and (not who.issuer or principal.issuer in who.issuer)
        and (not who.subject or principal.subject in who.subject)
        and (not who.client or principal.client in who.client)
        and (not who.kind or principal.kind in who.kind)
        and (not who.role or not set(who.role).isdisjoint(principal.roles))
        and (not who.group or not set(who.group).isdisjoint(principal.groups))
        and (not who.scope or not set(who.scope).isdisjoint(principal.scopes))
    )
