"""What `/metrics` shows beside the calls: how the gateway, its servers and what it keeps are now.

In: the running gateway, read at each rendering. Out: readings registered with its `Accounts`.
Cases: `tests/admin/test_readings.py`; what the dashboard and the alerts in `deploy/` use of it: `tests/test_deploy.py`.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from narthex.flow.accept.caching import cache_gauges
from narthex.telemetry.accounts import OTHER, Labels, MetricType, Reading
from narthex.telemetry.behaviour import Row

if TYPE_CHECKING:
    from narthex.app import Gateway

_BREAKER: Final = ("closed", "half_open", "open")
_HEALTH: Final = ("idle", "ok", "degraded", "down")
MOST_AGENTS: Final = 256
"""Agents with a label of their own."""
RESULTS: Final = ("ok", "failed", "held", "refused")
"""How calls of an agent end; members of `behaviour.Row`."""
Rows = tuple[tuple[str, str, Callable[[], Reading], MetricType], ...]


def register_readings(gateway: Gateway) -> None:
    """Show all of it in `/metrics`."""
    for name, help_, read, type_ in (
        *_of_process(gateway), *_of_traffic(gateway), *_of_servers(gateway), *_of_records(gateway), *_of_rules(gateway),
        *_of_agents(gateway), *_of_telemetry(gateway),
    ):  # fmt: skip
        gateway.accounts.register(name, help_, read, type_)
    cache_gauges(gateway.accounts.register, gateway.front)


def _of_process(gateway: Gateway) -> Rows:
    return (
        ("process_start_time_seconds", "When the process began, Unix seconds.", lambda: gateway.started_at, "gauge"),
        ("process_cpu_seconds_total", "CPU time of the process.", time.process_time, "counter"),
        ("process_resident_memory_bytes", "Memory of the process.", _resident, "gauge"),
        ("process_open_fds", "Open files and sockets.", _open_files, "gauge"),
        ("process_max_fds", "How many there may be.", lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0], "gauge"),
        ("narthex_event_loop_lag_seconds", "How late the event loop is.", lambda: [((), gateway.lag.times)],
         "histogram"),
        ("narthex_ready", "1 while calls may come.", lambda: float(_is_ready(gateway)), "gauge"),
        ("narthex_config_reload_ok", "0 where the last reload was refused.",
         lambda: float(gateway.last_reload is None or gateway.last_reload.status != "refused"), "gauge"),
        ("narthex_config_info", "The revision of the configuration in force.",
         lambda: [((("revision", gateway.snapshot.revision[:12]),), 1.0)], "gauge"),
    )  # fmt: skip


def _of_traffic(gateway: Gateway) -> Rows:
    return (
        ("narthex_open_connections", "Client connections.", lambda: len(gateway.shared.connections), "gauge"),
        ("narthex_max_connections", "How many there may be.", lambda: gateway.snapshot.limits.max_connections, "gauge"),
        ("narthex_open_calls", "Calls under way.", lambda: len(gateway.front.calls.active), "gauge"),
        ("narthex_max_calls", "How many there may be.", lambda: gateway.snapshot.limits.max_calls, "gauge"),
        ("narthex_open_subscriptions", "Streams on which clients are told of changes.",
         lambda: len(gateway.front.hub.streams), "gauge"),
        ("narthex_open_runs", "Runs that rules watch over several calls.",
         lambda: len(gateway.front.runs) if gateway.front.runs is not None else 0, "gauge"),
        ("narthex_replay_bytes", "Bytes kept for legacy clients that lost a stream.",
         lambda: gateway.front.hub.logs.size, "gauge"),
        ("narthex_held_bytes", "Bytes held in large bodies.", lambda: gateway.shared.held.used, "gauge"),
        ("narthex_max_held_bytes", "How many there may be.", lambda: gateway.shared.held.limit, "gauge"),
        ("narthex_sessions_opened_total", "Legacy sessions opened.", lambda: gateway.sessions.opened, "counter"),
        ("narthex_session_seconds", "How long legacy sessions lasted that have ended.", gateway.sessions.times.read,
         "histogram"),
        ("narthex_approvals_open", "Held calls that may still pass.", lambda: gateway.approvals.open, "gauge"),
        ("narthex_verified_credentials", "Credentials that need not be verified again for a while.",
         lambda: len(gateway.identity.verified) if gateway.identity is not None else 0, "gauge"),
    )  # fmt: skip


def _of_servers(gateway: Gateway) -> Rows:
    servers = gateway.fleet.servers

    def each(read: Callable[[str], float]) -> Callable[[], Reading]:
        return lambda: [((("server", name),), read(name)) for name in gateway.snapshot.servers if name in servers]

    def states() -> Iterator[tuple[Labels, float]]:
        for one in gateway.servers():
            yield from (((("server", one.name), ("state", state)), float(state == one.breaker)) for state in _BREAKER)

    def healths() -> Iterator[tuple[Labels, float]]:
        for one in gateway.servers():
            yield from (((("server", one.name), ("health", said)), float(said == one.health)) for said in _HEALTH)

    def unused() -> Iterator[tuple[Labels, float]]:
        used = gateway.accounts.called()
        for name in gateway.snapshot.servers:
            if name in servers:
                yield (("server", name),), float(len(servers[name].names("tools") - used.get(name, set())))

    return (
        ("narthex_server_health", "1 for what each server is.", healths, "gauge"),
        ("narthex_server_breaker", "1 for the state that its breaker is in.", states, "gauge"),
        ("narthex_server_in_flight", "Calls that wait for it.", each(lambda name: servers[name].in_flight), "gauge"),
        ("narthex_server_max_in_flight", "How many there may be.",
         each(lambda name: servers[name].spec.max_in_flight), "gauge"),
        ("narthex_server_channels", "Its connections, sessions or processes.",
         each(lambda name: len(servers[name].channels)), "gauge"),
        ("narthex_server_session_seconds", "How long sessions with servers lasted that have ended.",
         gateway.fleet.session_times.read, "histogram"),
        ("narthex_server_tools", "Tools that it lists, as far as they were asked for.",
         each(lambda name: servers[name].count("tools")), "gauge"),
        ("narthex_server_unused_tools", "Of those, how many nobody has called since the gateway started.", unused,
         "gauge"),
    )  # fmt: skip


def _of_records(gateway: Gateway) -> Rows:
    def of(read: Callable[[], float]) -> Callable[[], Reading]:
        return lambda: read() if gateway.journal is not None else 0.0

    return (
        ("narthex_records_written_total", "Records of calls in the journal.",
         of(lambda: gateway.journal.written if gateway.journal else 0), "counter"),
        ("narthex_records_lost_total", "Records of calls that could not be written.",
         of(lambda: gateway.journal.lost if gateway.journal else 0), "counter"),
        ("narthex_records_without_input_total", "Records without their input, for want of room.",
         of(lambda: gateway.journal.without_input if gateway.journal else 0), "counter"),
        ("narthex_records_waiting", "Records that wait for the disk.",
         of(lambda: gateway.journal.waiting if gateway.journal else 0), "gauge"),
        ("narthex_records_ok", "0 while records cannot be written.", lambda: float(not gateway.journal_problem),
         "gauge"),
        ("narthex_store_ok", "0 while the store cannot be used.", lambda: float(not gateway.store_problem), "gauge"),
    )  # fmt: skip


def _of_rules(gateway: Gateway) -> Rows:
    counts, metering = gateway.policies.counts, gateway.front.metering
    return (
        ("narthex_policy_asked_total", "Requests sent to a policy agent.", lambda: counts.asked, "counter"),
        ("narthex_policy_undecided_total", "Decisions that an engine did not make.", lambda: counts.undecided,
         "counter"),
        ("narthex_policy_decisions_logged_total", "Decisions sent to the decision log.", lambda: counts.logged,
         "counter"),
        ("narthex_policy_decisions_lost_total", "Decisions that could not be logged.", lambda: counts.lost, "counter"),
        ("narthex_policy_opened_total", "Let through without a decision, by on_error: allow.", lambda: counts.opened,
         "counter"),
        ("narthex_policy_ok", "0 while an engine does not decide.", lambda: float(not gateway.policy_problem), "gauge"),
        ("narthex_approvals_untold_total", "Steps of held calls that the webhook was not told.",
         lambda: gateway.untold, "counter"),
        ("narthex_alerts_untold_total", "Alerts of limits that a webhook was not told.", lambda: gateway.untold_alerts,
         "counter"),
        ("narthex_tokens_uncounted_total", "Calls whose tokens stay estimated, for want of room or of a tokenizer.",
         lambda: metering.recounter.missed, "counter"),
        ("narthex_limited_total", "Calls that a limit has refused.", gateway.front.refused_by.read, "counter"),
        ("narthex_tokens_total", "Tokens, estimated, of calls that a limit or a price counts by tokens.",
         metering.counted_tokens.read, "counter"),
        ("narthex_cost_total", "What calls have cost, in units of the currency.", metering.counted_costs.read,
         "counter"),
    )  # fmt: skip


def _of_agents(gateway: Gateway) -> Rows:
    behaviour = gateway.front.behaviour

    def by_agent(read: Callable[[Row], float]) -> Callable[[], Reading]:
        def summed() -> Reading:
            sums: dict[str, float] = {}
            for (_, _, client, _, _), row in behaviour.rows.items():
                agent = client if client in sums or len(sums) < MOST_AGENTS else OTHER
                sums[agent] = sums.get(agent, 0.0) + read(row)
            return [((("agent", agent),), amount) for agent, amount in sums.items()]

        return summed

    def outcomes() -> Iterator[tuple[Labels, float]]:
        sums: dict[tuple[str, str, str], list[int]] = {}
        for (_, _, client, server, name), row in behaviour.rows.items():
            key = (client, server, name)
            if key not in sums and len(sums) >= 4 * MOST_AGENTS:
                key = (OTHER, OTHER, OTHER)
            found = sums.setdefault(key, [0] * len(RESULTS))
            for at, result in enumerate(RESULTS):
                found[at] += getattr(row, result)
        for (agent, server, name), counts in sums.items():
            labels: Labels = (("agent", agent), ("server", server), ("name", name))
            for said, count in zip(RESULTS, counts, strict=True):
                if count:
                    yield (*labels, ("result", said)), float(count)

    return (
        ("narthex_agent_tool_calls_total", "Calls of tools by agent, and how they ended.", outcomes, "counter"),
        ("narthex_agent_runs_total", "Runs that agents have begun.", by_agent(lambda row: row.runs), "counter"),
        ("narthex_agent_retries_total", "Calls that failed and were made again at once.",
         by_agent(lambda row: row.retries), "counter"),
        ("narthex_agent_repeats_total", "Calls that did not fail and were made again at once.",
         by_agent(lambda row: row.repeats), "counter"),
        ("narthex_agent_loops_total", "Calls that were the same for the third time in a row, or more.",
         by_agent(lambda row: row.loops), "counter"),
    )  # fmt: skip


def _of_telemetry(gateway: Gateway) -> Rows:
    outlet = gateway.outlet
    return (
        ("narthex_traces_sent_total", "Calls whose spans were sent.", lambda: outlet.sent, "counter"),
        ("narthex_traces_dropped_total", "Calls whose spans were lost.", lambda: outlet.dropped, "counter"),
        ("narthex_otlp_failures_total", "Requests to the collector that failed.", lambda: outlet.failures, "counter"),
        ("narthex_log_lines_dropped_total", "Log lines that nobody has read in time.",
         lambda: gateway.logs.dropped if gateway.logs is not None else 0, "counter"),
    )  # fmt: skip


def _is_ready(gateway: Gateway) -> bool:
    return gateway.ready and not (gateway.draining or gateway.store_problem or gateway.journal_problem)


def _resident() -> float:
    """Now, where the system says it; else the most it ever was."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def _open_files() -> float:
    try:
        return float(len(os.listdir("/proc/self/fd")))
    except OSError:
        return float(len(os.listdir("/dev/fd")))
