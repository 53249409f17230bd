"""The end of a trial: its best model is judged, and everything that says how good it is is written."""

import json
from collections.abc import Sequence
from typing import Any

from hyenacli import console
from hyenacli.ranks import current_ranks
from hyenacli.score.predict import head_of
from hyenacli.train import record
from hyenacli.train.adaptation import Ended
from hyenacli.train.checkpoints import Checkpoints
from hyenacli.train.distributed import barrier
from hyenacli.train.finetune_report import in_words, write_report
from hyenacli.train.outcome import METRICS, Outcome, conclude, predict_all, write_metrics
from hyenacli.train.predictions import write_predictions
from hyenacli.train.quality import monitor
from hyenacli.train.trial import Trial
from hyenadna import load_model


def close(trial: Trial, ended: Ended, warnings: list[str], judged: Sequence[str]) -> dict[str, Any]:
    """Judge the best model; write metrics.json, predictions and report.html.

    Args:
        trial: whose directory.
        ended: how its training went.
        warnings: what is known of the data.
        judged: the splits to judge it on.

    Returns:
        What metrics.json says, on every rank.
    """
    run = trial.settings.output
    folder = run / "checkpoints"
    model = load_model(folder / ("best" if (folder / "best").exists() else "last")).to(trial.device)
    logits = predict_all(trial, model, judged)
    if current_ranks().first:
        outcome = conclude(trial, model, logits, ended, warnings)
        if outcome.calibration is not None:
            provenance = {**trial.origin(), "temperature": outcome.calibration.temperature}
            Checkpoints(run, trial.settings.keep, provenance).put_best("calibrated", model)
        write_predictions(run, trial, head_of(model), outcome)
        facts = ended.plan | {
            "steps made": f"{ended.progress.step:,} in {ended.progress.seconds:,.0f} s",
            "best step": f"{ended.progress.best_step:,}",
        }
        write_report(run, f"{run.resolve().name}: fine-tuning", facts, trial.data.scheme, outcome)
        record.add_to_record(run, plan=ended.plan, result=outcome.facts)
        write_metrics(run, trial, outcome)  # last: its presence says that all is there
        tell(outcome, ended, trial)
        console.log.info("wrote %s", run / "report.html")
    barrier()
    said: dict[str, Any] = json.loads((run / METRICS).read_text())
    return said


def tell(outcome: Outcome, ended: Ended, trial: Trial) -> None:
    """Say how the training ended and what came of it."""
    progress, schema = ended.progress, trial.data.scheme
    if progress.step:
        judged = f"valid {monitor(schema.task)} {progress.best:.3f}"
        console.log.info("best after step %d of %d: %s", progress.best_step, progress.step, judged)
    if progress.step and progress.best_step == 0:
        console.log.warning(
            "training has not made the model better on the validation split, so it is kept as it came; try "
            "another --lr, or more --epochs"
        )
    if (found := outcome.calibration) is not None:
        console.log.info(
            "temperature %.3g: valid loss %.4f, before %.4f", found.temperature, *found.loss[::-1]
        )
    for split, scored in outcome.splits.items():
        console.log.info("%s", in_words(split, scored))
    if (yardstick := outcome.yardstick) is not None:
        split = list(outcome.splits)[-1]
        value = yardstick.values[split][monitor(schema.task)]
        console.log.info("k-mers, %s: %s %.3f", split, monitor(schema.task), value)
