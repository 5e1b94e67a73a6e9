"""`narthex explain`: why a call is allowed or denied, rule by rule. Needs no running gateway and starts no server.

In: a configuration, and a call that somebody could make. Out: every rule with what it said; exit 0 allowed, 1 denied.
Cases: `tests/cli/test_explain.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.audit_search import FOLDER
from narthex.cli.callers import principal_of
from narthex.cli.explain_record import explain_record
from narthex.cli.explain_shown import brief, brief_words, document_of, document_of_trace, judged, show, show_trace
from narthex.cli.judging import decided_again
from narthex.cli.kept import config_option, find_file, json_option, say
from narthex.cli.records import grants_of, imagined

if TYPE_CHECKING:
    from narthex.flow.policy.evidence.again import Asked
    from narthex.types import Kind, Principal, Snapshot

WHO = ("tenant", "issuer", "subject", "client", "agent", "role", "group", "scope", "kind", "anonymous")
"""Keys of `--who`; those of a grant's `who`."""
METHODS: Mapping[Kind, str] = {"tools": "tools/call", "prompts": "prompts/get", "resources": "resources/read"}


@click.command()
@click.argument("record", required=False)
@click.option(
    "--who", "said", multiple=True, metavar="KEY=VALUE", help=f"Who calls: {', '.join(WHO)}; may be repeated."
)
@click.option("--tool", help="The tool: <server>__<name as the server gives it>.")
@click.option("--prompt", help="Instead of a tool: a prompt, by the same form.")
@click.option("--resource", help="Instead of a tool: a resource, <server>__<URI>.")
@click.option("--arg", "pairs", multiple=True, metavar="KEY=VALUE", help="An argument: JSON, else a text.")
@click.option("--args", "document", metavar="JSON", help="All arguments, as one JSON object.")
@click.option("--address", default="", help="The client's address, for rules with `networks`.")
@click.option(
    "--run-label", "labels", multiple=True, metavar="LABEL", help="A label that the run has; may be repeated."
)
@click.option(
    "--run-call", "calls", multiple=True, metavar="TOOL", help="A tool that the run has had an answer of; repeatable."
)
@click.option("--endpoint", default="default", show_default=True, help="The endpoint that is called.")
@click.option("--dir", "folder", type=FOLDER, help="Where RECORD is: the folder of a journal, also a copied one.")
@config_option
@json_option
@click.pass_context
def explain(
    ctx: click.Context,
    record: str | None,
    said: tuple[str, ...],
    tool: str | None,
    prompt: str | None,
    resource: str | None,
    pairs: tuple[str, ...],
    document: str | None,
    address: str,
    labels: tuple[str, ...],
    calls: tuple[str, ...],
    endpoint: str,
    folder: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Show why a call is allowed or denied: each rule, what it said, and the line it is on.

    RECORD is a call that was recorded with its input (`audit: {inputs: full}`): its id, or the decisionId that a client
    was told, or the first 8 characters of one; or a file, FILE:LINE or `-` with it. The rules are those of the
    configuration. Without RECORD, the options say who calls what.

    Exits 0 where the call is allowed, 1 where not; with RECORD 0 where the decision is the one that was recorded.

    With --json: {"decision", "reason", "rule", "line", "visible", "revision", "policy": {"engine", "bundle", "detail",
    "obligations": {KIND: VALUE}}, "rules": [{"rule", "line", "effect", "verdict", "text"}], "trace": {"action",
    "lines": [{"file", "line", "verdict", "text"}], "more", "problem"}}, where there are grants in shadow mode "shadow":
    {"decision", "reason", "rule", "line"}, with RECORD also "agrees" and "record": {"id", "time",
    "decision", "reason", "rule", "line"}; of one that cannot be decided again {"agrees", "untold", "record"}.
    """
    if record is not None:
        if said or tool or prompt or resource or labels or calls:
            raise click.UsageError("a record says itself who called what: give it alone")
        explain_record(ctx, record, find_file(ctx, config), folder, as_json=as_json)
        return
    if folder is not None:
        raise click.UsageError("--dir is where a RECORD is: which one?")
    kind, name = _what(tool, prompt, resource)
    server, separator, own = name.partition("__")
    if not separator or not own:
        raise click.UsageError(f"'{name}' is no canonical name: write <server>__<name>")
    arguments = _arguments(pairs, document)
    from narthex.config.compile import load_snapshot
    from narthex.config.document import suggest
    from narthex.flow.codec.jsonrpc import Raw, encode
    from narthex.flow.policy.evidence.again import Asked
    from narthex.flow.route.target import Target
    from narthex.types import Call

    snapshot = load_snapshot(find_file(ctx, config), env=os.environ)
    if endpoint not in snapshot.endpoints:
        raise click.BadParameter(f"no endpoint '{endpoint}'{suggest(endpoint, snapshot.endpoints)}")
    if server not in snapshot.servers:
        raise click.BadParameter(f"no server '{server}'{suggest(server, snapshot.servers)}")
    principal = _principal(said, identified=snapshot.identity is not None)
    runs = imagined(snapshot, principal, endpoint, labels, Counter(calls))
    if runs is None and (labels or calls):
        raise click.UsageError("this configuration has no `runs`: nothing looks at what a run has done")
    params = {"arguments": Raw(json.dumps(arguments).encode())}
    call = Call(METHODS[kind], params, {}, b"1", "modern", "2026-07-28", principal, endpoint, own)
    asked = Asked(call, kind, Target(server, own, encode(own)), address, time.time(), past=runs)
    ctx.exit(0 if _explained(snapshot, asked, as_json=as_json) else 1)


def _explained(snapshot: Snapshot, asked: Asked, *, as_json: bool) -> bool:
    """Decide an imagined call and show how; whether it is allowed."""
    from narthex.flow.policy.evidence.again import Untold
    from narthex.flow.policy.explanation import explain as decide
    from narthex.flow.policy.shadow import shadows_of

    would = None
    try:
        decision, trace = asyncio.run(decided_again(snapshot, asked))  # before `decide`, which counts the call
        if shadows_of(snapshot):
            would, in_shadow = asyncio.run(decided_again(snapshot, asked, shadow=True))
            trace = trace or in_shadow
    except Untold as error:
        raise click.ClickException(f"it cannot be decided: {error}") from None
    call, target = asked.call, asked.target
    found = decide(
        grants_of(snapshot),
        call.principal,
        call.endpoint,
        asked.kind,
        (target.server, target.name),
        call.params,
        {"address": asked.address} if asked.address else {},
        asked.at,
        asked.past,
    )
    found = judged(found, decision)
    if as_json:
        said_too = {"shadow": brief(would)} if would is not None else {}
        say(document_of(found, snapshot.revision) | {"trace": document_of_trace(trace)} | said_too)
    else:
        file = Path(snapshot.source).name
        show_trace(trace)
        show(found, file)
        if would is not None:
            click.echo(f"With the rules in shadow mode: {brief_words(would, file)}")
    return found.decision.effect == "allow"


def _what(tool: str | None, prompt: str | None, resource: str | None) -> tuple[Kind, str]:
    kinds: tuple[Kind, ...] = ("tools", "prompts", "resources")
    given = [(kind, name) for kind, name in zip(kinds, (tool, prompt, resource), strict=True) if name]
    if len(given) != 1:
        raise click.UsageError("say what is called: one of --tool, --prompt and --resource")
    return given[0]


def _arguments(pairs: tuple[str, ...], document: str | None) -> dict[str, Any]:
    """What `--args` and `--arg` say; a later `--arg` replaces."""
    arguments: Any = {}
    if document is not None:
        try:
            arguments = json.loads(document)
        except ValueError as error:
            raise click.UsageError(f"--args is not JSON: {error}") from None
        if not isinstance(arguments, dict):
            raise click.UsageError("--args must be an object")
    for key, value in map(_pair, pairs):
        try:
            arguments[key] = json.loads(value)
        except ValueError:
            arguments[key] = value
    return dict(arguments)


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.UsageError(f"'{text}' is not KEY=VALUE")
    return key, value


def _principal(said: tuple[str, ...], *, identified: bool) -> Principal:
    """The caller that `--who` describes."""
    from narthex.config.document import suggest

    values: dict[str, list[str]] = {}
    for key, value in map(_pair, said):
        if key not in WHO:
            raise click.UsageError(f"no '{key}' in --who{suggest(key, WHO)}")
        values.setdefault(key, []).append(value)
    return principal_of(values, identified=identified)
