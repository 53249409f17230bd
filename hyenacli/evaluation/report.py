"""Parts of a report: one self-contained HTML file."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from hyenacli.writers.atomic import atomic_path

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 800px; margin: 2em auto;
  padding: 0 12px; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; }
@media (max-width: 600px) { table { display: block; overflow-x: auto; } .charts svg { width: 100%; } }
@media print { body { max-width: none; margin: 0; } svg, table { break-inside: avoid; } }
 td, th { padding: 2px 14px 2px 0; text-align: left; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } td { white-space: nowrap; }
td:last-child { white-space: normal; } td.n:last-child { white-space: nowrap; } tr.model { font-weight: 600; }
svg { max-width: 100%; height: auto; } .charts { display: flex; flex-wrap: wrap; align-items: flex-start; }
.charts svg { width: 50%; min-width: 280px; }
.warning { border-left: 4px solid #d9822b; padding: 4px 12px; background: #fdf3e7; }
"""


def write_page(path: Path, title: str, sections: Sequence[str]) -> None:
    """Write a report, atomically.

    Args:
        path: the file.
        title: of the page.
        sections: its body, as HTML.
    """
    head = '<!doctype html><html lang="en"><meta charset="utf-8">'
    head += (
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
    )
    with atomic_path(path) as draft:
        draft.write_text(f"{head}<style>{_STYLE}</style><body>{''.join(sections)}</body></html>\n")


def facts_table(facts: Mapping[str, object]) -> str:
    """Return a table of names and values."""
    rows = "\n".join(f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in facts.items())
    return f"<table>{rows}</table>"


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
        numbers = "".join(f'<td class="n">{escape(cell)}</td>' for cell in cells)
        body += f"<tr{style}><td>{escape(first)}</td>{numbers}</tr>"
    return f"<table><tr><th>{escape(header[0])}</th>{names}</tr>{body}</table>"


def settings_section(run: Path) -> str:
    """Return all settings of a run, folded."""
    text = escape((run / "config.yaml").read_text())
    return f"<details><summary>All settings</summary><pre>{text}</pre></details>"
