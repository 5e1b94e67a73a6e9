"""The machine and what is installed: versions, open files, addresses, programs, the gateway that runs.

In: a snapshot; the documents of a gateway that runs by it. Out: findings. Cases: `tests/doctor/test_system.py`.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import sqlite3
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from narthex import FORM, __version__
from narthex.config.values import show_address
from narthex.doctor.finding import Finding, fail, ok, warn
from narthex.types import Address, HttpTarget, Snapshot

SPARE = 256
"""Files beside connections: logs, the journal, libraries, the admin side."""


def look_at_versions() -> Iterator[Finding]:
    """What runs here."""
    libraries = f"{ssl.OPENSSL_VERSION}, SQLite {sqlite3.sqlite_version}"
    said = f"Narthex {__version__}, Python {platform.python_version()}, {libraries}"
    yield ok("versions", "narthex", f"{said}, {platform.system()} {platform.release()}")
    if FORM.name == "compiled":
        yield ok("versions", "form", str(FORM))
    else:
        do = "`make compile` in a source tree; the wheels of a platform have it"
        yield warn("versions", "form", f"{FORM}: a call takes about twice the CPU time", do)


def files_needed(snapshot: Snapshot) -> int:
    """How many files and sockets may be open at a time: clients, and calls on their way to servers."""
    return snapshot.limits.max_connections + sum(one.max_in_flight for one in snapshot.servers.values()) + SPARE


def look_at_limits(snapshot: Snapshot, most: int | None = None) -> Iterator[Finding]:
    """May as many files be open as the configuration lets in? `most`: of the gateway that runs; None: of this shell."""
    known = most if most is not None else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = files_needed(snapshot)
    whose = "the gateway that runs" if most is not None else "what is started from here"
    said = f"{whose} may open {known} files; {needed} may be needed"
    if known != resource.RLIM_INFINITY and known < needed:
        way = f"`ulimit -n {needed}` before the start, or LimitNOFILE={needed} in its unit"
        do = f"{way}; or lower bounds.max_connections"
        yield warn("limits", "open files", said, do)
    else:
        yield ok("limits", "open files", said)


def look_at_programs(snapshot: Snapshot) -> Iterator[Finding]:
    """Are the programs there that servers over stdio are?"""
    for name, spec in snapshot.servers.items():
        target = spec.target
        if isinstance(target, HttpTarget):
            continue
        path = dict(target.env).get("PATH", os.environ.get("PATH", ""))
        at = os.path.join(target.cwd or "", target.command) if os.sep in target.command else target.command
        if target.cwd and not os.path.isdir(target.cwd):
            yield fail("servers", name, f"no folder {target.cwd}", f"make it, or mend servers.{name}.cwd")
        elif shutil.which(at, path=path) is None:
            do = f"install it, or give servers.{name}.command its whole path; the gateway's PATH counts, not a shell's"
            yield fail("servers", name, f"no program {target.command}", do)
        else:
            yield ok("servers", name, f"{target.command} is there")


def look_at_addresses(snapshot: Snapshot) -> Iterator[Finding]:
    """Can both listeners have their addresses? Only where no gateway runs."""
    for key, address in (("listen", snapshot.listen), ("admin.listen", snapshot.admin_listen)):
        problem = _taken(address)
        if problem:
            do = f"see who has it (`ss -ltnp`), or give {key} another port"
            yield fail("addresses", key, f"{show_address(address)}: {problem}", do)
        else:
            yield ok("addresses", key, f"{show_address(address)} is free")


def _taken(address: Address) -> str:
    host, port = address
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def look_at_gateway(
    snapshot: Snapshot, ready: Mapping[str, Any], running: Mapping[str, Any], servers: Mapping[str, Any]
) -> Iterator[Finding]:
    """What the gateway that runs says of itself.

    Args:
        ready: The body of `/readyz`. running: that of `/api/v1/config`. servers: that of `/api/v1/servers`.
    """
    errors = {one["name"]: one.get("last_error") for one in servers.get("servers", ())}
    status = str(ready.get("status", ""))
    if status not in ("ready", "degraded"):
        yield fail("gateway", "readyz", f"{status}: it takes no calls", "its log says why")
    else:
        yield ok("gateway", "readyz", status)
    for server in ready.get("degraded", ()):
        name = str(server["server"])
        do = str(errors.get(name) or f"GET /api/v1/servers/{name} has its last error")
        yield warn("gateway", name, f"{server['health']}, its breaker is {server['breaker']}", do)
    for name in ready.get("silent_issuers", ()):
        yield warn("gateway", str(name), "this issuer of tokens did not answer the last time", "see `network` below")
    if ready.get("missing_secrets"):
        do = "narthex secrets list; narthex secrets set NAME"
        yield fail("gateway", "secrets", f"{ready['missing_secrets']} secrets have no value", do)
    troubles = {"policy_problem": "calls are denied meanwhile", "telemetry_problem": "traces wait, then are lost"}
    for key, do in troubles.items():
        if ready.get(key):
            yield warn("gateway", key.removesuffix("_problem"), str(ready[key]), do)
    if running.get("revision") and running["revision"] != snapshot.revision:
        do = "`kill -HUP` or POST /api/v1/reload takes it up; a refused reload is in the log"
        yield warn("gateway", "configuration", "runs by another configuration than the file has now", do)
    if running.get("version") and running["version"] != __version__:
        yield warn("gateway", "version", f"is {running['version']}, this command {__version__}", "restart it")
