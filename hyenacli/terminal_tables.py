"""Tables on stdout: ruled for a person at a terminal, tab-separated for a program."""

import sys
from collections.abc import Iterable, Sequence

import typer


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under a header."""
    if not sys.stdout.isatty():
        for row in (header, *rows):
            typer.echo("\t".join(map(str, row)))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if type(cell) is int else str(cell) for cell in row))
    Console(markup=False, emoji=False).print(table)
