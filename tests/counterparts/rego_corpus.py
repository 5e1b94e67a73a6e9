"""Policies and documents, made by chance from a seed: what the embedded engine and the real OPA must answer alike.

A policy is a default, some rules that allow, some that deny, and reasons that show computed values, each of pieces that
use one part of the language or one built-in function. A document is an input of version 1 with all that arguments may
hold. `SURPRISING` is what the two are known to say differently; `docs/guides/opa.md` lists it with the causes.
"""

from __future__ import annotations

import random
import re
from typing import Any

CONDITIONS = (
    '"{role}" in input.subject.roles',
    'not "{role}" in input.subject.roles',
    "some r in input.subject.roles; r in data.corpus.teams[{team}]",
    "some r in input.subject.roles; startswith(r, \"{prefix}\")",
    "every r in input.subject.roles { r != \"{role}\" }",
    "every k, v in input.mcp.arguments { k != \"{key}\"; v != null }",
    "count(input.subject.roles) >= {small}",
    "input.mcp.arguments.{key} > {number}",
    "input.mcp.arguments.{key} <= {number}",
    "input.mcp.arguments.{key} == {number}",
    "input.mcp.arguments.{key} != \"{word}\"",
    "input.mcp.arguments.{key}.{key2} == {number}",
    "input.mcp.arguments.{key}[_] == {number}",
    "input.mcp.arguments[\"{key}\"]",
    "not input.mcp.arguments.{key}",
    "object.get(input.mcp.arguments, \"{key}\", {number}) < {number2}",
    "object.get(input.mcp.arguments, [\"{key}\", \"{key2}\"], \"{word}\") == \"{word}\"",
    "is_number(input.mcp.arguments.{key})",
    "is_string(input.mcp.arguments.{key})",
    "is_null(input.mcp.arguments.{key})",
    "is_array(input.mcp.arguments.{key})",
    "is_object(input.mcp.arguments.{key})",
    "is_boolean(input.mcp.arguments.{key})",
    "type_name(input.mcp.arguments.{key}) == \"string\"",
    "glob.match(\"{glob}\", [], input.resource.name)",
    "glob.match(\"{glob}\", [\"_\"], input.resource.upstream_name)",
    "regex.match(`{regex}`, input.resource.upstream_name)",
    "not regex.match(`{regex}`, input.resource.name)",
    "startswith(input.resource.upstream_name, \"{prefix}\")",
    "endswith(input.resource.name, \"{word}\")",
    "contains(input.resource.name, \"{prefix}\")",
    "net.cidr_contains(\"{cidr}\", input.context.ip)",
    "net.cidr_contains(\"10.0.0.0/8\", \"{cidr}\")",
    "time.parse_rfc3339_ns(input.context.time) > {ns}",
    "time.clock(time.parse_rfc3339_ns(input.context.time))[0] < {hour}",
    "time.weekday(time.parse_rfc3339_ns(input.context.time)) != \"Sunday\"",
    "time.date([time.parse_rfc3339_ns(input.context.time), \"Europe/Berlin\"])[2] > {small}",
    "time.clock([time.parse_rfc3339_ns(input.context.time), \"America/New_York\"])[0] < {hour}",
    "input.context.env == \"{env}\"",
    "input.context.env in {\"prod\", \"test\"}",
    "input.resource.classification == \"{cls}\"",
    "input.subject.auth.age_s < {age}",
    "\"{word}\" in input.subject.scopes",
    "{x | some x in input.subject.roles} & {\"{role}\", \"{role2}\"} != set()",
    "count({x | some x in input.subject.groups; x != \"{role}\"}) > {small}",
    "count([x | some x in input.subject.groups; contains(x, \"{prefix}\")]) == {small}",
    "{k: v | some k, v in input.mcp.arguments; is_number(v)} == {}",
    "sum([v | some v in input.mcp.arguments; is_number(v)]) < {number2}",
    "max([v | some v in input.mcp.arguments; is_number(v)]) < {number2}",
    "min([v | some v in input.mcp.arguments; is_number(v)]) < {number2}",
    "input.action in [\"list\", \"tools/call\"]",
    "input.action != \"list\"",
    "walk(input.mcp.arguments, [path, value]); value == {number}",
    "some i; input.subject.roles[i] == \"{role}\"; i < {small}",
    "helper(input.subject.roles, \"{role}\")",
    "ranked[\"{role}\"] > {small}",
    "input.subject.roles == sort(input.subject.roles)",
    "union({{x | some x in input.subject.roles}, {\"{role}\"}}) != {\"{role}\"}",
    "any_of(input.subject.groups)",
    "abs({number}) < {number2}",
    "semver.compare(\"1.{small}.0\", \"1.2.0\") < 0",
    "units.parse_bytes(\"{small}MiB\") > {number2}",
    "input.mcp.arguments_size % 2 == {bit}",
    "bits.and(input.mcp.arguments_size, 3) == {small}",
    "input.mcp.arguments.{key} in [{number}, \"{word}\", null, true]",
    "trim(input.resource.upstream_name, \"_\") == input.resource.upstream_name",
    "lower(input.mcp.arguments.{key}) == \"{word}\"",
    "split(input.resource.name, \"__\")[0] == \"{server}\"",
    "strings.any_prefix_match(input.resource.upstream_name, [\"{prefix}\", \"x\"])",
    "strings.count(input.resource.name, \"e\") > {small}",
    "graph.reachable({\"a\": [\"b\"], \"b\": [\"c\"], \"c\": []}, {\"{abc}\"}) == {\"{abc}\", \"c\"}",
    "object.keys(input.mcp.arguments) == {\"{key}\"}",
    "data.corpus.limits[input.resource.name] > {number}",
    "data.corpus.limits[\"{server}__{word}\"] == {number}",
    "input.mcp.arguments.{key} < input.mcp.arguments.{key2}",
    "input.mcp.arguments.{key} < \"{word}\"",
    "input.mcp.arguments.{key} < [{number}]",
    "indexof(input.resource.name, \"{prefix}\") >= {small}",
    "numbers.range(0, {small}) == [x | some x in numbers.range(0, {small})]",
    "with_other with input.subject.roles as [\"{role}\"]",
    "object.subset(input.mcp.arguments, {\"{key}\": {number}})",
    "object.subset({x | some x in input.subject.roles}, {\"{role}\"})",
    "json.match_schema(input.mcp.arguments, {\"type\": \"object\", \"required\": [\"{key}\"]})[0]",
    "regex.is_valid(\"{prefix}(\")",
    "glob.match(glob.quote_meta(\"{glob}\"), null, input.resource.name)",
    "glob.match(\"{glob}\", null, input.resource.name)",
    "time.add_date(time.parse_rfc3339_ns(input.context.time), 0, 1, {small}) > {ns}",
    "time.diff(time.parse_rfc3339_ns(input.context.time), {ns})[0] > {small}",
    "time.parse_duration_ns(\"{small}h5m\") > {number2}",
    "time.parse_ns(\"2006-01-02\", \"2025-0{small}-10\") > {ns}",
    "to_number(input.mcp.arguments.{key}) > {small}",
    "input.mcp.arguments.{key} == input.mcp.arguments.{key2}",
    "[input.mcp.arguments.{key}, {small}] < [{number}, {small}]",
    "{input.mcp.arguments.{key}} == {{number}}",
    "{\"a\": 1, \"b\": {small}} == {\"b\": {small}, \"a\": 1}",
    "1 == 1.0; {small} == {small}.0",
    "input.mcp.arguments.{key} in {1, 2.5, 100}",
    "some k, v in input.mcp.arguments; v == {number}; k == \"{key}\"",
    "count(input.mcp.arguments.{key}) > {small}",
    "count(input.subject.id) > {small}",
    "numbers.range_step(0, 10, {small} + 1)[1] == {small} + 1",
    "all_small(input.mcp.arguments)",
    "described == \"{word}\"",
    "data.corpus.teams[{team}][_] == \"{role}\"",
    "data.corpus.nothing.at.all",
    "not data.corpus.nothing.at.all",
    "input.nothing.at.all == {number}",
    "input[\"{key}\"] == {number}",
    "input.subject.roles[{small}] == \"{role}\"",
    "input.subject.roles[0] != \"{role}\"",
    "is_set({x | some x in input.subject.roles})",
    "set() == {x | some x in input.subject.roles}",
    "intersection({{\"a\", \"{role}\"}, {\"a\", \"{role2}\"}}) == {\"a\"}",
    "net.cidr_is_valid(input.context.ip)",
    "{number} % {small} == 1",
    "{number} / {small} > 1",
    "rem_all",
)  # fmt: skip
VALUES = (
    'sprintf("%v", [input.mcp.arguments])',
    'sprintf("%v of %v", [input.mcp.arguments.{key}, input.subject.roles])',
    'json.marshal(input.mcp.arguments)',
    'concat(",", sort([r | some r in input.subject.roles]))',
    'concat("/", [input.resource.server, input.resource.upstream_name])',
    'upper(input.resource.upstream_name)',
    'replace(input.resource.name, "_", "-")',
    'substring(input.resource.name, {small}, 3)',
    'trim_prefix(input.resource.name, "{server}")',
    'strings.reverse(input.resource.upstream_name)',
    'json.marshal({x | some x in input.subject.groups})',
    'json.marshal({k | some k, _ in input.mcp.arguments})',
    'json.marshal(object.union(input.mcp.arguments, {"{key}": {number}}))',
    'json.marshal(object.remove(input.mcp.arguments, ["{key}"]))',
    'json.marshal(object.filter(input.mcp.arguments, ["{key}", "{key2}"]))',
    'json.marshal(array.concat(input.subject.roles, ["{word}"]))',
    'json.marshal(array.slice(input.subject.roles, 0, {small}))',
    'json.marshal(array.reverse(input.subject.roles))',
    'json.marshal(sort(input.subject.groups))',
    'json.marshal(regex.split(`_`, input.resource.name))',
    'json.marshal(regex.find_n(`[a-z]+`, input.resource.name, {small}))',
    'regex.replace(input.resource.name, `e+`, "E")',
    'json.marshal(json.patch(input.mcp.arguments, [{"op": "add", "path": "/{key}", "value": {number}}]))',
    'base64.encode(input.resource.name)',
    'base64url.encode_no_pad(input.resource.name)',
    'hex.encode(input.resource.upstream_name)',
    'urlquery.encode(input.resource.name)',
    'format_int({number}, 16)',
    'json.marshal(to_number("{small}.5"))',
    'json.marshal(split(input.resource.name, "_"))',
    'json.marshal([x | walk(input.mcp.arguments, [_, x]); is_string(x)])',
    'json.marshal([product([2, {small}, 3]), sum([{small}, 0.5]), count("{word}é")])',
    'json.marshal(time.parse_rfc3339_ns(input.context.time))',
    'json.marshal(time.date(time.parse_rfc3339_ns(input.context.time)))',
    'json.marshal(ranked)',
    'json.marshal(input.mcp.arguments.{key} == input.mcp.arguments.{key2})',
    'json.marshal({"{role}", "{role2}"} - {x | some x in input.subject.roles})',
    'type_name(input.mcp.arguments.{key})',
    'json.marshal([input.mcp.arguments.{key} + 1, {small} * 50, round({number} / 4), ceil(1.5), floor(-1.5)])',
    'json.marshal([{small} + 0.5, {small} / 4, {small} % 3, {number} - {small}])',
    'json.marshal(json.remove(input.mcp.arguments, ["{key}"]))',
    'json.marshal(json.unmarshal("{\\"a\\": [1, 2.5, null]}"))',
    'sprintf("%d %x %5d %q", [{small}, 255, {small}, "{word}"])',
    'sprintf("%.2f %v", [{small} + 0.12, {small} / 2])',
    'json.marshal(bits.or({small}, 8))',
    'json.marshal(units.parse("{small}k"))',
    'json.marshal([k | some k; input.mcp.arguments[k]])',
    'json.marshal(json.filter(input.mcp.arguments, ["{key}"]))',
    'json.marshal(object.union_n([input.mcp.arguments, {"{key}": {"{key2}": {small}}}]))',
    'json.marshal(object.get(input, ["mcp", "arguments", "{key}"], "none"))',
    'json.marshal(yaml.unmarshal("a: [1, {small}]"))',
    'strings.replace_n({"a": "1", "e": "2"}, input.resource.name)',
    'json.marshal(split(input.subject.id, ""))',
    'substring(input.subject.id, 1, -1)',
    'upper(input.subject.id)',
    'json.marshal([indexof(input.subject.id, "b"), indexof_n(input.resource.name, "e"), count(input.subject.id)])',
    'json.marshal([trim("  x ", " "), trim_left("xxa", "x"), trim_right("axx", "x"), trim_suffix("ab", "b")])',
    'json.marshal({k: v | some k, v in input.mcp.arguments; is_number(v)})',
    'json.marshal([[k, v] | some k, v in input.mcp.arguments])',
    'json.marshal({type_name(v) | some v in input.mcp.arguments})',
    'json.marshal(sort([v | some v in input.mcp.arguments]))',
    'json.marshal({v | some v in input.mcp.arguments})',
    'json.marshal([{number} > {number2}, {number} == {number}, "a" < "b", null < 1, [] < {}, "z" < []])',
    'sprintf("%v %v", [{"{role}", "b"}, {"k": [true, null]}])',
    'sprintf("%s: %d", ["{word}", {small}])',
    'json.marshal(time.clock([time.parse_rfc3339_ns(input.context.time), "Asia/Tokyo"]))',
    'time.weekday([time.parse_rfc3339_ns(input.context.time), "Pacific/Auckland"])',
    'time.format([time.parse_rfc3339_ns(input.context.time), "UTC", "2006-01-02 15:04"])',
    'json.marshal(array.concat([x | some x in input.subject.roles], [y | some y in input.subject.groups]))',
    'json.marshal(numbers.range({small}, 0))',
    'json.marshal(graph.reachable_paths({"a": ["b"], "b": []}, ["{abc}"]))',
    'json.marshal(regex.find_all_string_submatch_n(`([a-z])_`, input.resource.name, -1))',
    'base64.decode("aGk=")',
    'json.marshal(urlquery.decode_object("a={small}&b=2"))',
    'json.marshal(rounded)',
    'described',
)  # fmt: skip
HEAD = """package corpus.p{number}

default decision := {{"allow": false, "reasons": ["default"]}}

helper(list, one) if one in list

any_of(list) if {{
	some x in list
	x != "b"
}} else := false

with_other if "{role}" in input.subject.roles

described := "null" if {{
	input.mcp.arguments.amount == null
}} else := "number" if {{
	is_number(input.mcp.arguments.amount)
}} else := input.mcp.arguments.note

all_small(values) if {{
	every value in values {{
		value < 100
	}}
}}

rounded contains round(value * 10) / 10 if {{
	some value in input.mcp.arguments
	is_number(value)
}}

rem_all if {{
	some a in input.subject.roles
	some b in input.subject.roles
	a != b
}}

ranked[name] := place if {{
	some place, name in sort({{r | some r in input.subject.roles}})
}}

"""
_HOLE = re.compile(r"\{(\w+)\}")
KEYS, WORDS, ROLES = ("amount", "to", "items", "note"), ("pay", "read", "x", "delete_all"), ("a", "b", "admin", "ops")
CHOICES: dict[str, tuple[Any, ...]] = {
    "role": ROLES, "role2": ROLES, "team": (0, 1), "prefix": ("a", "de", "re"), "key": KEYS, "key2": KEYS,
    "word": WORDS, "small": (0, 1, 2, 3), "bit": (0, 1), "number": (0, 1, 5, -3, 100, 2.5, 1000000007),
    "number2": (7, 50, 200.25, 9007199254740991), "glob": ("bank__*", "*__{read,pay}", "b?nk*", "*", "[a-c]ank__*"),
    "regex": ("^de", "e+", "(pay|read)$", "[0-9]", r"^\\w+$"), "cidr": ("10.0.0.0/8", "192.168.0.0/16", "::1/128"),
    "ns": (0, 1750000000000000000), "hour": (3, 12, 23), "env": ("prod", "test", ""), "age": (10, 3600),
    "cls": ("public", "internal", "restricted"), "server": ("bank", "crm"), "abc": ("a", "b", "c"),
}  # fmt: skip
DATA = {
    "teams": [["a", "b"], ["admin"]],
    "limits": {"bank__pay": 100, "crm__read": 2.5, "bank__x": "none"},
}


def _filled(chance: random.Random, piece: str) -> str:
    chosen = {name: str(chance.choice(values)) for name, values in CHOICES.items()}
    return _HOLE.sub(lambda hole: chosen.get(hole[1], hole[0]), piece)


def policy(number: int, seed: int = 1) -> str:
    """The module `corpus.p<number>`."""
    chance = random.Random(f"{seed} policy {number}")
    role = chance.choice(ROLES)
    parts = [HEAD.format(number=number, role=role)]
    for _ in range(chance.randint(1, 3)):
        body = "\n\t".join(_filled(chance, chance.choice(CONDITIONS)) for _ in range(chance.randint(1, 3)))
        parts.append(f"allowed if {{\n\t{body}\n}}\n")
    for place in range(chance.randint(0, 2)):
        body = "\n\t".join(_filled(chance, chance.choice(CONDITIONS)) for _ in range(chance.randint(1, 2)))
        parts.append(f'denied contains "denied {place}" if {{\n\t{body}\n}}\n')
    for place in range(chance.randint(1, 3)):
        value = _filled(chance, chance.choice(VALUES))
        parts.append(f'reasons contains said if {{\n\tsaid := concat(" ", ["{place}", {value}])\n}}\n')
    denies = any(part.startswith("denied") for part in parts)
    none = "count(denied) == 0" if denies else "true"
    parts.append('decision := {"allow": true, "reasons": sort(reasons)} if {\n\tallowed\n\t' + none + "\n}\n")
    if denies:
        parts.append('decision := {"allow": false, "reasons": sort(denied)} if count(denied) > 0\n')
    return "\n".join(parts)


def document(number: int, seed: int = 1) -> dict[str, Any]:
    """An input document of version 1."""
    chance = random.Random(f"{seed} document {number}")
    kind = chance.choice(("tools/call", "tools/call", "tools/call", "list"))
    server, name = chance.choice(("bank", "crm")), chance.choice(WORDS)
    found: dict[str, Any] = {
        "v": 1,
        "action": kind,
        "phase": "list" if kind == "list" else "request",
        "subject": {
            "id": chance.choice(("ann", "bób", "")),
            "roles": chance.sample(ROLES, chance.randint(0, 3)),
            "groups": [chance.choice((*ROLES, "é", "")) for _ in range(chance.randint(0, 3))],
            "scopes": chance.sample(WORDS, chance.randint(0, 2)),
            "auth": {"method": "oauth", "age_s": chance.choice((None, 0, 5, 7200))},
        },
        "resource": {
            "kind": "tool", "server": server, "name": f"{server}__{name}", "upstream_name": name,
            "classification": chance.choice(("public", "internal", "restricted")),
        },
        "mcp": {"method": "tools/list"},
        "context": {
            "time": f"202{chance.randint(4, 7)}-0{chance.randint(1, 9)}-1{chance.randint(0, 9)}"
            f"T{chance.randint(10, 23)}:05:00.250Z",
            "env": chance.choice(("prod", "test", "")),
        },
    }  # fmt: skip
    if kind != "list":
        arguments = {key: _value(chance, 2) for key in KEYS if chance.random() < 0.6}
        found["mcp"] = {"method": kind, "arguments": arguments, "arguments_size": chance.randint(0, 9)}
        found["context"]["ip"] = chance.choice(("10.1.2.3", "192.0.2.1", "::1"))
    return found


def _value(chance: random.Random, depth: int) -> Any:
    if depth and chance.random() < 0.3:
        if chance.random() < 0.5:
            return [_value(chance, depth - 1) for _ in range(chance.randint(0, 3))]
        return {chance.choice(KEYS): _value(chance, depth - 1) for _ in range(chance.randint(0, 2))}
    return chance.choice(
        (None, True, False, 0, 1, 5, -3, 100, 2.5, 0.1, -0.5, 12345678901234567, "", "pay", "x", "É", "a\nb", "1.2.3")
    )


ASKED = {"n": 1, "s": "x"}
FAILS = object()
SURPRISING: dict[str, tuple[Any, Any]] = {
    "0.1 + 0.2 == 0.3": (False, True),
    "json.marshal([1e3, 1.0])": ("[1000,1]", "[1e3,1.0]"),
    'json.marshal(json.unmarshal("2.50"))': ("2.5", "2.50"),
    'sprintf("%v", [2500000017.5])': ("2500000017.5", "2.5000000175e+09"),
    'sprintf("%.2f", [1.125])': ("1.13", "1.12"),
    'sprintf("%-3s", ["x"])': ("3s", "x  "),
    'sprintf("%d", [input.s])': ("", "%!d(string=x)"),
    'json.filter({"a": 1}, ["a/b"])': ({}, {"a": 1}),
    'json.remove({"a": 1}, ["a/b"])': ({}, {"a": 1}),
    "time.format(1750000000250000000)": ("2025-06-15T15:06:40.250Z", "2025-06-15T15:06:40.25Z"),
    'not startswith(input.n, "a")': (FAILS, True),
    "not json.is_valid(input.n)": (FAILS, True),
}
"""Expression -> what the embedded engine says, what OPA says, of `ASKED`. `FAILS`: an error, which denies."""
