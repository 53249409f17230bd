"""Natural order of names."""

import re


def natural_key(text: str) -> list[tuple[int, float, str]]:
    """Return a key that sorts numbers in a text by value, the rest by letters.

    >>> sorted(["c10", "c9", "-1", "1", "0"], key=natural_key)
    ['-1', '0', '1', 'c9', 'c10']
    """
    try:
        return [(0, float(text), "")]
    except ValueError:
        parts = re.split(r"(\d+)", text)
    return [(1, float(part), "") if part.isdecimal() else (2, 0.0, part) for part in parts if part]
