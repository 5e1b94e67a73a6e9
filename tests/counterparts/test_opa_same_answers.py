"""The embedded engine and the real Open Policy Agent decide alike; what they say differently is known, and why.

Every decision of `rego_corpus.py` is compared as a whole, computed texts in its reasons included. One difference may
occur there: a built-in function that is given the wrong kind of value has no value in OPA, and is an error in the
embedded engine, which denies. Everything else that differs stands in `SURPRISING`, one expression a cause.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from narthex.authority.bundles import read_folder
from narthex.engines.evaluator import UNDEFINED, EvaluationFailed, Evaluator
from narthex.engines.frames import Flawed, Source
from narthex.flow.policy.bundles.bundle import read_bundle
from tests.counterparts import rego_corpus
from tests.counterparts.opa_server import OpaServer, served
from tests.counterparts.rego_corpus import FAILS, SURPRISING

POLICIES, DOCUMENTS = 130, 20
ROOT = Path(__file__).parents[2]
GUIDE, SAMPLE = ROOT / "docs" / "guides" / "opa.md", ROOT / "examples" / "policy" / "bundle"
WRONG_VALUE = re.compile(r"expects|requires|parse|modulo|divide by zero|specified for format verb")


class Asking:
    """One connection to an agent."""

    def __init__(self, server: OpaServer) -> None:
        self._connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)

    def __call__(self, path: str, document: Any) -> Any:
        """The value of a rule; `UNDEFINED` where it has none, `FAILS` where the agent says 500."""
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", f"/v1/data/{path}", json.dumps({"input": document}), headers)
        answer = self._connection.getresponse()
        said = json.loads(answer.read())
        return said.get("result", UNDEFINED) if answer.status == 200 else FAILS


def ours(engine: Evaluator, document: Any) -> Any:
    """The same of the embedded engine."""
    try:
        value = engine.evaluate(json.dumps(document))
    except EvaluationFailed as error:
        assert WRONG_VALUE.search(str(error)), error
        return FAILS
    return UNDEFINED if value == UNDEFINED else json.loads(value)


def bundle(folder: Path, modules: dict[str, str]) -> Path:
    (folder / "corpus").mkdir(parents=True)
    (folder / "corpus" / "data.json").write_text(json.dumps(rego_corpus.DATA))
    for name, text in modules.items():
        (folder / f"{name}.rego").write_text(text)
    return folder


def test_two_thousand_decisions(opa: str, tmp_path: Path) -> None:
    modules = {f"p{number}": rego_corpus.policy(number) for number in range(POLICIES)}
    documents = [rego_corpus.document(number) for number in range(DOCUMENTS)]
    outcomes: Counter[str] = Counter()
    folder = bundle(tmp_path / "bundle", modules)
    for name in refused(opa, folder):
        (folder / f"{name}.rego").unlink()
        del modules[name]
        outcomes["refused by OPA"] += len(documents)
    with served(opa, tmp_path, "--bundle", str(folder)) as server:
        ask = Asking(server)
        for name, text in modules.items():
            try:
                engine = Evaluator(Source({name: text}, {"corpus": rego_corpus.DATA}, f"corpus/{name}/decision"))
            except Flawed as flawed:
                assert WRONG_VALUE.search(str(flawed)), flawed  # found out when it is loaded, with the sample question
                outcomes["refused at load"] += len(documents)
                continue
            for document in documents:
                here, there = ours(engine, document), ask(f"corpus/{name}/decision", document)
                if here is FAILS:
                    outcomes["fails"] += 1
                    continue
                assert here == there, f"{text}\n{json.dumps(document)}"
                outcomes["allow" if here["allow"] else "deny"] += 1
    assert outcomes["allow"] + outcomes["deny"] >= 2000, outcomes
    assert outcomes["allow"] >= 400 and outcomes["deny"] >= 400, outcomes
    assert outcomes["fails"] + outcomes["refused at load"] + outcomes["refused by OPA"] <= 300, outcomes


def refused(opa: str, folder: Path) -> set[str]:
    """Modules that OPA finds no sense in by the kinds of their values alone."""
    done = subprocess.run([opa, "check", "--bundle", str(folder)], capture_output=True, text=True, timeout=60)
    found = re.findall(r"(p[0-9]+)\.rego:[0-9]+: (\w+)", done.stdout + done.stderr)
    assert {kind for _, kind in found} <= {"rego_type_error"}, found
    return {name for name, _ in found}


def test_the_sample_policy(opa: str, tmp_path: Path) -> None:
    """It loads in both, and they say the same of every role, tool, amount and network."""
    found = read_bundle(read_folder(SAMPLE, 10**6), None, now=0)
    engine = Evaluator(Source(found.modules, found.data, "narthex/decision"))
    with served(opa, tmp_path, "--bundle", str(SAMPLE)) as server:
        ask = Asking(server)
        for number in range(200):
            asked = rego_corpus.document(number)
            chance = random.Random(number)
            name = chance.choice(("crm__get_customer", "crm__delete_customer", "billing__refund", "billing__get_bill"))
            asked["resource"] |= {"name": name, "upstream_name": name.partition("__")[2]}
            asked["subject"]["roles"] = chance.sample(("support", "auditor", "admin"), chance.randint(0, 2))
            asked["mcp"]["arguments"] = chance.choice(({}, {"amount": 20}, {"amount": 80}, {"amount": 120.5}))
            assert ours(engine, asked) == ask("narthex/decision", asked), asked


def test_what_is_said_differently_is_known(opa: str, tmp_path: Path) -> None:
    modules = {f"s{number}": module(f"s{number}", expression) for number, expression in enumerate(SURPRISING)}
    with served(opa, tmp_path, "--bundle", str(bundle(tmp_path / "bundle", modules))) as server:
        ask = Asking(server)
        for (name, text), (expression, said) in zip(modules.items(), SURPRISING.items(), strict=True):
            engine = Evaluator(Source({name: text}, {}, f"corpus/{name}/out"))
            found = ours(engine, rego_corpus.ASKED), ask(f"corpus/{name}/out", rego_corpus.ASKED)
            assert found == said, expression


def module(name: str, expression: str) -> str:
    head = f"package corpus.{name}\n\ndefault out := null\n\n"
    if expression.startswith("not "):
        return f"{head}out if {{\n\t{expression}\n}}\n"
    return f"{head}out := said if {{\n\tsaid := {expression}\n}}\n"


def test_every_difference_is_in_the_guide() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    for expression in SURPRISING:
        assert f"`{expression}`" in guide, expression
