"""`tls` of a peer that is asked: an Open Policy Agent, a bundle server, a log service."""

from __future__ import annotations

from typing import Annotated

import msgspec

from narthex.config.kinds import FILE, Group, Setting

PEM = "PEM file, relative to the configuration file. A changed one is taken up without a reload."


class PeerTlsSettings(msgspec.Struct, frozen=True):
    """How it is spoken to over TLS: whom to trust there, and who we are."""

    ca: Annotated[
        str | None, Setting(FILE, f"The only authorities that it is verified against. {PEM}", default="`egress.ca`")
    ] = None
    cert: Annotated[
        str | None,
        Setting(FILE, f"Our certificate, with those up to its authority. {PEM}", default="none"),
    ] = None
    key: Annotated[str | None, Setting(FILE, f"Its private key. {PEM}", default="none")] = None


PEER_TLS = Setting(
    Group(PeerTlsSettings, "a map `{ca, cert, key}`"), "A client certificate, or authorities of its own.",
    default="as `egress` says", nullable=True,
)  # fmt: skip
