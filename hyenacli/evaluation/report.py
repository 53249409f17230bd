"""Parts of a report: one self-contained HTML file."""

import datetime as dt
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from hyenacli import __version__, console
from hyenacli.writers.atomic import atomic_path

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 880px; margin: 2em auto; padding: 0 12px;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
.verdict { border-left: 4px solid #0072b2; padding: 6px 12px; background: #eef5fa; font-weight: 600; }
.warning { border-left: 4px solid #d9822b; padding: 4px 12px; background: #fdf3e7; }
.made { font-size: .87em; color: #555; }
code, pre { font: .9em/1.45 ui-monospace, Menlo, Consolas, monospace; }
pre { white-space: pre-wrap; }
.table { overflow-x: auto; } table { border-collapse: collapse; overflow-wrap: normal; }
td, th { padding: 2px 14px 2px 0; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } td { white-space: nowrap; }
td.n, td:last-child { white-space: normal; } tr.model { font-weight: 600; }
svg { max-width: 100%; height: auto; display: block; }
.chart { max-width: 560px; margin-top: 8px; } .chart > svg { width: 100%; }
.chart.wide { max-width: none; overflow-x: auto; } .chart.wide > svg { width: auto; }
.charts { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 8px 16px; }
.charts .chart { flex: 0 1 calc(50% - 8px); min-width: min(320px, 100%); }
@media (max-width: 600px) { body { margin: 1em auto; } .charts .chart { flex-basis: 100%; }
  .chart.wide > svg { max-width: none; } table { font-size: .87em; } td, th { padding-right: 8px; }
  td:first-child { white-space: normal; min-width: 7.2em; overflow-wrap: anywhere; }
  td:last-child { overflow-wrap: anywhere; } td.n:last-child { overflow-wrap: normal; } }
@media print { body { max-width: none; margin: 0; font-size: 11pt; } details { display: none; }
  .chart, .charts, .verdict, .warning, .table, tr, p { break-inside: avoid; } h2 { break-after: avoid; }
  .table { overflow: visible; } table { font-size: 9pt; } .chart { max-width: 11cm; } }
"""


def write_page(
    path: Path, title: str, sections: Sequence[str], *, verdict: str, tables: Sequence[Path] = ()
) -> None:
    """Write a report, atomically: what came out, how it was made, links to the tables, then the sections.

    Args:
        path: the file.
        title: of the page.
        sections: its body, as HTML.
        verdict: what came out, in a sentence or two.
        tables: files with the numbers, in or near the folder of the page.
    """
    head = '<!doctype html><html lang="en"><meta charset="utf-8">'
    head += (
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
    )
    folder = path.resolve().parent
    addresses = [os.path.relpath(table.resolve(), folder).replace(os.sep, "/") for table in tables]
    links = ", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in addresses)
    top = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="verdict">{escape(verdict[:1].upper() + verdict[1:])}</p>',
        _origin(),
        f"<p>Files: {links}</p>" if links else "",
    ]
    with atomic_path(path) as draft:
        body = "".join([*top, *sections])
        draft.write_text(f"{head}<style>{_STYLE}</style><body>{body}</body></html>\n", encoding="utf-8")


def _origin() -> str:
    """Return version, date, time taken, machine and command of this process."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    machine = f"{platform.platform()}, {console.counted(os.cpu_count() or 1, 'CPU')}"
    program = Path(sys.argv[0]).name.replace("__main__.py", "hyena")
    command = shlex.join([program, *sys.argv[1:]])
    made = f"hyena {__version__}, {now}, {console.elapsed()} h on {machine}"
    return f'<p class="made">{escape(made)}<br><code>{escape(command)}</code></p>'


def facts_table(facts: Mapping[str, object]) -> str:
    """Return a table of names and values."""
    rows = "\n".join(f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in facts.items())
    return f'<div class="table"><table>{rows}</table></div>'


def number_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, bold: Sequence[int] = ()) -> str:
    """Return a table with the first column aligned left and the others right.

    Args:
        header: names of the columns.
        rows: as many texts each.
        bold: indices of rows in bold.
    """
    names = "".join(f'<th class="n">{escape(name)}</th>' for name in header[1:])
    body = ""
    for i, (first, *cells) in enumerate(rows):
        style = ' class="model"' if i in bold else ""
        numbers = "".join(f'<td class="n">{escape(cell).replace(", ", ",&nbsp;")}</td>' for cell in cells)
        body += f"<tr{style}><td>{escape(first)}</td>{numbers}</tr>"
    return f'<div class="table"><table><tr><th>{escape(header[0])}</th>{names}</tr>{body}</table></div>'


def side_by_side(*charts: str) -> str:
    """Return charts beside each other, below each other where the page is narrow."""
    return f'<div class="charts">{"".join(charts)}</div>'


def settings_section(run: Path) -> str:
    """Return all settings of a run, folded."""
    text = escape((run / "config.yaml").read_text())
    return f"<details><summary>All settings</summary><pre>{text}</pre></details>"
