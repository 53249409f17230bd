"""Models of words beside a network: fitted to the same splits, joined with it, and compared."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
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
from hyenacli.evaluation.joining import fit_joint, fit_weights
from hyenacli.evaluation.kmers import fit_kmers
from hyenacli.evaluation.markov import MarkovClassifier
from hyenacli.evaluation.metrics import monitor

Experts = Literal["auto", "kmers", "markov", "none"]
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
    outputs = {name: model.outputs(records) for name, records in sequences.items()}
    plain = replace(config, letters=False)
    splits = {name: evaluate_split(evaluators[name], list(part[0]), plain) for name, part in outputs.items()}
    description = (
        f"a linear model of the frequencies of {model.features} on both strands, fitted to the same training "
        f"split; its penalty, {model.penalty:g} per sequence, is chosen by the same validation split"
    )
    facts = {
        "features": str(model.features),
        "k": list(model.features.lengths),
        "k_by_fifths": list(model.features.part_lengths),
        "penalty": model.penalty,
    }
    return Baseline("kmer", "k-mers", description, model, outputs, splits, facts)


def markov_baseline(
    model: MarkovClassifier,
    evaluators: Mapping[str, SplitEvaluator],
    sequences: Mapping[str, Sequence[bytes]],
    config: EvaluationConfig,
) -> Baseline:
    """Evaluate Markov models of the classes on all splits; the split `valid` weights their orders.

    Args:
        model: fitted to training bases.
        evaluators: the labels of each split.
        sequences: its records.
        config: of the evaluation.
    """
    outputs = {name: model.outputs(records) for name, records in sequences.items()}
    valid = evaluators["valid"]
    weights = fit_weights(valid.scheme.task, list(outputs["valid"]), valid.targets, offsets=config.offsets)
    splits = {
        name: evaluate_split(evaluators[name], list(weights.apply(list(part))), config)
        for name, part in outputs.items()
    }
    orders = ", ".join(map(str, model.orders))
    description = (
        f"log-likelihoods under Markov models of order {orders} of each species, fitted to both strands of "
        "all its training bases; the orders are weighted by the same validation split"
    )
    facts = {"orders": list(model.orders), "weights": asdict(weights)}
    return Baseline("markov", "Markov models", description, model, outputs, splits, facts)


def with_baselines(
    evaluation: EvaluationResult, baselines: Sequence[Baseline], experts: Experts, config: EvaluationConfig
) -> EvaluationResult:
    """Return an evaluation with baselines beside it, one of them joined to the network where that helps.

    The validation split alone decides: `auto` joins k-mers where the joined model predicts its records better
    than the network does, each fitted to the other folds of that split. The verdict is on the baseline that
    is best there.

    Args:
        evaluation: of the network.
        baselines: on the same splits; none leave the evaluation as it is.
        experts: `kmers` and `markov` join that baseline always, `none` joins none.
        config: of the evaluation.
    """
    if not baselines:
        return evaluation
    evaluator, last = evaluation.splits["valid"].evaluator, evaluation.final_split
    kind = {"auto": "kmer", "kmers": "kmer"}.get(experts, experts)
    expert = next((baseline for baseline in baselines if baseline.kind == kind), None)
    result = replace(evaluation, baselines=baselines)
    if expert is not None and (experts != "auto" or len(evaluator.targets) >= _MIN_VALID):
        result = _with_expert(result, expert, config, always=experts != "auto")
    metric = monitor(evaluator.scheme.task)
    strongest = max(baselines, key=lambda baseline: baseline.splits["valid"].metrics[metric])
    final, beside = result.splits[last], strongest.splits[last]
    difference = final.evaluator.difference(final.logits, beside.logits, metric, config.seed)
    values = final.metrics[metric], beside.metrics[metric]
    joined = expert.title if expert is not None and result.network is not None else None
    return replace(result, verdict=Verdict(metric, last, strongest.title, values, difference, joined))


def _with_expert(
    evaluation: EvaluationResult, expert: Baseline, config: EvaluationConfig, *, always: bool
) -> EvaluationResult:
    """Return an evaluation with an expert joined to the network, where that helps or always."""
    network = evaluation.splits
    stacked = {name: part.evaluator.stacked(part.logits) for name, part in network.items()}
    task, targets = network["valid"].evaluator.scheme.task, network["valid"].evaluator.targets
    joint = fit_joint(task, stacked["valid"], list(expert.outputs["valid"]), targets, offsets=config.offsets)
    result = replace(evaluation, joint=joint, expert=expert)
    if not always and not joint.helps:
        return result
    plain = replace(config, letters=False)
    joined = {
        name: evaluate_split(
            part.evaluator, list(joint.weights.apply([stacked[name], *expert.outputs[name]])), plain
        )
        for name, part in network.items()
    }
    return replace(result, splits=joined, network=network)


def subsample(count: int, size: int) -> NDArray[np.int64]:
    """Return at most `size` of `count` indices in order, drawn at random but always the same.

    >>> subsample(3, 5).tolist(), len(subsample(9, 5))
    ([0, 1, 2], 5)
    """
    keys = np.random.Philox(key=0).random_raw(count)
    return np.sort(np.argsort(keys, kind="stable")[:size])
