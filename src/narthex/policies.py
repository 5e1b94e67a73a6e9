"""Who decides beside the grants, and what becomes of a call that waits for a person: part of a snapshot.

In: nothing. Out: small frozen structs, as `config` makes them. Durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from narthex.secret import SecretText


class HoldTerms(msgspec.Struct, frozen=True):
    """How a held call comes to be approved, and how long that holds. `by`: somebody else than who calls (`approver`),
    or also the user of the client that calls, who is asked where the client can ask (`user`)."""

    by: Literal["approver", "user"] = "approver"
    wait_s: float = 600.0
    use_within_s: float = 300.0


class Webhook(msgspec.Struct, frozen=True):
    """Who is told of held calls: a POST for each step, signed with `secret` where there is one."""

    url: str
    secret: SecretText | None = None
    arguments: bool = False


class ApprovalSpec(msgspec.Struct, frozen=True):
    """Held calls. `most` and `most_each` of them may be open, in all, and of one principal."""

    terms: HoldTerms = HoldTerms()
    most: int = 1000
    most_each: int = 20
    webhook: Webhook | None = None


class SigningKey(msgspec.Struct, frozen=True):
    """A key that may sign bundles: PEM of the public key or a shared secret, as `text` or in a `file`."""

    algorithm: str
    text: SecretText | None = None
    file: str = ""


class SigningSpec(msgspec.Struct, frozen=True):
    """Who must have signed a bundle. `key_id`: only that key; `scope`: what the signature must say it is for."""

    keys: Mapping[str, SigningKey]
    key_id: str = ""
    scope: str = ""


class PeerTls(msgspec.Struct, frozen=True):
    """PEM files for TLS to a peer, absolute paths: whom to trust there in place of `egress.ca`, and our own certificate
    with its key. Empty: none."""

    ca: str = ""
    cert: str = ""
    key: str = ""


class RegoSpec(msgspec.Struct, frozen=True):
    """Rules in Rego, in the engine that is built in. `bundle` is a folder or a tarball, an absolute path, or the URL of
    one at a bundle server; what is in it may change without a reload. The last good one is kept in `kept_in`."""

    bundle: str
    entrypoint: str
    engine: Literal["helper", "inline"] = "helper"
    deadline_s: float = 0.1
    signing: SigningSpec | None = None
    token: SecretText | None = None
    tls: PeerTls | None = None
    every_s: float = 60.0
    long_poll_s: float = 0.0
    kept_in: str = ""

    @property
    def is_fetched(self) -> bool:
        return self.bundle.startswith(("http://", "https://"))


class OpaSpec(msgspec.Struct, frozen=True):
    """Rules at an Open Policy Agent. `path` is the decision's, below `/v1/data`; `batch` that of a rule for many
    documents at once. `visible_by`: members of the document that decide what is seen; empty: all about the caller."""

    url: str
    path: str
    batch: str = ""
    deadline_s: float = 0.5
    list_deadline_s: float = 5.0
    on_error: Literal["deny", "allow"] = "deny"
    arguments: bool = True
    visible_s: float = 30.0
    visible_by: tuple[tuple[str, ...], ...] = ()
    token: SecretText | None = None
    tls: PeerTls | None = None
    max_in_flight: int = 64


class DecisionLogSpec(msgspec.Struct, frozen=True):
    """Where decisions of the engine are logged, in Open Policy Agent's form: `url` or `file`. `mask` has JSON pointers,
    taken apart; `max_buffer` is in bytes; `lists`: those on what a list shows, too."""

    url: str = ""
    file: str = ""
    token: SecretText | None = None
    tls: PeerTls | None = None
    mask: tuple[tuple[str, ...], ...] = (("input", "mcp", "arguments"),)
    labels: Mapping[str, str] = {}
    every_s: float = 5.0
    max_buffer: int = 16 * 1024 * 1024
    lists: bool = False
