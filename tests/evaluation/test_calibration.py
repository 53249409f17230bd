"""Temperatures that are known, and calibration errors counted by hand."""

import numpy as np
import pytest
import torch

from hyenacli.evaluation.calibration import BINS, calibrate, probabilities, reliability
from hyenacli.evaluation.metrics import measure
from hyenadna.config import Task

TASKS: tuple[Task, ...] = ("binary", "multiclass", "multilabel")


def drawn(task: Task, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn with just the probabilities they say."""
    rng = np.random.default_rng(seed)
    width = {"binary": 2, "multiclass": 4, "multilabel": 3}[task]
    logits = rng.normal(0, 1.5, (n, width))
    p = probabilities(task, logits)
    if task == "multilabel":
        return logits, (rng.random(p.shape) < p).astype(float)
    return logits, (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=width - 1)


def loss(task: Task, logits: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    p = probabilities(task, logits, temperature)
    if task == "multilabel":
        return float(-np.log(np.where(targets == 1, p, 1 - p)).mean())
    return float(-np.log(p[np.arange(len(p)), targets]).mean())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("factor", [0.3, 1.0, 7.0])
def test_exaggeration_is_found(task: Task, factor: float) -> None:
    logits, targets = drawn(task, 20_000)
    found = calibrate(task, logits * factor, targets)
    assert found.temperature == pytest.approx(factor, rel=0.05)
    assert found.error[1] < 0.015
    if factor != 1:
        assert found.error[0] > 3 * found.error[1]


@pytest.mark.parametrize("task", TASKS)
def test_no_other_temperature_has_less_loss(task: Task) -> None:
    logits, targets = drawn(task, 500, seed=1)
    found = calibrate(task, 3 * logits, targets)
    before, after = found.loss
    assert before == pytest.approx(loss(task, 3 * logits, targets, 1.0))
    assert after == pytest.approx(loss(task, 3 * logits, targets, found.temperature))
    for nearby in (0.999, 1.001):
        assert loss(task, 3 * logits, targets, found.temperature * nearby) > after
    best = min(np.linspace(0.5, 8, 4001), key=lambda t: loss(task, 3 * logits, targets, t))
    assert found.temperature == pytest.approx(best, abs=0.003)


def test_offsets_are_the_best_with_every_class_counting_the_same() -> None:
    logits, targets = drawn("multiclass", 400, seed=5)
    logits = 2 * logits + np.array([1.5, 0.0, -1.0, 0.5])
    kept = (targets != 1) | (np.arange(400) % 3 == 0)  # fewer of one class
    logits, targets = logits[kept], targets[kept]
    found = calibrate("multiclass", logits, targets, offsets=True)
    weights = torch.from_numpy(1 / np.bincount(targets)[targets])

    def loss_of(parameters: torch.Tensor) -> torch.Tensor:
        moved = torch.from_numpy(logits) * parameters[0] + parameters[1:]
        nats = torch.nn.functional.cross_entropy(moved, torch.from_numpy(targets), reduction="none")
        return (nats * weights).sum() / weights.sum()

    mine = torch.tensor([1 / found.temperature, *found.offsets], dtype=torch.float64, requires_grad=True)
    loss_of(mine).backward()
    assert mine.grad is not None
    assert mine.grad.abs().max() < 1e-6  # convex: the least there is
    assert sum(found.offsets) == pytest.approx(0, abs=1e-9)
    assert found.loss[1] == pytest.approx(loss_of(mine).item())
    assert found.loss[1] < calibrate("multiclass", logits, targets).loss[1]
    moved = found.apply(logits)
    assert moved == pytest.approx(logits / found.temperature + np.array(found.offsets))


def test_offsets_of_a_class_without_labels() -> None:
    with pytest.raises(ValueError, match="a class has no label"):
        calibrate("multiclass", np.zeros((2, 3)), [0, 1], offsets=True)


def test_temperature_changes_no_ranking_and_no_choice() -> None:
    logits, targets = drawn("binary", 300, seed=2)
    cold, warm = (measure("binary", targets, probabilities("binary", logits, t)) for t in (1.0, 4.0))
    assert cold == pytest.approx(warm)


@pytest.mark.parametrize(("targets", "temperature"), [([0, 1, 0], 1), ([1, 0, 1], 100.0)])
def test_all_right_make_nothing_surer_and_all_wrong_have_a_bound(
    targets: list[int], temperature: float
) -> None:
    logits = [[5.0, -5.0], [-3.0, 3.0], [1.0, 0.0]]
    found = calibrate("binary", logits, targets)
    assert found.temperature == pytest.approx(temperature, rel=1e-6)
    assert np.isfinite(found.loss).all()


def test_constant_logits_have_nothing_to_scale() -> None:
    found = calibrate("binary", np.zeros((6, 2)), [0, 1, 1, 0, 1, 1])
    assert found.loss[0] == pytest.approx(np.log(2))
    assert found.temperature == 1


def test_one_logit_is_two_classes() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 1))
    pairs = np.concatenate([-logits / 2, logits / 2], axis=1)
    assert probabilities("binary", logits) == pytest.approx(probabilities("binary", pairs))
    targets = np.random.default_rng(1).integers(0, 2, 50)
    one, two = (calibrate("binary", x, targets).temperature for x in (logits, pairs))
    assert one == pytest.approx(two, rel=1e-6)


def test_huge_logits_do_not_overflow() -> None:
    assert probabilities("multilabel", [[900.0, -900.0]]).tolist() == [[1.0, 0.0]]
    assert probabilities("multiclass", [[1e4, 0.0, -1e4]]).tolist() == [[1.0, 0.0, 0.0]]
    assert probabilities("regression", [[-3.0]]).tolist() == [[-3.0]]


def test_positions_and_missing_labels() -> None:
    logits, targets = drawn("multiclass", 240, seed=3)
    flat = calibrate("multiclass", logits, targets)
    folded = np.append(targets, [-100] * 60).reshape(30, 10)
    more = np.append(logits, np.full((60, 4), 9.0), axis=0).reshape(30, 10, 4)
    assert calibrate("multiclass", more, folded) == flat


def test_calibration_error_by_hand() -> None:
    p = np.array([0.01, 0.02, 0.5, 0.52, 1.0])
    found = reliability("binary", np.stack([1 - p, p], axis=1), [0, 1, 1, 1, 1])
    assert len(found.count_K) == BINS
    assert found.count_K[[0, 7, 14]].tolist() == [2, 2, 1]
    assert found.observed_K[[0, 7, 14]].tolist() == [0.5, 1, 1]
    assert found.predicted_K[7] == pytest.approx(0.51)
    assert found.error == pytest.approx((2 * 0.485 + 2 * 0.49 + 0) / 5)
    top = reliability("multiclass", [[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.1, 0.7, 0.2]], [1, 2, -100])
    assert top.error == pytest.approx((0.3 + 0.5) / 2)
    assert np.isnan(reliability("multilabel", [[0.5]], [[np.nan]]).error)


def test_what_has_no_temperature() -> None:
    for task, targets, message in (
        ("regression", [0, 1], "no temperature"),
        ("binary", [-100, -100], "no labels"),
        ("binary", [0, 1, 0], "do not fit"),
    ):
        with pytest.raises(ValueError, match=message):
            calibrate(task, np.zeros((2, 2)), targets)
