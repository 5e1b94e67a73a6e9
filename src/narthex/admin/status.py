"""How an upstream is, as the admin API shows it.

In: a server of the fleet, what is wrong with its credentials. Out: a `ServerStatus`.
Cases: `tests/e2e/test_lifecycle.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from narthex.admin.view import CredentialProblem, Health, ServerStatus
from narthex.flow.upstream.server import Server
from narthex.flow.upstream.stdio import StdioChannel


def status_of(server: Server, problems: Iterable[tuple[str, str]] = ()) -> ServerStatus:
    """One upstream as the admin API shows it; never its headers or its environment.

    Args:
        problems: Credentials that it cannot be shown now, by name, and why.
    """
    failing = tuple(CredentialProblem(name, problem) for name, problem in problems)
    channel = next((one for one in server.channels.values() if one.alive), None)
    mended = server.nothing_to_show and not failing  # what it was to be shown was missing, and is not any more
    at, text = server.last_error if server.last_error is not None and not mended else (None, None)
    health: Health = "ok" if channel is not None else "idle"
    if server.breaker.state != "closed":
        health = "down"
    elif server.breaker.failing or failing:
        health = "degraded"
    verdict = server.verdict
    return ServerStatus(
        name=server.spec.name,
        health=health,
        breaker=server.breaker.state,
        era=channel.dialect.era if channel is not None else None,
        era_since=verdict.since if verdict is not None else None,
        era_checked_at=verdict.checked_at if verdict is not None else None,
        version=channel.dialect.version if channel is not None else None,
        channels=len(server.channels),
        in_flight=server.in_flight,
        pid=channel.pid if isinstance(channel, StdioChannel) else None,
        stderr_tail=tuple(channel.stderr_tail().splitlines()) if isinstance(channel, StdioChannel) else (),
        credentials=failing,
        last_error=text,
        last_error_at=at,
    )
