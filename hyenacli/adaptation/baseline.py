"""The k-mer model beside a network: fitted to the same splits, joined with it, and compared."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hyenacli import console
from hyenacli.adaptation.evaluation import (
    Baseline,
    EvaluationConfig,
    EvaluationResult,
    SplitEvaluator,
    Verdict,
    evaluate_split,
)
from hyenacli.evaluation.joining import fit_joint
from hyenacli.evaluation.kmers import fit_kmers
from hyenacli.evaluation.metrics import monitor

Experts = Literal["auto", "kmers", "none"]
# The k-mer model is fitted to at most this many sequences: it learns little from more.
_MAX_RECORDS = 100_000
# Fewer validation records cannot say whether joining helps.
_MIN_VALID = 30


def fit_kmer_baseline(
    evaluators: Mapping[str, SplitEvaluator],
    sequences: Mapping[str, Sequence[bytes]],
    config: EvaluationConfig,
    **fit: Any,
) -> Baseline:
    """Fit the k-mer model to the splits `train` and `valid`, and evaluate it on all.

    Args:
        evaluators: the labels of each split.
        sequences: its records.
        config: of the evaluation.
        fit: keywords of `fit_kmers`.
    """
    scheme, indices = evaluators["train"].scheme, subsample(len(sequences["train"]), _MAX_RECORDS)
    console.log.info("fitting the k-mer model to %s sequences", f"{len(indices):,}")
    model = fit_kmers(
        [sequences["train"][i] for i in indices.tolist()],
        evaluators["train"].targets[indices],
        scheme.task,
        valid=(sequences["valid"], evaluators["valid"].targets),
        n_classes=scheme.n_outputs,
        **fit,
    )
    console.log.info("k-mer model: %s, penalty %g", model.features, model.penalty)
    plain = replace(config, letters=False)
    splits = {
        name: evaluate_split(evaluators[name], list(model.logits(records)), plain)
        for name, records in sequences.items()
    }
    return Baseline(model, splits)


def with_baseline(
    evaluation: EvaluationResult, baseline: Baseline | None, experts: Experts, config: EvaluationConfig
) -> EvaluationResult:
    """Return an evaluation with the k-mer model beside it, joined to the network where that helps.

    The validation split alone decides: `auto` joins where the joined model predicts its records better than
    the network does, each fitted to the other folds of that split.

    Args:
        evaluation: of the network.
        baseline: on the same splits.
        experts: `kmers` joins always, `none` never.
        config: of the evaluation.
    """
    if baseline is None:
        return evaluation
    network = evaluation.splits
    valid, last = network["valid"], evaluation.final_split
    result = replace(evaluation, baseline=baseline)
    if experts == "kmers" or (experts == "auto" and len(valid.logits) >= _MIN_VALID):
        evaluator = valid.evaluator
        arrays = [evaluator.stacked(part) for part in (valid.logits, baseline.splits["valid"].logits)]
        joint = fit_joint(evaluator.scheme.task, arrays[0], arrays[1], evaluator.targets)
        result = replace(result, joint=joint)
        if experts == "kmers" or joint.helps:
            joined = {
                name: evaluate_split(
                    part.evaluator,
                    list(joint.weights.apply(np.stack(part.logits), np.stack(baseline.splits[name].logits))),
                    replace(config, letters=False),
                )
                for name, part in network.items()
            }
            result = replace(result, splits=joined, network=network)
    final, metric = result.splits[last], monitor(valid.evaluator.scheme.task)
    beside = baseline.splits[last]
    difference = final.evaluator.difference(final.logits, beside.logits, metric, config.seed)
    values = final.metrics[metric], beside.metrics[metric]
    return replace(result, verdict=Verdict(metric, last, values, difference, result.network is not None))


def subsample(count: int, size: int) -> NDArray[np.int64]:
    """Return at most `size` of `count` indices in order, drawn at random but always the same.

    >>> subsample(3, 5).tolist(), len(subsample(9, 5))
    ([0, 1, 2], 5)
    """
    keys = np.random.Philox(key=0).random_raw(count)
    return np.sort(np.argsort(keys, kind="stable")[:size])
