"""Errors a user can cause, and their wording: a bug is never a UserError and keeps its traceback."""

from collections.abc import Iterable


class UserError(Exception):
    """Bad input or a run that cannot go on: printed as one line, exit code 1.

    Args:
        what: what is wrong, in the user's terms.
        at: the file, record or option it is about.
        line: 1-based line number in `at`.
        remedy: what to do about it.

    >>> str(UserError("end 5 is before start 9", at="a.bed", line=3, remedy="swap the two columns"))
    'a.bed, line 3: end 5 is before start 9; swap the two columns'
    """

    exit_code = 1

    def __init__(self, what: str, *, at: object = None, line: int | None = None, remedy: str | None = None):
        place = "" if at is None else str(at) if line is None else f"{at}, line {line}"
        super().__init__((f"{place}: " if place else "") + what + (f"; {remedy}" if remedy else ""))


class UsageError(UserError):
    """A command line that cannot mean anything: exit code 2, as the option parser's own errors."""

    exit_code = 2


def nearest(word: str, known: list[str]) -> str:
    """A remedy that names the nearest known word, or all of them.

    >>> nearest("max_step", ["max_steps", "seed"])
    "did you mean 'max_steps'?"
    >>> nearest("zzz", ["max_steps", "seed"])
    'known: max_steps, seed'
    """
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def abbreviate(names: Iterable[str], limit: int = 5) -> str:
    """Join the first `limit` names, and say how many there are if that is not all of them.

    >>> abbreviate(["I", "II", "III"], limit=2)
    'I, II, ... (3 in all)'
    >>> abbreviate(["chrM"])
    'chrM'
    """
    names = list(names)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)} in all)"
