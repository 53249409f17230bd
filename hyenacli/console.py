"""Log lines and progress on stderr, and events as JSON lines, of the first rank only.

Messages go through the standard logger `hyena`, numbers for programs through `event`. stdout is for data.
"""

import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hyenacli.distributed import current_ranks

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

log = logging.getLogger("hyena")
_json_sinks: list[TextIO] = []
_stderr: "Console | None" = None


def stderr() -> "Console":
    """Return the rich console on stderr, shared by log lines and progress bar so that neither overwrites."""
    global _stderr  # noqa: PLW0603
    if _stderr is None or _stderr.file is not sys.stderr:
        from rich.console import Console

        _stderr = Console(file=sys.stderr, highlight=False)
    return _stderr


class _Human(logging.Handler):
    """Handler that prints log lines on stderr, with the level if it is above info."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line, and write it to the JSON sinks."""
        text = record.getMessage()
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        stderr().print(prefix + text, markup=False, soft_wrap=True)
        event("log", level=record.levelname.lower(), message=text)


@contextmanager
def session(*, quiet: bool = False, verbose: bool = False, log_json: Path | None = None) -> Iterator[None]:
    """Set up logging while one verb runs.

    Args:
        quiet: warnings and errors only, and no progress bar.
        verbose: debugging messages too.
        log_json: file to append every event to, as one JSON object per line.
    """
    log.handlers[:] = [_Human()]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    if not current_ranks().first:
        log.setLevel(logging.ERROR)
    with json_sink(log_json) if log_json else nullcontext():
        yield


@contextmanager
def json_sink(path: Path) -> Iterator[None]:
    """Append every event to `path` too while the context lasts, on the first rank."""
    with (path if current_ranks().first else Path(os.devnull)).open("a", buffering=1) as sink:
        _json_sinks.append(sink)
        try:
            yield
        finally:
            _json_sinks.remove(sink)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where needed.

    >>> counted(1, "record"), counted(1200, "record")
    ('1 record', '1,200 records')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def finite(value: Any) -> Any:
    """Return a value for JSON with None for each number that is not finite, also in lists and mappings.

    >>> finite({"loss": float("nan"), "steps": (1, float("inf"))})
    {'loss': None, 'steps': [1, None]}
    """
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def event(name: str, **fields: Any) -> None:
    """Write one JSON object {"event": name, "time": seconds since the epoch, ...} to every sink.

    A number that is not finite is null.
    """
    line = json.dumps({"event": name, "time": round(time.time(), 3), **finite(fields)}, default=str)
    for sink in _json_sinks:
        sink.write(line + "\n")


@contextmanager
def progress(*columns: "str | ProgressColumn") -> Iterator["Progress"]:
    """Show a rich progress bar if stderr is a terminal, on the first rank, unless -q is given."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    shown = stderr().is_terminal and log.isEnabledFor(logging.INFO)
    default = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*default, *columns, TimeRemainingColumn(), console=stderr(), disable=not shown) as bar:
        yield bar
