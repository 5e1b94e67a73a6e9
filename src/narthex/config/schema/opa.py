"""`policy.opa`: a remote Open Policy Agent that is asked about each call."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from narthex.config.expand import Expanded
from narthex.config.kinds import BASE_URL, SECRET_TEXT, Choice, Count, Flag, Group, Listed, Scalar, Setting, duration
from narthex.config.schema.peer import PEER_TLS, PeerTlsSettings
from narthex.config.values import parse_claim_path, show_claim_path
from narthex.types import ClaimPath

_RULE = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*").fullmatch


def parse_rule(text: str) -> str:
    """`narthex/decision` for `data.narthex.decision`."""
    if not _RULE(text):
        raise ValueError("wants a rule's path as in a URL: narthex/decision for data.narthex.decision")
    return text


RULE = Scalar("a rule", parse_rule, json={"pattern": "^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$"})
MEMBER = Scalar("a member of the input document", parse_claim_path, show_claim_path)


class OpaSettings(msgspec.Struct, frozen=True):
    """Each call is decided by an Open Policy Agent, and so is what a list shows. Its rule is told the input document
    (`docs/guides/opa.md`), and answers true or false, or an object with reasons and obligations."""

    url: Annotated[str | None, Setting(BASE_URL, "Where it serves its API.", default="required")] = None
    path: Annotated[str, Setting(RULE, "The rule that decides, below `/v1/data`.")] = "narthex/decision"
    batch: Annotated[
        str | None,
        Setting(
            RULE,
            "A rule that decides many at once: given `input.documents`, it gives a list of results in their order.",
            default="the batch API where the agent has one, else a request a document, side by side",
        ),
    ] = None
    deadline: Annotated[float, Setting(duration("1ms", "30s"), "A call that is not decided by then is denied.")] = 0.5
    list_deadline: Annotated[float, Setting(duration("1ms", "60s"), "The same for up to 100 entries of a list.")] = 5.0
    on_error: Annotated[
        Literal["deny", "allow"],
        Setting(
            Choice(("deny", "allow")),
            "`allow` lets calls through while the agent is away (not reached, too late, HTTP 429, 502 to 504, and no"
            " answer of its `/health`). Each is logged, counted (`narthex_policy_opened_total`) and has the reason"
            " `allowed_without_policy`. An agent that answers with an error or with nonsense denies all the same.",
        ),
    ] = "deny"
    arguments: Annotated[bool, Setting(Flag(), "Whether it is told the arguments of a call.")] = True
    visible_for: Annotated[
        float, Setting(duration("1s", "1h"), "What somebody sees in lists is asked again after this long.")
    ] = 30.0
    visible_by: Annotated[
        tuple[ClaimPath, ...],
        Setting(
            Listed(MEMBER, "members"),
            "What lists depend on, such as `[subject.roles]`: callers who are the same there are asked about once.",
            default="all that is said of the caller",
        ),
    ] = ()
    token: Annotated[
        Expanded | None, Setting(SECRET_TEXT, "Sent as a bearer token: `${secret:NAME}`.", secret=True)
    ] = None
    tls: Annotated[PeerTlsSettings | None, PEER_TLS] = None
    max_in_flight: Annotated[
        int, Setting(Count(1, 1024), "Requests to it at the same time; further ones wait for their turn.")
    ] = 64


OPA = Setting(Group(OpaSettings, "a map `{url, path}`"), "An Open Policy Agent that decides.", nullable=True)
