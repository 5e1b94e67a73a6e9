"""All that the gateway shows servers of itself: one object for each account, made when a channel first needs it.

In: the tables of servers, secrets by name. Out: `port.Shown`. What is made of a secret is made anew when that changes,
within a second. A missing secret fails its own servers alone, and the operator reads the way out.
Cases: `tests/authority/test_credentials.py`. Source of the characters that may stand in a header: RFC 9110 §5.5.
"""

from __future__ import annotations

import base64
import heapq
import itertools
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

from narthex.authority.accounts import Means, TokenAccount
from narthex.authority.mapping import NOBODY, NOTHING, alias_of, shown_beside
from narthex.authority.places import Place
from narthex.authority.subjects import Subjects
from narthex.errors import CredentialUnavailable, Overloaded
from narthex.flow.upstream.port import NOTHING_SHOWN, Certificate, Shown, ShowsNothing
from narthex.flow.upstream.secrets import HANDED_OUT
from narthex.types import (
    BasicCredential,
    CertificateCredential,
    EnvCredential,
    HeaderCredential,
    HttpTarget,
    QueryCredential,
    ServerSpec,
    TokenCredential,
)

IDLE_S = 900.0
"""An account that no channel has held for this long is forgotten, and with it for how long nobody is to be asked."""
MOST = 20_000
"""Accounts at one time."""
_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
_STATIC = HeaderCredential | BasicCredential | QueryCredential | EnvCredential | CertificateCredential


class StaticAccount(ShowsNothing):
    """See `port.Shown`: what is made of secrets alone."""

    def __init__(self, spec: _STATIC, means: Means) -> None:
        self.spec = spec
        self.held_at = means.clock()
        self.lines: bytes | None = None
        self.epoch = 0
        self.error = ""
        self._means = means
        self._made: Any = None
        self._make()

    async def obtain(self) -> bytes:
        if self.lines is None:
            raise self._unavailable()
        return self.lines

    def environment(self) -> tuple[tuple[str, str], ...]:
        return self._made_for(EnvCredential) or ()

    def query(self) -> str:
        return self._made_for(QueryCredential) or ""

    def certificate(self) -> Certificate | None:
        found: Certificate | None = self._made_for(CertificateCredential)
        return found

    def keep(self, *, used: bool) -> None:
        self.held_at = self._means.clock()

    def secrets_changed(self) -> None:
        """Some secret is another."""
        self._make()

    def _made_for(self, kind: type) -> Any:
        if self._made is None:
            raise self._unavailable()
        return self._made if isinstance(self.spec, kind) else None

    def _make(self) -> None:
        before = self._made
        try:
            self._made, self.error = made_of(self.spec, self._means.secrets.get), ""
        except CredentialUnavailable as error:
            self._made, self.error = None, error.detail
        if isinstance(self.spec, (HeaderCredential, BasicCredential)):
            self.lines = self._made
            self.epoch += before is not None and self._made is None  # revoked: streams opened with it end too
        else:
            self.lines = b"" if self._made is not None else None
            self.epoch += before != self._made

    def _unavailable(self) -> CredentialUnavailable:
        return CredentialUnavailable(f"credential '{self.spec.name}': {self.error}")


def made_of(spec: _STATIC, get: Any) -> Any:
    """What is shown: header lines, a query, an environment, a certificate.

    Raises:
        CredentialUnavailable: A secret is missing, or its value cannot be shown in this way.
    """
    match spec:
        case HeaderCredential():
            return _line(spec.header, spec.value.fill(get))
        case BasicCredential():
            user = spec.username.fill(get)
            if ":" in user:  # RFC 7617 §2: it would be read as another name and another password
                raise CredentialUnavailable("a user name of Basic authentication has no colon")
            pair = base64.b64encode(f"{user}:{spec.password.fill(get)}".encode()).decode()
            HANDED_OUT.add(pair)
            return _line("Authorization", f"Basic {pair}")
        case QueryCredential():
            return f"{quote(spec.parameter, safe='')}={quote(spec.value.fill(get), safe='')}"
        case EnvCredential():
            found = tuple((name, value.fill(get)) for name, value in spec.variables)
            if any("\0" in value for _, value in found):
                raise CredentialUnavailable("a variable of the environment has no NUL")
            return found
        case CertificateCredential():
            return Certificate(spec.certificate.fill(get), spec.private_key.fill(get))


def _line(header: str, value: str) -> bytes:
    if not _VALUE.fullmatch(value):
        raise CredentialUnavailable(f"its value cannot stand in the header {header}: a line break, or no ASCII")
    return f"{header}: {value}\r\n".encode("ascii")


class ForNobody(ShowsNothing):
    """See `port.Shown`: the server is not for this caller."""

    lines: bytes | None = None

    def __init__(self, server: str) -> None:
        self._server = server

    async def obtain(self) -> bytes:
        raise self._unavailable()

    def environment(self) -> tuple[tuple[str, str], ...]:
        raise self._unavailable()

    def query(self) -> str:
        raise self._unavailable()

    def _unavailable(self) -> CredentialUnavailable:
        return CredentialUnavailable(f"no row of `credential` of server {self._server} fits this caller")


Account = StaticAccount | TokenAccount


class WithCertificate:
    """See `port.Shown`: an account, and a certificate of TLS beside it."""

    def __init__(self, account: Account, certificate: StaticAccount) -> None:
        self.account = account
        self.beside = certificate
        self.again = account.again
        self.environment = account.environment
        self.query = account.query
        self.certificate = certificate.certificate

    @property
    def lines(self) -> bytes | None:
        return self.account.lines

    @property
    def epoch(self) -> int:
        return self.account.epoch + self.beside.epoch

    async def obtain(self) -> bytes:
        return await self.account.obtain()

    def keep(self, *, used: bool) -> None:
        self.account.keep(used=used)
        self.beside.keep(used=used)


class Credentials:
    """Every account that is in use.

    Args:
        subjects: Callers' tokens, for credentials that are made of them.
    """

    def __init__(self, means: Means, subjects: Subjects) -> None:
        self._means = means
        self._subjects = subjects
        self._accounts: dict[Hashable, tuple[str, Account]] = {}
        self._both: dict[Hashable, WithCertificate] = {}
        self._places: dict[tuple[str, str, TokenCredential], Place] = {}
        self._due: list[tuple[float, int, Hashable]] = []
        self._count = itertools.count()
        self._turn: dict[Hashable, int] = {}
        self._version = means.secrets.version

    def shown(self, spec: ServerSpec, scope: tuple[str, ...]) -> Shown:
        """What a channel of this scope shows the server; the same object for all that show the same.

        Args:
            scope: Tenant, account (`mapping.account_of`), and where they matter the rest of the principal's key.
        """
        tenant, account, who = scope[0], scope[1], scope[2:5]
        if account == NOTHING:
            return NOTHING_SHOWN
        alias = alias_of(account)
        found = next((row.credential for row in spec.accounts if row.credential and row.credential.name == alias), None)
        if account == NOBODY or found is None:
            return ForNobody(spec.name)
        if not isinstance(found, TokenCredential):
            key: Hashable = (spec.name, found)
            main = self._kept(key, spec.name, lambda key: StaticAccount(found, self._means))
        else:
            caller = (*who, account) if found.of_caller else ()
            key = (tenant, spec.name, found, caller)
            main = self._kept(
                key, spec.name, lambda key: self._token_account(key, spec, found, (tenant, *who), account)
            )
        beside = shown_beside(found)
        return main if beside is None else self._with(key, main, spec, beside)

    def _with(self, key: Hashable, main: Account, spec: ServerSpec, beside: CertificateCredential) -> WithCertificate:
        both = self._both.get(key)
        certificate = self._kept((spec.name, beside), spec.name, lambda key: StaticAccount(beside, self._means))
        if both is None or both.account is not main or both.beside is not certificate:
            assert isinstance(certificate, StaticAccount)
            both = self._both[key] = WithCertificate(main, certificate)
        return both

    def _kept(self, key: Hashable, server: str, make: Callable[[Hashable], Account]) -> Account:
        kept = self._accounts.get(key)
        if kept is None and len(self._accounts) >= MOST:
            raise Overloaded("the gateway has too many accounts with servers")
        if kept is None:
            kept = self._accounts[key] = (server, make(key))
            self._later(key, self._means.clock() + IDLE_S)
        kept[1].keep(used=True)
        return kept[1]

    def _token_account(
        self, key: Hashable, spec: ServerSpec, credential: TokenCredential, who: tuple[str, ...], account: str
    ) -> TokenAccount:
        assert isinstance(spec.target, HttpTarget)
        url, means = spec.target.url, self._means
        at = (spec.name, url, credential)
        place = self._places.get(at)
        if place is None:
            place = Place(url, credential.authority, credential.idp, means.fetch, clock=means.clock)
            self._places[at] = place
        scopes = account.partition(" ")[2]

        def subject() -> str:
            return self._subjects.find(who, scopes) if len(who) == 4 else ""

        return TokenAccount(credential, place, means, subject, lambda one: self._later(key, one.tend()))

    # --- upkeep

    def apply(self, servers: Iterable[ServerSpec]) -> None:
        """Another configuration: what is in no table any more is let go. Channels that show it go on until they end."""
        rows = [(server, row.credential) for server in servers for row in server.accounts if row.credential is not None]
        self._subjects.want(any(isinstance(one, TokenCredential) and one.of_caller for _, one in rows))
        used = {(server.name, credential) for server, credential in rows}
        used |= {(server.name, beside) for server, one in rows if (beside := shown_beside(one)) is not None}
        for key, (server, account) in list(self._accounts.items()):
            if (server, account.spec) not in used:
                self._forget(key)
        self._places = {at: place for at, place in self._places.items() if (at[0], at[2]) in used}

    def _forget(self, key: Hashable) -> None:
        del self._accounts[key]
        self._both.pop(key, None)
        self._turn.pop(key, None)

    def _later(self, key: Hashable, at: float | None) -> None:
        """Tend this account then, and not when was said before."""
        if at is not None and key in self._accounts:
            self._turn[key] = turn = next(self._count)
            heapq.heappush(self._due, (at, turn, key))

    def sweep(self) -> None:
        """Once a second: secrets that changed, tokens that are to be renewed or let go, accounts that are idle."""
        now = self._means.clock()
        if self._means.secrets.version != self._version:
            self._version = self._means.secrets.version
            for _, account in self._accounts.values():
                account.secrets_changed()
        while self._due and self._due[0][0] <= now:
            _, turn, key = heapq.heappop(self._due)
            if self._turn.get(key) == turn:
                self._tend(key, self._accounts[key][1], now)

    def _tend(self, key: Hashable, account: Account, now: float) -> None:
        at = account.tend() if isinstance(account, TokenAccount) else None
        if at is None and now - account.held_at >= IDLE_S:
            self._forget(key)
            return
        # A fetch under way says itself when to come back; never sooner than the next look.
        self._later(key, max(now + 1.0, account.held_at + IDLE_S if at is None else at))

    def errors(self, server: str) -> Iterator[tuple[str, str]]:
        """The accounts with a server that cannot be shown now: the credential's name, and why."""
        for name, account in self._accounts.values():
            if name == server and account.error:
                yield account.spec.name, account.error

    def close(self) -> None:
        """End what is under way."""
        for _, account in self._accounts.values():
            if isinstance(account, TokenAccount):
                account.close()
