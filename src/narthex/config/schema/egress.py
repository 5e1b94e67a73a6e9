"""`egress:`: how connections leave."""

from __future__ import annotations

from typing import Annotated

import msgspec

from narthex.config.kinds import FILE, GLOB, PROXY, Listed, Setting


class EgressSettings(msgspec.Struct, frozen=True):
    """How connections to servers leave."""

    proxy: Annotated[
        str | None,
        Setting(
            PROXY,
            "`env` takes HTTP_PROXY, HTTPS_PROXY, else ALL_PROXY, and NO_PROXY; a URL is used for every server; "
            "`null` uses none. A proxy of https:// is spoken to over TLS.",
            nullable=True,
        ),
    ] = "env"
    no_proxy: Annotated[
        tuple[str, ...],
        Setting(Listed(GLOB, "hosts"), "Hosts, domains (`.example.com`) and networks reached without the proxy."),
    ] = ()
    ca: Annotated[
        str, Setting(FILE, "`system`, or a PEM file with the authorities that servers are verified against.")
    ] = "system"
    allow_private: Annotated[
        tuple[str, ...],
        Setting(
            Listed(GLOB, "hosts"),
            "Hosts, domains (`.example.com`) and networks that addresses which others supply (documents of issuers, "
            "redirects) may lead to although they are private. Cloud metadata addresses are always refused.",
        ),
    ] = ()
    allow_http: Annotated[
        tuple[str, ...],
        Setting(
            Listed(GLOB, "hosts"),
            "Hosts, domains and networks of issuers and token endpoints that may be asked without TLS. Loopback always "
            "may where the operator wrote the address.",
        ),
    ] = ()
