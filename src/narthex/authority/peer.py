"""How a peer is spoken to over TLS that the operator has given files for: our certificate, and whom to trust there.

In: a `PeerTls`, paths of PEM files. Out: a `Peer`, read anew within a second or so of a change, without a reload: such
files are renewed every few hours. Files that do not fit together change nothing while there is a good pair: one of two
is written first. Does I/O, in threads. Cases: `tests/authority/test_peer.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping

import msgspec

from narthex.authority.files import FileProblem, mark_of, read_secret
from narthex.errors import AuthorityUnavailable
from narthex.flow.upstream.dial import Dialer, tls_context
from narthex.flow.upstream.dns import Lookup
from narthex.flow.upstream.port import Certificate
from narthex.types import Egress, PeerTls

LOOK_S = 1.0
_log = logging.getLogger("narthex.authority")


class Peer:
    """What connections are made with, as long as the files stay the same."""

    __slots__ = ("certificate", "dialer")

    def __init__(self, dialer: Dialer, certificate: Certificate | None) -> None:
        self.dialer = dialer
        self.certificate = certificate


class _Known(msgspec.Struct):
    peer: Peer | None = None
    mark: Hashable = None
    looked_at: float = 0.0
    problem: str = ""
    looking: asyncio.Task[None] | None = None


class Peers:
    """Those of one `egress` setting. Args: as `Fetcher`'s."""

    def __init__(
        self, egress: Egress, *, environ: Mapping[str, str], lookup: Lookup, clock: Callable[[], float]
    ) -> None:
        self._egress, self._environ, self._lookup, self._clock = egress, environ, lookup, clock
        self._known: dict[PeerTls, _Known] = {}

    async def of(self, tls: PeerTls) -> Peer:
        """Raises AuthorityUnavailable: the files cannot be used, and no others were there before."""
        known = self._known.get(tls)
        if known is None:
            known = self._known[tls] = _Known(looked_at=-LOOK_S)
        if known.looking is None and self._clock() >= known.looked_at + LOOK_S:
            known.looking = asyncio.ensure_future(self._look(tls, known))
        if known.peer is None and known.looking is not None:
            await asyncio.shield(known.looking)
        if known.peer is None:
            raise AuthorityUnavailable(detail=known.problem)
        return known.peer

    async def _look(self, tls: PeerTls, known: _Known) -> None:
        try:
            mark = await asyncio.to_thread(_mark, tls)
            if mark != known.mark or known.problem:
                ca = tls.ca or self._egress.ca
                certificate = await asyncio.to_thread(read_pair, tls, ca)
                egress = msgspec.structs.replace(self._egress, ca=ca)
                dialer = Dialer(egress, environ=self._environ, lookup=self._lookup, clock=self._clock)
                known.peer, known.mark, known.problem = Peer(dialer, certificate), mark, ""
        except (FileProblem, OSError) as error:
            if str(error) != known.problem:
                goes_on = "; those from before go on" if known.peer is not None else ""
                _log.error("files for TLS cannot be used: %s%s", error, goes_on)
            known.problem = str(error)
        finally:
            known.looking, known.looked_at = None, self._clock()


def read_pair(tls: PeerTls, ca: str) -> Certificate | None:
    """Our certificate, where there is one; and whether all fits together.

    Args:
        ca: "system", or a PEM file.
    Raises:
        FileProblem: A file cannot be read. OSError: What is in them cannot be used.
    """
    certificate = Certificate(read_secret(tls.cert), read_secret(tls.key)) if tls.cert else None
    try:
        tls_context(ca, certificate)
    except OSError as error:  # it speaks of the setting that is used where there is no `tls`
        raise OSError(str(error).replace("the file of egress.ca, ", "") if tls.ca else str(error)) from None
    return certificate


def _mark(tls: PeerTls) -> Hashable:
    return tuple(mark_of(path) for path in (tls.ca, tls.cert, tls.key) if path)
