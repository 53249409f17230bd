"""Baselines: linear models of k-mer frequencies or other features, and Markov models of DNA.

N records or windows, F features (k-mers), T outputs (classes or columns), W bases of a window, C contexts.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from hyenacli.evaluation.bootstrap import Floats, Ints
from hyenacli.evaluation.calibration import cross_entropy, probabilities
from hyenacli.genome.dna import reverse_complement
from hyenacli.readers.genome import Tokens
from hyenadna.config import Task
from hyenadna.tokenizer import A

Array = npt.NDArray[Any]

_MAX_ITERATIONS = 1000
# Weight of the record that stands for a class of which the training data have none.
_ABSENT_WEIGHT = 0.1

LENGTHS = (3, 4, 5, 6)
PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
MAX_FEATURES = 1 << 27
"""Numbers in a matrix of features (1 GiB): with many sequences only the shorter k-mers are tried."""
# Bounds the time of a fit with many outputs.
_MAX_PRODUCTS = 1 << 31
# Weaker penalties are not tried after this many in a row that were no better.
_PATIENCE = 2
# Frequencies are taken as log(1 + _PER * frequency), so that repeats do not outweigh all else.
_PER = 1000.0
_DIGITS = np.full(256, -1, dtype=np.int64)
_DIGITS[np.frombuffer(b"ACGT", dtype=np.uint8)] = range(4)

MAX_ORDER = 8
# Each order borrows this many observations from the order below, so that unseen contexts have a distribution.
PSEUDO_COUNT = 4.0
CHUNK = 1 << 22


@dataclass(frozen=True)
class LinearModel:
    """A model fitted by scikit-learn.

    Attributes:
        penalty: strength of the L2 penalty: the summed loss of the records is beside penalty / 2 |w|^2.
        weights_TF: of the features as they were given.
        bias_T: of the outputs.
    """

    penalty: float
    weights_TF: Array
    bias_T: Array

    def logits(self, features_NF: Array) -> Array:
        """Return outputs (N, T): logits of classes or labels, or numbers."""
        logits_NT: Array = features_NF @ self.weights_TF.T + self.bias_T
        return logits_NT


def fit_linear(
    task: Task,
    features_NF: Array,
    targets: Array,
    n_outputs: int,
    penalties: Iterable[float],
    *,
    balanced: bool = False,
) -> Iterator[LinearModel]:
    """Fit one model per penalty; classes share one model, labels and numbers have one per column.

    A class, or a label's value, without a record becomes improbable: one record of average features and
    little weight stands for it.

    Args:
        task: meaning of the targets.
        features_NF: floating; standardised in place.
        targets: classes (N,), negative or NaN where missing; or 0 and 1, or numbers, (N, T), NaN where
            missing.
        n_outputs: T.
        penalties: strengths to fit with, see `LinearModel`.
        balanced: weight classes inversely to their frequency.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    mean_F, scale_F = features_NF.mean(axis=0), features_NF.std(axis=0)
    # a feature that never varies would be divided by rounding
    scale_F[scale_F < 1e-9] = 1.0
    features_NF -= mean_F
    features_NF /= scale_F
    n_classes = {"regression": 0, "multilabel": 2}.get(task, n_outputs)
    joint = targets.ndim == 1 or (task == "regression" and np.isfinite(targets).all())
    groups = [targets] if joint else list(targets.T)
    weight = "balanced" if balanced else None
    for penalty in penalties:
        estimator: Any = Ridge(alpha=penalty)
        if n_classes:
            estimator = LogisticRegression(C=1 / penalty, class_weight=weight, max_iter=_MAX_ITERATIONS)
        fits = [_fit(estimator, features_NF, y, n_classes) for y in groups]
        weights_TF, bias_T = (np.concatenate(parts) for parts in zip(*fits, strict=True))
        if targets.ndim == 1 and n_classes == 2:
            weights_TF, bias_T = (np.concatenate([-part, part]) / 2 for part in (weights_TF, bias_T))
        weights_TF = weights_TF / scale_F
        yield LinearModel(penalty, weights_TF, bias_T - weights_TF @ mean_F)


def _fit(estimator: Any, x_NF: Array, y: Array, n_classes: int) -> tuple[Array, Array]:
    """Return weights (T, F) and biases (T,), or a single row of both for two classes."""
    from sklearn.exceptions import ConvergenceWarning

    if not n_classes:
        # ridge solves normal equations, for which single precision is too little
        x_NF = x_NF.astype(np.float64, copy=False)
    labelled = y >= 0 if n_classes else np.isfinite(y)
    if not labelled.all():
        x_NF, y = x_NF[labelled], y[labelled]
    absent = np.setdiff1d(np.arange(n_classes), y) if n_classes else np.zeros(int(not len(y)))
    weight_N = None
    if absent.size:
        weight_N = np.append(np.ones(len(y)), np.full(len(absent), _ABSENT_WEIGHT))
        x_NF = np.concatenate([x_NF, np.zeros((len(absent), x_NF.shape[1]), x_NF.dtype)])
        y = np.append(y, absent)
    with warnings.catch_warnings():
        # the validation loss judges a fit that stopped early like any other
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(x_NF, y, sample_weight=weight_N)
    return np.atleast_2d(estimator.coef_), np.ravel(estimator.intercept_)


@dataclass(frozen=True)
class KmerBaseline:
    """A fitted baseline.

    Attributes:
        penalty: strength of the L2 penalty, per sequence.
        valid_loss: mean loss on the validation sequences, by which k and penalty were chosen.
    """

    task: Task
    k: int
    penalty: float
    valid_loss: float
    model: LinearModel

    def predict(self, sequences: Sequence[bytes]) -> Floats:
        """Return what `metrics.measure` takes: probabilities (N, T), or numbers (N, T)."""
        features_NF = kmer_features(sequences, self.k)
        return probabilities(self.task, self.model.logits(features_NF))


def fit_baseline(
    sequences: Sequence[bytes],
    targets: npt.ArrayLike,
    task: Task,
    *,
    valid: tuple[Sequence[bytes], npt.ArrayLike],
    n_classes: int = 2,
    lengths: Sequence[int] = LENGTHS,
    penalties: Sequence[float] = PENALTIES,
    max_features: int = MAX_FEATURES,
) -> KmerBaseline:
    """Fit linear models of k-mer frequencies and keep the one with the least validation loss.

    Args:
        sequences: normalised bases to fit to.
        targets: classes (N,), 0 or 1 (N, T), or numbers (N,) or (N, T), as in `metrics.measure`.
        task: meaning of the targets.
        valid: sequences and targets to choose k and penalty by.
        n_classes: least number of outputs for classes, also of classes without a record.
        lengths: the k to try, 1 to 6; the least is always tried, others where the features fit.
        penalties: strengths of the penalty per sequence, strongest first.
        max_features: numbers in a matrix of features at most.

    Raises:
        ValueError: targets that are not as many as the sequences, or no label in training or validation.
    """
    truth = _targets(task, targets, len(sequences))
    valid_truth = _targets(task, valid[1], len(valid[0]))
    if task in ("binary", "multiclass"):
        n_outputs = max(n_classes, int(max(np.nanmax(truth), np.nanmax(valid_truth))) + 1)
    else:
        n_outputs = truth.shape[1]
    # two softmax outputs share the penalty that the one logit of scikit-learn bears alone
    scale = len(sequences) / (2 if truth.ndim == 1 and n_outputs == 2 else 1)
    limit = min(max_features, _MAX_PRODUCTS // n_outputs)
    best: KmerBaseline | None = None
    for k in sorted(lengths):
        if k > min(lengths) and len(sequences) * n_words(k) > limit:
            break
        features_NF, valid_NF = (kmer_features(split, k) for split in (sequences, valid[0]))
        least, failures = np.inf, 0
        fits = fit_linear(task, features_NF, truth, n_outputs, (scale * penalty for penalty in penalties))
        for penalty, model in zip(penalties, fits, strict=True):
            outputs = model.logits(valid_NF)
            if task == "regression":
                loss = float(np.nanmean((outputs - valid_truth) ** 2))
            else:
                loss = cross_entropy(task, outputs, valid_truth)
            if best is None or loss < best.valid_loss:
                best = KmerBaseline(task, k, penalty, loss, model)
            failures = 0 if loss < least else failures + 1
            least = min(least, loss)
            if failures == _PATIENCE:
                break
    if best is None:
        raise ValueError("there is no k to try")
    return best


def n_words(k: int) -> int:
    """Count the k-mers, each with its reverse complement.

    >>> n_words(3), n_words(2)
    (32, 10)
    """
    palindromes = 0 if k % 2 else 2**k
    return int(4**k + palindromes) // 2


def kmer_features(sequences: Sequence[bytes], k: int) -> Floats:
    """Compute log frequencies (N, F) of the k-mers; a k-mer and its reverse complement are one feature.

    K-mers with an N do not count.

    Raises:
        ValueError: k is not 1 to 6.
    """
    if not 1 <= k <= 6:
        raise ValueError(f"k is 1 to 6, not {k}")
    column_W, size = _columns(k), n_words(k)
    features_NF = np.empty((len(sequences), size))
    for row, sequence in enumerate(sequences):
        words = column_W[_codes(sequence, k)]
        features_NF[row] = np.bincount(words, minlength=size) * (_PER / max(1, len(words)))
    return np.log1p(features_NF, out=features_NF)


def _codes(sequence: bytes, k: int) -> Ints:
    """Return the k-mers of a sequence as base-4 numbers, in order, without those that have an N."""
    base = _DIGITS[np.frombuffer(sequence, dtype=np.uint8)]
    count = max(0, len(base) - k + 1)
    code, real = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.bool_)
    for offset in range(k):
        digit = base[offset : offset + count]
        code = code * 4 + digit
        real &= digit >= 0
    return code[real]


def _columns(k: int) -> Ints:
    """Return the feature of every k-mer."""
    words = [bytes(word) for word in product(b"ACGT", repeat=k)]
    names = [min(word, reverse_complement(word)) for word in words]
    column = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([column[name] for name in names])


def _targets(task: Task, targets: npt.ArrayLike, n: int) -> Floats:
    """Return classes (N,) or columns (N, T) in float64, NaN where missing."""
    truth = np.array(targets, dtype=np.float64)
    if task in ("multilabel", "regression") and truth.ndim == 1:
        truth = truth[:, None]
    if task != "regression":
        truth[truth < 0] = np.nan
    if len(truth) != n:
        raise ValueError(f"{len(truth)} targets for {n} sequences")
    if np.isnan(truth).all():
        raise ValueError("there are no labels")
    return truth


Counts = npt.NDArray[np.float64]


class MarkovModels:
    """Markov models of order 0 to `MAX_ORDER` fitted to the same bases.

    p_k(b | context) = (count + a p_{k-1}(b | shorter context)) / (total + a) with a = PSEUDO_COUNT, p_{-1}
    uniform. Floats of the lower orders are sums of the (MAX_ORDER + 1)-mer counts.

    Args:
        stretches: token ids (length,) of each stretch; windows of bases never cross from one to the next,
            nor an N.
        chunk: bases counted at once.
    """

    def __init__(self, stretches: Iterable[Tokens], chunk: int = CHUNK):
        counts = np.zeros(4 ** (MAX_ORDER + 1))
        for stretch in stretches:
            for start in range(0, len(stretch), chunk):
                codes, run = _contexts(stretch[start : start + chunk + MAX_ORDER])
                counts += np.bincount(codes[run > MAX_ORDER], minlength=len(counts))
        self._log_p = _log_probabilities(counts)

    def cross_entropy(self, windows_NW: Tokens) -> list[float]:
        """Compute mean nats per base under each order, over the bases a language model predicts too.

        Those are A, C, G, T at positions 1.. of each window. As for the language model, only bases of the
        same window are context: early positions use a lower order.
        """
        totals, bases = np.zeros(MAX_ORDER + 1), 0
        for window in windows_NW:
            codes, run = _contexts(window)
            at = np.flatnonzero(run[1:] > 0) + 1
            bases += len(at)
            for order, total in enumerate(self._nats(codes, run, at)):
                totals[order] += total
        return [float(total / max(1, bases)) for total in totals]

    def _nats(self, codes: Ints, run: Ints, at: npt.NDArray[np.intp]) -> Floats:
        """Sum -log p over positions `at`, for each order (MAX_ORDER + 1,)."""
        available = np.minimum(run[at] - 1, MAX_ORDER)
        surprise = np.empty((MAX_ORDER + 1, len(at)))
        for order, log_p in enumerate(self._log_p):
            surprise[order] = -log_p[codes[at] % 4 ** (order + 1)]
        used = np.minimum(np.arange(MAX_ORDER + 1)[:, None], available[None, :])
        return np.asarray(np.take_along_axis(surprise, used, axis=0).sum(axis=1))


def _contexts(tokens: Tokens) -> tuple[Ints, Ints]:
    """Return, per position, the last MAX_ORDER + 1 bases as a base-4 number, and the run of bases.

    Digits of the number beyond the run mean nothing.
    """
    base = tokens.astype(np.int64) - A
    real = (base >= 0) & (base < 4)
    base[~real] = 0
    code = np.zeros_like(base)
    for back in range(min(MAX_ORDER + 1, len(base))):
        code[back:] += base[: len(base) - back] * 4**back
    position = np.arange(1, len(base) + 1)
    run = position - np.maximum.accumulate(np.where(real, 0, position))
    return code, run


def _log_probabilities(counts: Floats) -> list[Floats]:
    """Return log p of every (order + 1)-mer's last base given the ones before it, for each order."""
    by_order = []
    previous = np.full(4, 0.25)
    for order in range(MAX_ORDER + 1):
        # The oldest base is the highest digit: summing over the leading axis forgets it.
        counts_C4 = counts.reshape(-1, 4**order, 4).sum(axis=0)
        prior_C4 = np.resize(previous.reshape(-1, 4), counts_C4.shape)
        p_C4 = (counts_C4 + PSEUDO_COUNT * prior_C4) / (counts_C4.sum(axis=1, keepdims=True) + PSEUDO_COUNT)
        previous = p_C4.ravel()
        by_order.append(np.log(previous))
    return by_order
