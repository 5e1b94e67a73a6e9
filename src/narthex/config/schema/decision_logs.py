"""`policy.decision_logs`: decisions of the engine, logged as Open Policy Agent logs them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from narthex.config.expand import Expanded
from narthex.config.kinds import (
    BASE_URL,
    FILE,
    SECRET_TEXT,
    WORD,
    Flag,
    Group,
    Listed,
    Mapped,
    Scalar,
    Setting,
    duration,
    size,
)
from narthex.config.schema.peer import PEER_TLS, PeerTlsSettings
from narthex.flow.policy.engines.decision_events import ARGUMENTS, Steps, show_steps, steps_of

MASK = Listed(Scalar("a JSON pointer", steps_of, show_steps, {"pattern": "^/(input|result)/"}), "JSON pointers")


class DecisionLogSettings(msgspec.Struct, frozen=True):
    """Each decision of the engine on a call, in the form of Open Policy Agent's decision logs: posted in gzipped
    batches to a log service, or written to a file."""

    url: Annotated[
        str | None,
        Setting(BASE_URL, "The log service's address, path included.", default="`url` or `file` is required"),
    ] = None
    file: Annotated[
        str | None, Setting(FILE, "A file that lines of JSON are appended to, relative to the configuration file.")
    ] = None
    token: Annotated[
        Expanded | None, Setting(SECRET_TEXT, "Sent as a bearer token: `${secret:NAME}`.", secret=True)
    ] = None
    tls: Annotated[PeerTlsSettings | None, PEER_TLS] = None
    mask: Annotated[
        tuple[Steps, ...],
        Setting(
            MASK,
            "What is left out, such as `/input/mcp/arguments/password`; `*` is every member or element. It is named in"
            " `erased`.",
        ),
    ] = (ARGUMENTS,)
    labels: Annotated[dict[str, str], Setting(Mapped(WORD, WORD, "labels"), "Beside `app`, `id` and `version`.")] = {}
    every: Annotated[float, Setting(duration("100ms", "1h"), "A batch is sent this often.")] = 5.0
    max_buffer: Annotated[
        int, Setting(size("64KiB", "1GiB"), "What may wait while it cannot be sent; then the oldest is lost, counted.")
    ] = 16 * 1024 * 1024
    lists: Annotated[bool, Setting(Flag(), "Whether decisions on what a list shows are logged, too.")] = False


DECISION_LOGS = Setting(
    Group(DecisionLogSettings, "a map `{url}` or `{file}`"), "Decisions, logged as OPA does.", default="none",
    nullable=True,
)  # fmt: skip
