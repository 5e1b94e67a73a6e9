"""What Rego reads and calls, found before anything is evaluated; the trees are the engine's own."""

from __future__ import annotations

import json

import pytest
import regorus

from narthex.flow.policy.engines.rego import Uses, read

HEAD = "package narthex\nimport rego.v1\n"
FUNCTIONS = frozenset({"count", "startswith", "time.now_ns", "rand.intn", "http.send", "opa.runtime", "walk"})
ENTRY = ("narthex", "decision")


def trees(*modules: str) -> list[dict[str, object]]:
    engine = regorus.Engine()
    for number, text in enumerate(modules):
        engine.add_policy(f"{number}.rego", text)
    found: list[dict[str, object]] = json.loads(engine.get_ast_as_json())
    return found


def uses(*modules: str) -> Uses:
    found, flaws = read(trees(*modules), FUNCTIONS, ENTRY)
    assert not flaws
    return found


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        pytest.param("decision := input.a.b", {("a", "b")}, id="a member"),
        pytest.param('decision := input["a b"].c', {("a b", "c")}, id="a member in quotes"),
        pytest.param("decision if { some r in input.roles; r == 1 }", {("roles",)}, id="a list"),
        pytest.param("decision := input.a[input.b].c", {("a",), ("b",)}, id="up to the first that is not fixed"),
        pytest.param("decision if { x := input.mcp; x.arguments == 1 }", {("mcp",)}, id="with all below it"),
        pytest.param("decision := input", None, id="the whole: not known"),
        pytest.param("decision if f(input)\nf(x) if x.a", None, id="handed over whole"),
        pytest.param("decision := input[data.k]", None, id="any member"),
        pytest.param("decision if { walk(input, [p, v]); v == 1 }", None, id="walked through"),
        pytest.param("decision := true", set(), id="nothing"),
        pytest.param("decision := [x | x := input.a[_].b]", {("a",)}, id="in a comprehension"),
        pytest.param("decision if { every x in input.a { x == input.b } }", {("a",), ("b",)}, id="in every"),
        pytest.param("decision if { f(1) with input.z as input.y }\nf(x) if input.q == x", {("z",), ("y",), ("q",)},
                     id="with"),
        pytest.param("default decision := false\ndecision := true if not input.a", {("a",)}, id="not"),
    ],
)  # fmt: skip
def test_which_inputs_decide(body: str, paths: set[tuple[str, ...]] | None) -> None:
    found = uses(HEAD + body)
    assert (None if found.paths is None else set(found.paths)) == paths
    assert found.changes is (paths is None), "the time is among what may be read"


def test_an_import_of_the_input_is_read() -> None:
    assert uses("package narthex\nimport rego.v1\nimport input.mcp.arguments as a\ndecision := a.x").paths == (
        ("mcp", "arguments"),
    )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("decision if time.now_ns() > 1", id="the time"),
        pytest.param('decision if rand.intn("a", 2) == 1', id="chance"),
        pytest.param('decision if input.context.time > "2026"', id="the time in the input"),
        pytest.param("decision if { z := input.context; z.x }", id="something around it"),
        pytest.param("decision if input.subject.auth.age_s < 60", id="an age"),
    ],
)
def test_what_changes_by_itself(body: str) -> None:
    assert uses(HEAD + body).changes


@pytest.mark.parametrize(
    ("path", "read_"), [(("mcp", "arguments"), True), (("mcp",), True), (("mcp", "arguments", "x", "y"), True),
                        (("mcp", "session"), False), (("subject",), False)],
)  # fmt: skip
def test_reads(path: tuple[str, ...], read_: bool) -> None:
    assert Uses((("mcp", "arguments", "x"),)).reads(path) is read_
    assert Uses(None).reads(path)


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        pytest.param(HEAD + "decision if io.jwt.decode(input.t)",
                     "0.rego:3:26: io.jwt.decode is not among the built-in functions of this engine", id="not there"),
        pytest.param(HEAD + "decision := true\nother if nosuch(1)", "0.rego:4:16: nosuch is not among", id="unused"),
        pytest.param(HEAD + "decision := http.send({})", "http.send is not among", id="there in name only"),
        pytest.param(HEAD + "decision := opa.runtime()", "opa.runtime is not among", id="of another engine's process"),
        pytest.param(HEAD + "decision := data.lib.f(1)", "no function data.lib.f", id="of a package that is not there"),
        pytest.param(HEAD + "x := true", "data.narthex.decision: the entry point is not there", id="no entry point"),
        pytest.param(HEAD + "decision(x) := x", "the entry point is not there", id="the entry point is a function"),
        pytest.param(HEAD + "decision := f(1)\nf(x) := f(x)", "0.rego:4:1: data.narthex.f needs itself", id="itself"),
        pytest.param(HEAD + "decision := a\na := b\nb := data.narthex.a", "data.narthex.a needs itself", id="round"),
        pytest.param(HEAD + "decision := data.narthex[input.x]", "data.narthex.decision needs itself", id="maybe"),
    ],
)  # fmt: skip
def test_refused(text: str, flaw: str) -> None:
    assert flaw in "\n".join(map(str, read(trees(text), FUNCTIONS, ENTRY)[1]))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(HEAD + "decision := f(1)\nx := f(2)\nf(x) := y if { y := x }", id="a parameter named as a rule"),
        pytest.param(HEAD + "decision := x\nx := [y | some x in input.a; y := x]", id="a variable named as a rule"),
        pytest.param(HEAD + "decision if { some x; input.a[x] }\nx := decision", id="declared"),
        pytest.param(HEAD + 'decision contains "a" if input.a\ndecision contains "b" if input.b', id="parts of a set"),
        pytest.param(HEAD + 'decision := print("a")\nx := set()', id="forms that are no functions"),
    ],
)
def test_not_refused(text: str) -> None:
    assert not read(trees(text), FUNCTIONS, ENTRY)[1]


def test_functions_of_other_packages() -> None:
    lib = "package lib.util\nimport rego.v1\nok(x) if x == 1\n"
    ours = "package narthex\nimport rego.v1\nimport data.lib.util\nimport data.lib.util as u\n"
    assert uses(lib, ours + "decision if { util.ok(input.a); u.ok(input.b); data.lib.util.ok(1) }").paths == (
        ("a",),
        ("b",),
    )


def test_what_prints() -> None:
    assert uses(HEAD + 'decision if print("x")').prints
