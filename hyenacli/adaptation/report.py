"""report.html of a fine-tuning run: facts, metrics, curves and the figures of its task.

P item (a label with its prediction), C class or column.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hyenacli.adaptation.evaluation import EvaluationResult, SplitResult
from hyenacli.adaptation.labels import LabelScheme
from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.calibration import reliability
from hyenacli.evaluation.figures import BLUE, RED
from hyenacli.evaluation.line_plots import Series, curve, line_chart, smoothed
from hyenacli.evaluation.metrics import measure_columns, monitor
from hyenacli.evaluation.prediction_plots import (
    Ranked,
    confusion_matrix,
    pr_chart,
    reliability_chart,
    roc_chart,
    scatter_chart,
)
from hyenacli.evaluation.report import (
    facts_table,
    number_table,
    settings_section,
    side_by_side,
    write_page,
)
from hyenacli.training.metric_loggers import read_metrics
from hyenacli.training.run_directory import CONFIG, METRICS, RECORD

_MAX_LINES = 6
_MAX_COLUMNS = 40


def write_report(
    run: Path,
    title: str,
    facts: Mapping[str, object],
    scheme: LabelScheme,
    evaluation: EvaluationResult,
    warnings: Sequence[str],
    more: Sequence[str] = (),
) -> None:
    """Write report.html of one trial.

    Args:
        run: its directory, with config.yaml and, unless nothing was trained step by step, metrics.csv.
        title: of the page.
        facts: what to list under the title, in order.
        scheme: what labels mean.
        evaluation: of the model.
        warnings: sentences about the data.
        more: sections after the metrics.
    """
    sections = [
        *(f'<p class="warning">{escape(warning)}</p>' for warning in warnings),
        facts_table(facts),
        settings_section(run),
        f"<h2>Metrics</h2>{_metrics(evaluation)}",
        *more,
        _curves(run, scheme),
        f"<h2>Figures of the {evaluation.final_split} split</h2>{_figures(evaluation, scheme)}",
    ]
    write_page(
        run / "report.html", title, sections, verdict=_verdict(evaluation, scheme), tables=_tables(run)
    )


def _verdict(evaluation: EvaluationResult, scheme: LabelScheme) -> str:
    """Return how the model compares with the baselines, or what it reaches where there are none."""
    if evaluation.verdict is not None:
        return evaluation.verdict.sentence
    metric, split = monitor(scheme.task), evaluation.final_split
    result = evaluation.splits[split]
    value = _with_span(result.metrics[metric], result.intervals.get(metric))
    return f"{split} {metric} {value}; no baseline was fitted to compare with"


def _tables(run: Path) -> list[Path]:
    """Return the files with the numbers of a run; metrics.json is written after the report."""
    names = ("predictions.tsv", "predictions.parquet", "metrics.csv", "splits.bed", RECORD, CONFIG)
    return [run / METRICS, *(run / name for name in names if (run / name).exists())]


def write_summary(
    run: Path,
    title: str,
    facts: Mapping[str, object],
    made: tuple[Mapping[str, Mapping[str, Any]], Mapping[str, Mapping[str, Any]]],
    together: Sequence[str],
) -> None:
    """Write report.html of several trials: the metrics of each, mean and deviation of the final ones.

    Args:
        run: its directory.
        title: of the page.
        facts: what to list under the title.
        made: what metrics.json says of each trial, and of those that are summed up; others were a sweep, and
            are not judged on the test split.
        together: sections about all trials as one.
    """
    trials, final = made
    links = "".join(
        f'<li><a href="trials/{escape(name)}/report.html">{escape(name)}</a></li>' for name in trials
    )
    sections = [
        facts_table(facts),
        settings_section(run),
        f"<h2>Trials</h2><ul>{links}</ul>",
        *together,
    ]
    summary = spread(list(final.values()))
    for split, metrics in summary.items():
        names = list(metrics)
        rows = [
            [name, *(_text(trial["splits"][split]["metrics"][metric]["value"]) for metric in names)]
            for name, trial in trials.items()
            if split in trial["splits"]
        ]
        bold = [i for i, row in enumerate(rows) if row[0] in final]
        if len(final) > 1:
            rows.append([f"mean of {len(final)}", *(_text(metrics[metric]["mean"]) for metric in names)])
            rows.append(["standard deviation", *(_text(metrics[metric]["sd"]) for metric in names)])
            bold = [len(rows) - 2]
        sections.append(f"<h2>{escape(split)} split</h2>{number_table(['trial', *names], rows, bold=bold)}")
    last, metrics = list(summary.items())[-1]
    count = "one trial" if len(final) == 1 else f"mean of {len(final)} trials"
    verdict = f"{last}, {count}: {describe_summary(metrics)}"
    write_page(run / "report.html", title, sections, verdict=verdict, tables=_tables(run))


def out_of_fold_sections(evaluation: EvaluationResult, scheme: LabelScheme) -> list[str]:
    """Return the sections on every record, predicted by the fold that was tested on it."""
    figures = _figures(evaluation, scheme)
    return [f"<h2>Every record, by the fold that was tested on it</h2>{_metrics(evaluation)}{figures}"]


def _text(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def _metrics(evaluation: EvaluationResult) -> str:
    """Return a table with a row for each metric: the final split, beside it baselines, then other splits."""
    splits, last = evaluation.splits, evaluation.final_split
    caption = "95 % bootstrap intervals in brackets."
    final = {last: splits[last]}
    if evaluation.clean is not None:
        final["clean test"] = evaluation.clean
        caption += " Clean test: the test records that resemble no training record."
    beside = {}
    if evaluation.network is not None and evaluation.joint is not None:
        beside["network alone"] = evaluation.network
        factors = iter(f"{factor:.3g}" for factor in evaluation.joint.weights.factors)
        terms = [f"{next(factors)} times the network's outputs"]
        for expert in evaluation.members:
            parts = islice(factors, len(expert.outputs[last]))
            terms.append(f"{', '.join(parts)} times those of the {expert.title}")
        caption += (
            f" {last.capitalize()} and the other splits are of all joined: {', '.join(terms[:-1])} and "
            f"{terms[-1]}, weights fitted to the validation split."
        )
    for baseline in evaluation.baselines:
        beside[baseline.title] = baseline.splits
        caption += f" {baseline.title}: {baseline.description}."
    compared = {f"{title}, {last}": results[last] for title, results in beside.items()}
    others = {name: result for name, result in reversed(splits.items()) if name != last}
    columns = _sized(final) | compared | _sized(others)
    rows = [
        [metric, *(_with_span(c.metrics[metric], c.intervals.get(metric)) for c in columns.values())]
        for metric in splits[last].metrics
    ]
    return f"<p>{caption}</p>{number_table(['', *columns], rows)}"


def _sized(results: Mapping[str, SplitResult]) -> dict[str, SplitResult]:
    """Add the number of records to the names of splits."""
    return {f"{name} ({len(result.logits):,})": result for name, result in results.items()}


def _with_span(value: float, span: tuple[float, float] | None) -> str:
    return _text(value) + (f" [{_text(span[0])}, {_text(span[1])}]" if span else "")


def _curves(run: Path, scheme: LabelScheme) -> str:
    """Return the curves of the training steps; nothing for a head that was fitted at once."""
    path = run / "metrics.csv"
    if not path.exists():
        return ""
    rows, metric = read_metrics(path), monitor(scheme.task)

    def chart(y_label: str, *series: Series) -> str:
        return line_chart(series, x_label="step", y_label=y_label)

    losses = chart(
        "loss",
        Series("training", smoothed(curve(rows, "step", "loss")), BLUE),
        Series("valid", curve(rows, "step", "valid_loss"), RED, dots=True),
    )
    score = f"valid {metric}"
    selection = chart(score, Series(score, curve(rows, "step", f"valid_{metric}"), RED, dots=True))
    rate = chart("learning rate", Series("learning rate", curve(rows, "step", "lr"), BLUE))
    others = side_by_side(selection, rate)
    return f"<h2>Loss</h2>{losses}<h2>Model selection and learning rate</h2>{others}"


def _figures(evaluation: EvaluationResult, scheme: LabelScheme) -> str:
    result = evaluation.splits[evaluation.final_split]
    outputs, targets = result.evaluator.outputs(result.logits), result.evaluator.targets
    if scheme.task == "regression":
        return _of_numbers(outputs, targets, scheme)
    if scheme.task == "multilabel":
        return _of_labels(outputs, targets, scheme)
    return _of_classes(evaluation, outputs, targets, scheme)


def _of_classes(evaluation: EvaluationResult, outputs: Floats, targets: Any, scheme: LabelScheme) -> str:
    labelled = targets >= 0
    truth_P, p_PC = targets[labelled], outputs[labelled]
    counts_CC = np.zeros((scheme.n_outputs, scheme.n_outputs))
    np.add.at(counts_CC, (truth_P, p_PC.argmax(axis=-1)), 1)
    lines = _lines(truth_P, p_PC, scheme, "")
    for baseline in evaluation.baselines if scheme.n_outputs == 2 else ():
        beside = baseline.splits[evaluation.final_split]
        outputs_PC = beside.evaluator.outputs(beside.logits)[labelled]
        lines += _lines(truth_P, outputs_PC, scheme, f"{baseline.title}: ")
    reliable = reliability_chart([(evaluation.final_split, reliability(scheme.task, outputs, targets))])
    matrix = confusion_matrix(counts_CC, scheme.names)
    return f"{matrix}{side_by_side(roc_chart(lines), pr_chart(lines))}<h2>Calibration</h2>{reliable}"


def _lines(truth_P: Any, p_PC: Floats, scheme: LabelScheme, prefix: str) -> list[Ranked]:
    """Return a line for the second of two classes, or for each of several against all others."""
    classes = [1] if scheme.n_outputs == 2 else range(min(scheme.n_outputs, _MAX_LINES))
    return [Ranked(f"{prefix}{scheme.names[k]}", truth_P == k, p_PC[:, k]) for k in classes]


def _of_labels(outputs: Floats, targets: Any, scheme: LabelScheme) -> str:
    values = measure_columns(scheme.task, targets, outputs)
    order = np.argsort(-np.nan_to_num(values["auroc"], nan=-1.0), kind="stable")
    shown = [*order[: _MAX_COLUMNS // 2], *order[_MAX_COLUMNS // 2 :][-_MAX_COLUMNS // 2 :]]
    ones = [f"{int((targets[..., i] == 1).sum()):,}" for i in range(scheme.n_outputs)]
    rows = [[scheme.names[i], ones[i], *(_text(float(values[name][i])) for name in values)] for i in shown]
    lines = []
    for i in order[: _MAX_LINES // 2].tolist():
        labelled = targets[..., i] >= 0
        lines.append(Ranked(scheme.names[i], targets[..., i][labelled] == 1, outputs[..., i][labelled]))
    note = (
        f"<p>The best and the worst of {scheme.n_outputs} labels.</p>"
        if len(shown) < scheme.n_outputs
        else ""
    )
    table = number_table(["label", "ones", *values], rows)
    return f"{note}{table}{side_by_side(roc_chart(lines), pr_chart(lines))}"


def _of_numbers(outputs: Floats, targets: Any, scheme: LabelScheme) -> str:
    targets = targets.reshape(outputs.shape)
    charts = []
    for i, name in enumerate(scheme.names[:_MAX_LINES]):
        labelled = ~np.isnan(targets[..., i])
        charts.append(scatter_chart(targets[..., i][labelled], outputs[..., i][labelled], name=name))
    return side_by_side(*charts)


def spread(trials: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Compute mean, standard deviation, least and largest value of each split's metrics over trials.

    Where a metric is undefined in a trial it counts among the others; one trial has no deviation.
    """
    summary: dict[str, dict[str, dict[str, float | None]]] = {}
    for split in ("train", "valid", "test"):
        having = [trial["splits"][split]["metrics"] for trial in trials if split in trial["splits"]]
        for metric in having[0] if having else ():
            values = [m[metric]["value"] for m in having if m[metric]["value"] is not None]
            if values:
                summary.setdefault(split, {})[metric] = {
                    "mean": statistics.fmean(values),
                    "sd": statistics.stdev(values) if len(values) > 1 else None,
                    "low": min(values),
                    "high": max(values),
                }
    return summary


def describe_split(split: str, result: SplitResult) -> str:
    """Describe the metrics of a split in a line, with their intervals."""
    parts = [
        f"{name} {_with_span(value, result.intervals.get(name))}" for name, value in result.metrics.items()
    ]
    return f"{split} ({len(result.logits):,} records): " + ", ".join(parts)


def describe_summary(metrics: Mapping[str, Mapping[str, float | None]]) -> str:
    """Describe mean and standard deviation of each metric."""
    return ", ".join(
        f"{name} {_text(values['mean'])} (sd {_text(values['sd'])})" for name, values in metrics.items()
    )
