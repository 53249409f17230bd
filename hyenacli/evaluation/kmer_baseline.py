"""A linear model of k-mer frequencies: the baseline that every adapted model is compared with.

Legend of shape suffixes: N sequences, F features (k-mers), T outputs (classes or columns).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.calibration import cross_entropy, probabilities
from hyenacli.evaluation.linear_model import LinearModel, fit_linear
from hyenacli.genome.dna import reverse_complement
from hyenadna.config import Task

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


@dataclass(frozen=True)
class KmerBaseline:
    """A fitted baseline.

    Attributes:
        task: meaning of its outputs.
        k: length of the k-mers.
        penalty: strength of the L2 penalty, per sequence.
        valid_loss: mean loss on the validation sequences, by which k and penalty were chosen.
        model: of the k-mer frequencies.
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
        sequences: normalised bases to fit to; at nucleotide level there is no such baseline.
        targets: of the sequences: classes (N,), 0 or 1 (N, T), or numbers (N,) or (N, T); missing ones as in
            `metrics.measure`.
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
            loss = _loss(task, model.logits(valid_NF), valid_truth)
            if best is None or loss < best.valid_loss:
                best = KmerBaseline(task, k, penalty, loss, model)
            failures = 0 if loss < least else failures + 1
            least = min(least, loss)
            if failures == _PATIENCE:
                break
    if best is None:
        raise ValueError("there is no k to try")
    return best


def _loss(task: Task, outputs_NT: Floats, truth: Floats) -> float:
    """Compute nats per label, or the mean squared error."""
    if task == "regression":
        return float(np.nanmean((outputs_NT - truth) ** 2))
    return cross_entropy(task, outputs_NT, truth)


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


def _codes(sequence: bytes, k: int) -> npt.NDArray[np.int64]:
    """Return the k-mers of a sequence as base-4 numbers, in order, without those that have an N."""
    base = _DIGITS[np.frombuffer(sequence, dtype=np.uint8)]
    count = max(0, len(base) - k + 1)
    code, real = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.bool_)
    for offset in range(k):
        digit = base[offset : offset + count]
        code = code * 4 + digit
        real &= digit >= 0
    return code[real]


def _columns(k: int) -> npt.NDArray[np.int64]:
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
    if truth.ndim != (2 if task in ("multilabel", "regression") else 1):
        raise ValueError(f"targets {truth.shape} are not of one label per sequence and column")
    if len(truth) != n:
        raise ValueError(f"{len(truth)} targets for {n} sequences")
    if np.isnan(truth).all():
        raise ValueError("there are no labels")
    return truth
