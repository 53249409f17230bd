"""Joined predictions: weights against what is known, the rule that joins, and bias towards the mean."""

import numpy as np
import pytest

from hyenacli.evaluation.joining import NETWORK, JointWeights, fit_joint, fit_weights
from hyenacli.evaluation.metrics import measure, paired_difference
from hyenadna.config import Task


def noisy(truth_N: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Logits (N, 2) that know the truth but for noise."""
    score = (2 * truth_N - 1) + rng.normal(0, noise, len(truth_N))
    return np.stack([-score, score], axis=1)


@pytest.mark.parametrize("n", [400, 4000])
def test_two_views_are_better_than_one(n: int) -> None:
    rng = np.random.default_rng(0)
    y, new = rng.integers(0, 2, n), rng.integers(0, 2, 4000)
    (a, b), (c, d) = ([noisy(t, s, rng) for s in (1.5, 1.5)] for t in (y, new))
    outputs = {NETWORK: 7 * a[None], "kmer": b[None]}
    joint = fit_joint("binary", outputs, y, [(NETWORK,), (NETWORK, "kmer")])
    assert joint.members == (NETWORK, "kmer")
    # a network that is seven times too sure weighs a seventh as much
    assert 7 * joint.weights.factors[0] == pytest.approx(joint.weights.factors[1], rel=0.5)
    joined = joint.weights.apply([7 * c, d])
    assert measure("binary", new, joined - joined.min() + 1)["auroc"] > 0.8
    for single in (c, d):
        difference = paired_difference("binary", new, joined, single)["auroc"]
        assert difference[1] > 0


@pytest.mark.parametrize("task", ["binary", "multilabel", "regression"])
def test_noise_does_not_join(task: Task) -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 400)
    logits, noise = noisy(y, 0.5, rng), rng.normal(0, 1, (400, 2))
    targets = y
    if task == "multilabel":
        targets = np.stack([1 - y, y], axis=1).astype(float)
    if task == "regression":
        logits, noise, targets = logits[:, 1:], noise[:, 1:], 2 * y[:, None] - 1.0
    outputs = {NETWORK: logits[None], "kmer": noise[None]}
    joint = fit_joint(task, outputs, targets, [(NETWORK,), ("kmer",), (NETWORK, "kmer")])
    assert joint.losses[NETWORK] < joint.losses["kmer"]
    joint = fit_joint(task, outputs, targets, [(NETWORK, "kmer")])
    network, expert = joint.weights.factors
    assert abs(expert) < 0.3 * network


@pytest.mark.parametrize("seed", range(3))
def test_a_network_that_adds_nothing_is_left_out_or_does_no_harm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, new = rng.integers(0, 2, 300), rng.integers(0, 2, 4000)
    names = ("markov", "kmer")
    parts = [{name: noisy(t, 1.5, rng)[None] for name in names} for t in (y, new)]
    untrained = [rng.normal(0, 0.1, (1, len(t), 2)) for t in (y, new)]
    joint = fit_joint("binary", {NETWORK: untrained[0]} | parts[0], y, [(NETWORK, *names), (NETWORK,), names])
    assert joint.members in (names, (NETWORK, *names))
    assert joint.losses["markov+kmer"] < joint.losses[NETWORK]
    joined = joint.weights.apply(
        [part for group in ({NETWORK: untrained[1]} | parts[1]).values() for part in group]
    )
    best = fit_weights("binary", [part for group in parts[0].values() for part in group], y)
    without = best.apply([part for group in parts[1].values() for part in group])
    difference, _, high = paired_difference("binary", new, joined, without)["accuracy"]
    assert abs(difference) < 0.01
    assert high > -0.005
    if NETWORK not in joint.members:
        assert joint.weights.factors == (0.0, *best.factors)


def test_few_records_keep_the_mean() -> None:
    parts = [np.array([[0.0], [1.0]]), np.array([[1.0], [0.0]])]
    assert fit_weights("regression", parts, np.array([0.0, 1.0])).factors == pytest.approx(
        (0.5, 0.5), abs=0.1
    )


def test_leanings_of_each_part_are_taken_away() -> None:
    rng = np.random.default_rng(4)
    y, new = rng.integers(0, 2, 400), rng.integers(0, 2, 4000)
    parts = [[noisy(truth, 1.0, rng) + lean for lean in ([3.0, 0.0], [9.0, 0.0])] for truth in (y, new)]
    for offsets, least, most in ((True, 0.88, 1), (False, 0.5, 0.85)):
        joined = fit_weights("binary", parts[0], y, offsets=offsets).apply(parts[1])
        assert least < (joined.argmax(axis=1) == new).mean() < most
    # nothing can be learnt of a class without a record
    assert not fit_weights("binary", [part[y == 0] for part in parts[0]], y[y == 0], offsets=True).bias


def test_numbers_keep_their_mean_and_missing_ones_do_not_count() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(50, 3, (500, 2))
    y[:20, 1] = np.nan
    network, expert = (np.nan_to_num(y, nan=50.0) + rng.normal(0, 2, y.shape) for _ in range(2))
    weights = fit_weights("regression", [network, expert], y)
    joined = weights.apply([network, expert])
    error = np.nanmean((joined - y) ** 2)
    assert error < 0.75 * np.nanmean((network - y) ** 2)
    assert np.nanmean(joined - y) == pytest.approx(0, abs=0.01)
    y[:, 1] = np.nan  # no label at all
    joined = fit_weights("regression", [network, expert], y).apply([network, expert])
    assert np.isfinite(joined).all()


def test_weights_add_up() -> None:
    joined = JointWeights((2.0, 0.5), (1.0,)).apply([np.array([[1.0]]), np.array([[4.0]])])
    assert joined.tolist() == [[5.0]]


def test_a_paired_interval_is_narrower_than_two_single_ones() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 500)
    a = noisy(y, 1.5, rng)
    b = a + rng.normal(0, 0.3, a.shape)
    change, low, high = paired_difference("binary", y, a, b)["mcc"]
    assert change == pytest.approx(measure("binary", y, a)["mcc"] - measure("binary", y, b)["mcc"])
    assert low <= change <= high
    assert high - low < 0.15
    assert paired_difference("binary", y, a, a)["mcc"] == (0.0, 0.0, 0.0)
