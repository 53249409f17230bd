"""report.html of a pretraining run: curves, and the loss beside Markov models, in one file."""

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from hyenacli.evaluation.plots import BLUE, GREEN, GREY, RED, Series, curve, line_chart, smoothed
from hyenacli.evaluation.report import facts_table, number_table, settings_section, write_page
from hyenacli.training.curriculum import Curriculum
from hyenacli.training.metric_loggers import read_metrics


def write_report(
    run: Path,
    facts: Mapping[str, object],
    curriculum: Curriculum,
    markov: Sequence[float],
    loss: float,
) -> None:
    """Write report.html from the run's metrics.csv and config.yaml.

    Args:
        run: the run directory.
        facts: rows under the title, in order.
        curriculum: stages of the run; if there are several, each has a mark in the curves and a table row.
        markov: nats per base of Markov models of order 0, 1, ... on the held-out windows; may be empty.
        loss: nats per base of the model on the same windows; NaN if there are none.
    """
    rows = read_metrics(run / "metrics.csv")
    train = curve(rows, "tokens", "loss")
    marks, tokens = {}, 0
    for stage in curriculum.stages[:-1]:
        tokens += stage.steps * stage.windows * stage.length
        marks[float(tokens)] = f"{stage.length:,}"
    end = max((x for x, _ in train), default=0.0)
    orders = sorted({0, best_order(markov)}) if markov else []
    baselines = [
        Series(f"Markov order {order}", [(0.0, markov[order]), (end, markov[order])], color, dashed=True)
        for order, color in zip(orders, ("#bbbbbb", GREY), strict=False)
    ]
    losses = [
        Series("training", smoothed(train), BLUE),
        Series("held out", curve(rows, "tokens", "valid_loss"), RED, dots=True),
        *baselines,
    ]
    x_label, top = "training tokens", math.log(4) + 0.01
    loss_chart = line_chart(losses, x_label=x_label, y_label="nats per base", y_max=top, marks=marks)

    def chart(column: str, color: str, y_label: str) -> str:
        line = Series(y_label, smoothed(curve(rows, "tokens", column)), color)
        return line_chart([line], x_label=x_label, y_label=y_label, marks=marks)

    sections = [
        f"<h1>{escape(run.resolve().name)}: pretraining</h1>{facts_table(facts)}",
        settings_section(run),
        f"<h2>Loss</h2>{loss_chart}",
        f"<h2>Stages</h2>{_stage_table(curriculum, rows)}" if marks else "",
        f"<h2>Comparison with Markov models</h2>{_markov_table(markov, loss)}",
        f"<h2>Learning rate</h2>{chart('lr', BLUE, 'learning rate')}",
        f"<h2>Throughput</h2>{chart('tokens_per_second', GREEN, 'tokens per second')}",
        f"<h2>Time spent waiting for windows</h2>{chart('wait_fraction', GREY, 'share of the time')}",
    ]
    write_page(run / "report.html", run.resolve().name, sections)


def _stage_table(curriculum: Curriculum, rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table with a row for each stage that has begun."""
    by_step = {int(row["step"]): row for row in rows if row["loss"]}
    cells = []
    for stage in curriculum.stages:
        steps = [by_step[step] for step in range(stage.first_step + 1, stage.end + 1) if step in by_step]
        if not steps:
            continue
        tail = steps[-max(1, len(steps) // 10) :]
        loss = sum(float(row["loss"]) for row in tail) / len(tail)
        speed = statistics.median(float(row["tokens_per_second"]) for row in steps)
        counts = (stage.length, stage.windows, len(steps), len(steps) * stage.windows * stage.length)
        cells.append([*(f"{count:,}" for count in counts), f"{loss:.4f}", f"{speed:,.0f}"])
    header = ("length", "windows a step", "steps", "tokens", "loss of its last tenth", "tokens/s (median)")
    return number_table(header, cells)


def best_order(markov: Sequence[float]) -> int:
    """Return the order with the lowest loss.

    >>> best_order([1.38, 1.3, 1.35])
    1
    """
    return min(range(len(markov)), key=markov.__getitem__)


def _markov_table(markov: Sequence[float], loss: float) -> str:
    if not markov:
        return "<p>None: nothing is held out to compare on, or the run was stopped before its end.</p>"
    losses = {f"Markov, order {order}": nats for order, nats in enumerate(markov)} | {"this model": loss}
    rows = [
        [name, *(f"{value:.4f}" for value in (nats, nats / math.log(2), math.exp(nats)))]
        for name, nats in losses.items()
    ]
    table = number_table(["", "nats/base", "bits/base", "perplexity"], rows, bold=[len(markov)])
    return (
        "<p>All are fitted to the same training bases and evaluated on the same held-out windows; order k "
        "predicts a base from the k before it. Uniform probabilities score 1.3863 nats, 2 bits.</p>" + table
    )
