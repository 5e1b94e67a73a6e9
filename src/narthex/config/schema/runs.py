"""`runs`: what is watched over several calls."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from narthex.config import values
from narthex.config.document import Node, Path, Reading
from narthex.config.kinds import GLOBS, Choice, Count, Group, JsonSchema, Listed, Scalar, Setting, duration
from narthex.config.schema.data import OF_CLASSIFICATION, OF_PRIVACY
from narthex.config.schema.grants import MODE, PATTERNS, PatternSettings
from narthex.config.schema.who import WHO, OneOrMore, WhoSettings
from narthex.types import RunSpec

DEFAULT = RunSpec()
LABELS = OneOrMore(
    Scalar("a label", values.parse_run_label, json={"pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"}),
    "a label, or a list of labels",
)
MOST_AT_MOST = 1000


class AgentKind(msgspec.Struct, frozen=True):
    """The agent's name, or who calls, as in `who`."""

    label: str = "the name of an agent, or a map as in `who`"

    def read(self, node: Node, path: Path, reading: Reading) -> WhoSettings:
        if node.shape == "map":
            found: WhoSettings = WHO.read(node, path, reading)
            return found
        return WhoSettings(agent=(Scalar("a text", values.parse_text).read(node, path, reading),))

    def show(self, value: Any) -> str:
        return ""

    def schema(self) -> JsonSchema:
        return {"anyOf": [{"type": "string"}, WHO.schema()]}


class LabelSettings(msgspec.Struct, frozen=True):
    """What puts labels on a run: the use of these names, of what is classed so, or of those names as far as they are
    classed so."""

    adds: Annotated[tuple[str, ...], Setting(LABELS, "The labels.", default="required")] = ()
    tools: Annotated[tuple[str, ...], Setting(GLOBS, "Tools.")] = ()
    prompts: Annotated[tuple[str, ...], Setting(GLOBS, "Prompts.")] = ()
    resources: Annotated[tuple[str, ...], Setting(GLOBS, "Resources and templates: `<server>__<URI>`.")] = ()
    classification: Annotated[
        tuple[str, ...], Setting(OF_CLASSIFICATION, "How confidential it is.", default="any")
    ] = ()
    privacy: Annotated[tuple[str, ...], Setting(OF_PRIVACY, "Whose data it is.", default="any")] = ()


class RunRuleSettings(msgspec.Struct, frozen=True):
    """What a run may not do, or not without an approval: where all that is given here holds."""

    name: Annotated[
        str,
        Setting(Scalar("a text", values.parse_text), "What it is called in decisions and records.", default="required"),
    ] = ""
    deny: Annotated[PatternSettings | None, Setting(PATTERNS, "What is denied.", default="nothing")] = None
    hold: Annotated[
        PatternSettings | None, Setting(PATTERNS, "What waits until a person approves it.", default="nothing")
    ] = None
    who: Annotated[WhoSettings, Setting(WHO, "Whose runs; `{}` is everybody's.")] = WhoSettings()
    labels: Annotated[
        tuple[str, ...], Setting(LABELS, "It holds where the run has all of these labels.", default="any")
    ] = ()
    after: Annotated[
        PatternSettings | None,
        Setting(PATTERNS, "It holds once one of these was let through, whatever it answered.", default="any time"),
    ] = None
    unless_after: Annotated[
        PatternSettings | None,
        Setting(PATTERNS, "It holds until one of these has answered without an error.", default="any time"),
    ] = None
    at_most: Annotated[
        int | None,
        Setting(
            Count(1, MOST_AT_MOST), "It holds from the next of these calls on: so many may be made.", default="no bound"
        ),
    ] = None
    within: Annotated[
        float, Setting(duration("1s", "7d"), "In which time `at_most` counts.", default="the run's `window`")
    ] = 0.0
    mode: Annotated[Literal["enforce", "shadow"], MODE] = "enforce"
    cool_down: Annotated[
        float,
        Setting(
            duration("1s", "7d"), "It holds until this long after the last of these calls has ended.", default="none"
        ),
    ] = 0.0


class RunSettings(msgspec.Struct, frozen=True):
    """A run is what a principal did with one agent at one endpoint, lately. Rules here look at all of it."""

    window: Annotated[
        float, Setting(duration("10s", "7d"), "For how long after its end a call is part of the run.")
    ] = DEFAULT.window_s
    endpoints: Annotated[
        Literal["apart", "together"],
        Setting(
            Choice(("apart", "together")),
            "Are calls at several endpoints several runs? `together` where one agent is connected to several.",
        ),
    ] = DEFAULT.endpoints
    trusted_agents: Annotated[
        tuple[WhoSettings, ...],
        Setting(
            Listed(AgentKind(), "agents"),
            "Agents that may say which run a call is part of. Any other one could shed its labels with a new id.",
        ),
    ] = ()
    run_id: Annotated[
        str,
        Setting(
            Scalar("a key", values.parse_text),
            "The member of `_meta` that holds the id, a text; of `traceparent` it is the trace id.",
        ),
    ] = DEFAULT.run_id
    most_runs: Annotated[
        int,
        Setting(
            Count(1, 1_000_000),
            "Runs that are watched at one time, a quarter of them for one human or service; calls that would begin"
            " another are refused. Rules with a large `at_most` lower it, so that all fit into 128 MiB.",
        ),
    ] = DEFAULT.most_runs
    labels: Annotated[
        tuple[LabelSettings, ...],
        Setting(
            Listed(Group(LabelSettings, "a map `{adds, tools, prompts, resources, classification, privacy}`"), "rows"),
            "What puts labels on a run.",
        ),
    ] = ()
    rules: Annotated[
        tuple[RunRuleSettings, ...],
        Setting(Listed(Group(RunRuleSettings, "a map with the settings of a rule"), "rules"), "What a run may not do."),
    ] = ()


RUNS = Setting(
    Group(RunSettings, "a map `{window, endpoints, trusted_agents, run_id, labels, rules}`"),
    "What is watched over several calls.",
    default="nothing",
)
