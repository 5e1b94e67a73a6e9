"""The groups that an Entra token left out because there are too many: its directory (Microsoft Graph) is asked.

In: the claims of a verified token with `_claim_names` or `hasgroups`; the gateway's own client there. Out: the same
claims with all groups in them. Where the token says that they are to be had is not looked at: only the address that the
operator wrote is asked, with a token of the gateway's own (client credentials). Who asks at the same time about the
same user shares one answer; it is kept as long as the token's verdict is. A directory that does not answer lets nobody
in. Cases: `tests/authority/test_directory.py`. Source: Microsoft identity platform, "groups overage claim"; Microsoft
Graph, `directoryObject: getMemberObjects`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import msgspec

from narthex.authority import grants
from narthex.authority.discovery import Server
from narthex.authority.fetch import Fetch
from narthex.authority.issuers import Issuer
from narthex.authority.port import Secrets, getter
from narthex.errors import AuthorityUnavailable
from narthex.flow.codec.jsonrpc import BAD_JSON
from narthex.flow.identity.tokens import Claims, TokenRefused
from narthex.flow.upstream.secrets import HANDED_OUT
from narthex.types import DirectorySpec

TIMEOUT_S = 10.0
MAX_ANSWER = 128 * 1024
"""Some three thousand groups; a principal has a thousand at most."""
MOST_ASKING = 64
"""Users that are looked up at a time; more are refused: a flood of tokens costs the directory no more."""
EARLY_S = 60.0
"""Our own token is used no more this long before it ends."""
_OBJECT_ID = re.compile(r"[0-9A-Za-z-]{1,64}").fullmatch
LEFT_OUT = ("_claim_names", "_claim_sources", "hasgroups")


class Members(msgspec.Struct):
    """The answer of `getMemberObjects`."""

    value: list[str]


class Directory:
    """Asks the directory of one issuer.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(
        self, issuer: Issuer, spec: DirectorySpec, fetch: Fetch, secrets: Secrets | None, clock: Callable[[], float]
    ) -> None:
        self._issuer = issuer
        self._spec = spec
        self._fetch = fetch
        self._get = getter(secrets)
        self._clock = clock
        self._token = ""
        self._until = 0.0
        self._fetching: asyncio.Task[str] | None = None
        self._asking: dict[str, asyncio.Task[list[str]]] = {}

    async def with_groups(self, claims: Claims) -> Claims:
        """The claims as they would be if no group had been left out.

        Raises:
            TokenRefused: They do not say whose groups. AuthorityUnavailable: The directory does not say.
        """
        oid = claims.get("oid")
        if not isinstance(oid, str) or not _OBJECT_ID(oid):
            raise TokenRefused("groups", "the token left its groups out, and names no usable `oid`")
        path = f"{'servicePrincipals' if claims.get('idtyp') == 'app' else 'users'}/{oid}"
        task = self._asking.get(path)
        if task is None:
            if len(self._asking) >= MOST_ASKING:
                raise AuthorityUnavailable("too many users are being looked up", detail="the directory is busy")
            task = self._asking[path] = asyncio.get_running_loop().create_task(self._ask(path))
            task.add_done_callback(lambda done: self._asked(path, done))
        groups = await asyncio.shield(task)
        return {**{name: value for name, value in claims.items() if name not in LEFT_OUT}, "groups": groups}

    def _asked(self, path: str, task: asyncio.Task[list[str]]) -> None:
        del self._asking[path]
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it

    async def _ask(self, path: str) -> list[str]:
        url = f"{self._spec.url}/v1.0/{path}/getMemberObjects"
        for again in (True, False):
            token = await self._own_token()
            headers = (
                ("Authorization", f"Bearer {token}"), ("Content-Type", "application/json"),
                ("Accept", "application/json"),
            )  # fmt: skip
            answer = await self._fetch(
                url, method="POST", headers=headers, body=b'{"securityEnabledOnly":false}', max_bytes=MAX_ANSWER,
                timeout_s=TIMEOUT_S, learnt=False,
            )  # fmt: skip
            if answer.status == 200:
                return read_members(answer.body)
            if answer.status != 401 or not again:
                break
            self._token = ""  # it was good when it came
        raise AuthorityUnavailable(detail=f"{self._issuer.spec.name}: the directory answered HTTP {answer.status}")

    async def _own_token(self) -> str:
        if self._token and self._clock() < self._until:
            return self._token
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch_token())
            self._fetching.add_done_callback(self._fetched)
        return await asyncio.shield(self._fetching)

    def _fetched(self, task: asyncio.Task[str]) -> None:
        self._fetching = None
        if not task.cancelled():
            task.exception()

    async def _fetch_token(self) -> str:
        spec, name = self._spec, self._issuer.spec.name
        try:
            endpoint = (await self._issuer.ask_metadata()).token_endpoint
            if not endpoint:
                raise ValueError("its metadata names no token_endpoint")
            client = grants.Client(spec.client_id, "client_secret_post", spec.client_secret.fill(self._get))
            request = grants.build(
                grants.client_credentials(), client, Server(self._issuer.spec.issuer, endpoint),
                scopes=(f"{spec.url}/.default",), now=0.0, jti="",
            )  # fmt: skip
            answer = await self._fetch(
                endpoint, method="POST", headers=request.headers, body=request.body, max_bytes=MAX_ANSWER,
                timeout_s=TIMEOUT_S, learnt=self._issuer.is_learnt(endpoint),
            )  # fmt: skip
            kind = answer.headers.get("content-type", "")
            grant = grants.read_answer(answer.status, kind, answer.body, issuer=self._issuer.spec.issuer)
        except (ValueError, grants.Refusal) as error:
            raise AuthorityUnavailable(detail=f"{name}: no token for its directory: {error}") from None
        HANDED_OUT.add(grant.token, passing=True)
        self._token, self._until = grant.token, self._clock() + grant.lasts_s - min(EARLY_S, grant.lasts_s / 2)
        return grant.token

    def close(self) -> None:
        for task in (*self._asking.values(), self._fetching):
            if task is not None:
                task.cancel()


def read_members(body: bytes) -> list[str]:
    """The ids in an answer of `getMemberObjects`. Raises AuthorityUnavailable for anything else."""
    try:
        return msgspec.json.decode(body, type=Members).value
    except (*BAD_JSON, msgspec.ValidationError):
        raise AuthorityUnavailable(detail="the directory's answer is no list of groups") from None
