"""Errors that a user can cause, and their wording. A bug is never a UserError and keeps its traceback."""

import math
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Bad input, or a run that cannot continue: printed as one line, exit code 1.

    Args:
        what: the problem, in the user's terms.
        at: file, record or option with the problem.
        line: 1-based line number in `at`.
        remedy: what to do about it.

    >>> str(UserError("end 5 is before start 9", at="a.bed", line=3, remedy="swap the two columns"))
    'a.bed, line 3: end 5 is before start 9; swap the two columns'
    """

    exit_code = 1

    def __init__(self, what: str, *, at: object = None, line: int | None = None, remedy: str | None = None):
        location = "" if at is None else str(at) if line is None else f"{at}, line {line}"
        super().__init__((f"{location}: " if location else "") + what + (f"; {remedy}" if remedy else ""))


class UsageError(UserError):
    """Invalid command line: exit code 2, as for errors of the option parser."""

    exit_code = 2


def check_range(flag: str, value: float | None, low: float, high: float = math.inf) -> None:
    """Check an option that may be left out; UsageError if it is not of [low, high], or infinite."""
    if value is not None and not (low <= value <= high and math.isfinite(value)):
        limit = f"from {low} on" if high == math.inf else f"from {low} to {high}"
        raise UsageError(f"{value} is out of range", at=flag, remedy=f"use a number {limit}")


def check_word(flag: str, value: str, words: Sequence[str]) -> None:
    """Check that the value of an option is one of its words; UsageError if it is not."""
    if value not in words:
        raise UsageError(f"unknown word '{value}'", at=flag, remedy=nearest(str(value), list(words)))


def nearest(word: str, choices: list[str]) -> str:
    """Return a remedy that names the choice nearest to a word, or all choices.

    >>> nearest("max_step", ["max_steps", "seed"])
    "did you mean 'max_steps'?"
    >>> nearest("zzz", ["max_steps", "seed"])
    'known: max_steps, seed'
    """
    import difflib

    close = difflib.get_close_matches(word, choices, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(choices)}"


def abbreviate(names: Iterable[str], limit: int = 5) -> str:
    """Join the first `limit` names; if there are more, add their number.

    >>> abbreviate(["I", "II", "III"], limit=2)
    'I, II, ... (3 in all)'
    >>> abbreviate(["chrM"])
    'chrM'
    """
    names = list(names)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)} in all)"


def quote(text: str | bytes, limit: int = 40) -> str:
    """Return text of a file for a message: quoted on one line, cut after `limit` characters.

    >>> quote(b"chr1"), quote("A" * 50, limit=4)
    ("'chr1'", "'AAAA...' (50 characters)")
    """
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    return repr(text) if len(text) <= limit else f"{text[:limit] + '...'!r} ({len(text):,} characters)"
