"""What a person sees while a model trains: a bar on a terminal, a line at every evaluation."""

import datetime as dt
import math
import time
from contextlib import ExitStack
from typing import Self

from hyenacli import console
from hyenacli.training.loop import Step


class TrainingProgress:
    """A context that shows steps as they are made.

    Args:
        total: steps of the whole run.
        done: steps made before.
        bits: whether the loss is nats of a base, and so shown in bits too.
    """

    def __init__(self, total: int, done: int, *, bits: bool):
        self._total, self._done, self._bits = total, done, bits
        self._started = time.monotonic()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Show the bar."""
        from rich.progress import MofNCompleteColumn, TextColumn

        detail = TextColumn("{task.fields[detail]}")
        self._bar = self._stack.enter_context(console.progress(MofNCompleteColumn(), detail))
        self._task = self._bar.add_task("training", total=self._total, completed=self._done, detail="")
        return self

    def __exit__(self, *exception: object) -> None:
        """Take the bar away."""
        self._stack.close()

    def show(self, number: int, step: Step) -> None:
        """Show that step `number` (1-based) was made."""
        bits = f"  {step.loss / math.log(2):.3f} bits/base" if self._bits else ""
        detail = f"loss {step.loss:.4f}{bits}  length {step.length:,}  {step.tokens_per_second:,.0f} tokens/s"
        self._bar.update(self._task, completed=number, detail=detail)
        if step.judged:
            judged = [f"{k} {v:.4f}" for k, v in list(step.judged.items())[:2] if math.isfinite(v)]
            parts = [f"step {number}/{self._total}", detail, *judged, self._left(number)]
            console.log.info("%s", "  ".join(parts))

    def _left(self, number: int) -> str:
        """How long the rest will take at the pace so far."""
        pace = (time.monotonic() - self._started) / max(1, number - self._done)
        return f"{dt.timedelta(seconds=round(pace * (self._total - number)))} left"
