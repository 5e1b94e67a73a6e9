"""`narthex call TOOL`: call a tool of a gateway or of any MCP server over HTTP, and print what it answers.

In: the tool's name, its arguments. Out: the text of the result, or with `--json` the JSON-RPC response as it came;
exit 0, 1 for an error or a result with `isError`, 2 misused. Cases: `tests/cli/test_client.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from narthex.cli.client import (
    HEADER_MISMATCH,
    ClientError,
    Credential,
    EraChoice,
    McpClient,
    Response,
    explain,
    find_url,
    target_options,
)
from narthex.flow.codec.headers import encode_value
from narthex.flow.codec.jsonrpc import BAD_JSON

Schema = dict[str, Any]
_DEEPEST = 8


@click.command()
@click.argument("tool")
@click.option("--arg", "pairs", multiple=True, metavar="NAME=VALUE", help="One argument; may be given again.")
@click.option("--args", "whole", metavar="JSON", help="All arguments as a JSON object; --arg goes on top.")
@target_options
@click.pass_context
def call(
    ctx: click.Context,
    tool: str,
    pairs: tuple[str, ...],
    whole: str | None,
    url: str | None,
    endpoint: str,
    config: Path | None,
    as_json: bool,
    era: EraChoice,
    credential: Credential,
) -> None:
    """Call TOOL and print what it answers.

    A value of --arg is read as the tool's schema says, else as JSON, else as text. The request is sent even if TOOL is
    not listed. Exits 1 on an error, and when the tool says that it failed.
    """
    arguments = _whole(whole)
    named = [_pair(one) for one in pairs]
    with McpClient(find_url(url, config, endpoint), era, credential) as client:
        schema = find_schema(client, tool) if named else None
        for name, text in named:
            arguments[name] = typed(text, property_of(schema or {}, name))
        response = _send(client, tool, arguments, schema)
    if as_json:
        sys.stdout.buffer.write(response.raw.strip() + b"\n")
        sys.stdout.buffer.flush()
    failed = _show(response, quiet=as_json)
    ctx.exit(1 if failed else 0)


def _whole(text: str | None) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any]) if text is not None else {}
    except BAD_JSON as error:
        raise click.BadParameter(f"not a JSON object: {error}", param_hint="--args") from None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--arg")
    return name, value


def _send(client: McpClient, tool: str, arguments: dict[str, Any], schema: Schema | None) -> Response:
    """Send the call. A server that misses headers which its schema asks for says so: then they are looked up."""
    params = {"name": tool, "arguments": arguments}
    headers = parameter_headers(schema or {}, arguments) if client.era == "modern" else {}
    response = client.request("tools/call", params, headers)
    failure = response.failure
    if schema is None and failure is not None and failure.code == HEADER_MISMATCH and client.era == "modern":
        headers = parameter_headers(find_schema(client, tool), arguments)
        if headers:
            return client.request("tools/call", params, headers)
    return response


def find_schema(client: McpClient, tool: str) -> Schema:
    """The tool's input schema; empty where it is not listed, or lists cannot be had: the call itself will tell."""
    try:
        items, _ = client.listed("tools/list", "tools")
    except ClientError:
        return {}
    for item in items:
        try:
            value = msgspec.json.decode(item, type=dict[str, Any])
        except BAD_JSON:
            continue
        if value.get("name") == tool:
            schema = value.get("inputSchema")
            return schema if isinstance(schema, dict) else {}
    return {}


def property_of(schema: Schema, name: str) -> Schema:
    """What the schema says about an argument; empty where it says nothing."""
    properties = schema.get("properties")
    found = properties.get(name) if isinstance(properties, dict) else None
    return found if isinstance(found, dict) else {}


def types_of(schema: Schema) -> set[str]:
    """The JSON types that a schema names, also in `anyOf` and `oneOf` (an optional value is written like that)."""
    said = schema.get("type")
    found = {one for one in (said if isinstance(said, list) else [said]) if isinstance(one, str)}
    for key in ("anyOf", "oneOf"):
        parts = schema.get(key)
        for part in parts if isinstance(parts, list) else []:
            if isinstance(part, dict):
                found |= types_of({"type": part.get("type")})
    return found


def typed(text: str, schema: Schema) -> Any:
    """An argument's value: as the schema says, else as JSON, else as text.

    `schema` is the argument's own. Where it allows text, only what another named type fits is not text.
    """
    types = types_of(schema)
    try:
        value = msgspec.json.decode(text)
    except BAD_JSON:
        return text
    if not types:
        return value
    fits = bool(types & _types_of_value(value))
    return text if "string" in types and (not fits or isinstance(value, str)) else value


def _types_of_value(value: Any) -> set[str]:
    match value:
        case None:
            return {"null"}
        case bool():
            return {"boolean"}
        case int():
            return {"integer", "number"}
        case float():
            return {"number", "integer"} if value.is_integer() else {"number"}
        case list():
            return {"array"}
        case dict():
            return {"object"}
        case _:
            return set()


def parameter_headers(schema: Schema, arguments: dict[str, Any]) -> dict[str, str]:
    """`Mcp-Param-*`: what the schema wants repeated as headers (2026-07-28, `x-mcp-header`)."""
    return {f"Mcp-Param-{name}": encode_value(text).decode() for name, text in _annotated(schema, arguments, _DEEPEST)}


def _annotated(schema: Schema, arguments: dict[str, Any], deepest: int) -> Iterator[tuple[str, str]]:
    properties = schema.get("properties")
    for key in properties if isinstance(properties, dict) else ():
        value, inner = arguments.get(key), property_of(schema, key)
        name = inner.get("x-mcp-header")
        if isinstance(name, str) and name.isascii() and name.replace("-", "").isalnum():
            if isinstance(value, bool):
                yield name, "true" if value else "false"
            elif isinstance(value, (str, int)):
                yield name, str(value)
        elif isinstance(value, dict) and deepest:
            yield from _annotated(inner, value, deepest - 1)


class _Result(msgspec.Struct):
    content: list[dict[str, Any]] = []
    structured: Any = msgspec.field(name="structuredContent", default=None)
    failed: bool = msgspec.field(name="isError", default=False)
    kind: str = msgspec.field(name="resultType", default="complete")


def _show(response: Response, *, quiet: bool) -> bool:
    """Print the content unless `quiet`; True when the call failed."""
    failure = response.failure
    if failure is not None:
        if not quiet:
            click.secho(explain(failure), fg="red", err=True)
        return True
    try:
        result = msgspec.json.decode(response.message.result, type=_Result)
    except BAD_JSON:
        raise ClientError("the answer is not the result of a tool") from None
    if not quiet:
        for line in _lines(result.content):
            click.echo(terminal_safe(line))
        if not result.content and result.structured is not None:
            click.echo(terminal_safe(msgspec.json.format(msgspec.json.encode(result.structured)).decode()))
        if result.kind != "complete":
            click.echo(f"the server wants more before it answers ({terminal_safe(result.kind)})", err=True)
    return result.failed or result.kind != "complete"


def _lines(content: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Text as it is; of everything else what it is and how much."""
    for block in content:
        kind = block.get("type")
        resource = block.get("resource")
        if kind == "text":
            yield str(block.get("text", ""))
        elif kind == "resource_link":
            yield str(block.get("uri", ""))
        elif kind == "resource" and isinstance(resource, dict):
            yield str(resource["text"]) if "text" in resource else f"[resource {resource.get('uri', '')}]"
        else:
            size = len(str(block.get("data", ""))) * 3 // 4
            yield f"[{kind} {block.get('mimeType', '')}, about {size} bytes]"


def terminal_safe(text: str) -> str:
    """On a terminal no escape sequence of a server is carried out; into a pipe or file goes what came."""
    if not sys.stdout.isatty():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
