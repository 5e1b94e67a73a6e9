"""Asks the admin API of the gateway that runs by a configuration, on this machine.

In: its snapshot, a path. Out: the document; `Unreachable` where no gateway answers. The token in the state directory
goes along where this user can read it. Cases: `tests/cli/test_limits.py`.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from narthex.admin.token import FILE_NAME
from narthex.config.values import show_address
from narthex.types import Snapshot

TIMEOUT_S = 10.0


class Unreachable(Exception):
    """No gateway answers there, or not with what was asked for; the text says where, and why."""


def ask(snapshot: Snapshot, base: str, path: str, *, verb: str = "GET", **query: str) -> dict[str, Any]:
    """`GET`, or another `verb`, of a path of the admin side. `base` is where that is; empty: as configured.

    Raises Unreachable. A gateway that is not ready says why: `/readyz` has a document with the status 503, too.
    """
    host, port = snapshot.admin_listen
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    base = base.rstrip("/") or f"{'https' if snapshot.admin_tls else 'http'}://{show_address((host, port))}"
    given = {name: value for name, value in query.items() if value}
    request = urllib.request.Request(f"{base}{path}{'?' if given else ''}{urlencode(given)}", method=verb)
    try:
        token = (Path(snapshot.state_dir) / FILE_NAME).read_text(encoding="ascii").strip()
        request.add_header("Authorization", f"Bearer {token}")
    except (OSError, ValueError):
        pass  # reading needs none on loopback
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if snapshot.admin_tls is not None:
        handlers.append(urllib.request.HTTPSHandler(context=_pinned(snapshot.admin_tls.cert)))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        if path == "/readyz" and error.code == 503:
            why: dict[str, Any] = json.load(error)
            return why
        raise Unreachable(f"{base}{path} answers {error.code}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        words = getattr(reason, "strerror", None) or reason  # without its number
        raise Unreachable(
            f"no gateway answers at {base}: {words}. Does it run (narthex serve), and is this its address (--admin)?"
        ) from None


def _pinned(certificate: str) -> ssl.SSLContext:
    """Trusts the certificate of the configuration and no other, whatever name it is for: it is this gateway's own."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
