"""Vectors in two dimensions, and how well a column is predicted from them and from k-mers.

N records, E numbers of a vector, T outputs.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UsageError, UserError
from hyenacli.evaluation.calibration import cross_entropy, probabilities
from hyenacli.evaluation.kmers import KmerFeatures, fit_kmers
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
# Bounds the time of the fits: of more records fewer folds are predicted.
_MAX_FITTED = 5_000
# t-SNE and UMAP begin from the directions of most variance.
_COMPONENTS = 50


@dataclass(frozen=True)
class Coloring:
    """What a column says of each record.

    Attributes:
        names: of the classes, most frequent first; empty for numbers, and where no record has one.
        target_N: class, -1 for a rarer or an empty one; or a number, NaN where there is none.
    """

    names: tuple[str, ...]
    target_N: Array

    @property
    def numeric(self) -> bool:
        """Whether the column has numbers."""
        return bool(self.target_N.dtype.kind == "f")


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

    Of five folds one is predicted, one chooses the penalties and the others are fitted to: five times, or
    fewer where there are more than 1,000 records. Equal sequences, on either strand, are in one fold. A class
    needs ten records to be predicted.
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
    predicted_parts = parts[: max(1, _MAX_FITTED // len(truth))]
    predicted = [
        _predict(coloring, truth, vectors, texts, *split)
        for split in islice(_splits(parts), len(predicted_parts))
    ]
    outputs = [np.concatenate(column) for column in zip(*predicted, strict=True)]
    truth = truth[np.concatenate(predicted_parts)]
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
        features=KmerFeatures((3, 4, 5), (3,), symmetric=True),
    )
    logits = best.logits(vectors[test]).astype(np.float64)
    return probabilities(task, logits), kmers.predict(sequences(test))


def import_umap() -> Any:
    """Return the class of UMAP; UsageError where it is not installed."""
    try:
        from umap import UMAP
    except ImportError:
        remedy = "pip install umap-learn, or choose tsne"
        raise UsageError("needs the package umap-learn", at="--map-method umap", remedy=remedy) from None
    return UMAP


def lay_out(vectors_NE: Array, method: str) -> tuple[Array, tuple[str, str]]:
    """Return points (N, 2) and the names of the axes; all features are on one scale first.

    Raises:
        UserError: there are fewer than five records.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    count = len(vectors_NE)
    if count < 5:
        raise UserError(f"{count} vectors are too few", at="--map", remedy="give five records or more")
    scaled = StandardScaler().fit_transform(vectors_NE.astype(np.float64))
    size = 2 if method == "pca" else min(_COMPONENTS, *scaled.shape)
    pca = PCA(size, svd_solver="full").fit(scaled)
    components = pca.transform(scaled)
    if method == "pca":
        first, second = (
            f"component {k} ({share:.0%})" for k, share in enumerate(pca.explained_variance_ratio_, 1)
        )
        return components, (first, second)
    if method == "tsne":
        tsne = TSNE(init="pca", perplexity=min(30.0, (count - 1) / 3), random_state=_SEED)
        return tsne.fit_transform(components), ("t-SNE 1", "t-SNE 2")
    umap = import_umap()(n_neighbors=min(15, count - 1), random_state=_SEED, n_jobs=1)
    return umap.fit_transform(components), ("UMAP 1", "UMAP 2")
