"""What a place that records are sent to can do, and what the configuration says of it.

In: nothing. Out: `SinkSpec`, the Protocol `Sink`, `SinkError`. Each kind of sink keeps the same promise: what `confirm`
has said yes to was read by the other side; all else is sent again. Cases: `tests/telemetry/audit/exports/`.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from narthex.telemetry.audit.matching import Record

TIMEOUT_S = 30.0
"""The longest that the other side may say nothing."""
Form = Literal["jsonl", "cef", "ocsf"]


class SinkSpec(msgspec.Struct, frozen=True):
    """One sink, with its secrets filled in: lives in the process that sends. `url` is `syslog+tls://HOST:PORT`, or that
    of an OTLP receiver. `ca`, `cert`, `key`: files; empty for the system's, and for none."""

    name: str
    url: str
    form: Form = "jsonl"
    headers: tuple[tuple[str, str], ...] = ()
    ca: str = ""
    cert: str = ""
    key: str = ""


class State(msgspec.Struct):
    """How it goes with one sink. `sent`: records that it has said it has; `refused`: that it will never take, and are
    left out; `until`: time of the last one. `problem`: why nothing is sent at present; empty while all is well."""

    name: str
    sent: int = 0
    refused: int = 0
    until: str = ""
    problem: str = ""


class SinkError(Exception):
    """What was sent since the last `confirm` may not have come. The text is for the operator, without secrets."""


class Sink(Protocol):
    """A connection that opens itself. Blocks: a slow receiver holds up what is sent to it, and nothing else.

    `answers`: each `send` is confirmed by the other side's answer; else `confirm` costs something, and is asked seldom.
    """

    answers: bool

    def send(self, records: Sequence[Record]) -> int:
        """Send them. Returns how many the receiver will never take, and says so. Raises SinkError."""

    def confirm(self) -> None:
        """All that was sent has been read at the other side. Raises SinkError: nobody knows."""

    def close(self) -> None:
        """Let go; what is not confirmed may be lost."""


def context_of(spec: SinkSpec) -> ssl.SSLContext:
    """TLS 1.2 or newer, the other side's name checked. Raises SinkError: a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=spec.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if spec.cert:
            context.load_cert_chain(spec.cert, spec.key or None)
    except (OSError, ssl.SSLError) as error:
        file = spec.cert if spec.cert and not isinstance(error, FileNotFoundError) else spec.ca or spec.cert
        raise SinkError(f"{file}: {error.strerror or error}") from None
    return context


def words_of(error: Exception) -> str:
    """What went wrong, in words."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error) or type(error).__name__
