"""Metrics against scikit-learn and SciPy, and intervals against drawing for real."""

import math
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from hyenacli.adaptation.evaluation import SplitEvaluator
from hyenacli.adaptation.labels import LabelScheme
from hyenacli.evaluation.metrics import (
    bootstrap_weights,
    intervals,
    make_scorer,
    measure,
    measure_columns,
    monitor,
)
from hyenadna.config import Task

Array = npt.NDArray[np.float64]
RNG = np.random.default_rng


@pytest.fixture
def sk() -> Iterator[object]:
    """scikit-learn's metrics, whose warnings about undefined values are expected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield sklearn_metrics


def classes(n: int, c: int, seed: int, *, ties: bool) -> tuple[npt.NDArray[np.int64], Array]:
    rng = RNG(seed)
    truth = rng.choice(c, n, p=rng.dirichlet(np.ones(c) * 3))
    logits = rng.normal(size=(n, c))
    logits[np.arange(n), truth] += 1
    p = np.exp(logits.round(0 if ties else 9))
    return truth, p / p.sum(1, keepdims=True)


def expected_classes(sk: object, truth: npt.NDArray[np.int64], p: Array) -> dict[str, float]:
    """What scikit-learn says, of a task in which every class occurs."""
    said = p.argmax(1)
    one, scores = np.eye(p.shape[1])[truth], p
    if p.shape[1] == 2:
        one, scores = truth, p[:, 1]
    return {
        "accuracy": sk.accuracy_score(truth, said),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, said),
        "mcc": sk.matthews_corrcoef(truth, said),
        "macro_f1": sk.f1_score(truth, said, average="macro"),
        "auroc": sk.roc_auc_score(one, scores),
        "auprc": sk.average_precision_score(one, scores),
    }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("task", "c"), [("binary", 2), ("multiclass", 3), ("multiclass", 7)])
def test_classes_as_scikit_learn(sk: object, task: Task, c: int, ties: bool) -> None:
    for seed in range(5):
        truth, p = classes(200, c, seed, ties=ties)
        found = measure(task, truth, p)
        assert found == pytest.approx(expected_classes(sk, truth, p), rel=1e-12, abs=1e-12)
        assert list(found) == ["accuracy", "balanced_accuracy", "mcc", "macro_f1", "auroc", "auprc"]


@pytest.mark.parametrize("ties", [False, True])
def test_numbers_as_scipy(sk: object, ties: bool) -> None:
    rng = RNG(4)
    truth = rng.normal(1e3, 1.0, 150).round(0 if ties else 9)
    said = (truth - 900 + rng.normal(0, 2, 150)).round(0 if ties else 9)
    expected = {
        "pearson": stats.pearsonr(truth, said)[0],
        "spearman": stats.spearmanr(truth, said)[0],
        "r2": sk.r2_score(truth, said),
        "mse": sk.mean_squared_error(truth, said),
    }
    assert measure("regression", truth, said) == pytest.approx(expected, rel=1e-10)
    assert measure("regression", truth[:, None], said[:, None]) == measure("regression", truth, said)


def test_columns_as_scikit_learn(sk: object) -> None:
    rng = RNG(0)
    truth = (rng.random((300, 40)) < 0.1).astype(float)
    p = (truth * 0.1 + rng.random((300, 40))).clip(0, 1).round(2)
    truth[:, 3], truth[:, 5] = 0, 1
    truth[rng.random(truth.shape) < 0.1] = np.nan
    truth[:7, 8] = -100
    aurocs, auprcs = [], []
    for t in set(range(40)) - {3, 5}:
        there = truth[:, t] >= 0
        aurocs.append(sk.roc_auc_score(truth[there, t], p[there, t]))
        auprcs.append(sk.average_precision_score(truth[there, t], p[there, t]))
    found = measure("multilabel", truth, p)
    assert list(found) == ["auroc", "auprc", "auroc_median", "auprc_median", "columns_left_out"]
    expected = [np.mean(aurocs), np.mean(auprcs), np.median(aurocs), np.median(auprcs), 2]
    assert list(found.values()) == pytest.approx(expected, rel=1e-12)
    columns = measure_columns("multilabel", truth, p)
    assert np.flatnonzero(np.isnan(columns["auroc"])).tolist() == [3, 5]
    assert np.nanmax(columns["auprc"]) == pytest.approx(max(auprcs))


def test_constant_predictions(sk: object) -> None:
    truth, p = np.array([0, 1, 1, 0, 1]), np.tile([0.4, 0.6], (5, 1))
    found = measure("binary", truth, p)
    assert found == pytest.approx(expected_classes(sk, truth, p))
    assert (found["mcc"], found["auroc"], found["auprc"]) == pytest.approx((0, 0.5, 0.6))
    numbers = measure("regression", [0.1, 0.2, 0.7], [0.1, 0.1, 0.1])
    assert math.isnan(numbers["pearson"])
    assert math.isnan(numbers["spearman"])
    assert numbers["r2"] == pytest.approx(sk.r2_score([0.1, 0.2, 0.7], [0.1] * 3))
    assert math.isnan(measure("regression", [0.3, 0.3], [0.1, 0.2])["r2"])


def test_one_class_only(sk: object) -> None:
    truth, p = np.array([1, 1, 1]), np.array([[0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    found = measure("binary", truth, p)
    assert math.isnan(found["auroc"])
    assert math.isnan(found["auprc"])
    assert found["balanced_accuracy"] == sk.balanced_accuracy_score(truth, p.argmax(1))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, p.argmax(1), average="macro"))


def test_a_class_that_does_not_occur_is_left_out_of_the_means(sk: object) -> None:
    truth, p = classes(60, 3, 1, ties=False)
    rest = truth < 2
    found = measure("multiclass", truth[rest], p[rest])
    one = np.eye(2)[truth[rest]]
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(one, p[rest, :2]))
    assert found["balanced_accuracy"] == sk.balanced_accuracy_score(truth[rest], p[rest].argmax(1))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth[rest], p[rest].argmax(1), average="macro"))


def test_missing_labels_are_left_out() -> None:
    truth, p = classes(50, 3, 2, ties=False)
    padded, more = np.append(truth, [-100] * 9), np.vstack([p, classes(9, 3, 3, ties=False)[1]])
    assert measure("multiclass", padded, more) == measure("multiclass", truth, p)
    numbers = measure("regression", [1, np.nan, 3, -100, 2], [1, 7, 2, -90, 2])
    assert numbers == measure("regression", [1, 3, -100, 2], [1, 2, -90, 2])
    nothing = measure("binary", [-100, -100], np.full((2, 2), 0.5))
    assert all(math.isnan(value) for value in nothing.values())
    assert math.isnan(measure("regression", [np.nan], [1.0])["mse"])


def test_positions_count_one_by_one() -> None:
    truth, p = classes(60, 3, 2, ties=False)
    assert measure("multiclass", truth.reshape(6, 10), p.reshape(6, 10, 3)) == measure("multiclass", truth, p)
    x, y = RNG(1).random((2, 60))
    apart = measure("regression", x.reshape(6, 10), y.reshape(6, 10, 1))
    assert apart == pytest.approx(measure("regression", x, y))


def test_sequences_of_any_length_take_no_more_than_their_bases() -> None:
    lengths = (3, 500, 1, 40, 7, 60)
    truth, p = classes(sum(lengths), 2, 3, ties=False)
    starts = np.cumsum((0, *lengths))
    judge = SplitEvaluator(LabelScheme("binary", "nucleotide", ("no", "yes")), np.split(truth, starts[1:-1]))
    logits = np.split(np.log(p), starts[1:-1])
    padded = np.full((6, 500), -100), np.full((6, 500, 2), 0.5)
    for row, (start, length) in enumerate(zip(starts[:-1], lengths, strict=True)):
        for whole, own in zip(padded, (truth, p), strict=True):
            whole[row, :length] = own[start : start + length]
    assert judge.targets.shape == (sum(lengths),)
    assert judge.outputs(logits).shape == (sum(lengths), 2)
    assert judge.metrics(logits) == pytest.approx(measure("binary", *padded))
    expected = intervals("binary", *padded, draws=judge.draws, seed=4)
    for name, span in judge.intervals(logits, seed=4).items():
        assert span == pytest.approx(expected[name])


def multiclass() -> tuple[Task, Array, Array]:
    truth, p = classes(40, 3, 5, ties=True)
    return "multiclass", np.where(np.arange(40) % 9 == 0, -100, truth), p


def positions() -> tuple[Task, Array, Array]:
    truth, p = classes(120, 2, 6, ties=False)
    return "binary", truth.reshape(30, 4), p.reshape(30, 4, 2)


def labels() -> tuple[Task, Array, Array]:
    rng = RNG(7)
    truth = (rng.random((25, 4)) < 0.15).astype(float)
    truth[3, 1] = np.nan
    return "multilabel", truth, rng.random((25, 4)).round(1)


def numbers() -> tuple[Task, Array, Array]:
    x, y = RNG(8).random((2, 30, 2)).round(1)
    x[4, 0] = np.nan
    return "regression", x, y


@pytest.mark.parametrize("case", [multiclass, positions, labels, numbers])
def test_a_draw_is_the_metric_of_the_drawn_sequences(case: Callable[[], tuple[Task, Array, Array]]) -> None:
    task, truth, said = case()
    scorer, shape = make_scorer(task, truth, said)
    (weights_DN,) = bootstrap_weights(shape, 40, seed=1)
    values = scorer.metrics(weights_DN)
    for d in range(40):
        drawn = np.repeat(np.arange(len(truth)), weights_DN[d])
        assert len(drawn) == len(truth)
        expected = measure(task, truth[drawn], said[drawn])
        assert {k: v[d] for k, v in values.items()} == pytest.approx(expected, nan_ok=True, rel=1e-9)


def test_draws_of_one_class_are_left_out_of_the_interval() -> None:
    truth, p = np.array([0, 0, 0, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.4, 0.6]])
    found = intervals("binary", truth, p, draws=200)
    assert 0 <= found["auroc"][0] < found["auroc"][1] <= 1
    alone = intervals("binary", [1, 1], p[:2])
    assert np.isnan(alone["auroc"]).all()
    constant = intervals("regression", [1.0, 2.0, 2.0], [1.1, 1.1, 1.1], draws=50)
    assert np.isnan(constant["pearson"]).all()


def test_draws_in_which_numbers_are_constant_have_no_correlation() -> None:
    x, y = np.array([1e6 + 0.1, 1e6 + 0.1, 1e6 + 7.3]), np.array([0.1, 0.1, 0.9])
    scorer, _ = make_scorer("regression", x, y)
    values = scorer.metrics(np.array([[1, 2, 0], [0, 0, 3], [1, 1, 1]], dtype=np.int32))
    assert np.isnan(values["pearson"]).tolist() == [True, True, False]
    assert np.isnan(values["spearman"]).tolist() == [True, True, False]
    assert np.isnan(values["r2"]).tolist() == [True, True, False]


def test_intervals_cover_and_repeat() -> None:
    truth, p = classes(2_000, 2, 9, ties=False)
    found = intervals("binary", truth, p, seed=3)
    accuracy = measure("binary", truth, p)["accuracy"]
    spread = 1.96 * math.sqrt(accuracy * (1 - accuracy) / 2_000)
    assert found["accuracy"] == pytest.approx((accuracy - spread, accuracy + spread), abs=0.003)
    assert found == intervals("binary", truth, p, seed=3)
    assert found != intervals("binary", truth, p, seed=4)
    assert list(found) == list(measure("binary", truth, p))
    assert "columns_left_out" not in intervals(*labels(), draws=10)


def test_blocks_do_not_change_the_draws() -> None:
    single, several = (list(bootstrap_weights((25, 100), 50, 0, items)) for items in (1 << 18, 1))
    assert len(single) < len(several)
    assert np.array_equal(np.concatenate(single), np.concatenate(several))


def test_intervals_are_a_matter_of_seconds() -> None:
    truth, p = classes(10_000, 2, 0, ties=False)
    began = time.process_time()
    intervals("binary", truth, p)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_the_monitor_is_measured(task: Task) -> None:
    targets, outputs = (np.eye(2), np.eye(2)) if task == "multilabel" else ([0, 1], np.eye(2))
    found = measure(task, targets, outputs if task != "regression" else [0.0, 1.0])
    assert found[monitor(task)] == 1


@pytest.mark.parametrize(
    ("task", "targets", "outputs", "message"),
    [
        ("binary", [0, 1], [[0.1, 0.2, 0.7]] * 2, "2 classes"),
        ("binary", [0, 1], [[0.1, 0.9]], "do not fit"),
        ("multiclass", [0, 5], [[0.1, 0.2, 0.7]] * 2, "class 5"),
        ("multilabel", [[0, 2]], [[0.1, 0.2]], "0 and 1"),
        ("regression", [0, 1], [[0.1, 0.9]], "do not fit"),
        ("regression", [0.0, 1.0], [0.0, np.nan], "not finite"),
        ("regression", [], [], "no predictions"),
    ],
)
def test_what_cannot_be_measured(task: Task, targets: list[int], outputs: list[Array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(task, targets, outputs)
