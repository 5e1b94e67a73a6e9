"""`audit.export` to what the gateway works with.

In: its settings. Out: an `ExportSpec` for each; or a fault at the place it stands at.
Cases: `tests/config/test_exports.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from narthex.authority.addresses import Allowed
from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading
from narthex.config.schema.audit import AuditSettings
from narthex.config.urls import check_https
from narthex.types import ExportSpec

SYSLOG = "syslog+tls://"


def compile_exports(
    audit: AuditSettings | None, allowed: Allowed, reading: Reading, resolve: Callable[[str], Path]
) -> tuple[ExportSpec, ...]:
    """Args: allowed: Whom `egress` lets be asked without TLS. resolve: a path of the file to an absolute one."""
    found = []
    for name, settings in audit.export.items() if audit is not None else ():
        here: KeyPath = ("audit", "export", name)
        if settings.url is None:
            if (*here, "url") not in reading.marks:
                reading.fault(here, f"audit.export.{name}: 'url' is missing: where do the records go?")
            continue
        is_syslog = settings.url.startswith(SYSLOG)
        if is_syslog and settings.headers:
            reading.fault((*here, "headers"), f"audit.export.{name}.headers: syslog has none")
        if not is_syslog:
            check_https((*here, "url"), settings.url, allowed, reading)
            if (*here, "format") in reading.marks:
                reading.fault((*here, "format"), f"audit.export.{name}.format: OTLP has a form of its own")
        if settings.key is not None and settings.cert is None:
            reading.fault((*here, "key"), f"audit.export.{name}.key: of which 'cert'?")
        files = {}
        for key in ("ca", "cert", "key"):
            path = resolve(value) if (value := getattr(settings, key)) is not None else None
            files[key] = str(path) if path is not None else ""
            if path is not None and not path.is_file():
                reading.fault((*here, key), f"audit.export.{name}.{key}: no file {str(path)!r}")
        headers = tuple((key, value.text) for key, value in settings.headers.items())
        found.append(ExportSpec(name, settings.url, settings.format, headers, **files))
    return tuple(found)
