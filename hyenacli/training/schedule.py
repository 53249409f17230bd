"""The learning rate as a function of the step."""

import math


def cosine(step: int, *, peak: float, floor: float, warmup: int, total: int) -> float:
    """Linear warm-up to `peak` over `warmup` steps, then a half cosine down to `floor` at step `total`.

    Args:
        step: 0-based optimizer step.
        peak: highest learning rate.
        floor: learning rate at and after `total`.
        warmup: steps of warm-up; step 0 already takes peak / warmup.
        total: steps of the whole run.

    >>> [cosine(s, peak=1.0, floor=0.1, warmup=2, total=4) for s in (0, 1, 2, 4)]
    [0.5, 1.0, 1.0, 0.1]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2
