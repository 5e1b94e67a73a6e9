"""Client certificates over real TLS: who comes by one, and tokens that count only together with one (RFC 8705)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.e2e.certificates import Authority, Pair
from tests.e2e.harness import Closed, Gateway, wait_for
from tests.faulty.server import FaultyServer
from tests.identity.rig import Caller, Issuer, issuing

pytestmark = pytest.mark.e2e


@dataclass
class Place:
    gateway: Gateway
    issuer: Issuer
    authority: Authority

    def status(self, pair: Pair | None, bearer: str = "") -> int:
        """Of a call that shows this certificate and this token, on a new connection; 0 where TLS ends before that."""
        caller = Caller(self.gateway.mcp, bearer, tls=self.authority.client_context(pair))
        try:
            return caller.try_call().status
        except (Closed, OSError):
            return 0
        finally:
            caller.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def place(module_gateway: StartGateway, faulty: FaultyServer, authority: Authority) -> Iterator[Place]:
    own = authority.issue("gateway")
    with issuing() as issuer:
        identity = {
            "issuers": {"corp": {"issuer": issuer.base, "audiences": ["gateway"]}},
            "certificates": {"subjects": {"CN=nightly-*": ["reader"]}},
        }
        config = {
            "version": 1,
            "tls": {"cert": own.cert, "key": own.key, "client_ca": authority.file},
            "servers": {"up": {"url": faulty.url()}},
            "identity": identity,
        }
        yield Place(module_gateway(config, tls=authority.client_context()), issuer, authority)


@pytest.fixture(scope="module")
def pairs(place: Place) -> dict[str, Pair]:
    return {name: place.authority.issue(name) for name in ("nightly-job", "nightly-other", "agent", "thief")}


def thumbprint(pair: Pair) -> str:
    der = ssl.PEM_cert_to_DER_cert(Path(pair.cert).read_text())
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def test_a_certificate_that_a_rule_names_is_enough(place: Place, pairs: dict[str, Pair]) -> None:
    assert place.status(pairs["nightly-job"]) == 200
    assert place.status(pairs["agent"]) == 401, "no rule names it"


def test_without_a_certificate_of_the_authority_nobody_comes_as_far_as_that(place: Place, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").issue("nightly-job")
    for pair in (stranger, None):
        assert place.status(pair, place.issuer.token()) == 0


def test_a_bound_token_counts_with_its_certificate_alone(place: Place, pairs: dict[str, Pair]) -> None:
    bearer = place.issuer.token(cnf={"x5t#S256": thumbprint(pairs["agent"])})
    for _ in range(2):  # the second time it is known
        assert place.status(pairs["agent"], bearer) == 200
        assert place.status(pairs["thief"], bearer) == 401


def test_a_token_says_who_it_is_whatever_certificate_comes_with_it(place: Place, pairs: dict[str, Pair]) -> None:
    assert place.status(pairs["nightly-job"], place.issuer.token()) == 200
    assert place.status(pairs["nightly-job"], place.issuer.token(by="rsa2", header={"kid": "no"})) == 401


def test_certificates_may_be_optional(
    start_gateway: StartGateway, place: Place, pairs: dict[str, Pair], faulty: FaultyServer, tmp_path: Path
) -> None:
    own = place.authority.issue("gateway")
    tls = {"cert": own.cert, "key": own.key, "client_ca": place.authority.file, "client_auth": "optional"}
    identity = {
        "issuers": {"corp": {"issuer": place.issuer.base, "audiences": ["gateway"]}},
        "certificates": {"subjects": {"CN=nightly-*": ["reader"]}},
    }
    config = {"version": 1, "tls": tls, "servers": {"up": {"url": faulty.url()}}, "identity": identity}
    gateway = start_gateway(config, tls=place.authority.client_context())
    one = Place(gateway, place.issuer, place.authority)
    assert one.status(None, place.issuer.token()) == 200, "a token is enough"
    assert one.status(None) == 401
    assert one.status(pairs["nightly-job"]) == 200, "a certificate is, too"
    assert one.status(Authority(tmp_path, "stranger").issue("nightly-job"), place.issuer.token()) == 0
    bound = place.issuer.token(cnf={"x5t#S256": thumbprint(pairs["agent"])})
    assert (one.status(pairs["agent"], bound), one.status(None, bound)) == (200, 401)


def test_another_authority_of_clients_is_taken_up(
    start_gateway: StartGateway, authority: Authority, tmp_path: Path, faulty: FaultyServer
) -> None:
    """Whoever the old one has signed is let in no more, on open connections either; nobody is kept out meanwhile."""
    (tmp_path / "other").mkdir()
    other, file = Authority(tmp_path / "other", "other"), tmp_path / "clients.pem"
    file.write_bytes(Path(authority.file).read_bytes())
    own, old, new = authority.issue("gateway"), authority.issue("nightly-job"), other.issue("nightly-job")
    tls = {"cert": own.cert, "key": own.key, "client_ca": str(file)}
    identity = {"certificates": {"subjects": {"CN=nightly-*": []}}, "api_keys": True}
    config = {"version": 1, "tls": tls, "servers": {"up": {"url": faulty.url()}}, "identity": identity}
    gateway = start_gateway(config, tls=authority.client_context(old))
    before = Caller(gateway.mcp, tls=authority.client_context(old))
    assert before.try_call().status == 200
    file.write_bytes(Path(other.file).read_bytes())
    shows_new = ssl.create_default_context(cafile=authority.file)
    shows_new.load_cert_chain(new.cert, new.key)

    def status(context: ssl.SSLContext) -> int:
        try:
            return Caller(gateway.mcp, tls=context).try_call().status
        except (Closed, OSError):
            return 0

    wait_for(lambda: status(shows_new) == 200, "the other authority")
    assert status(authority.client_context(old)) == 0
    with contextlib.suppress(Closed, OSError):
        assert before.try_call().status == 401


def test_a_session_belongs_to_one_certificate(place: Place, pairs: dict[str, Pair]) -> None:
    mine, theirs = (
        Caller(place.gateway.mcp, era="legacy", tls=place.authority.client_context(pairs[name]))
        for name in ("nightly-job", "nightly-other")
    )
    theirs.session = mine.session
    assert theirs.post("tools/list").status == 404
    assert mine.post("tools/list").status == 200
    mine.close()
    theirs.close()
