"""report.html of a pretraining run: curves, and the loss beside Markov models, in one file."""

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from hyenacli.evaluation.report import facts_table, settings_section, write_page
from hyenacli.evaluation.svg import Series, line_chart, smoothed
from hyenacli.training.csv_logger import read_metrics
from hyenacli.training.curriculum import Curriculum

BLUE, RED, GREY, GREEN = "#1f6fb4", "#c03d3e", "#888888", "#2e8b57"


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
        facts: what to list under the title, in order.
        curriculum: stages of the run; where there are several, each has a mark in the curves and a row.
        markov: nats a base of Markov models of order 0, 1, ... on the held-out windows; may be empty.
        loss: nats a base of the model on the same windows; NaN if there are none.
    """
    rows = read_metrics(run / "metrics.csv")

    def column(name: str) -> list[tuple[float, float]]:
        return [(float(row["tokens"]), float(row[name])) for row in rows if row[name]]

    train, valid = column("loss"), column("valid_loss")
    marks, passed = {}, 0
    for stage in curriculum.stages[:-1]:
        passed += stage.steps * stage.windows * stage.length
        marks[float(passed)] = f"{stage.length:,}"
    end = max((x for x, _ in train), default=0.0)
    yardsticks = [
        Series(f"Markov order {order}", [(0.0, markov[order]), (end, markov[order])], GREY, dashed=True)
        for order in sorted({0, best_order(markov)} if markov else set())
    ]
    loss_chart = line_chart(
        [Series("training", smoothed(train), BLUE), Series("held out", valid, RED, dots=True), *yardsticks],
        x_label="training tokens",
        y_label="nats per base",
        y_max=math.log(4) + 0.01,
        marks=marks,
    )
    rate = line_chart(
        [Series("tokens/s", smoothed(column("tokens_per_second")), GREEN)],
        x_label="training tokens",
        y_label="tokens per second",
        marks=marks,
    )
    waiting = line_chart(
        [Series("waiting", smoothed(column("wait_fraction")), GREY)],
        x_label="training tokens",
        y_label="share of the time",
    )
    lr = line_chart([Series("rate", column("lr"), BLUE)], x_label="training tokens", y_label="learning rate")
    sections = [
        f"<h1>{escape(run.resolve().name)}: pretraining</h1>{facts_table(facts)}",
        settings_section(run),
        f"<h2>Loss</h2>{loss_chart}",
        f"<h2>Stages</h2>{_stage_table(curriculum, rows)}" if marks else "",
        f"<h2>Beside Markov models</h2>{_markov_table(markov, loss)}",
        f"<h2>Learning rate</h2>{lr}<h2>Throughput</h2>{rate}<h2>Waiting for windows</h2>{waiting}",
    ]
    write_page(run / "report.html", run.resolve().name, sections)


def _stage_table(curriculum: Curriculum, rows: Sequence[Mapping[str, str]]) -> str:
    """A row for each stage that has begun."""
    made = {int(row["step"]): row for row in rows if row["loss"]}
    body = ""
    for stage in curriculum.stages:
        own = [made[step] for step in range(stage.first_step + 1, stage.end + 1) if step in made]
        if not own:
            continue
        tail = own[-max(1, len(own) // 10) :]
        loss = sum(float(row["loss"]) for row in tail) / len(tail)
        speed = statistics.median(float(row["tokens_per_second"]) for row in own)
        tokens = len(own) * stage.windows * stage.length
        cells = (f"{stage.length:,}", f"{stage.windows:,}", f"{len(own):,}", f"{tokens:,}", f"{loss:.4f}")
        body += "<tr>" + "".join(f'<td class="n">{c}</td>' for c in (*cells, f"{speed:,.0f}")) + "</tr>"
    names = ("length", "windows a step", "steps", "tokens", "loss of its last tenth", "tokens/s (median)")
    head = "".join(f'<th class="n">{name}</th>' for name in names)
    return f"<table><tr>{head}</tr>{body}</table>"


def best_order(markov: Sequence[float]) -> int:
    """The order with the lowest loss.

    >>> best_order([1.38, 1.3, 1.35])
    1
    """
    return min(range(len(markov)), key=markov.__getitem__)


def _markov_table(markov: Sequence[float], loss: float) -> str:
    if not markov:
        return "<p>None: nothing is held out to compare on, or the run was stopped before its end.</p>"
    rows = [(f"Markov, order {order}", nats, "") for order, nats in enumerate(markov)]
    rows.append(("this model", loss, ' class="model"'))
    cell = '<td class="n">{:.4f}</td>'
    body = "".join(
        f"<tr{style}><td>{name}</td>"
        + "".join(cell.format(value) for value in (nats, nats / math.log(2), math.exp(nats)))
        + "</tr>"
        for name, nats, style in rows
    )
    return (
        "<p>All fitted to the same training bases and judged on the same held-out windows; order k predicts "
        "a base from the k before it. The model that knows nothing scores 1.3863 nats, 2 bits.</p>"
        '<table><tr><th></th><th class="n">nats/base</th><th class="n">bits/base</th>'
        f'<th class="n">perplexity</th></tr>{body}</table>'
    )
