"""Pictures of verbs that judge a model by the length of what it reads."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from hyenacli import console

# Labels nearer to each other than this share of the axis would overlap.
_LABEL_GAP = 1 / 12
_COLORS = ("#1f6fb4", "#888888", "#c8c8c8")


def draw_by_length(
    target: Path, lengths: Sequence[int], lines: Mapping[str, Sequence[float]], *, x_label: str, y_label: str
) -> None:
    """Write an SVG of numbers against length, which doubles at equal distances.

    Args:
        target: the file.
        lengths: in bases.
        lines: for each name, a number for every length; NaN leaves a gap.
        x_label: what lengths are.
        y_label: what numbers are.
    """
    from hyenacli.evaluation.svg import Series, line_chart, standalone
    from hyenacli.writers.atomic import atomic_path

    places = [math.log2(length) for length in lengths]
    labels: dict[float, str] = {}
    for place, length in sorted(zip(places, lengths, strict=True), reverse=True):
        if not labels or min(labels) - place >= _LABEL_GAP * (max(places) - min(places)):
            labels[place] = f"{length:,}"
    series = [
        Series(name, list(zip(places, numbers, strict=True)), color, dots=True)
        for (name, numbers), color in zip(lines.items(), _COLORS, strict=False)
    ]
    chart = line_chart(series, x_label=x_label, y_label=y_label, x_labels=labels)
    with atomic_path(target) as path:
        path.write_text(standalone(chart), encoding="utf-8")
    console.log.info("wrote %s", target)
