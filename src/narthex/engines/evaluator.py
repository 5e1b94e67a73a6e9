"""The Rego engine that is built in: a bundle compiled, and evaluated for one input after the other.

In: the modules and data of a bundle; input documents as JSON. Out: the value of the decision's rule as JSON, or
`EvaluationFailed`. The engine belongs to the thread that made it, holds the interpreter for as long as it evaluates,
and knows no deadline: `child.py` runs it in a process that can be ended.
Cases: `tests/engines/test_evaluator.py`. Source: `docs/decisions/rego-in-a-helper.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import regorus

from narthex.engines.frames import Flawed, Source
from narthex.flow.policy.engines.rego import Flaw, Uses, read

UNDEFINED = '"<undefined>"'
"""What the engine says of a rule that has no value. A rule whose value is this text is no decision either."""
SAMPLE: Mapping[str, Any] = {
    "v": 1,
    "action": "list",
    "phase": "list",
    "subject": {
        "id": "",
        "issuer": "",
        "type": "service",
        "groups": [],
        "roles": [],
        "scopes": [],
        "actor": {"client_id": "", "chain": []},
        "auth": {"method": "none", "at": 0, "age_s": None},
    },
    "resource": {"kind": "tool", "server": "", "name": "__", "upstream_name": "", "classification": "", "privacy": ""},
    "mcp": {"method": "tools/list"},
    "context": {"time": "2026-01-01T00:00:00.000Z", "endpoint": "default", "tenant": "default", "env": ""},
}
"""A question that every policy has to answer: what may a stranger see?"""


class EvaluationFailed(Exception):
    """The rule has no value because the engine found an error. The text says which, and where."""


class Evaluator:
    """A compiled bundle.

    Raises:
        Flawed: It does not compile, needs what the engine lacks, or cannot say what somebody may see.
    """

    def __init__(self, source: Source) -> None:
        self._engine: Any = regorus.Engine()
        entry = tuple(source.entrypoint.strip("/").split("/"))
        self._rule = ".".join(("data", *entry))
        try:
            self.uses = self._load(source, entry)
            self._check_lists()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the engine, in its own thread: who collects garbage may run in another one."""
        self._engine = None

    def _load(self, source: Source, entry: tuple[str, ...]) -> Uses:
        self._engine.set_gather_prints(True)
        flaws = [flaw for path, text in source.modules.items() if (flaw := self._add(path, text)) is not None]
        if flaws:
            raise Flawed(flaws)
        try:
            self._engine.add_data_json(json.dumps(source.data))
        except BaseException as error:
            raise Flawed([Flaw("data", 0, 0, _said(error))]) from None
        uses, flaws = read(json.loads(self._engine.get_ast_as_json()), functions(), entry)
        if flaws:
            raise Flawed(flaws)
        return uses

    def _add(self, path: str, text: str) -> Flaw | None:
        try:
            self._engine.add_policy(path, text)
        except BaseException as error:
            return _placed(_said(error), path)
        return None

    def _check_lists(self) -> None:
        try:
            value = self.evaluate(json.dumps(SAMPLE))
        except EvaluationFailed as error:
            raise Flawed([_placed(str(error), self._rule)]) from None
        if value == UNDEFINED:
            text = 'says nothing where input.action is "list": give the rule a default, and say there who sees what'
            raise Flawed([Flaw(self._rule, 0, 0, text)])

    def evaluate(self, document: str) -> str:
        """The value of the rule for an input document, JSON both. Raises EvaluationFailed."""
        try:
            self._engine.set_input_json(document)
            value: str = self._engine.eval_rule_as_json(self._rule)
        except BaseException as error:  # a panic of the engine is no Exception
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            raise EvaluationFailed(_said(error)) from None
        if self.uses.prints:
            self._engine.take_prints()
        return value

    def cover(self, document: str) -> tuple[str, str]:
        """Evaluate, and note which lines are looked at: the engine's report as JSON, and its error, if any."""
        self._engine.set_enable_coverage(True)
        self._engine.clear_coverage_data()
        failed = ""
        try:
            self.evaluate(document)
        except EvaluationFailed as error:
            failed = str(error)
        report: str = self._engine.get_coverage_report_as_json()
        return report, failed


def functions() -> frozenset[str]:
    """The built-in functions of the engine, by its own word."""
    engine = regorus.Engine()
    engine.add_policy("q", "package q\nx := opa.runtime().builtins")
    return frozenset(json.loads(engine.eval_rule_as_json("data.q.x")))


def _said(error: BaseException) -> str:
    return str(error).partition("\n\nStack backtrace")[0].strip()[:1000] or type(error).__name__


def _placed(text: str, file: str) -> Flaw:
    """An error of the engine, which draws its place: `--> file:line:column`, the line, `error: …`."""
    place, _, rest = text.partition("\n")
    said = rest.rpartition("error: ")[2].strip() or text
    parts = place.removeprefix("--> ").rsplit(":", 2)
    if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
        return Flaw(parts[0], int(parts[1]), int(parts[2]), said)
    return Flaw(file, 0, 0, said)
