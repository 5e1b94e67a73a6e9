"""`policy.rego`: rules in Rego, by the engine that is built in."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from narthex.config import values
from narthex.config.expand import Expanded
from narthex.config.kinds import FILE, SECRET_TEXT, WORD, Choice, Group, Mapped, Scalar, Setting, duration
from narthex.config.schema.peer import PEER_TLS, PeerTlsSettings
from narthex.flow.policy.bundles.signatures import ALGORITHMS


def _parse_entrypoint(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)+", text, re.ASCII):
        raise ValueError("an entry point is a rule with its package, such as narthex/decision")
    return text


def _parse_bundle(text: str) -> str:
    return values.parse_url(text) if text.startswith(("http://", "https://")) else values.parse_path(text)


class KeySettings(msgspec.Struct, frozen=True):
    """A key that may sign the bundle."""

    algorithm: Annotated[str, Setting(Choice(ALGORITHMS), "The one algorithm that counts with it.")] = "RS256"
    key: Annotated[
        Expanded | None,
        Setting(SECRET_TEXT, "The shared secret of an `HS…` algorithm: `${secret:NAME}`.", secret=True),
    ] = None
    file: Annotated[str | None, Setting(FILE, "A PEM file with the public key, for the others.")] = None


class SigningSettings(msgspec.Struct, frozen=True):
    """Who must have signed the bundle (`opa sign`, `opa build --signing-key`): one that is not is refused."""

    keys: Annotated[
        dict[str, KeySettings],
        Setting(
            Mapped(WORD, Group(KeySettings, "a map `{algorithm, file}`"), "keys"), "By their ids.", default="required"
        ),
    ] = {}
    key_id: Annotated[str | None, Setting(WORD, "Only this one.", default="the one that the signature names")] = None
    scope: Annotated[str | None, Setting(WORD, "What the signature must say it is for.", default="nothing")] = None


class RegoSettings(msgspec.Struct, frozen=True):
    """A bundle of Rego, and how it is asked."""

    bundle: Annotated[
        str | None,
        Setting(
            Scalar("a path, or an http or https URL", _parse_bundle),
            "A folder with `.rego` files and `data.json`, or a tarball as `opa build` makes it. It is looked at once a"
            " second, and ruled by once it compiles. Or the URL of a tarball at a bundle server, which is asked with"
            " its ETag; the last good one is kept in the state folder.",
            default="required",
        ),
    ] = None
    signing: Annotated[
        SigningSettings | None,
        Setting(Group(SigningSettings, "a map `{keys}`"), "Who must have signed the bundle.", default="nobody",
                nullable=True),
    ] = None  # fmt: skip
    token: Annotated[
        Expanded | None,
        Setting(SECRET_TEXT, "Sent to the bundle server as a bearer token: `${secret:NAME}`.", secret=True),
    ] = None
    tls: Annotated[PeerTlsSettings | None, PEER_TLS] = None
    every: Annotated[
        float, Setting(duration("1s", "1d"), "The bundle server is asked this often, up to twice as seldom by chance.")
    ] = 60.0
    long_poll: Annotated[
        float,
        Setting(duration("0s", "10m"), "How long the bundle server may hold a question until there is a new bundle."),
    ] = 0.0
    entrypoint: Annotated[
        str, Setting(Scalar("a rule with its package", _parse_entrypoint), "The rule that decides.")
    ] = "narthex/decision"
    engine: Annotated[
        Literal["helper", "inline"],
        Setting(
            Choice(("helper", "inline")),
            "`helper`: in processes of its own, killed at the deadline. `inline`: in the gateway, quicker by a"
            " process's round trip; all calls wait for as long as one takes, and no deadline ends it.",
        ),
    ] = "helper"
    deadline: Annotated[
        float, Setting(duration("5ms", "10s"), "How long the policy may take for one decision; then it is a denial.")
    ] = 0.1


REGO = Setting(
    Group(RegoSettings, "a map `{bundle, entrypoint, engine, deadline}`"),
    "A bundle that the engine decides by that is built in.",
    default="none",
    nullable=True,
)
