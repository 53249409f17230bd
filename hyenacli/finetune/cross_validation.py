"""A run of fine-tuning as one trial or several: a sweep, folds, seeds, and what they say together."""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hyenacli import console
from hyenacli.adaptation.evaluation_result import Outcome, Yardstick, fit_yardstick
from hyenacli.adaptation.evaluator import Judge
from hyenacli.adaptation.report import (
    in_words,
    pooled_sections,
    spread,
    spread_in_words,
    write_summary,
)
from hyenacli.adaptation.results import close
from hyenacli.distributed import current_ranks
from hyenacli.errors import UsageError
from hyenacli.evaluation.metrics import monitor
from hyenacli.finetune.fit import adapt
from hyenacli.finetune.label_splits import LabelSplits
from hyenacli.finetune.labelled_set import LabelledSet, find_gaps
from hyenacli.finetune.leakage import find_leaks
from hyenacli.finetune.out_of_fold import pool_folds
from hyenacli.finetune.run import Trial
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.inference.intervals import SPLITS
from hyenacli.training.gradients import barrier
from hyenacli.training.run_directory import open_run
from hyenacli.training.run_metadata import METRICS, write_json

_SWEPT = {
    "lr": "lr",
    "weight-decay": "weight_decay",
    "embed-dropout": "embed_dropout",
    "resid-dropout": "resid_dropout",
}
Choice = dict[str, float]
"""Values of what is swept."""


def read_grid(sweep: Sequence[str]) -> list[Choice]:
    """Every combination of the values that --sweep names; one empty one where there are none.

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
    return [dict(chosen) for chosen in itertools.product(*axes)]


@dataclass(frozen=True)
class _Planned:
    """A trial to be made.

    Attributes:
        name: of its directory; '' for the run's own.
        settings: of it.
        fold: which of the data's splits it trains, chooses and tests on.
        chosen: values of what is swept.
    """

    name: str
    settings: FinetuneSettings
    fold: int = 0
    chosen: Choice = field(default_factory=dict)


class Trials:
    """All trials of a run.

    Args:
        settings: with the method's defaults.
        data: the labelled records.
        grid: what is swept.
        device: where models go.

    Attributes:
        exit_code: 0, or 143 or 130 where a signal ended a trial.
    """

    def __init__(
        self, settings: FinetuneSettings, data: LabelledSet, grid: list[Choice], device: torch.device
    ) -> None:
        if len(grid) == 1:  # nothing to choose
            settings = _with_choice(settings, grid[0])
        self._settings, self._data, self._grid, self._device = settings, data, grid, device
        self._faults = [_find_faults(data, splits) for splits in data.splits]
        self._yardsticks: dict[int, Yardstick] = {}
        self.exit_code = 0

    def run(self) -> dict[str, Any]:
        """Make the trials that are not made yet.

        Returns:
            What metrics.json of the run says; nothing after a signal.
        """
        settings = self._settings
        if len(self._grid) == len(self._data.splits) == settings.seeds == 1:
            return self._make(_Planned("", settings))
        open_run(settings, [self._data.inputs], self._device)
        swept: dict[str, dict[str, Any]] = {}
        winners: list[_Planned | None] = []
        for fold in range(len(self._data.splits)):
            made, winner = self._sweep(fold)
            if self.exit_code:
                return {}
            swept |= made
            winners.append(winner)
        repeats = list(self._repeats(winners))
        final = self._make_all(repeats, SPLITS)
        if self.exit_code:
            return {}
        pooled = None
        if len(self._data.splits) > 1:
            of_folds = {one.fold: one.settings for one in repeats if one.settings.seed == settings.seed}
            pooled = pool_folds(settings, self._data, of_folds, self._device)
        return self._sum_up(swept | final, final, pooled)

    def _sweep(self, fold: int) -> tuple[dict[str, dict[str, Any]], _Planned | None]:
        """What is swept, on one fold alone, and which is best there; nothing where nothing is swept.

        Another fold has no say: it trains on what this one tests on.
        """
        if len(self._grid) == 1:
            return {}, None
        planned = []
        for chosen in self._grid:
            words = ",".join(f"{key}={value:g}" for key, value in chosen.items())
            planned.append(self._planned([*self._parts(fold), words], chosen, self._settings.seed, fold))
        # of what the test split says nothing is computed, so that nobody can choose by it
        made = self._make_all(planned, SPLITS[:2])
        if self.exit_code:
            return {}, None
        winner = max(planned, key=lambda one: self._chosen_by(made[one.name]))
        value = self._chosen_by(made[winner.name])
        judged = monitor(self._data.scheme.task)
        console.log.info("of the sweep, %s is best: valid %s %.3f", winner.name, judged, value)
        return made, winner

    def _repeats(self, winners: Sequence[_Planned | None]) -> Iterator[_Planned]:
        """Every fold with every seed; the winner of a fold's sweep is the first of them."""
        first = self._settings.seed
        for fold, winner in enumerate(winners):
            for seed in range(first, first + self._settings.seeds):
                chosen = winner.chosen if winner is not None else {}
                if winner is not None and seed == first:
                    yield self._planned([winner.name], chosen, seed, fold)
                    continue
                named = [f"seed-{seed}"] * (self._settings.seeds > 1)
                yield self._planned([*self._parts(fold), *named], chosen, seed, fold)

    def _parts(self, fold: int) -> list[str]:
        """Of the names of a fold's trials."""
        return [f"fold-{fold + 1}"] * (len(self._data.splits) > 1)

    def _planned(self, parts: Sequence[str], chosen: Choice, seed: int, fold: int) -> _Planned:
        name = ",".join(parts)
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
        return _Planned(name, _with_choice(settings, chosen), fold, chosen)

    def _make_all(self, planned: Iterable[_Planned], judged: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Trials by name, up to a signal."""
        done = {}
        for one in planned:
            console.log.info("trial %s", one.name)
            done[one.name] = self._make(one, judged)
            if self.exit_code:
                break
        return done

    def _make(self, planned: _Planned, judged: Sequence[str] = SPLITS) -> dict[str, Any]:
        """One trial: what its metrics.json says, of these splits at least."""
        done = planned.settings.output / METRICS
        if planned.name and planned.settings.resume and done.exists():
            known: dict[str, Any] = json.loads(done.read_text())
            there = {name for name, count in self._data.splits[planned.fold].counts().items() if count}
            if there & set(judged) <= set(known["splits"]):
                console.log.info("it is done already")
                return known
        trial = Trial(planned.settings, self._data, self._data.splits[planned.fold], self._device)
        ended = adapt(trial, trial.build())
        self.exit_code = ended.exit_code
        if ended.exit_code:
            console.log.warning("stopped after step %d, and saved; go on with --resume", ended.progress.step)
            return {}
        faults, yardstick = self._faults[planned.fold], partial(self._yardstick, planned.fold)
        return close(trial, ended, faults, judged, yardstick)

    def _yardstick(self, fold: int) -> Yardstick | None:
        """The k-mer model of a fold, which all its seeds share."""
        data, splits, settings = self._data, self._data.splits[fold], self._settings
        if settings.no_baseline or data.scheme.level != "sequence":
            return None
        if fold not in self._yardsticks:
            there = {name: getattr(splits, name).tolist() for name, count in splits.counts().items() if count}
            judges = {
                name: Judge(data.scheme, [data.targets[i] for i in places]) for name, places in there.items()
            }
            sequences = {name: data.sequences(places) for name, places in there.items()}
            self._yardsticks[fold] = fit_yardstick(judges, sequences, settings.seed)
        return self._yardsticks[fold]

    def _chosen_by(self, metrics: dict[str, Any]) -> float:
        value = metrics["splits"]["valid"]["metrics"][monitor(self._data.scheme.task)]["value"]
        return float("-inf") if value is None else float(value)

    def _sum_up(
        self,
        trials: dict[str, dict[str, Any]],
        final: dict[str, dict[str, Any]],
        pooled: Outcome | None,
    ) -> dict[str, Any]:
        """Write metrics.json and report.html; the best of `final` on its validation split lends its model."""
        output = self._settings.output
        best = max(final, key=lambda name: self._chosen_by(final[name]))
        summary = spread(list(final.values()))
        said = {
            "task": self._data.scheme.task,
            "labels": list(self._data.scheme.names),
            "trials": {name: metrics["splits"] for name, metrics in trials.items()},
            "summed_up": list(final),
            "summary": summary,
            "pooled": pooled.splits["test"].to_json() if pooled else None,
            "model_of": best,
        }
        if current_ranks().first:
            link = output / "checkpoints"
            link.unlink(missing_ok=True)
            link.symlink_to(Path("trials") / best / "checkpoints", target_is_directory=True)
            facts = {
                "labels": self._data.scheme.sentence,
                "trials": f"{len(trials)}, summed up: {', '.join(final)}",
                "the run's model is of": best,
            }
            together = pooled_sections(pooled, self._data.scheme) if pooled else []
            title = f"{output.resolve().name}: fine-tuning"
            write_summary(output, title, facts, (trials, final), together)
            if pooled is not None:
                console.log.info("all folds together: %s", in_words("test", pooled.splits["test"]))
            write_json(output / METRICS, said)
            for split, metrics in summary.items() if len(final) > 1 else ():
                words = spread_in_words(metrics)
                console.log.info("%s, mean of %d trials: %s", split, len(final), words)
            console.log.info("wrote %s", output / "report.html")
        barrier()
        return said


def _with_choice(settings: FinetuneSettings, chosen: Choice) -> FinetuneSettings:
    return replace(settings, **{_SWEPT[key]: value for key, value in chosen.items()})  # type: ignore[arg-type]


def _find_faults(data: LabelledSet, splits: LabelSplits) -> list[str]:
    sentences = [leak.sentence for leak in find_leaks(data.records, splits)] + find_gaps(data, splits)
    for sentence in sentences:
        console.log.warning("%s", sentence)
    return sentences
