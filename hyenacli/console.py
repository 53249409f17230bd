"""Log lines and progress on stderr, and events as JSON lines, of the first rank only.

Messages go through the standard logger `hyena`, numbers for programs through `event`. stdout is for data.
"""

import datetime as dt
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from hyenacli.distributed import current_ranks

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

log = logging.getLogger("hyena")
HEARTBEAT_SECONDS = 30
"""Least time between two lines of progress off a terminal."""
_json_sinks: list[TextIO] = []
_began = time.monotonic()
_stderr: "Console | None" = None


def stderr() -> "Console":
    """Return the rich console on stderr, shared by log lines and progress bar so that neither overwrites."""
    global _stderr  # noqa: PLW0603
    if _stderr is None or _stderr.file is not sys.stderr:
        from rich.console import Console

        # without emoji=False chr1:100:A>G has a picture in its middle
        _stderr = Console(file=sys.stderr, highlight=False, emoji=False)
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
    global _began  # noqa: PLW0603
    _began = time.monotonic()
    log.handlers[:] = [_Human()]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    if not current_ranks().first:
        log.setLevel(logging.ERROR)
    with json_sink(log_json) if log_json else nullcontext():
        yield


def elapsed() -> dt.timedelta:
    """Return how long the verb has been running, in whole seconds; outside of a session, this process."""
    return dt.timedelta(seconds=round(time.monotonic() - _began))


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


class Progress:
    """Progress of a long verb, on the first rank: a bar on a terminal, elsewhere a line now and then.

    Off a terminal a line with the time, n/N, the rate and the time left is logged at most every
    `HEARTBEAT_SECONDS`. The same goes to the JSON sinks as an event, terminal or not. Use it as a context.

    The rate is that since the first update: what comes before, such as fitting batches to the memory, is
    slower than the rest.

    Args:
        doing: what is done, as "embedding".
        total: of the units, None where it is not known.
        unit: in the plural, as "records".
        done: of them, before the start.
    """

    def __init__(self, doing: str, total: float | None, unit: str, *, done: float = 0) -> None:
        self._doing, self._total, self._unit = doing, total, unit
        self._done = done
        self._first: tuple[float, float] | None = None
        self._beat = time.monotonic()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        """Show the bar."""
        if stderr().is_terminal and log.isEnabledFor(logging.INFO):
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
            detail = TextColumn("{task.fields[detail]}")
            self._bar = Bar(*columns, detail, TimeRemainingColumn(), console=stderr())
            task = self._bar.add_task(self._doing, total=self._total, detail="")
            self._bar.update(task, completed=self._done)
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: float, detail: str = "", *, total: float | None = None) -> None:
        """Show that so many units are done in all.

        Args:
            done: units, those before the start included.
            detail: a rate or a measure to show beside them; the rate in units by default.
            total: a new total.
        """
        self._done = done
        self._total = self._total if total is None else total
        now = time.monotonic()
        self._first = self._first or (now, done)
        if self._bar is not None:
            shown = f"{self._counts()}  {detail or self._rate(now)}"
            self._bar.update(self._bar.task_ids[0], completed=done, total=self._total, detail=shown)
        if now - self._beat >= HEARTBEAT_SECONDS:
            self._beat = now
            self._log(now, detail)

    def _counts(self) -> str:
        total = "" if self._total is None else f"/{self._total:,.0f}"
        return f"{self._done:,.0f}{total} {self._unit}"

    def _per_second(self, now: float) -> float:
        """Return the rate since the first update; 0 at that update."""
        start, done = self._first or (now, self._done)
        return (self._done - done) / (now - start) if now > start else 0.0

    def _rate(self, now: float) -> str:
        pace = self._per_second(now)
        return f"{pace:,.3g} {self._unit}/s" if pace else ""

    def _log(self, now: float, detail: str) -> None:
        pace = self._per_second(now)
        remaining = None if self._total is None or not pace else round((self._total - self._done) / pace)
        event(
            "progress",
            doing=self._doing,
            done=self._done,
            total=self._total,
            unit=self._unit,
            per_second=round(pace, 3),
            seconds_left=remaining,
        )
        if self._bar is None and log.isEnabledFor(logging.INFO):
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            eta = "" if remaining is None else f"about {dt.timedelta(seconds=remaining)} left"
            text = ", ".join(filter(None, (self._counts(), detail or self._rate(now), eta)))
            stderr().print(f"{stamp} {self._doing}: {text}", markup=False, soft_wrap=True)
