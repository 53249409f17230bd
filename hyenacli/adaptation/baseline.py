"""Models of words beside a network: fitted to the same splits, joined with it, and compared."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Literal

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
from hyenacli.evaluation.joining import NETWORK, fit_joint, fit_weights
from hyenacli.evaluation.kmers import KmerFeatures, WindowFeatures, fit_kmers
from hyenacli.evaluation.markov import MarkovClassifier
from hyenacli.evaluation.metrics import monitor

ExpertChoice = Literal["auto", "kmers", "markov", "none"]
# The k-mer model is fitted to at most this many sequences: it learns little from more.
_MAX_RECORDS = 100_000
# Likewise for bases.
_MAX_BASES = 10_000
MIN_VALID = 30
"""Fewer validation records cannot say whether joining helps."""


def fit_kmer_baseline(
    evaluators: Mapping[str, SplitEvaluator],
    sequences: Mapping[str, Sequence[bytes]],
    config: EvaluationConfig,
    features: KmerFeatures,
) -> Baseline:
    """Fit the k-mer model to the splits `train` and `valid`, and evaluate it on all.

    Args:
        evaluators: the labels of each split.
        sequences: its records.
        config: of the evaluation.
        features: that are tried.
    """
    scheme, indices = evaluators["train"].scheme, subsample(len(sequences["train"]), _MAX_RECORDS)
    console.log.info("fitting the k-mer model to %s sequences", f"{len(indices):,}")
    model = fit_kmers(
        [sequences["train"][i] for i in indices.tolist()],
        evaluators["train"].targets[indices],
        scheme.task,
        valid=(sequences["valid"], evaluators["valid"].targets),
        n_classes=scheme.n_outputs,
        features=features,
    )
    chosen = model.features
    assert isinstance(chosen, KmerFeatures)  # noqa: S101  (those of windows are for bases)
    console.log.info("k-mer model: %s, penalty %g", chosen, model.penalty)
    outputs = {name: model.outputs(records) for name, records in sequences.items()}
    plain = replace(config, letters=False)
    splits = {name: evaluate_split(evaluators[name], list(part[0]), plain) for name, part in outputs.items()}
    description = (
        f"a linear model of the frequencies of {chosen} on both strands, fitted to the same training "
        f"split; its penalty, {model.penalty:g} per sequence, is chosen by the same validation split"
    )
    facts = {
        "features": str(chosen),
        "k": list(chosen.lengths),
        "k_by_fifths": list(chosen.part_lengths),
        "penalty": model.penalty,
    }
    return Baseline("kmers", "k-mers", description, model, outputs, splits, facts)


def fit_window_baseline(
    evaluators: Mapping[str, SplitEvaluator],
    sequences: Mapping[str, Sequence[bytes]],
    config: EvaluationConfig,
) -> Baseline:
    """Fit a model of the k-mers around a base to labels of bases, and evaluate it on the held-out splits.

    Args:
        evaluators: the labels of each split.
        sequences: its records.
        config: of the evaluation.
    """
    scheme, features = evaluators["train"].scheme, WindowFeatures()
    examples = {}
    for name in ("train", "valid"):
        targets = evaluators[name].targets
        labelled = np.flatnonzero(targets >= 0 if scheme.has_classes else np.isfinite(targets).any(axis=1))
        indices = labelled[subsample(len(labelled), _MAX_BASES)]
        examples[name] = features.windows(sequences[name], indices), targets[indices]
    console.log.info("fitting the k-mer model to %s bases", f"{len(examples['train'][0]):,}")
    model = fit_kmers(
        *examples["train"],
        scheme.task,
        valid=examples["valid"],
        n_classes=scheme.n_outputs,
        features=features,
    )
    splits = {}
    for name, records in sequences.items():
        if name != "train":
            logits = [model.logits(features.windows([bases])) for bases in records]
            splits[name] = evaluate_split(evaluators[name], logits, replace(config, letters=False))
    description = (
        f"a linear model of the {features}, fitted to bases of the same training split; its penalty, "
        f"{model.penalty:g} per base, is chosen by the same validation split"
    )
    facts = {"features": str(features), "k": features.k, "radius": features.radius, "penalty": model.penalty}
    return Baseline("kmers", "k-mers", description, model, {}, splits, facts)


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
    evaluation: EvaluationResult,
    baselines: Sequence[Baseline],
    experts: ExpertChoice,
    config: EvaluationConfig,
) -> EvaluationResult:
    """Return an evaluation with baselines beside it, joined to the network where that helps.

    The validation split alone decides: `auto` takes of network and baselines joined, the network alone, and
    several baselines joined without it, what predicts records of that split best, each fitted to its other
    folds. The verdict is on the baseline that is best there.

    Args:
        evaluation: of the network.
        baselines: on the same splits; none leave the evaluation as it is.
        experts: `kmers` and `markov` join that baseline always, `none` joins none.
        config: of the evaluation.
    """
    if not baselines:
        return evaluation
    evaluator, last = evaluation.splits["valid"].evaluator, evaluation.final_split
    # that of bases has no outputs of sequences, and does not join
    joining = [baseline for baseline in baselines if baseline.outputs and experts in ("auto", baseline.kind)]
    result = replace(evaluation, baselines=baselines)
    if joining and (experts != "auto" or len(evaluator.targets) >= MIN_VALID):
        result = _with_experts(result, joining, config, always=experts != "auto")
    metric = monitor(evaluator.scheme.task)
    strongest = max(baselines, key=lambda baseline: baseline.splits["valid"].metrics[metric])
    final, beside = result.splits[last], strongest.splits[last]
    difference = final.evaluator.difference(final.logits, beside.logits, metric, config.seed)
    values = final.metrics[metric], beside.metrics[metric]
    joined = () if result.joint is None or result.network is None else result.joint.members
    titles = {NETWORK: NETWORK} | {baseline.kind: baseline.title for baseline in baselines}
    named = [titles[member] for member in joined]
    return replace(result, verdict=Verdict(metric, last, strongest.title, values, difference, named))


def _with_experts(
    evaluation: EvaluationResult, experts: Sequence[Baseline], config: EvaluationConfig, *, always: bool
) -> EvaluationResult:
    """Return an evaluation with experts joined to the network, where that helps or always."""
    network = evaluation.splits
    stacked = {name: part.evaluator.stacked(part.logits) for name, part in network.items()}
    task, targets = network["valid"].evaluator.scheme.task, network["valid"].evaluator.targets
    outputs = {NETWORK: stacked["valid"][None]} | {expert.kind: expert.outputs["valid"] for expert in experts}
    choices = [tuple(outputs)]
    if not always:
        choices.append((NETWORK,))
        if len(experts) > 1:  # a single one without the network would be the baseline itself
            choices.append(tuple(expert.kind for expert in experts))
    joint = fit_joint(task, outputs, targets, choices, offsets=config.offsets)
    members = [expert for expert in experts if expert.kind in joint.members]
    result = replace(evaluation, joint=joint)
    if not members:
        return result
    plain = replace(config, letters=False)
    joined = {}
    for name, part in network.items():
        parts = [stacked[name], *(part for expert in members for part in expert.outputs[name])]
        joined[name] = evaluate_split(part.evaluator, list(joint.weights.apply(parts)), plain)
    return replace(result, splits=joined, network=network)


def subsample(count: int, size: int) -> NDArray[np.int64]:
    """Return at most `size` of `count` indices in order, drawn at random but always the same.

    >>> subsample(3, 5).tolist(), len(subsample(9, 5))
    ([0, 1, 2], 5)
    """
    keys = np.random.Philox(key=0).random_raw(count)
    return np.sort(np.argsort(keys, kind="stable")[:size])
