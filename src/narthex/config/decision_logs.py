"""`policy.decision_logs` to what the gateway works with.

In: its settings. Out: a `DecisionLogSpec`; or a fault at the place it stands at.
Cases: `tests/config/test_decision_logs.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from narthex.authority.addresses import Allowed
from narthex.config.document import Path as KeyPath
from narthex.config.document import Reading
from narthex.config.peer import compile_peer
from narthex.config.schema.policy import PolicySettings
from narthex.config.urls import check_https
from narthex.types import DecisionLogSpec

HERE: KeyPath = ("policy", "decision_logs")


def compile_decision_logs(
    policy: PolicySettings | None, allowed: Allowed, reading: Reading, resolve: Callable[[str], Path]
) -> DecisionLogSpec | None:
    """Args: allowed: Whom `egress` lets be asked without TLS. resolve: a path of the file to an absolute one."""
    settings = policy.decision_logs if policy is not None else None
    if settings is None:
        return None
    if (settings.url is None) == (settings.file is None):
        said = "needs `url` or `file`" if settings.url is None else "has both `url` and `file`; keep one"
        reading.fault(HERE, f"policy.decision_logs: {said}")
        return None
    file, tls = "", None
    if settings.url is not None:
        check_https((*HERE, "url"), settings.url, allowed, reading)
        tls = compile_peer(settings.tls, HERE, settings.url, reading, resolve)
    elif settings.file is not None:
        if settings.tls is not None:
            reading.fault((*HERE, "tls"), "tls: goes with `url`")
        path = resolve(settings.file)
        file = str(path)
        if not path.parent.is_dir():
            reading.fault((*HERE, "file"), f"file: no folder {str(path.parent)!r}")
    return DecisionLogSpec(
        url=settings.url or "",
        file=file,
        token=settings.token.text if settings.token is not None else None,
        tls=tls,
        mask=settings.mask,
        labels=settings.labels,
        every_s=settings.every,
        max_buffer=settings.max_buffer,
        lists=settings.lists,
    )
