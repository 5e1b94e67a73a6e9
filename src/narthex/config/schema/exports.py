"""`audit.export`: where else records go, as they are written."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from narthex.config import values
from narthex.config.expand import Expanded
from narthex.config.kinds import FILE, HEADER_NAME, NAME, SECRET_HEADER, Choice, Group, Mapped, Scalar, Setting

SINK_URL = Scalar(
    "`syslog+tls://host:port`, or an http or https URL",
    values.parse_sink_url,
    json={"pattern": "^(https?|syslog[+]tls)://"},
)


class ExportSettings(msgspec.Struct, frozen=True):
    """One place that gets each record at least once, in order. While it is away, records wait in the journal."""

    url: Annotated[
        str | None,
        Setting(
            SINK_URL,
            "`syslog+tls://HOST[:6514]`: syslog (RFC 5424) over TLS (RFC 5425). `https://HOST:4318/v1/logs`: an"
            " OpenTelemetry receiver of logs, by OTLP/HTTP.",
            default="required",
        ),
    ] = None
    format: Annotated[
        Literal["jsonl", "cef", "ocsf"],
        Setting(Choice(("jsonl", "cef", "ocsf")), "What a syslog message has in it. OTLP has the record as JSON."),
    ] = "jsonl"
    headers: Annotated[
        dict[str, Expanded],
        Setting(Mapped(HEADER_NAME, SECRET_HEADER, "headers"), "Sent with each request of OTLP.", secret=True),
    ] = {}
    ca: Annotated[
        str | None,
        Setting(FILE, "Authorities that may vouch for it (PEM), and no others.", default="those of the system"),
    ] = None
    cert: Annotated[str | None, Setting(FILE, "The certificate that it is shown (PEM), with its chain.")] = None
    key: Annotated[str | None, Setting(FILE, "The key of `cert`.", default="in the same file")] = None


EXPORT = Setting(
    Mapped(NAME, Group(ExportSettings, "a map `{url}`"), "places"), "Where else records go, by name.", default="nowhere"
)
