"""How each upstream is, from what the fleet knows of it. Nothing is asked: looking must not start or wake a server."""

from __future__ import annotations

from narthex.admin.view import Health, ServerStatus
from narthex.flow.upstream.fleet import Fleet
from narthex.flow.upstream.server import Server
from narthex.flow.upstream.stdio import StdioChannel

RECENT_S = 60.0


def statuses(fleet: Fleet, now: float) -> list[ServerStatus]:
    """All servers of the fleet, in the order of the configuration.

    Args:
        now: Wall-clock seconds.
    """
    return [status_of(server, now) for server in fleet.servers.values()]


def status_of(server: Server, now: float) -> ServerStatus:
    """One server. Of several channels the first that lives speaks for it."""
    living = [channel for channel in server.channels.values() if channel.alive]
    dialect = living[0].dialect if living else None
    process = next((channel for channel in living if isinstance(channel, StdioChannel)), None)
    at, text = server.last_error or (None, None)
    return ServerStatus(
        name=server.spec.name,
        health=_health(server, bool(living), at, now),
        breaker=server.breaker.state,
        era=dialect.era if dialect else server.verdict,
        version=dialect.version if dialect else None,
        in_flight=server.in_flight,
        channels=len(living),
        pid=process.pid if process else None,
        stderr_tail=tuple(process.stderr_tail().splitlines()) if process else (),
        last_error=text,
        last_error_at=at,
    )


def _health(server: Server, living: bool, failed_at: float | None, now: float) -> Health:
    if server.breaker.state != "closed":
        return "down"
    if failed_at is not None and (not living or now - failed_at < RECENT_S):
        return "degraded"
    return "ok" if living else "idle"
