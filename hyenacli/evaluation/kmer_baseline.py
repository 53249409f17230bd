"""A linear model of k-mer frequencies: the yardstick beside which every adapted model is set.

Legend of shape suffixes: N sequences, F features (k-mers), T outputs (classes or columns).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.calibration import probabilities
from hyenacli.genome.dna import reverse_complement
from hyenadna.config import Task

LENGTHS = (3, 4, 5, 6)
# Strengths of the L2 penalty, strongest first, so that each fit starts from a simpler one.
PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
# Weaker ones are not tried after this many in a row that were no better.
_PATIENCE = 2
# No more numbers than this are held as features (1 GiB): of many sequences only the shorter words are tried.
_MOST = 1 << 27
# Nor are more products than this made in one step of a fit.
_MAX_PRODUCTS = 1 << 31
# Frequencies are taken as log(1 + _PER * share), so that repeats do not outweigh all else.
_PER = 1000.0
_ITERATIONS = 200


@dataclass(frozen=True)
class KmerBaseline:
    """A fitted baseline.

    Attributes:
        task: what its outputs mean.
        k: bases of a word.
        canonical: whether a word and its reverse complement are one.
        penalty: strength of the L2 penalty, per sequence.
        valid_loss: mean loss on the validation sequences, by which k and penalty were chosen.
        mean_F: of the features in training.
        scale_F: their standard deviations there, 1 where a feature is constant.
        weights_FT: of the standardised features.
        bias_T: of the outputs.
    """

    task: Task
    k: int
    canonical: bool
    penalty: float
    valid_loss: float
    mean_F: Floats
    scale_F: Floats
    weights_FT: Floats
    bias_T: Floats

    def predict(self, sequences: Sequence[bytes]) -> Floats:
        """What `quality.measure` takes: probabilities (N, T), or numbers (N, T)."""
        features_NF = kmer_features(sequences, self.k, canonical=self.canonical)
        standardised_NF = _standardise(features_NF, self.mean_F, self.scale_F)
        return probabilities(self.task, standardised_NF @ self.weights_FT + self.bias_T)


def fit_baseline(
    sequences: Sequence[bytes],
    targets: npt.ArrayLike,
    task: Task,
    *,
    valid: tuple[Sequence[bytes], npt.ArrayLike],
    n_classes: int = 2,
    lengths: Sequence[int] = LENGTHS,
    canonical: bool = True,
) -> KmerBaseline:
    """The best linear model of k-mer frequencies: logistic for classes and labels, ridge for numbers.

    All k and penalties are tried, and the one with the least loss on the validation sequences is kept. The
    features of at most 1 GiB are held, so of many sequences, or many outputs, the longest words are left out.

    Args:
        sequences: normalised bases to fit to; at nucleotide level there is no such baseline.
        targets: of the sequences: classes (N,), 0 or 1 (N, T), or numbers (N,) or (N, T); missing ones as in
            `quality.measure`.
        task: what they mean.
        valid: sequences and targets to choose k and penalty on.
        n_classes: outputs for classes at least, also for those that neither training nor validation has.
        lengths: the k to try, 1 to 6.
        canonical: count a word and its reverse complement as one.

    Raises:
        ValueError: targets that are not as many as the sequences, or no label in training or validation.
    """
    truth = _targets(task, targets, len(sequences))
    valid_truth = _targets(task, valid[1], len(valid[0]))
    if task in ("binary", "multiclass"):
        n_outputs = max(n_classes, int(max(np.nanmax(truth), np.nanmax(valid_truth))) + 1)
    else:
        n_outputs = truth.shape[1]
    most = min(_MOST, _MAX_PRODUCTS // n_outputs)
    tried = (
        k
        for k in sorted(lengths)
        if k == min(lengths) or len(sequences) * n_words(k, canonical=canonical) <= most
    )
    best: KmerBaseline | None = None
    for k in tried:
        found = _fit_words(task, (sequences, truth), (valid[0], valid_truth), n_outputs, (k, canonical))
        best = found if best is None or found.valid_loss < best.valid_loss else best
    if best is None:
        raise ValueError("there is no k to try")
    return best


def _fit_words(
    task: Task,
    train: tuple[Sequence[bytes], Floats],
    valid: tuple[Sequence[bytes], Floats],
    n_outputs: int,
    words: tuple[int, bool],
) -> KmerBaseline:
    """The best fit for one k, given with whether words are canonical."""
    k, canonical = words
    features_NF, valid_NF = (kmer_features(split[0], k, canonical=canonical) for split in (train, valid))
    mean_F, scale_F = features_NF.mean(axis=0), features_NF.std(axis=0)
    # a word that never varies would be divided by rounding
    scale_F[scale_F < 1e-9] = 1.0
    x_NF, valid_x_NF = (
        torch.from_numpy(_standardise(split_NF, mean_F, scale_F)) for split_NF in (features_NF, valid_NF)
    )
    y, valid_y = torch.from_numpy(train[1]), torch.from_numpy(valid[1])
    middle_T, unit_T = _standards(task, y, n_outputs)
    weights_FT = torch.zeros(x_NF.shape[1], n_outputs, dtype=torch.float64, requires_grad=True)
    bias_T = torch.zeros(n_outputs, dtype=torch.float64, requires_grad=True)
    best, least, worse = None, math.inf, 0
    for penalty in PENALTIES:
        _minimise(task, x_NF, (y - middle_T) / unit_T, penalty, (weights_FT, bias_T))
        with torch.no_grad():
            said = torch.addmm(bias_T, valid_x_NF, weights_FT)
            loss = float(_loss(task, said * unit_T + middle_T, valid_y))
            if loss < least:
                weights = (weights_FT * unit_T).numpy().copy(), (bias_T * unit_T + middle_T).numpy().copy()
                best = KmerBaseline(task, k, canonical, penalty, loss, mean_F, scale_F, *weights)
        least, worse = min(least, loss), 0 if loss <= least else worse + 1
        if worse == _PATIENCE:
            break
    if best is None:
        raise ValueError("the validation loss is not finite")
    return best


def _standardise(features_NF: Floats, mean_F: Floats, scale_F: Floats) -> Floats:
    """The same array, each feature centred and divided."""
    features_NF -= mean_F
    features_NF /= scale_F
    return features_NF


def _standards(task: Task, y: Tensor, n_outputs: int) -> tuple[Tensor, Tensor]:
    """What numbers to predict are centred on and divided by, (T,) each; 0 and 1 for classes and labels."""
    if task != "regression":
        return torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    middle_T = y.nanmean(dim=0)
    unit_T = (y - middle_T).square().nanmean(dim=0).sqrt()
    return middle_T.nan_to_num(0.0), torch.where(unit_T > 0, unit_T, torch.ones(n_outputs))


def _minimise(task: Task, x_NF: Tensor, y: Tensor, penalty: float, weights: tuple[Tensor, Tensor]) -> None:
    """Move the weights to the least penalised loss; the bias is free."""
    weights_FT, bias_T = weights
    optimiser = torch.optim.LBFGS(
        weights,
        max_iter=_ITERATIONS,
        tolerance_grad=1e-4,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimiser.zero_grad()
        loss = _loss(task, torch.addmm(bias_T, x_NF, weights_FT), y)
        loss = loss + penalty / 2 * weights_FT.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(objective)  # type: ignore[no-untyped-call]


def _loss(task: Task, said_NT: Tensor, y: Tensor) -> Tensor:
    """Mean over the labels that are there: nats, or half the squared error; columns are summed."""
    if task in ("binary", "multiclass"):
        there_N = ~y.isnan()
        return functional.cross_entropy(said_NT[there_N], y[there_N].long())
    there_NT = ~y.isnan()
    known_NT = torch.where(there_NT, y, 0.0)
    if task == "multilabel":
        each_NT = functional.binary_cross_entropy_with_logits(said_NT, known_NT, reduction="none")
    else:
        each_NT = (said_NT - known_NT).square() / 2
    mean_T = (each_NT * there_NT).sum(dim=0) / there_NT.sum(dim=0).clamp(min=1)
    return mean_T.sum()


def n_words(k: int, *, canonical: bool) -> int:
    """How many features there are.

    >>> n_words(3, canonical=False), n_words(3, canonical=True), n_words(2, canonical=True)
    (64, 32, 10)
    """
    words: int = 4**k
    palindromes = 0 if k % 2 else 2**k
    return (words + palindromes) // 2 if canonical else words


def kmer_features(sequences: Sequence[bytes], k: int, *, canonical: bool) -> Floats:
    """Log frequencies (N, F) of the words of k bases; words with an N do not count.

    Raises:
        ValueError: k is not 1 to 6.
    """
    if not 1 <= k <= 6:
        raise ValueError(f"k is 1 to 6, not {k}")
    column_W = _columns(k, canonical=canonical)
    size = n_words(k, canonical=canonical)
    features_NF = np.empty((len(sequences), size))
    for row, sequence in enumerate(sequences):
        words = column_W[_codes(sequence, k)]
        features_NF[row] = np.bincount(words, minlength=size) * (_PER / max(1, len(words)))
    return np.log1p(features_NF, out=features_NF)


def _codes(sequence: bytes, k: int) -> npt.NDArray[np.int64]:
    """The words of a sequence as base-4 numbers, in order, without those that have an N."""
    base = _DIGITS[np.frombuffer(sequence, dtype=np.uint8)]
    count = max(0, len(base) - k + 1)
    code, real = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.bool_)
    for place in range(k):
        here = base[place : place + count]
        code = code * 4 + here
        real &= here >= 0
    return code[real]


def _columns(k: int, *, canonical: bool) -> npt.NDArray[np.int64]:
    """The feature of every word."""
    words = [_word(code, k) for code in range(4**k)]
    names = [min(word, reverse_complement(word)) for word in words] if canonical else words
    place = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([place[name] for name in names])


def _word(code: int, k: int) -> bytes:
    return bytes(b"ACGT"[code >> 2 * place & 3] for place in reversed(range(k)))


def _digits() -> npt.NDArray[np.int64]:
    table = np.full(256, -1, dtype=np.int64)
    table[np.frombuffer(b"ACGT", dtype=np.uint8)] = range(4)
    return table


_DIGITS = _digits()


def _targets(task: Task, targets: npt.ArrayLike, n: int) -> Floats:
    """Classes (N,) or columns (N, T) in float64, NaN where missing."""
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
