"""How well a column is predicted from vectors, and from k-mers: a probe of embeddings.

N records, E numbers of a vector, T outputs.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.evaluation.calibration import cross_entropy, probabilities
from hyenacli.evaluation.kmers import TRIED, fit_kmers
from hyenacli.evaluation.linear import fit_linear
from hyenacli.evaluation.metrics import measure
from hyenacli.genome.dna import strandless_digest

Array = NDArray[Any]
MAX_CLASSES = 10
FOLDS = 5
_PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1)
# Records of a class that is predicted.
_LEAST = 2 * FOLDS
# Columns with at most so many different numbers are of classes.
_FEW_NUMBERS = 12
_SEED = 0


@dataclass(frozen=True)
class Coloring:
    """What a column says of each record.

    Attributes:
        names: of the classes, most frequent first; empty for numbers.
        target_N: class, -1 for a rarer or an empty one; or a number, NaN where there is none.
    """

    names: tuple[str, ...]
    target_N: Array

    @property
    def numeric(self) -> bool:
        """Whether the column has numbers."""
        return not self.names


def color_records(values: Sequence[str]) -> Coloring:
    """Tell classes from numbers: more than 12 different numbers are numbers.

    >>> color_records(["b", "a", "b", ""])
    Coloring(names=('b', 'a'), target_N=array([ 0,  1,  0, -1]))
    """
    counts = Counter(value for value in values if value)
    if len(counts) > _FEW_NUMBERS:
        try:
            return Coloring((), np.array([float(value) if value else np.nan for value in values]))
        except ValueError:
            pass
    names = tuple(name for name, _ in counts.most_common(MAX_CLASSES))
    index = {name: k for k, name in enumerate(names)}
    return Coloring(names, np.array([index.get(value, -1) for value in values], np.int64))


@dataclass(frozen=True)
class Probe:
    """How well linear models predict the column, of records that they were not fitted to.

    Attributes:
        metric: weighted F1 of classes, or R2 of numbers.
        vectors: its value for a model of the vectors.
        kmers: its value for the k-mer model.
        by_class: F1 of each class for both; empty for numbers.
    """

    metric: str
    vectors: float
    kmers: float
    by_class: tuple[tuple[float, float], ...] = ()

    @property
    def sentence(self) -> str:
        """Both values."""
        return f"{self.metric} {self.vectors:.3f} of the embeddings, {self.kmers:.3f} of k-mers"


def probe_column(coloring: Coloring, vectors_NE: Array, sequences: Sequence[bytes]) -> Probe | None:
    """Predict the column from the vectors and from k-mers, by cross-validation; None where too few have one.

    Of five folds each is predicted once, one chooses the penalties and the others are fitted to. Equal
    sequences, on either strand, are in one fold. A class needs ten records to be predicted.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    target_N = coloring.target_N
    kept = np.flatnonzero([(target_N == k).sum() >= _LEAST for k in range(len(coloring.names))])
    if coloring.numeric:
        chosen_N = np.flatnonzero(np.isfinite(target_N))
    else:
        chosen_N = np.flatnonzero(np.isin(target_N, kept))
        # classes are numbered anew, without those that are too few
        target_N = np.searchsorted(kept, target_N)
    if len(chosen_N) < 10 * FOLDS or (len(kept) < 2 and not coloring.numeric):
        return None
    truth, vectors, texts = (
        target_N[chosen_N],
        vectors_NE[chosen_N],
        [sequences[i] for i in chosen_N.tolist()],
    )
    strata = np.zeros(len(truth)) if coloring.numeric else truth
    groups = np.unique([strandless_digest(text).hex() for text in texts], return_inverse=True)[1]
    if groups.max() + 1 < FOLDS:
        return None
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=_SEED).split(strata, strata, groups)
    parts = [part for _, part in folds]
    predicted = [_predict(coloring, truth, vectors, texts, *split) for split in _splits(parts)]
    outputs = [np.concatenate(column) for column in zip(*predicted, strict=True)]
    truth = truth[np.concatenate(parts)]
    if coloring.numeric:
        first, second = (measure("regression", truth[:, None], output)["r2"] for output in outputs)
        return Probe("R2", first, second)
    from sklearn.metrics import f1_score

    classes = [output.argmax(axis=1) for output in outputs]
    first, second = (float(f1_score(truth, guess, average="weighted", zero_division=0)) for guess in classes)
    single = np.full((len(coloring.names), 2), np.nan)
    for k, guess in enumerate(classes):
        single[kept, k] = f1_score(truth, guess, average=None, labels=range(len(kept)), zero_division=0)
    return Probe("weighted F1", first, second, tuple((float(a), float(b)) for a, b in single))


def _splits(parts: Sequence[Array]) -> Iterator[tuple[Array, Array, Array]]:
    """Yield the records to fit to, to choose by and to predict."""
    for number, test in enumerate(parts):
        valid = parts[(number + 1) % len(parts)]
        yield np.setdiff1d(np.concatenate(parts), np.concatenate([valid, test])), valid, test


def _predict(
    coloring: Coloring,
    truth: Array,
    vectors: Array,
    texts: Sequence[bytes],
    train: Array,
    valid: Array,
    test: Array,
) -> tuple[Array, Array]:
    """Return outputs (N, T) of both models for the test records of a fold."""
    task: Any = "regression" if coloring.numeric else "multiclass"
    targets = truth[:, None] if coloring.numeric else truth
    size = 1 if coloring.numeric else int(truth.max()) + 1
    losses, models = [], []
    for linear in fit_linear(task, vectors[train], targets[train], size, _PENALTIES):
        outputs = linear.logits(vectors[valid]).astype(np.float64)
        square = float(np.mean((outputs - targets[valid]) ** 2)) if coloring.numeric else 0.0
        losses.append(square if coloring.numeric else cross_entropy(task, outputs, targets[valid]))
        models.append(linear)
    best = models[int(np.argmin(losses))]

    def sequences(indices: Array) -> list[bytes]:
        return [texts[i] for i in indices.tolist()]

    # records are read on either strand
    kmers = fit_kmers(
        sequences(train),
        targets[train],
        task,
        valid=(sequences(valid), targets[valid]),
        n_classes=size,
        features=replace(TRIED, symmetric=True),
    )
    logits = best.logits(vectors[test]).astype(np.float64)
    return probabilities(task, logits), kmers.predict(sequences(test))
