"""What a fine-tuned model is worth: metrics of every split, calibration, a yardstick.

N record, C output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyenacli import console
from hyenacli.train.adaptation import Ended
from hyenacli.train.calibration import Calibration, calibrate
from hyenacli.train.criterion import Criterion
from hyenacli.train.epochs import Places
from hyenacli.train.in_context import label_share
from hyenacli.train.judge import Judge, Logits
from hyenacli.train.kmer_baseline import KmerBaseline, fit_baseline
from hyenacli.train.quality import intervals, measure, monitor
from hyenacli.train.record import write_json
from hyenacli.train.trial import Trial
from hyenacli.train.weighted import Floats
from hyenadna import HyenaDNA, model_sha256

METRICS = "metrics.json"
# The yardstick is fitted to no more sequences than this: a linear model of k-mers learns little from more.
_MOST_FITTED = 100_000


@dataclass(frozen=True)
class Scored:
    """One split and what was said of it.

    Attributes:
        judge: its labels.
        logits: of its records.
        loss: mean of a label.
        values: each metric.
        spans: the 95 % bootstrap interval of each.
        label_share: how often the likeliest token is the letter of a class, where classes are letters.
    """

    judge: Judge
    logits: list[Logits]
    loss: float
    values: dict[str, float]
    spans: dict[str, tuple[float, float]]
    label_share: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For metrics.json."""
        return {
            "records": len(self.logits),
            "loss": self.loss,
            **({} if self.label_share is None else {"label_share": self.label_share}),
            "metrics": _with_spans(self.values, self.spans),
        }


@dataclass(frozen=True)
class Yardstick:
    """The linear k-mer model on the same splits.

    Attributes:
        model: fitted to the training split, its k and penalty chosen by the validation split.
        outputs: what it says of each split.
        values: metrics of each split.
        spans: their intervals.
    """

    model: KmerBaseline
    outputs: dict[str, Floats]
    values: dict[str, dict[str, float]]
    spans: dict[str, dict[str, tuple[float, float]]]

    def to_json(self) -> dict[str, Any]:
        """For metrics.json."""
        splits = {name: {"metrics": _with_spans(self.values[name], self.spans[name])} for name in self.values}
        return {"k": self.model.k, "penalty": self.model.penalty, "splits": splits}


@dataclass(frozen=True)
class Outcome:
    """All that is known of a trial at its end.

    Attributes:
        splits: each split that has records.
        yardstick: the k-mer model, or None.
        calibration: what the temperature did on the validation split, or None.
        warnings: what splits share.
        facts: of the training.
    """

    splits: dict[str, Scored]
    yardstick: Yardstick | None
    calibration: Calibration | None
    warnings: list[str]
    facts: dict[str, Any] = field(default_factory=dict)


def predict_all(trial: Trial, model: HyenaDNA, splits: Sequence[str]) -> dict[str, list[Logits]]:
    """What a model says of those splits that have records; the same on all ranks, which all take part."""
    return {name: trial.predict_split(model, name) for name in splits if len(getattr(trial.splits, name))}


def conclude(
    trial: Trial, model: HyenaDNA, logits: dict[str, list[Logits]], ended: Ended, warnings: list[str]
) -> Outcome:
    """Score a model on every split; calibrated first where that was asked for.

    Args:
        trial: whose splits.
        model: the best of it, on its device; calibration changes it.
        logits: what it says, as of `predict_all`.
        ended: how its training went.
        warnings: what is known of the data.
    """
    scheme, criterion = trial.data.scheme, trial.criterion()
    judges = {name: trial.judge(name) for name in logits}
    calibration = None
    if trial.settings.calibrate:
        calibration = calibrate(
            scheme.task, judges["valid"].stacked(logits["valid"]), judges["valid"].targets
        )
        scale_logits(model, calibration.temperature)
        logits = {name: [one / calibration.temperature for one in some] for name, some in logits.items()}
    seed, letters = trial.settings.seed, trial.settings.method == "icl"
    splits = {
        name: score(judge, logits[name], criterion, seed, letters=letters) for name, judge in judges.items()
    }
    whole = all(name in logits for name, count in trial.splits.counts().items() if count)
    with_yardstick = whole and scheme.level == "sequence" and not trial.settings.no_baseline
    yardstick = None
    if with_yardstick:
        sequences = {name: trial.data.sequences(getattr(trial.splits, name).tolist()) for name in judges}
        yardstick = fit_yardstick(judges, sequences, seed)
    progress = ended.progress
    facts = {
        "steps": progress.step,
        "best_step": progress.best_step,
        "seconds": round(progress.seconds, 1),
        "chosen_by": f"valid {monitor(scheme.task)}",
        "model_sha256": model_sha256(model),
    }
    return Outcome(splits, yardstick, calibration, warnings, facts)


def score(
    judge: Judge, logits: list[Logits], criterion: Criterion, seed: int, *, letters: bool = False
) -> Scored:
    """How good logits are.

    Args:
        judge: the labels.
        logits: of their records.
        criterion: the loss.
        seed: of the bootstrap.
        letters: whether the logits are those of letters among all tokens.
    """
    return Scored(
        judge,
        logits,
        judge.loss(logits, criterion),
        judge.measure(logits),
        judge.intervals(logits, seed),
        label_share(logits) if letters else None,
    )


def scale_logits(model: HyenaDNA, temperature: float) -> None:
    """Divide what a model predicts with by a temperature: in a head's weights, or beside demonstrations."""
    if (shots := model.config.demonstrations) is not None:
        model.set_demonstrations(replace(shots, temperature=shots.temperature * temperature))
        return
    assert model.head is not None  # noqa: S101  (a bug, not an input)
    with torch.no_grad():
        for parameter in model.head.output_transform.parameters():
            parameter.div_(temperature)


def fit_yardstick(
    judges: Mapping[str, Judge], sequences: Mapping[str, Sequence[bytes]], seed: int, **how: Any
) -> Yardstick:
    """The k-mer model on splits, of which `train` and `valid` it is fitted to.

    Args:
        judges: the labels of each split.
        sequences: its records.
        seed: of the bootstrap.
        how: as of `fit_baseline`.
    """
    task, places = judges["train"].scheme.task, some_of(len(sequences["train"]), _MOST_FITTED)
    console.log.info("fitting the k-mer baseline to %s sequences", f"{len(places):,}")
    fitted = fit_baseline(
        [sequences["train"][i] for i in places.tolist()],
        judges["train"].targets[places],
        task,
        valid=(sequences["valid"], judges["valid"].targets),
        **how,
    )
    outputs = {name: fitted.predict(some) for name, some in sequences.items()}
    values = {name: measure(task, judges[name].targets, said) for name, said in outputs.items()}
    spans = {
        name: intervals(task, judges[name].targets, said, draws=judges[name].draws, seed=seed)
        for name, said in outputs.items()
    }
    return Yardstick(fitted, outputs, values, spans)


def some_of(count: int, most: int) -> Places:
    """At most so many of `count` places, drawn at random but always the same, in order.

    >>> some_of(3, 5).tolist(), len(some_of(9, 5))
    ([0, 1, 2], 5)
    """
    keys = np.random.Philox(key=0).random_raw(count)
    return np.sort(np.argsort(keys, kind="stable")[:most])


def write_metrics(directory: Path, trial: Trial, outcome: Outcome) -> dict[str, Any]:
    """Write metrics.json, and return what it says."""
    scheme = trial.data.scheme
    draws = max(scored.judge.draws for scored in outcome.splits.values())
    said = {
        "task": scheme.task,
        "level": scheme.level,
        "labels": list(scheme.names),
        "method": trial.settings.method,
        "model": trial.settings.model,
        "seed": trial.settings.seed,
        **outcome.facts,
        "splits": {name: scored.to_json() for name, scored in outcome.splits.items()},
        "kmer_baseline": outcome.yardstick.to_json() if outcome.yardstick else None,
        "calibration": None
        if outcome.calibration is None
        else {
            "temperature": outcome.calibration.temperature,
            "valid_loss": outcome.calibration.loss,
            "valid_calibration_error": outcome.calibration.error,
        },
        "warnings": outcome.warnings,
        "intervals": f"95 % bootstrap over records, {draws} draws",
    }
    write_json(directory / METRICS, said)
    return said


def _with_spans(values: dict[str, float], spans: dict[str, tuple[float, float]]) -> dict[str, Any]:
    return {
        name: {"value": value} | ({"low": spans[name][0], "high": spans[name][1]} if name in spans else {})
        for name, value in values.items()
    }
