"""The end of a trial: its best model is judged, and everything that says how good it is is written."""

import json
from typing import Any

from hyenacli import console
from hyenacli.ranks import current_ranks
from hyenacli.score.predict import head_of
from hyenacli.train import record
from hyenacli.train.adaptation import Ended
from hyenacli.train.checkpoints import Checkpoints
from hyenacli.train.distributed import barrier
from hyenacli.train.finetune_report import in_words, write_report
from hyenacli.train.outcome import METRICS, conclude, predict_all, write_metrics
from hyenacli.train.predictions import write_predictions
from hyenacli.train.trial import Trial
from hyenadna import load_model


def close(trial: Trial, ended: Ended, warnings: list[str]) -> dict[str, Any]:
    """Judge the best model on every split; write metrics.json, predictions and report.html.

    Args:
        trial: whose directory.
        ended: how its training went.
        warnings: what is known of the data.

    Returns:
        What metrics.json says, on every rank.
    """
    run = trial.settings.output
    folder = run / "checkpoints"
    model = load_model(folder / ("best" if (folder / "best").exists() else "last")).to(trial.device)
    logits = predict_all(trial, model)
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
        for split, scored in outcome.splits.items():
            console.log.info("%s", in_words(split, scored))
        console.log.info("wrote %s", run / "report.html")
    barrier()
    said: dict[str, Any] = json.loads((run / METRICS).read_text())
    return said
