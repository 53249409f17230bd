"""What an adapted model is worth: metrics of every split, calibration, a yardstick.

N record, C output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from hyenacli import console
from hyenacli.adaptation.epochs import Places
from hyenacli.adaptation.evaluator import Judge, Logits
from hyenacli.adaptation.losses import Criterion
from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.calibration import Calibration, calibrate
from hyenacli.evaluation.kmer_baseline import KmerBaseline, fit_baseline
from hyenacli.evaluation.metrics import intervals, measure
from hyenacli.finetune.in_context import label_share
from hyenadna import HyenaDNA

# The yardstick is fitted to no more sequences than this: a linear model of k-mers learns little from more.
_MAX_FITTED = 100_000


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
    """What a model is worth.

    Attributes:
        splits: each split it was judged on.
        yardstick: the k-mer model, or None.
        calibration: what temperature and offsets did on the validation split, or None.
    """

    splits: dict[str, Scored]
    yardstick: Yardstick | None = None
    calibration: Calibration | None = None

    @property
    def last(self) -> str:
        """The split that says most of the model: test, or else valid."""
        return list(self.splits)[-1]

    def to_json(self) -> dict[str, Any]:
        """For metrics.json."""
        found, draws = self.calibration, max(scored.judge.draws for scored in self.splits.values())
        calibration = found and {
            "temperature": found.temperature,
            "offsets": list(found.offsets),
            "valid_loss": found.loss,
            "valid_calibration_error": found.error,
        }
        return {
            "splits": {name: scored.to_json() for name, scored in self.splits.items()},
            "kmer_baseline": self.yardstick and self.yardstick.to_json(),
            "calibration": calibration,
            "intervals": f"95 % bootstrap over records, {draws} draws",
        }


@dataclass(frozen=True)
class Judging:
    """How a model is judged.

    Attributes:
        criterion: the loss.
        seed: of the bootstrap.
        calibrated: whether its probabilities are scaled to fit the validation split first.
        offsets: whether its classes are made to count the same there as well; see `calibrate`.
        letters: whether logits are those of letters among all tokens.
    """

    criterion: Criterion
    seed: int
    calibrated: bool = False
    offsets: bool = False
    letters: bool = False

    def score(self, judge: Judge, logits: list[Logits]) -> Scored:
        """How good logits are."""
        return Scored(
            judge,
            logits,
            judge.loss(logits, self.criterion),
            judge.measure(logits),
            judge.intervals(logits, self.seed),
            label_share(logits) if self.letters else None,
        )


def conclude(
    model: HyenaDNA, judges: Mapping[str, Judge], logits: Mapping[str, list[Logits]], judging: Judging
) -> Outcome:
    """Score what a model says; calibrated first where that is asked for, which changes the model.

    Args:
        model: the best of its run.
        judges: the labels of each split.
        logits: what it says of each.
        judging: how.
    """
    found = None
    if judging.calibrated:
        judge = judges["valid"]
        stacked, task = judge.stacked(logits["valid"]), judge.scheme.task
        found = calibrate(task, stacked, judge.targets, offsets=judging.offsets)
        keep_calibration(model, found)
        logits = {name: [found.apply(one) for one in some] for name, some in logits.items()}
    splits = {name: judging.score(judge, logits[name]) for name, judge in judges.items()}
    return Outcome(splits, calibration=found)


def keep_calibration(model: HyenaDNA, found: Calibration) -> None:
    """Have a model predict as its calibration says: in a head's weights, or beside demonstrations."""
    if (shots := model.config.demonstrations) is not None:
        model.set_demonstrations(replace(shots, temperature=shots.temperature * found.temperature))
        return
    assert model.head is not None  # noqa: S101  (a bug, not an input)
    affine = model.head.output_transform
    with torch.no_grad():
        for parameter in affine.parameters():
            parameter.div_(found.temperature)
        if found.offsets:
            affine.bias.add_(torch.tensor(found.offsets))


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
    scheme, places = judges["train"].scheme, some_of(len(sequences["train"]), _MAX_FITTED)
    task = scheme.task
    console.log.info("fitting the k-mer baseline to %s sequences", f"{len(places):,}")
    fitted = fit_baseline(
        [sequences["train"][i] for i in places.tolist()],
        judges["train"].targets[places],
        task,
        valid=(sequences["valid"], judges["valid"].targets),
        n_classes=scheme.n_outputs,
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


def _with_spans(values: dict[str, float], spans: dict[str, tuple[float, float]]) -> dict[str, Any]:
    return {
        name: {"value": value} | ({"low": spans[name][0], "high": spans[name][1]} if name in spans else {})
        for name, value in values.items()
    }
