"""Fine-tuning as one run or several: a sweep, folds, seeds, and their results as a whole."""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyenacli import console
from hyenacli.adaptation.baseline import fit_kmer_baseline, fit_window_baseline
from hyenacli.adaptation.evaluation import (
    Baseline,
    EvaluationConfig,
    EvaluationResult,
    Logits,
    SplitEvaluator,
    evaluate_split,
)
from hyenacli.adaptation.methods import METHODS
from hyenacli.adaptation.report import (
    describe_split,
    describe_summary,
    out_of_fold_sections,
    spread,
    write_summary,
)
from hyenacli.adaptation.run import RunResult
from hyenacli.distributed import barrier, current_ranks
from hyenacli.errors import UsageError
from hyenacli.evaluation.kmers import TRIED
from hyenacli.evaluation.metrics import monitor
from hyenacli.finetune.dataset import LabelledSet, find_gaps
from hyenacli.finetune.leakage import Leak
from hyenacli.finetune.run import FinetuneRun, write_predictions
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.finetune.splits import LabelSplits
from hyenacli.inference.experts import load_experts
from hyenacli.inference.intervals import SPLITS
from hyenacli.inference.prediction import prediction_head
from hyenacli.training.run_directory import METRICS, open_run, read_json, write_json
from hyenadna import load_model
from hyenadna.formats.load import locate

_SWEPT = {
    "lr": "lr",
    "weight-decay": "weight_decay",
    "embed-dropout": "embed_dropout",
    "resid-dropout": "resid_dropout",
}
Choice = dict[str, float]
"""Values of what is swept."""
Metrics = dict[str, dict[str, Any]]
"""Contents of metrics.json of runs, by their names."""


def read_grid(sweep: Sequence[str]) -> list[Choice]:
    """Return every combination of the values that --sweep names; a single empty one where there are none.

    Raises:
        UsageError: a key or value has no meaning.

    >>> read_grid(["lr=1e-4,1e-3", "embed-dropout=0"])
    [{'lr': 0.0001, 'embed-dropout': 0.0}, {'lr': 0.001, 'embed-dropout': 0.0}]
    """
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
        if not all(0 <= value < 1 for _, value in axes[-1]):
            raise UsageError("rates and dropouts lie from 0 to below 1", at="--sweep")
    return [dict(choice) for choice in itertools.product(*axes)]


@dataclass(frozen=True)
class _PlannedRun:
    """A run to be made.

    Attributes:
        name: of its directory; '' for that of the verb.
        fold: index of the data's splits that it uses.
        choice: values of what is swept.
    """

    name: str
    settings: FinetuneSettings
    fold: int = 0
    choice: Choice = field(default_factory=dict)


class _StoppedError(Exception):
    """A signal ended a run."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


class CrossValidation:
    """All runs of a fine-tuning.

    Args:
        settings: with the method's defaults.
    """

    def __init__(
        self, settings: FinetuneSettings, data: LabelledSet, grid: list[Choice], device: torch.device
    ) -> None:
        if len(grid) == 1:  # nothing to choose
            settings = _with_choice(settings, grid[0])
        self._settings, self._data, self._grid, self._device = settings, data, grid, device
        finder = data.leak_finder
        self._leaks = [finder.find(splits) for splits in data.splits]
        self._clean = [finder.clean(splits).tolist() for splits in data.splits]
        pairs = zip(data.splits, self._leaks, strict=True)
        self._warnings = [_find_warnings(data, splits, leaks) for splits, leaks in pairs]
        self._baselines = cache(self._fit_baselines)

    def run(self) -> RunResult:
        """Make the runs that are not made yet, up to a signal."""
        try:
            return RunResult(self._run())
        except _StoppedError as signal:
            return RunResult({}, signal.exit_code)

    def _run(self) -> dict[str, Any]:
        settings, folds = self._settings, range(len(self._data.splits))
        if len(self._grid) == len(folds) == settings.seeds == 1:
            return self._make(_PlannedRun("", settings))
        open_run(settings, [self._data.inputs], self._device)
        swept: Metrics = {}
        planned: list[_PlannedRun] = []
        for fold in folds:
            metrics, winner = self._sweep(fold)
            swept |= metrics
            planned += self._with_seeds(fold, winner)
        final = self._make_all(planned, SPLITS)
        out_of_fold = None
        if len(folds) > 1:
            by_fold = {run.fold: run.settings for run in planned if run.settings.seed == settings.seed}
            out_of_fold = evaluate_out_of_fold(settings, self._data, by_fold, self._device)
        return self._summarize(swept | final, final, out_of_fold)

    def _sweep(self, fold: int) -> tuple[Metrics, _PlannedRun | None]:
        """Make the runs of the grid on a fold, and choose the best; nothing where nothing is swept.

        Each fold chooses for itself, because other folds train on what it is tested on.
        """
        if len(self._grid) == 1:
            return {}, None
        planned = []
        for choice in self._grid:
            words = ",".join(f"{key}={value:g}" for key, value in choice.items())
            planned.append(self._plan([*self._fold_name(fold), words], choice, self._settings.seed, fold))
        # nothing of the test split is computed, so that nothing can be chosen by it
        metrics = self._make_all(planned, SPLITS[:2])
        winner = max(planned, key=lambda run: self._monitored(metrics[run.name]))
        value = self._monitored(metrics[winner.name])
        text = "of the sweep, %s is best: valid %s %.3f"
        console.log.info(text, winner.name, monitor(self._data.scheme.task), value)
        return metrics, winner

    def _with_seeds(self, fold: int, winner: _PlannedRun | None) -> list[_PlannedRun]:
        """Plan a fold with every seed; the winner of its sweep is the first of them."""
        first, planned = self._settings.seed, []
        choice = {} if winner is None else winner.choice
        for seed in range(first, first + self._settings.seeds):
            if winner is not None and seed == first:
                planned.append(self._plan([winner.name], choice, seed, fold))
                continue
            seed_name = [f"seed-{seed}"] * (self._settings.seeds > 1)
            planned.append(self._plan([*self._fold_name(fold), *seed_name], choice, seed, fold))
        return planned

    def _fold_name(self, fold: int) -> list[str]:
        return [f"fold-{fold + 1}"] * (len(self._data.splits) > 1)

    def _plan(self, name_parts: Sequence[str], choice: Choice, seed: int, fold: int) -> _PlannedRun:
        name = ",".join(name_parts)
        directory = self._settings.output / "trials" / name
        settings = replace(
            self._settings,
            output=directory,
            seed=seed,
            resume=(directory / "config.yaml").exists(),
            force=False,
            seeds=1,
            sweep=None,
        )
        return _PlannedRun(name, _with_choice(settings, choice), fold, choice)

    def _make_all(self, planned: Iterable[_PlannedRun], evaluated: Collection[str]) -> Metrics:
        metrics = {}
        for run in planned:
            console.log.info("trial %s", run.name)
            metrics[run.name] = self._make(run, evaluated)
        return metrics

    def _make(self, planned: _PlannedRun, evaluated: Collection[str] = SPLITS) -> dict[str, Any]:
        """Make a run unless it is complete, and return its metrics.json, of these splits at least.

        Raises:
            _StoppedError: a signal ended it.
        """
        path, splits = planned.settings.output / METRICS, self._data.splits[planned.fold]
        if planned.name and planned.settings.resume and path.exists():
            metrics = read_json(path)
            if splits.indices().keys() & set(evaluated) <= set(metrics["splits"]):
                console.log.info("it is done already")
                return metrics
        run = FinetuneRun(
            planned.settings,
            self._data,
            splits,
            self._device,
            self._warnings[planned.fold],
            self._leaks[planned.fold],
            self._clean[planned.fold],
            partial(self._baselines, planned.fold),
        )
        result = run.run(evaluated)
        if result.exit_code:
            raise _StoppedError(result.exit_code)
        return result.metrics

    def _fit_baselines(self, fold: int, both_strands: bool) -> list[Baseline]:
        """Fit the k-mer model of a fold, which all its seeds share whose models read the same strands."""
        data, splits = self._data, self._data.splits[fold]
        if self._settings.no_baseline:
            return []
        sequences = {
            name: [data.records[i].sequence for i in indices] for name, indices in splits.indices().items()
        }
        run = FinetuneRun(self._settings, data, splits, self._device)
        features = replace(TRIED, symmetric=both_strands)
        config = run.evaluation_config()
        if data.scheme.level == "nucleotide":
            return [fit_window_baseline(data.evaluators(splits), sequences, config)]
        return [fit_kmer_baseline(data.evaluators(splits), sequences, config, features=features)]

    def _monitored(self, metrics: dict[str, Any]) -> float:
        value = metrics["splits"]["valid"]["metrics"][monitor(self._data.scheme.task)]["value"]
        return float("-inf") if value is None else float(value)

    def _summarize(
        self, metrics: Metrics, final: Metrics, out_of_fold: EvaluationResult | None
    ) -> dict[str, Any]:
        """Write metrics.json and report.html; the model is that of the best of `final` by its validation."""
        output, scheme = self._settings.output, self._data.scheme
        best = max(final, key=lambda name: self._monitored(final[name]))
        summary = spread(list(final.values()))
        contents: dict[str, Any] = {
            "task": scheme.task,
            "labels": list(scheme.names),
            "trials": {name: run["splits"] for name, run in metrics.items()},
            "summed_up": list(final),
            "summary": summary,
            "pooled": out_of_fold.splits["test"].to_json() if out_of_fold else None,
            "model_of": best,
        }
        if current_ranks().first:
            link = output / "checkpoints"
            link.unlink(missing_ok=True)
            link.symlink_to(Path("trials") / best / "checkpoints", target_is_directory=True)
            facts = {
                "labels": scheme.sentence,
                "trials": f"{len(metrics)}, summed up: {', '.join(final)}",
                "the run's model is of": best,
            }
            sections = out_of_fold_sections(out_of_fold, scheme) if out_of_fold else []
            title = f"{output.resolve().name}: fine-tuning"
            write_summary(output, title, facts, (metrics, final), sections)
            if out_of_fold is not None:
                text = describe_split("test", out_of_fold.splits["test"])
                console.log.info("all folds together: %s", text)
            write_json(output / METRICS, contents)
            for split, values in summary.items() if len(final) > 1 else ():
                text = describe_summary(values)
                console.log.info("%s, mean of %d trials: %s", split, len(final), text)
            console.log.info("wrote %s", output / "report.html")
        barrier()
        return contents


def evaluate_out_of_fold(
    settings: FinetuneSettings, data: LabelledSet, folds: Mapping[int, FinetuneSettings], device: torch.device
) -> EvaluationResult:
    """Evaluate every record by the model of the fold that was tested on it, and write these predictions.

    Args:
        settings: of the verb.
        data: its records.
        folds: the settings of each fold's run, which is complete.
        device: where models go.

    Returns:
        All records as the split `test`; the same on every rank, which all take part.
    """
    logits: dict[int, Logits] = {}
    head = None
    letters = not METHODS[settings.method].has_head
    for fold, fold_settings in folds.items():
        run = FinetuneRun(fold_settings, data, data.splits[fold], device)
        model = load_model(fold_settings.output).to(device)
        head = prediction_head(model)
        tested = run.splits.test.tolist()
        predicted = run.predict_split(model, "test")
        if (experts := load_experts(locate(fold_settings.output).config.parent)) is not None:
            letters = False
            sequences = [data.records[i].sequence for i in tested]
            predicted = list(experts.join(np.stack(predicted), sequences))
        logits |= zip(tested, predicted, strict=True)
    # the scale of a regression's errors is that of the first fold
    first = FinetuneRun(settings, data, data.splits[0], device)
    config = EvaluationConfig(first.criterion, settings.seed, letters=letters)
    evaluator = SplitEvaluator(data.scheme, data.targets)
    result = evaluate_split(evaluator, [logits[i] for i in range(len(data.records))], config)
    evaluation = EvaluationResult({"test": result})
    if current_ranks().first and head is not None:
        all_records = np.arange(len(data.records))
        splits = LabelSplits(all_records[:0], all_records[:0], all_records)
        write_predictions(settings, data, splits, head, evaluation.splits, "of each fold its own")
    return evaluation


def _with_choice(settings: FinetuneSettings, choice: Choice) -> FinetuneSettings:
    return replace(settings, **{_SWEPT[key]: value for key, value in choice.items()})  # type: ignore[arg-type]


def _find_warnings(data: LabelledSet, splits: LabelSplits, leaks: Sequence[Leak]) -> list[str]:
    sentences = [leak.sentence for leak in leaks if not leak.covered] + find_gaps(data, splits)
    for sentence in sentences:
        console.log.warning("%s", sentence)
    return sentences
