"""Linear models of k-mer frequencies: the yardstick of every fine-tuning, and an expert beside the network.

A sequence is described by the square roots of the frequencies of its k-mers of several lengths, a k-mer and
its reverse complement as one; where all sequences have one length, also of those in each fifth of it. All
features are divided by the same number, and the L2 penalty is chosen on the validation split.

N sequences, L bases, F features, P parts of a sequence, K k-mers in a row, T outputs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from hyenacli.evaluation.bootstrap import Floats, Ints
from hyenacli.evaluation.calibration import cross_entropy, probabilities
from hyenacli.evaluation.linear import LinearModel, fit_linear
from hyenacli.evaluation.words import DIGITS, word_codes
from hyenacli.genome.dna import reverse_complement
from hyenadna.config import Task

Floats32 = npt.NDArray[np.float32]

LENGTHS = (3, 4, 5, 6)
PART_LENGTHS = (3, 4)
PARTS = 5
PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
MAX_FEATURES = 1 << 27
"""Numbers in a matrix of features (512 MiB): with many sequences the longest k-mers are left out."""
# Bounds the time of a fit with many outputs.
_MAX_PRODUCTS = 1 << 31
# Weaker penalties are not tried after this many that were no better.
_PATIENCE = 1
# Ends a fit where the validation loss no longer changes in its third digit.
_TOLERANCE = 1e-3
# Numbers of a block of features that are counted at once.
_BLOCK = 1 << 23


@dataclass(frozen=True)
class KmerFeatures:
    """The features of a sequence.

    Attributes:
        lengths: the k of the k-mers counted in whole sequences, 1 to 6.
        part_lengths: those counted in each of `PARTS` equal parts as well.
        symmetric: parts count the same from both ends, so that a sequence and its reverse complement are
            the same.
    """

    lengths: tuple[int, ...] = LENGTHS
    part_lengths: tuple[int, ...] = ()
    symmetric: bool = False

    @property
    def size(self) -> int:
        """The number of features."""
        return sum(map(n_words, self.lengths)) + PARTS * sum(map(n_words, self.part_lengths))

    def of(self, sequences: Sequence[bytes]) -> Floats32:
        """Compute the features (N, F) of sequences of normalised bases; k-mers with an N do not count."""
        features_NF = np.empty((len(sequences), self.size), np.float32)
        block = max(1, _BLOCK // self.size)
        for first in range(0, len(sequences), block):
            part = sequences[first : first + block]
            at = 0
            for parts, lengths in ((1, self.lengths), (PARTS, self.part_lengths)):
                for k in lengths:
                    width = parts * n_words(k)
                    counts_NPF = _counts(part, k, parts)
                    if self.symmetric:
                        counts_NPF = counts_NPF + counts_NPF[:, ::-1]
                    features_NF[first : first + len(part), at : at + width] = _roots(counts_NPF)
                    at += width
        return features_NF

    def __str__(self) -> str:
        """Describe them in a few words."""
        text = f"{_range(self.lengths)}-mers"
        return f"{text}, {_range(self.part_lengths)}-mers by fifths" if self.part_lengths else text


@dataclass(frozen=True)
class WindowFeatures:
    """The features of a base: which k-mer is at each offset of the window around it.

    Unlike those of sequences, a k-mer and its reverse complement are two: labels of bases have a strand.

    Attributes:
        k: bases of a k-mer.
        radius: bases of the window on either side.
    """

    k: int = 3
    radius: int = 12

    @property
    def size(self) -> int:
        """The number of features."""
        return (2 * self.radius + 2 - self.k) << 2 * self.k

    def windows(self, sequences: Sequence[bytes], indices: Ints | None = None) -> list[bytes]:
        """Return the windows of the bases of sequences, one sequence after the other, or of some of them.

        Beyond the ends of a sequence they have N.
        """
        beyond, width = b"N" * self.radius, 2 * self.radius + 1
        joined = beyond + beyond.join(sequences) + beyond
        lengths = [len(bases) for bases in sequences]
        start_P = np.arange(sum(lengths)) + self.radius * np.repeat(np.arange(len(lengths)), lengths)
        if indices is not None:
            start_P = start_P[indices]
        return [joined[start : start + width] for start in start_P.tolist()]

    def of(self, windows: Sequence[bytes]) -> Floats32:
        """Compute the features (N, F) of windows, 0 or 1; k-mers with an N have none."""
        digit_L = DIGITS[np.frombuffer(b"N".join(windows), np.uint8)]
        codes_K, at_K = word_codes(digit_L, self.k)
        row_K, offset_K = np.divmod(at_K, 2 * self.radius + 2)
        features_NF = np.zeros((len(windows), self.size), np.float32)
        features_NF[row_K, offset_K * 4**self.k + codes_K] = 1
        return features_NF

    def __str__(self) -> str:
        """Describe them in a few words."""
        return f"{self.k}-mers by their offset, up to {self.radius} bases away"


TRIED = KmerFeatures(LENGTHS, PART_LENGTHS)
"""Features that are tried for sequences that have a strand."""


def _range(lengths: Sequence[int]) -> str:
    return f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"


def _roots(counts_NPF: Floats) -> Floats:
    """Return square roots (N, P * F) of the frequencies of k-mers in each part."""
    total_NP1 = np.maximum(1.0, counts_NPF.sum(axis=2, keepdims=True))
    roots: Floats = np.sqrt(counts_NPF / total_NP1).reshape(len(counts_NPF), -1)
    return roots


@dataclass(frozen=True)
class KmerModel:
    """A fitted linear model.

    Attributes:
        penalty: strength of the L2 penalty, per sequence.
        valid_loss: mean loss on the validation sequences, by which features and penalty were chosen.
    """

    task: Task
    features: KmerFeatures | WindowFeatures
    penalty: float
    valid_loss: float
    model: LinearModel

    def logits(self, sequences: Sequence[bytes]) -> Floats:
        """Return the outputs (N, T): logits of classes or labels, or numbers."""
        block = max(1, _BLOCK // self.features.size)
        parts = [sequences[first : first + block] for first in range(0, len(sequences), block)]
        outputs = [self.model.logits(self.features.of(part)).astype(np.float64) for part in parts]
        return np.concatenate(outputs) if outputs else np.empty((0, len(self.model.bias_T)))

    def outputs(self, sequences: Sequence[bytes]) -> Floats:
        """Return the outputs (1, N, T), as an expert of one part."""
        return self.logits(sequences)[None]

    def predict(self, sequences: Sequence[bytes]) -> Floats:
        """Return what `metrics.measure` takes: probabilities (N, T), or numbers (N, T)."""
        return probabilities(self.task, self.logits(sequences))


def fit_kmers(
    sequences: Sequence[bytes],
    targets: npt.ArrayLike,
    task: Task,
    *,
    valid: tuple[Sequence[bytes], npt.ArrayLike],
    n_classes: int = 2,
    features: KmerFeatures | WindowFeatures = TRIED,
    penalties: Sequence[float] = PENALTIES,
    max_features: int = MAX_FEATURES,
) -> KmerModel:
    """Fit linear models of k-mer frequencies and keep the one with the least validation loss.

    Args:
        sequences: normalised bases to fit to.
        targets: classes (N,), 0 or 1 (N, T), or numbers (N,) or (N, T), as in `metrics.measure`.
        task: meaning of the targets.
        valid: sequences and targets to choose features and penalty by.
        n_classes: least number of outputs for classes, also of classes without a record.
        features: those of windows, or the most to try: parts are counted where all sequences have one length
            and the validation split gains by it, and the longest k-mers are left out where the features would
            not fit.
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
    limit = min(max_features, _MAX_PRODUCTS // n_outputs)
    best: KmerModel | None = None
    choices: Iterable[KmerFeatures | WindowFeatures] = [features]
    if isinstance(features, KmerFeatures):
        choices = _choices(features, sequences, valid[0], limit)
    for choice in choices:
        for fitted in _path(choice, (sequences, truth), (valid[0], valid_truth), task, n_outputs, penalties):
            if best is None or fitted.valid_loss < best.valid_loss:
                best = fitted
    assert best is not None  # noqa: S101  (there is a first choice)
    return best


def _choices(
    features: KmerFeatures, sequences: Sequence[bytes], valid: Sequence[bytes], limit: int
) -> Iterator[KmerFeatures]:
    """Yield the features to try: whole sequences, and fifths where all sequences have one length."""

    def fitting(lengths: tuple[int, ...], parts: int) -> tuple[int, ...]:
        while len(lengths) > 1 and len(sequences) * parts * sum(map(n_words, lengths)) > limit:
            lengths = lengths[:-1]
        return lengths

    whole = fitting(features.lengths, 1)
    yield KmerFeatures(whole)
    sizes = set(map(len, sequences)) | set(map(len, valid))
    in_parts = fitting(features.part_lengths, PARTS)
    if len(sizes) == 1 and in_parts and sizes.pop() >= PARTS * max(in_parts):
        yield KmerFeatures(whole, in_parts, features.symmetric)


def _path(
    features: KmerFeatures | WindowFeatures,
    train: tuple[Sequence[bytes], Floats],
    valid: tuple[Sequence[bytes], Floats],
    task: Task,
    n_outputs: int,
    penalties: Sequence[float],
) -> Iterator[KmerModel]:
    """Fit a model per penalty, from the strongest on, until the validation loss rises."""
    (sequences, truth), valid_truth = train, valid[1]
    features_NF, valid_NF = features.of(sequences), features.of(valid[0])
    # two softmax outputs share the penalty that the one logit of scikit-learn bears alone
    scale = len(sequences) / (2 if truth.ndim == 1 and n_outputs == 2 else 1)
    strengths = (scale * penalty for penalty in penalties)
    fits = fit_linear(task, features_NF, truth, n_outputs, strengths, one_scale=True, tolerance=_TOLERANCE)
    least, failures = np.inf, 0
    for penalty, model in zip(penalties, fits, strict=True):
        outputs = model.logits(valid_NF)
        if task == "regression":
            loss = float(np.nanmean((outputs - valid_truth) ** 2))
        else:
            loss = cross_entropy(task, outputs, valid_truth)
        yield KmerModel(task, features, penalty, loss, model)
        failures = 0 if loss < least else failures + 1
        least = min(least, loss)
        if failures == _PATIENCE:
            return


def n_words(k: int) -> int:
    """Count the k-mers, each with its reverse complement.

    >>> n_words(3), n_words(2)
    (32, 10)
    """
    palindromes = 0 if k % 2 else 2**k
    return int(4**k + palindromes) // 2


def _counts(sequences: Sequence[bytes], k: int, parts: int) -> Floats:
    """Count the k-mers (N, P, F) of sequences, in equal parts of each, by the beginning of the k-mer."""
    # no k-mer has an N, and so none spans two sequences
    joined = np.frombuffer(b"N".join(sequences), dtype=np.uint8)
    codes_K, at_K = word_codes(DIGITS[joined], k)
    length_N = np.array([len(sequence) for sequence in sequences], np.int64)
    start_N = np.cumsum(length_N + 1) - length_N - 1
    row_K = np.searchsorted(start_N, at_K, side="right") - 1
    part_K = (at_K - start_N[row_K]) * parts // np.maximum(1, length_N - k + 1)[row_K]
    size = n_words(k)
    cell_K = (row_K * parts + part_K) * size + _columns(k)[codes_K]
    counts = np.bincount(cell_K, minlength=len(sequences) * parts * size)
    return counts.reshape(len(sequences), parts, size).astype(np.float64)


@cache
def _columns(k: int) -> Ints:
    """Return the feature of every k-mer."""
    words = [bytes(word) for word in product(b"ACGT", repeat=k)]
    names = [min(word, reverse_complement(word)) for word in words]
    column = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([column[name] for name in names])


def _targets(task: Task, targets: npt.ArrayLike, n: int) -> Any:
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
