"""Whom the gateway talks to: are their names known, do they answer, is their certificate trusted and for how long, and
does their clock agree with ours?

In: a snapshot. Out: findings. Asked by the egress rules of the configuration, without any credential; that an answer
comes is what counts, not what it says. Does I/O. Cases: `tests/doctor/test_network.py`.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

from narthex.authority.fetch import Fetcher
from narthex.doctor.finding import Finding, fail, ok, warn
from narthex.errors import AuthorityUnavailable
from narthex.policies import OpaSpec, RegoSpec
from narthex.types import Egress, HttpTarget, Snapshot

TIMEOUT_S = 5.0
LEEWAY_S = 60.0
"""By so much may a clock be off before tokens are refused (design §4)."""
OFF_S = 5.0
DAYS = 14
"""A certificate that ends within these is worth a word."""


class Peer(NamedTuple):
    """Somebody that is asked. `what` is the place in the configuration."""

    what: str
    url: str
    required: bool


def peers_of(snapshot: Snapshot) -> list[Peer]:
    """Everybody that the configuration names, by URL."""
    found = []
    for name, spec in snapshot.servers.items():
        if isinstance(spec.target, HttpTarget):
            found.append(Peer(f"servers.{name}", spec.target.url, False))
    for name, issuer in (snapshot.identity.issuers if snapshot.identity is not None else {}).items():
        url = issuer.metadata_url or issuer.jwks_url or issuer.issuer
        if "{" not in url and url.startswith("http"):
            found.append(Peer(f"identity.issuers.{name}", url, True))
    policy = snapshot.policy
    if isinstance(policy, OpaSpec):
        found.append(Peer("policy.opa", policy.url, True))
    if isinstance(policy, RegoSpec) and policy.is_fetched:
        found.append(Peer("policy.rego.bundle", policy.bundle, True))
    if snapshot.telemetry is not None:
        found.append(Peer("telemetry.otlp", snapshot.telemetry.url, False))
    if snapshot.vault is not None:
        found.append(Peer("vault", snapshot.vault.address, True))
    return found


async def look_at_network(snapshot: Snapshot, *, now: Callable[[], float] = time.time) -> list[Finding]:
    """All of them, at once. A server that is away is a warning, whom nothing works without a fault."""
    fetcher = Fetcher(snapshot.egress)
    try:
        found = await asyncio.gather(*(_ask(fetcher, snapshot.egress, peer, now) for peer in peers_of(snapshot)))
    finally:
        fetcher.close()
    return [finding for findings in found for finding in findings]


async def _ask(fetcher: Fetcher, egress: Egress, peer: Peer, now: Callable[[], float]) -> list[Finding]:
    parts = urlsplit(peer.url)
    shown = f"{parts.scheme}://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    severe = fail if peer.required else warn
    try:
        answer = await fetcher.fetch(peer.url, timeout_s=TIMEOUT_S, learnt=False, max_bytes=4 * 1024 * 1024)
    except AuthorityUnavailable as error:
        reason = (error.detail or error.public).removeprefix(f"{parts.scheme}://{parts.netloc}: ")
        reason = reason.removeprefix(f"{shown}: ")
        return [severe("network", peer.what, f"{shown}: {reason}", _way_out(reason))]
    findings = [ok("network", peer.what, f"{shown} answers ({answer.status})")]
    findings += look_at_clock(peer.what, answer.headers.get("date", ""), now())
    if parts.scheme == "https" and (egress.proxy is None or egress.ca == "system"):
        findings += await _certificate(peer.what, parts.hostname or "", parts.port or 443, now())
    return findings


def _way_out(reason: str) -> str:
    """What to do, by what went wrong."""
    low = reason.lower()
    if "certificate" in low or "tls" in low or "ssl" in low:
        return "trust its authority by egress.ca, or renew its certificate (`openssl s_client -connect HOST:PORT`)"
    if "resolve" in low or "name" in low or "address" in low:
        return "is the name right, and does this machine's DNS know it? `getent hosts NAME`"
    if "refused:" in low or "allow" in low:
        return "egress.allow_private and egress.allow_http name hosts that may be asked all the same"
    return "is it up, and may this machine reach it (firewall, egress.proxy)?"


def look_at_clock(what: str, date: str, now: float) -> list[Finding]:
    """Does our clock agree with `Date` of an answer, which counts whole seconds and took its way?"""
    try:
        off = now - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError):
        return []
    if abs(off) <= OFF_S:
        return []
    said = f"this machine's clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'} of it"
    do = "set it by NTP (`timedatectl set-ntp true`); tokens, certificates and limits go by it"
    return [fail("clock", what, said, do) if abs(off) > LEEWAY_S else warn("clock", what, said, do)]


async def _certificate(what: str, host: str, port: int, now: float) -> list[Finding]:
    """How long its certificate holds; nothing where it cannot be seen from here, behind a proxy say."""
    context = ssl.create_default_context()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        certificate = writer.get_extra_info("peercert")
        writer.close()
    except (OSError, TimeoutError, ssl.SSLError):
        return []
    return look_at_certificate(what, ssl.cert_time_to_seconds(certificate["notAfter"]), now)


def look_at_certificate(what: str, until: float, now: float) -> list[Finding]:
    days = int((until - now) // 86_400)
    if days >= DAYS:
        return []
    return [warn("network", what, f"its certificate ends in {days} days", "have it renewed")]
