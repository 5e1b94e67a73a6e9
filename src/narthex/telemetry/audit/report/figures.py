"""What a reviewer asks of a period: who had access, what was denied, what was changed, who approved, is it whole.

In: the index of a journal, what `verify` says of it, the period. Out: `Section`s of figures and tables, each with the
question that anybody can ask again to see the records behind it. Cases: `tests/telemetry/audit/report/test_report.py`.
Source: AICPA TSC 2017, CC6.1 to 6.3, 6.6, 7.2, 7.3, 8.1; ISO/IEC 27001 A.5.15 to 5.18, 8.15.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import msgspec
from msgspec.structs import replace

from narthex.telemetry.audit.index.find import Finder
from narthex.telemetry.audit.matching import Record, Wanted, what_of
from narthex.telemetry.audit.report.period import Period, brief
from narthex.telemetry.audit.verify import Report

MOST_ROWS = 500
"""Of a table: what a person reads. The question behind it has them all."""
SHOWN_FAULTS = 50
READINGS = ("audit.read", "payloads.read")
"""Admin actions that only look at records."""
_OPTIONS = {
    "since": "--since", "until": "--until", "principal": "--principal", "client": "--client", "tenant": "--tenant",
    "endpoint": "--endpoint", "server": "--server", "method": "--method", "decision": "--decision",
    "outcome": "--outcome", "event": "--event", "rule": "--rule",
}  # fmt: skip


class Figure(msgspec.Struct, frozen=True):
    """A number, or a word. `query`: the command that shows what is behind it."""

    label: str
    value: str
    query: str = ""
    bad: bool = False


class Table(msgspec.Struct, frozen=True):
    """`more`: rows that are not here."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    query: str = ""
    more: int = 0
    note: str = ""


class Section(msgspec.Struct, frozen=True):
    """`asks`: which criteria it is for."""

    title: str
    asks: str
    text: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


class KeyRow(msgspec.Struct, frozen=True):
    """An API key as the report shows it; times as texts, empty for none."""

    name: str
    tenant: str
    roles: str
    created: str
    ends: str
    revoked: str
    used: str


class Questions:
    """Asks the index, always within the period and the tenant."""

    def __init__(self, finder: Finder, period: Period, tenant: str, journal: Sequence[str]) -> None:
        self._finder, self._journal = finder, journal
        self._base = Wanted(since=period.since, until=period.until, tenant=tenant)

    def figure(self, label: str, *, bad: bool = False, **wanted: str) -> Figure:
        asked = replace(self._base, **wanted)
        count = self._finder.count(asked)
        return Figure(label, f"{count:,}", self.command(asked), bad and count > 0)

    def grouped(self, title: str, columns: dict[str, str], *, note: str = "", **wanted: str) -> Table:
        """A table of how many records have which texts; `columns`: heading to column."""
        asked = replace(self._base, **wanted)
        found = self._finder.grouped(asked, *columns.values())
        rows = tuple((*one.texts, f"{one.count:,}", _short(one.first), _short(one.last)) for one in found[:MOST_ROWS])
        head = (*columns, "records", "first", "last")
        return Table(title, head, rows, self.command(asked), max(0, len(found) - MOST_ROWS), note)

    def listed(
        self, title: str, head: Sequence[str], row: Callable[[Record], tuple[str, ...]],
        fits: Callable[[Record], bool] = lambda record: True, **wanted: str,
    ) -> Table:  # fmt: skip
        """A table of records, the newest first."""
        asked = replace(self._base, **wanted)
        records = (one for one in self._finder.each(asked) if fits(one))
        rows = tuple(row(one) for one in islice(records, MOST_ROWS))
        return Table(title, tuple(head), rows, self.command(asked), sum(1 for _ in records))

    def each(self, **wanted: str) -> Iterable[Record]:
        return self._finder.each(replace(self._base, **wanted))

    def command(self, wanted: Wanted) -> str:
        """`narthex audit search …`, as it is typed."""
        asked = replace(wanted, since=brief(wanted.since), until=brief(wanted.until))
        given = [(option, getattr(asked, name)) for name, option in _OPTIONS.items()]
        words = ["narthex", "audit", "search", *self._journal]
        return shlex.join([*words, *(word for option, value in given if value for word in (option, value))])


def sections(
    finder: Finder, found: Report, period: Period, *, tenant: str, journal: Sequence[str],
    keys: Sequence[KeyRow] | None, given: bool,
) -> list[Section]:  # fmt: skip
    """The whole report.

    Args:
        found: What `verify` says. journal: Which one it is, in words of a command. given: public keys came from
            elsewhere. keys: None where only the folder is here.
    """
    ask = Questions(finder, period, tenant, journal)
    return [_access(ask, keys), _denials(ask), _changes(ask), _approvals(ask), _reviews(ask),
            _integrity(ask, found, given, journal)]  # fmt: skip


def _access(ask: Questions, keys: Sequence[KeyRow] | None) -> Section:
    who = {
        "principal": "subject",
        "agent": "client",
        "tenant": "tenant",
        "server": "server",
        "tool or resource": "target",
    }
    kept = tuple((one.name, one.tenant, one.roles, one.created, one.ends, one.revoked, one.used) for one in keys or ())
    return Section(
        "Access", "CC6.1, CC6.2, CC6.3 · ISO 27001 A.5.15, A.5.18",
        "Who called what by which agent, and when last. Who signs below has held this against who should have access.",
        (
            ask.figure("calls", event="call"),
            ask.figure("of them let through", event="call", decision="allow"),
            ask.figure("requests that were malformed or in another's session", event="refused"),
        ),
        (
            ask.grouped("Principals by agent, server and tool", who, event="call"),
            Table("API keys", ("name", "tenant", "roles", "made", "ends", "revoked", "last used"), kept,
                  note="Not in the folder of a journal: the store has them." if keys is None
                  else "As they are when this report is made."),
        ),
    )  # fmt: skip


def _denials(ask: Questions) -> Section:
    return Section(
        "Denials", "CC6.1, CC6.6, CC7.2",
        "What was asked for and refused, by the rule that refused it. Many of one principal may be a mistake in a"
        " grant, or somebody who tries.",
        (
            ask.figure("denied", decision="deny"),
            ask.figure("held for a person", decision="hold"),
            ask.figure("over a limit", outcome="rate_limited"),
            ask.figure("over a budget", outcome="budget_exhausted"),
            ask.figure("not proved who they are", outcome="unauthorized"),
        ),
        (
            ask.grouped("By rule and outcome", {"rule": "rule", "outcome": "outcome"}, decision="deny"),
            ask.grouped("By principal", {"principal": "subject", "agent": "client", "what": "target",
                                         "outcome": "outcome"}, decision="deny"),
        ),
    )  # fmt: skip


def _changes(ask: Questions) -> Section:
    return Section(
        "Changes", "CC8.1, CC7.2 · ISO 27001 A.8.32",
        "Revisions of the configuration that decided calls, and what was done on the admin side and at the terminal. A"
        " revision is a hash of what the configuration says: keep the files under version control, and the hash names"
        " the commit.",
        (
            ask.figure("admin actions", event="admin"),
            ask.figure("of them denied", event="admin", decision="deny"),
            ask.figure("commands about keys and secrets, at the terminal", event="command"),
            ask.figure("times that payloads were erased", event="erase"),
            ask.figure("legal holds placed or released", event="hold"),
            ask.figure("times that something was removed by its age", event="retention"),
        ),
        (
            ask.grouped("Configurations in force", {"revision": "config"}, event="call",
                        note="From the first to the last call that each decided."),
            ask.listed("Configurations applied", ("time", "step", "by", "revision", "what differs"), _config,
                       event="config"),
            ask.listed("Admin actions", ("time", "who", "action", "on", "outcome"), _action,
                       lambda one: one.get("method") not in READINGS, event="admin"),
            ask.listed("At the terminal", ("time", "who", "command", "on", "ids"), _command, event="command"),
            ask.listed("Payloads erased", ("time", "who", "of", "records", "why"), _erasing, event="erase"),
            ask.listed("Legal holds", ("time", "who", "step", "id", "of", "why"), _holding, event="hold"),
        ),
    )  # fmt: skip


def _approvals(ask: Questions) -> Section:
    steps: dict[str, int] = {}
    for one in ask.each(event="approval"):
        steps[str(one.get("step"))] = steps.get(str(one.get("step")), 0) + 1
    counts = tuple(Figure(step, f"{count:,}") for step, count in sorted(steps.items()))
    return Section(
        "Approvals",
        "CC6.3, CC8.1 · EU AI Act Art. 14",
        "Calls that a rule holds until a person says yes or no. Nobody approves a call of their own.",
        (ask.figure("steps of held calls", event="approval"), *counts),
        (ask.listed("Steps", ("time", "step", "whose call", "what", "rule", "by"), _step, event="approval"),),
    )


def _reviews(ask: Questions) -> Section:
    return Section(
        "Reviews", "CC4.1, CC7.2 · ISO 27001 A.5.18, A.8.15",
        "Who has looked at the records of calls, or at what calls have said, on the admin side, where reading is a"
        " record itself. Whoever reads the files, at the terminal or in a copy, leaves none: only the machine tells.",
        tuple(ask.figure(f"{action}, times", event="admin", method=action) for action in READINGS),
        (
            ask.listed("Who has read", ("time", "who", "action", "on", "outcome"), _action,
                       lambda one: one.get("method") in READINGS, event="admin"),
            Table("Attested by", ("access reviewed by", "on", "exceptions, and what is done about them"),
                  (("", "", ""),) * 3),
        ),
    )  # fmt: skip


def _integrity(ask: Questions, found: Report, given: bool, journal: Sequence[str]) -> Section:
    lost = sum(count for one in ask.each(event="lost") if isinstance(count := one.get("count"), int))
    unsigned = sum(one.last - one.signed for one in found.chains)
    command = shlex.join(["narthex", "audit", "verify", *journal])
    keys = (
        "given by who made this report"
        if given
        else "found beside the records: whoever can write there could have signed anew"
    )
    faults = tuple((one.what, one.file, str(one.line or ""), one.text) for one in found.faults[:SHOWN_FAULTS])
    chains = tuple(
        (one.chain, f"{one.first:,}", f"{one.last:,}", f"{one.signed:,}", "yes" if one.whole else "NO")
        for one in found.chains
    )
    return Section(
        "Integrity", "CC7.2, CC7.3 · ISO 27001 A.8.15",
        "Records are lines of a chain of hashes, signed once a second: this says whether any was changed, left out, put"
        f" in or cut off, over the whole journal and not only this period. Public keys: {keys}.",
        (
            Figure("the journal is whole", "no" if found.fault_count else "yes", command, bool(found.fault_count)),
            Figure("records in all, of every period", f"{found.records:,}", command),
            Figure("of them the journal's own, which no search finds: a file begins, a chain ends", f"{found.own:,}",
                   command),
            Figure("faults", f"{found.fault_count:,}", command, bool(found.fault_count)),
            Figure("not signed yet", f"{unsigned:,}", command),
            Figure("calls that began and have no end", f"{found.unfinished_count:,}", command),
            replace(ask.figure("records lost, in this period", event="lost"), value=f"{lost:,}", bad=lost > 0),
        ),
        (
            ask.grouped("Records by kind", {"kind": "event"}),
            Table("Faults", ("what", "file", "line", "found"), faults, command,
                  max(0, found.fault_count - len(faults))),
            Table("Chains", ("chain", "first", "last", "signed up to", "whole"), chains[:MOST_ROWS], command,
                  max(0, len(chains) - MOST_ROWS)),
            Table("Signed with", ("public key",), tuple((key,) for key in found.keys)),
        ),
    )  # fmt: skip


def _action(record: Record) -> tuple[str, ...]:
    outcome = record.get("outcome") or record.get("decision")
    return _short(_text(record, "time")), _who(record), _text(record, "method"), what_of(record), str(outcome or "")


def _step(record: Record) -> tuple[str, ...]:
    return (_short(_text(record, "time")), _text(record, "step"), _who(record), what_of(record), _text(record, "rule"),
            _text(record, "by"))  # fmt: skip


def _config(record: Record) -> tuple[str, ...]:
    changes = record.get("changes")
    what = ", ".join(map(str, changes)) if isinstance(changes, list) else ""
    revision = _text(record, "revision")[:12]
    return _short(_text(record, "time")), _text(record, "step"), _text(record, "by"), revision, what


def _command(record: Record) -> tuple[str, ...]:
    ids = record.get("ids")
    return (_short(_text(record, "time")), _text(record, "by"), _text(record, "action"), _text(record, "name"),
            ", ".join(map(str, ids)) if isinstance(ids, list) else "")  # fmt: skip


def _erasing(record: Record) -> tuple[str, ...]:
    records = record.get("records")
    return (_short(_text(record, "time")), _text(record, "by"), _whom(record.get("concerned")),
            f"{len(records):,}" if isinstance(records, list) else "", _text(record, "reason"))  # fmt: skip


def _holding(record: Record) -> tuple[str, ...]:
    hold = record.get("hold")
    hold = hold if isinstance(hold, dict) else {}
    by, why = (_text(record, name) or _text(hold, name) for name in ("by", "reason"))
    return (_short(_text(record, "time")), by, _text(record, "step"), _text(hold, "id"),
            _whom(hold.get("concerned")), why)  # fmt: skip


def _whom(concerned: object) -> str:
    """Whom or what somebody has named: `subject=ada`."""
    given = concerned.items() if isinstance(concerned, dict) else ()
    return ", ".join(
        f"{name}={', '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in given if value
    )


def _who(record: Record) -> str:
    who = record.get("principal")
    who = who if isinstance(who, dict) else {}
    return " by ".join(str(who[name]) for name in ("subject", "client") if who.get(name))


def _text(record: Record, name: str) -> str:
    return str(record.get(name) or "")


def _short(time: str) -> str:
    """To the second."""
    return f"{time[:10]} {time[11:19]}" if len(time) >= 19 else time
