"""A report as one page of HTML: it needs nothing from anywhere, runs nothing, and prints.

In: sections. Out: a document. All texts are escaped, whoever chose them: names of tools, principals and rules are not
ours. Pure. Cases: `tests/telemetry/audit/report/test_report.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from narthex import __version__
from narthex.telemetry.audit.report.figures import Figure, Section, Table
from narthex.telemetry.audit.report.period import Period, brief

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""What is no letter and would move, hide or turn others."""
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 2.5rem 2rem; background: #fff; color: #1c2230;
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.01em; }
h2 { margin: 0; font-size: 1.3rem; }
h3 { margin: 1.6rem 0 .4rem; font-size: 1rem; }
header { border-bottom: 3px solid #1f4e8c; padding-bottom: 1.2rem; }
header p, .asks { margin: .3rem 0 0; color: #566; }
dl.about { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 1rem 0 0; }
dl.about dt { color: #566; } dl.about dd { margin: 0; overflow-wrap: anywhere; }
nav { margin: 1.2rem 0 0; } nav a { margin-right: 1.2rem; color: #1f4e8c; text-decoration: none; }
section { margin-top: 2.2rem; padding-top: 1.2rem; border-top: 1px solid #d5dbe5; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .8rem; margin: 1rem 0; }
.figure { border: 1px solid #d5dbe5; border-radius: 6px; padding: .7rem .9rem; break-inside: avoid; }
.figure b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.figure.bad { border-color: #b3261e; background: #fdf1f0; } .figure.bad b { color: #b3261e; }
code { font: 11.5px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace; color: #566; overflow-wrap: anywhere; }
.figure code, .query { display: block; margin-top: .35rem; }
table { width: 100%; border-collapse: collapse; font-size: 13px; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid #e3e8f0; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
th { border-bottom: 2px solid #9fb0c8; font-weight: 600; white-space: nowrap; }
tr.blank td { height: 2.4rem; }
thead { display: table-header-group; } tr { break-inside: avoid; }
.none, .more { color: #566; font-size: 13px; }
footer { margin-top: 2.5rem; padding-top: .8rem; border-top: 1px solid #d5dbe5; color: #566; font-size: 13px; }
@page { size: A4; margin: 16mm 14mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; } nav { display: none; } table { font-size: 8.5pt; }
  h2, h3 { break-after: avoid; } code { font-size: 7.5pt; } a { color: inherit; }
}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(sections: Iterable[Section], period: Period, *, about: dict[str, str], made: str) -> str:
    """The document.

    Args:
        about: What it is of: label to text. made: When, as people read it.
    """
    found = list(sections)
    facts = "".join(f"<dt>{_text(label)}</dt><dd>{_text(text)}</dd>" for label, text in about.items())
    since, until = brief(period.since), brief(period.until)
    links = "".join(f'<a href="#{_anchor(one)}">{_text(one.title)}</a>' for one in found)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>Narthex: audit report, {_text(period.label)}</title><style>{_STYLE}</style></head>\n<body><header>"
        f"<h1>Audit report</h1><p>{_text(period.label)}: from {_text(since)} up to {_text(until)}, UTC</p>"
        f'<dl class="about">{facts}</dl><nav>{links}</nav></header>\n'
        + "".join(map(_section, found))
        + f"<footer>Made by Narthex {__version__} on {_text(made)}. Below each figure stands the command that shows the"
        " records behind it; times are UTC.</footer></body></html>\n"
    )


def _section(one: Section) -> str:
    figures = "".join(map(_figure, one.figures))
    return (
        f'<section id="{_anchor(one)}"><h2>{_text(one.title)}</h2><p class="asks">{_text(one.asks)}</p>'
        f'<p>{_text(one.text)}</p><div class="figures">{figures}</div>{"".join(map(_table, one.tables))}</section>\n'
    )


def _figure(one: Figure) -> str:
    query = f"<code>{_text(one.query)}</code>" if one.query else ""
    return f'<div class="figure{" bad" if one.bad else ""}"><b>{_text(one.value)}</b>{_text(one.label)}{query}</div>'


def _table(one: Table) -> str:
    query = f'<code class="query">{_text(one.query)}</code>' if one.query else ""
    note = f'<p class="more">{_text(one.note)}</p>' if one.note else ""
    if not one.rows:
        return f'<h3>{_text(one.title)}</h3>{note}<p class="none">None.</p>{query}'
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in one.head)
    rows = "".join(map(_row, one.rows))
    more = f'<p class="more">And {one.more:,} more, which the command shows.</p>' if one.more else ""
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<h3>{_text(one.title)}</h3>{note}{body}{more}{query}"


def _row(cells: tuple[str, ...]) -> str:
    """One with nothing in it is for somebody to fill in."""
    start = "<tr>" if any(cells) else '<tr class="blank">'
    return f"{start}{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"


def _anchor(one: Section) -> str:
    return re.sub(r"[^a-z]", "", one.title.lower())


def _text(text: str) -> str:
    """What cannot be seen is shown as a mark."""
    return escape(_UNSEEN.sub("\ufffd", text.encode(errors="replace").decode()), quote=True)
