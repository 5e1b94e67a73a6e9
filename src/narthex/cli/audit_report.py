"""`narthex audit report`: the evidence that a reviewer asks for, as a page that prints.

In: a configuration, a period. Out: HTML, or one JSON document; exit 0 where the journal is whole, 1 where it is not.
Cases: `tests/telemetry/audit/report/test_report.py`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narthex.cli.amounts import counted
from narthex.cli.audit_kept import configured_seals
from narthex.cli.audit_search import FOLDER, finder_in, finder_of, private, proofs_of, snapshot_of
from narthex.cli.kept import config_option, find_file, json_option, say, when
from narthex.cli.records import files_of

if TYPE_CHECKING:
    from narthex.telemetry.audit.report.figures import KeyRow
    from narthex.telemetry.audit.report.period import Period
    from narthex.types import Snapshot

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class PeriodType(click.ParamType[Any]):
    name = "period"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Period:
        from narthex.telemetry.audit.report.period import read_period

        try:
            return read_period(str(value))
        except ValueError:
            self.fail(f"'{value}' is no period such as 2026-Q4, 2026-11 or 2026-10-01..2026-12-01", param, ctx)


@click.command()
@click.argument("folder", metavar="[DIR]", required=False, type=FOLDER)
@click.option(
    "--period", type=PeriodType(), required=True, help="2026, 2026-Q4, 2026-11, 2026-11-27, or FROM..TO (UTC)."
)
@click.option("--tenant", default="", help="Of this tenant alone.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="A file, for this user alone where it is new."
)
@click.option("--key", "keys", multiple=True, type=_FILE, help="Public key that checkpoints must be signed with (PEM).")
@click.option("--checkpoints", "places", multiple=True, type=FOLDER, help="Another folder with checkpoints.")
@config_option
@json_option
@click.pass_context
def report(
    ctx: click.Context, /, folder: Path | None, period: Period, tenant: str, out: Path | None, keys: tuple[Path, ...],
    places: tuple[Path, ...], config: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Write what a reviewer asks of a period: access, denials, changes, approvals, reviews, integrity.

    DIR is the folder of a journal, also a copied one; without it, where the configuration records. API keys stand in
    the report where there is a configuration: of a DIR, where --config is given.

    A page of HTML that prints and needs nothing else, to --out or standard output; below each figure stands the command
    that shows the records behind it. Exits 1 where the journal is not whole, which the page says too.

    With --json: {"period", "sections": [{"title", "asks", "text", "figures": [{"label", "value", "query", "bad"}],
    "tables": [{"title", "head", "rows", "query", "more", "note"}]}]}.
    """
    from narthex.telemetry.audit.checkpoints import read_keys
    from narthex.telemetry.audit.report.figures import sections
    from narthex.telemetry.audit.report.page import page
    from narthex.telemetry.audit.verify import verify

    file = find_file(ctx, config) if folder is None else config
    snapshot = snapshot_of(file) if file is not None else None
    journal: tuple[str, ...] = (str(folder),)
    heads: tuple[Path, ...] = ()
    if folder is None:
        assert snapshot is not None
        folder, places, heads = proofs_of(snapshot, places)
        journal, looking = ("--config", str(file)), finder_of(snapshot)
    else:
        looking = finder_in(folder)
    files_of(folder)
    try:
        known = read_keys(keys or sorted(folder.glob("audit-*.pub")))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    found = verify(folder, known, places, configured_seals(file) if file is not None else None, heads)
    listed = _keys(snapshot, tenant) if snapshot is not None else None
    with looking as finder:
        made = sections(finder, found, period, tenant=tenant, journal=journal, keys=listed, given=bool(keys))
    if as_json:
        import msgspec

        say({"period": msgspec.to_builtins(period), "sections": msgspec.to_builtins(made)})
    else:
        source = str(file.absolute()) if file is not None else "none"
        about = {"configuration": source, "journal": str(folder), "tenant": tenant or "all"}
        text = page(made, period, about=about, made=time.strftime("%Y-%m-%d %H:%M", time.gmtime()))
        if out is None:
            click.echo(text, nl=False)
        else:
            with open(out, "w", encoding="utf-8", opener=private) as stream:
                stream.write(text)
            whole = "NOT whole" if found.fault_count else "whole"
            click.echo(f"{out}: the journal is {whole}, {counted(found.records, 'record')} in all", err=True)
    ctx.exit(1 if found.fault_count else 0)


def _keys(snapshot: Snapshot, tenant: str) -> list[KeyRow]:
    """API keys as they are now; none where there is no store."""
    from narthex.cli.kept import on_store
    from narthex.config.places import Places
    from narthex.telemetry.audit.report.figures import KeyRow

    place = Path(snapshot.store) if isinstance(snapshot.store, str) else snapshot.store
    if isinstance(place, Path) and not place.is_file():
        return []
    found = on_store(Places(Path(snapshot.state_dir), place), lambda store: store.keys())
    return [
        KeyRow(
            one.name, one.tenant, ", ".join(one.roles), when(one.created_at), when(one.expires_at),
            when(one.revoked_at), when(one.used_at),
        )
        for one in found
        if not tenant or one.tenant == tenant
    ]  # fmt: skip
