"""Lists of names cut short for a one-line message."""

from collections.abc import Iterable


def abbreviate(names: Iterable[str], limit: int = 5) -> str:
    """The first `limit` names, and how many there are when that is not all of them.

    >>> abbreviate(["I", "II", "III"], limit=2)
    'I, II, ... (3 in all)'
    >>> abbreviate(["chrM"])
    'chrM'
    """
    known = list(names)
    shown = ", ".join(known[:limit])
    return shown if len(known) <= limit else f"{shown}, ... ({len(known)} in all)"
