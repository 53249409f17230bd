"""The end of an adaptation: what its best model is worth is written and said."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hyenacli import console
from hyenacli.adaptation.evaluation_result import Judging, Outcome, Yardstick, conclude
from hyenacli.adaptation.labels import LabelScheme
from hyenacli.adaptation.report import in_words, write_report
from hyenacli.distributed import current_ranks
from hyenacli.evaluation.metrics import monitor
from hyenacli.finetune.fit import Ended
from hyenacli.finetune.predictions import write_predictions
from hyenacli.finetune.run import Trial
from hyenacli.inference.prediction import head_of
from hyenacli.training.checkpoints import Checkpoints, Progress
from hyenacli.training.gradients import barrier
from hyenacli.training.run_metadata import METRICS, add_to_record, write_json
from hyenadna import HyenaDNA, load_model, model_sha256


@dataclass(frozen=True)
class Closing:
    """A run at the end of its training.

    Attributes:
        run: its directory.
        kind: what it is, for the title of its report.
        scheme: what its labels mean.
        plan: what was done, in a few lines.
        progress: how the training ended.
        warnings: what is known of the data.
        origin: what checkpoints say of where they come from.
        sections: what else its report shows, after the metrics.
    """

    run: Path
    kind: str
    scheme: LabelScheme
    plan: Mapping[str, str]
    progress: Progress
    warnings: Sequence[str]
    origin: Mapping[str, Any]
    sections: Sequence[str] = ()

    def keep_calibrated(self, model: HyenaDNA, outcome: Outcome) -> None:
        """Have the calibrated model be the best one of the run, where it was calibrated."""
        if outcome.calibration is not None:
            found = outcome.calibration
            origin = {**self.origin, "temperature": found.temperature, "offsets": list(found.offsets)}
            Checkpoints(self.run, 1, origin).put_best("calibrated", model)

    def write(self, outcome: Outcome, about: Mapping[str, Any]) -> None:
        """Write report.html, run.json and metrics.json, and say what came of it.

        Args:
            outcome: what the model is worth.
            about: what else metrics.json says, first.
        """
        progress = self.progress
        facts = {
            "steps": progress.step,
            "best_step": progress.best_step,
            "seconds": round(progress.seconds, 1),
            "chosen_by": f"valid {monitor(self.scheme.task)}",
        }
        shown = dict(self.plan) | {
            "steps made": f"{progress.step:,} in {progress.seconds:,.0f} s",
            "best step": f"{progress.best_step:,}",
        }
        title = f"{self.run.resolve().name}: {self.kind}"
        write_report(self.run, title, shown, self.scheme, outcome, self.warnings, self.sections)
        add_to_record(self.run, plan=dict(self.plan), result=facts)
        said = {**about, **facts, **outcome.to_json(), "warnings": list(self.warnings)}
        write_json(self.run / METRICS, said)  # last: its presence says that all is there
        self._tell(outcome)
        console.log.info("wrote %s", self.run / "report.html")

    def _tell(self, outcome: Outcome) -> None:
        progress, judged = self.progress, monitor(self.scheme.task)
        if progress.step and progress.best_step >= 0:
            text = "best after step %d of %d: valid %s %.3f"
            console.log.info(text, progress.best_step, progress.step, judged, progress.best)
        if progress.step and progress.best_step == 0:
            console.log.warning(
                "training has not made the model better on the validation split, so it is kept as it came; "
                "try another --lr, or a longer training"
            )
        if (found := outcome.calibration) is not None:
            losses = found.loss[::-1]
            pairs = zip(self.scheme.names, found.offsets, strict=False)
            offsets = "".join(f", {name} {offset:+.2f}" for name, offset in pairs)
            said = f"temperature {found.temperature:.3g}{offsets}"
            console.log.info("%s: valid loss %.4f, before %.4f", said, *losses)
            if found.useless:
                console.log.warning(
                    "on the validation split nothing does better than equal probabilities, and so they "
                    "are: the model has learnt nothing there; try another --lr, or a longer training"
                )
        for split, scored in outcome.splits.items():
            console.log.info("%s", in_words(split, scored))
        if (yardstick := outcome.yardstick) is not None:
            value = yardstick.values[outcome.last][judged]
            console.log.info("k-mers, %s: %s %.3f", outcome.last, judged, value)


def close(
    trial: Trial,
    ended: Ended,
    warnings: list[str],
    judged: Sequence[str],
    yardstick: Callable[[], Yardstick | None],
) -> dict[str, Any]:
    """Judge the best model of a trial; write metrics.json, predictions and report.html.

    Args:
        trial: whose directory.
        ended: how its training went.
        warnings: what is known of the data.
        judged: the splits to judge it on.
        yardstick: makes the k-mer model, or None; called where all splits are judged.

    Returns:
        What metrics.json says, on every rank.
    """
    settings, scheme = trial.settings, trial.data.scheme
    model = load_model(settings.output).to(trial.device)
    there = [name for name, count in trial.splits.counts().items() if count]
    logits = {name: trial.predict_split(model, name) for name in there if name in judged}
    if current_ranks().first:
        judges = {name: trial.judge(name) for name in logits}
        judging = Judging(
            trial.criterion(), settings.seed, calibrated=settings.calibrate, letters=settings.method == "icl"
        )
        outcome = conclude(model, judges, logits, judging)
        if len(logits) == len(there):
            outcome = replace(outcome, yardstick=yardstick())
        closing = Closing(
            settings.output, "fine-tuning", scheme, ended.plan, ended.progress, warnings, trial.origin()
        )
        closing.keep_calibrated(model, outcome)
        sha256 = model_sha256(model)
        write_predictions(settings.output, trial, head_of(model), outcome.splits, sha256)
        about = {
            "task": scheme.task,
            "level": scheme.level,
            "labels": list(scheme.names),
            "method": settings.method,
            "model": settings.model,
            "seed": settings.seed,
            "model_sha256": sha256,
        }
        closing.write(outcome, about)
    barrier()
    said: dict[str, Any] = json.loads((settings.output / METRICS).read_text())
    return said
