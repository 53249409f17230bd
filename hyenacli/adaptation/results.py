"""The end of an adaptation: its best model is evaluated, and metrics.json and report.html are written."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from hyenacli import console
from hyenacli.adaptation.evaluation import EvaluationResult, evaluate_splits
from hyenacli.adaptation.report import describe_split, write_report
from hyenacli.adaptation.run import AdaptationRun, TrainingResult
from hyenacli.distributed import broadcast, current_ranks
from hyenacli.evaluation.metrics import monitor
from hyenacli.training.checkpoints import Checkpoints
from hyenacli.training.run_metadata import METRICS, add_to_record, write_json
from hyenadna import HyenaDNA, load_model, model_sha256


def evaluate_run(run: AdaptationRun, training: TrainingResult, splits: Collection[str]) -> dict[str, Any]:
    """Evaluate the best model of a run, and write its results.

    Args:
        run: whose directory.
        training: how its training ended.
        splits: names of those to evaluate on; the baseline is fitted only where none is left out.

    Returns:
        The contents of metrics.json, on every rank.
    """
    model = load_model(run.settings.output).to(run.device)
    evaluators = {name: evaluator for name, evaluator in run.evaluators.items() if name in splits}
    logits = {name: run.predict_split(model, name) for name in evaluators}
    metrics: dict[str, Any] = {}
    if current_ranks().first:
        evaluation = evaluate_splits(model, evaluators, logits, run.evaluation_config())
        if len(evaluators) == len(run.evaluators):
            evaluation = replace(evaluation, baseline=run.fit_baseline())
        metrics = write_results(run, model, training, evaluation)
    return broadcast(metrics)


def write_results(
    run: AdaptationRun, model: HyenaDNA, training: TrainingResult, evaluation: EvaluationResult
) -> dict[str, Any]:
    """Write the calibrated model, tables, report.html, run.json and metrics.json of a run; log the metrics.

    Args:
        run: whose directory.
        model: the evaluated one, calibrated.
        training: how its training ended.
        evaluation: of the model.

    Returns:
        The contents of metrics.json.
    """
    directory, progress, plan = run.settings.output, training.progress, training.plan
    if (calibration := evaluation.calibration) is not None:
        fitted = {"temperature": calibration.temperature, "offsets": list(calibration.offsets)}
        Checkpoints(directory, 1, run.origin() | fitted).put_best("calibrated", model)
    sha256 = model_sha256(model)
    run.write_tables(model, evaluation, sha256)
    numbers = {
        "steps": progress.step,
        "best_step": progress.best_step,
        "seconds": round(progress.seconds, 1),
        "chosen_by": f"valid {monitor(run.scheme.task)}",
    }
    shown = plan | {
        "steps made": f"{progress.step:,} in {progress.seconds:,.0f} s",
        "best step": f"{progress.best_step:,}",
    }
    title = f"{directory.resolve().name}: {run.kind}"
    write_report(directory, title, shown, run.scheme, evaluation, run.warnings, run.report_sections())
    add_to_record(directory, plan=plan, result=numbers)
    head = run.facts() | {"model_sha256": sha256}
    metrics = head | numbers | evaluation.to_json() | {"warnings": list(run.warnings)}
    write_json(directory / METRICS, metrics)  # last: its presence says that the run is complete
    _log_results(run, training, evaluation)
    console.log.info("wrote %s", directory / "report.html")
    finite: dict[str, Any] = console.finite(metrics)
    return finite


def _log_results(run: AdaptationRun, training: TrainingResult, evaluation: EvaluationResult) -> None:
    progress, metric = training.progress, monitor(run.scheme.task)
    if progress.step and progress.best_step >= 0:
        text = "best after step %d of %d: valid %s %.3f"
        console.log.info(text, progress.best_step, progress.step, metric, progress.best)
    if progress.step and progress.best_step == 0:
        console.log.warning(
            "training has not made the model better on the validation split, so it is kept as it came; "
            "try another --lr, or a longer training"
        )
    if (calibration := evaluation.calibration) is not None:
        pairs = zip(run.scheme.names, calibration.offsets, strict=False)
        offsets = "".join(f", {name} {offset:+.2f}" for name, offset in pairs)
        before, after = calibration.loss
        text = "temperature %.3g%s: valid loss %.4f, before %.4f"
        console.log.info(text, calibration.temperature, offsets, after, before)
        if calibration.useless:
            console.log.warning(
                "on the validation split nothing does better than equal probabilities, and so they "
                "are: the model has learnt nothing there; try another --lr, or a longer training"
            )
    for name, result in evaluation.splits.items():
        console.log.info("%s", describe_split(name, result))
    if (baseline := evaluation.baseline) is not None:
        split = evaluation.final_split
        console.log.info("k-mers, %s: %s %.3f", split, metric, baseline.metrics[split][metric])
