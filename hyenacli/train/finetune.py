"""`hyena finetune` as a function: read labels, split, adapt, score, report; for folds, seeds and a sweep."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hyenacli import console
from hyenacli.config import FinetuneConfig
from hyenacli.data.label_splits import LabelSplits
from hyenacli.data.labelled_set import LabelledSet, open_set
from hyenacli.data.leakage import find_leaks
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError, nearest
from hyenacli.ranks import current_ranks
from hyenacli.score.batch_size import parse_batch_size
from hyenacli.score.predict import head_of
from hyenacli.train import record
from hyenacli.train.adapt import check_model, with_defaults
from hyenacli.train.adaptation import adapt
from hyenacli.train.checkpoints import Checkpoints
from hyenacli.train.distributed import barrier, process_group
from hyenacli.train.finetune_report import in_words, spread, write_report, write_summary
from hyenacli.train.in_context import check_classes
from hyenacli.train.outcome import METRICS, conclude, write_metrics
from hyenacli.train.predictions import write_predictions
from hyenacli.train.probe import check_sklearn
from hyenacli.train.quality import monitor
from hyenacli.train.session import open_run
from hyenacli.train.tensorboard import check_tensorboard
from hyenacli.train.trial import Trial
from hyenacli.writers.atomic import check_run_directory
from hyenadna import load_model

_SWEPT = {
    "lr": "lr",
    "weight-decay": "weight_decay",
    "embed-dropout": "embed_dropout",
    "resid-dropout": "resid_dropout",
}
_TABLES = ["tsv", "tsv.gz", "parquet"]


@dataclass(frozen=True)
class FinetuneResult:
    """How a run ended.

    Attributes:
        metrics: what metrics.json says; empty after a signal.
        exit_code: 0, or 143 or 130 after a signal.
    """

    metrics: dict[str, Any]
    exit_code: int


@dataclass(frozen=True)
class _Planned:
    """A trial to be made.

    Attributes:
        name: of its directory; '' for the run's own.
        settings: of it.
        fold: which of the data's splits it trains, chooses and tests on.
    """

    name: str
    settings: FinetuneConfig
    fold: int = 0


def finetune(settings: FinetuneConfig) -> FinetuneResult:
    """Adapt a model as `settings` say and leave a run directory.

    With folds, seeds or a sweep there are several trials, each a run directory under `trials`; the run's own
    checkpoints are then those of the trial with the best validation split.

    Raises:
        UserError: anything wrong with the flags, the data, the model or the training itself.
    """
    set_threads(settings.threads)
    device = resolve_device(settings.device)
    partial(autocast, device, settings.dtype)()  # refuses an unknown dtype before anything is read
    whole = with_defaults(settings)
    grid = _grid(settings.sweep or ())
    _check(settings)
    check_run_directory(settings.output, resume=settings.resume, force=settings.force)
    check_model(settings.model)
    data = open_set(settings)
    if settings.method == "icl":
        check_classes(whole, data)
    if settings.calibrate and data.scheme.task == "regression":
        raise UsageError(
            "a regression has no probabilities", at="--calibrate", remedy="leave it out, or give --task"
        )
    with process_group(device):
        return _Run(whole, data, grid, device).run()


def _check(settings: FinetuneConfig) -> None:
    """Refuse what can be refused before anything is read."""
    parse_batch_size(str(settings.micro_batch_size), "--micro-batch-size")
    if settings.predictions not in _TABLES:
        raise UsageError(
            f"unknown type '{settings.predictions}'",
            at="--predictions",
            remedy=nearest(settings.predictions, _TABLES),
        )
    if settings.solver == "sklearn":
        check_sklearn()
    if settings.tensorboard:
        check_tensorboard()


def _grid(sweep: Sequence[str]) -> list[dict[str, float]]:
    """Every combination of the values to try; one empty one where there are none."""
    axes = []
    for text in sweep:
        key, equals, values = text.partition("=")
        if not equals or key not in _SWEPT:
            remedy = f"write a key and its values, as lr=1e-4,6e-4; keys are {', '.join(_SWEPT)}"
            raise UsageError(f"cannot read '{text}'", at="--sweep", remedy=remedy)
        try:
            axes.append([(key, float(value)) for value in values.split(",")])
        except ValueError:
            raise UsageError(f"'{values}' are not numbers", at="--sweep", remedy="as lr=1e-4,6e-4") from None
    combinations = [dict(chosen) for chosen in itertools.product(*axes)]
    for one in combinations:
        if not all(0 <= value < 1 for value in one.values()):
            raise UsageError("rates and dropouts lie from 0 to below 1", at="--sweep")
    return combinations


class _Run:
    """All trials of a run."""

    def __init__(
        self,
        settings: FinetuneConfig,
        data: LabelledSet,
        grid: list[dict[str, float]],
        device: torch.device,
    ) -> None:
        self._settings, self._data, self._grid, self._device = settings, data, grid, device
        self._leaks = [self._find_leaks(splits) for splits in data.splits]
        self._done: dict[str, dict[str, Any]] = {}

    def run(self) -> FinetuneResult:
        """Make the trials that are not made yet, and sum them up."""
        if self._alone:
            metrics, code = self._make(_Planned("", self._settings))
            return FinetuneResult(metrics, code)
        open_run(self._settings, [self._data.inputs], self._device)
        for planned in self._trials():
            metrics, code = self._make(planned)
            if code:
                return FinetuneResult({}, code)
            self._done[planned.name] = metrics
        return FinetuneResult(self._sum_up(), 0)

    @property
    def _alone(self) -> bool:
        return len(self._grid) == 1 and len(self._data.splits) == 1 and self._settings.seeds == 1

    def _trials(self) -> Iterator[_Planned]:
        """The sweep on the first split, then, with what it found, every fold and seed."""
        chosen: dict[str, float] = {}
        if len(self._grid) > 1:
            names = [",".join(f"{key}={value:g}" for key, value in one.items()) for one in self._grid]
            for name, one in zip(names, self._grid, strict=True):
                yield self._planned(name, one, self._settings.seed, 0)
            best = max(names, key=lambda name: self._chosen_by(self._done[name]))
            chosen = self._grid[names.index(best)]
            console.log.info("of the sweep, %s is best on the validation split", best)
            if len(self._data.splits) == 1 and self._settings.seeds == 1:
                return
        for fold in range(len(self._data.splits)):
            for seed in range(self._settings.seed, self._settings.seed + self._settings.seeds):
                parts = [f"fold-{fold + 1}"] * (len(self._data.splits) > 1)
                parts += [f"seed-{seed}"] * (self._settings.seeds > 1)
                yield self._planned(",".join(parts), chosen, seed, fold)

    def _planned(self, name: str, chosen: dict[str, float], seed: int, fold: int) -> _Planned:
        directory = self._settings.output / "trials" / name
        swept: dict[str, Any] = {_SWEPT[key]: value for key, value in chosen.items()}
        settings = replace(
            self._settings,
            output=directory,
            seed=seed,
            resume=(directory / "config.yaml").exists(),
            force=False,
            seeds=1,
            sweep=None,
            **swept,
        )
        return _Planned(name, settings, fold)

    def _make(self, planned: _Planned) -> tuple[dict[str, Any], int]:
        """One trial: what its metrics.json says, and the exit code."""
        done = planned.settings.output / METRICS
        if planned.name and planned.settings.resume and done.exists():
            console.log.info("%s is done already", planned.name)
            known: dict[str, Any] = json.loads(done.read_text())
            return known, 0
        if planned.name:
            console.log.info("trial %s", planned.name)
        trial = Trial(planned.settings, self._data, self._data.splits[planned.fold], self._device)
        model = trial.build()
        ended = adapt(trial, model)
        if ended.exit_code:
            console.log.warning("stopped after step %d, and saved; go on with --resume", ended.progress.step)
            return {}, ended.exit_code
        folder = planned.settings.output / "checkpoints"
        best = folder / ("best" if (folder / "best").exists() else "last")
        model = load_model(best).to(self._device)
        outcome = conclude(trial, model, ended, self._leaks[planned.fold])
        metrics: dict[str, Any] = {}
        if current_ranks().first:
            if outcome.calibration is not None:
                provenance = {**trial.origin(), "temperature": outcome.calibration.temperature}
                Checkpoints(planned.settings.output, planned.settings.keep, provenance).put_best(
                    "calibrated", model
                )
            metrics = write_metrics(planned.settings.output, trial, outcome)
            write_predictions(planned.settings.output, trial, head_of(model), outcome)
            facts = ended.plan | {
                "steps made": f"{ended.progress.step:,} in {ended.progress.seconds:,.0f} s",
                "best step": f"{ended.progress.best_step:,}",
            }
            title = f"{planned.settings.output.resolve().name}: fine-tuning"
            write_report(planned.settings.output, title, facts, self._data.scheme, outcome)
            record.add_to_record(planned.settings.output, plan=ended.plan, result=outcome.facts)
            for split, scored in outcome.splits.items():
                console.log.info("%s", in_words(split, scored))
            console.log.info("wrote %s", planned.settings.output / "report.html")
        barrier()
        return metrics, 0

    def _find_leaks(self, splits: LabelSplits) -> list[str]:
        leaks = [leak.sentence for leak in find_leaks(self._data.records, splits)]
        for sentence in leaks:
            console.log.warning("%s", sentence)
        return leaks

    def _chosen_by(self, metrics: dict[str, Any]) -> float:
        value = metrics["splits"]["valid"]["metrics"][monitor(self._data.scheme.task)]["value"]
        return float("-inf") if value is None else float(value)

    def _sum_up(self) -> dict[str, Any]:
        """metrics.json and report.html of all trials; the best on its validation split lends its model."""
        if not current_ranks().first:
            return {}
        output = self._settings.output
        best = max(self._done, key=lambda name: self._chosen_by(self._done[name]))
        # of a sweep only what was chosen is compared with nothing else
        final = {name: said for name, said in self._done.items() if "fold" in name or "seed" in name}
        final = final or {best: self._done[best]}
        if best not in final:
            best = max(final, key=lambda name: self._chosen_by(final[name]))
        summary = spread(list(final.values()))
        said = {
            "task": self._data.scheme.task,
            "trials": {name: metrics["splits"] for name, metrics in self._done.items()},
            "summed_up": list(final),
            "summary": summary,
            "model_of": best,
        }
        record.write_json(output / METRICS, said)
        link = output / "checkpoints"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("trials") / best / "checkpoints", target_is_directory=True)
        facts = {
            "labels": self._data.scheme.sentence,
            "trials": f"{len(self._done)}",
            "the run's model is of": best,
        }
        write_summary(output, f"{output.resolve().name}: fine-tuning", facts, self._done, summary)
        for split, metrics in summary.items():
            parts = [f"{name} {value['mean']:.4g} (sd {value['sd']:.2g})" for name, value in metrics.items()]
            console.log.info("%s, mean of %d trials: %s", split, len(final), ", ".join(parts))
        console.log.info("wrote %s", output / "report.html")
        return said
