"""Predictions as rows of a table, or as a track.

L bases, C outputs of the head, V values shown of them, N rows of a record (1, or L).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.embed.table import embedding_columns, embedding_rows
from hyenacli.errors import UsageError, nearest
from hyenacli.evaluation.calibration import probabilities
from hyenacli.genome.names import abbreviate
from hyenacli.inference.embedding import Embedded
from hyenacli.inference.prediction import Predicted
from hyenacli.writers.columns import Batch, Column
from hyenadna.config import HeadConfig

RECORD = embedding_columns((), 0)
_DIGITS = 7


def value_names(head: HeadConfig) -> tuple[str, ...]:
    """What the values shown of a head are called: its classes or labels, or else their numbers.

    A binary head may have one output, which is that of the second class.

    >>> value_names(HeadConfig("binary", 1)), value_names(HeadConfig("binary", 1, ("tumour",)))
    (('0', '1'), ('not_tumour', 'tumour'))
    """
    names = head.labels
    if head.task == "binary" and head.n_outputs == 1:
        names = (f"not_{names[0]}", names[0]) if names else ("0", "1")
    count = max(len(names), head.n_outputs)
    return names if len(set(names)) == count else tuple(map(str, range(count)))


def prediction_columns(head: HeadConfig) -> list[Column]:
    """The columns: the record's, the likeliest class where there are classes, and a number for each value.

    >>> [column.name for column in prediction_columns(HeadConfig("binary", 2, ("no", "yes")))[7:]]
    ['prediction', 'p_no', 'p_yes']
    >>> prediction_columns(HeadConfig("regression", 1, ("expression",)))[7].name
    'prediction'
    """
    likeliest = [Column("prediction", str)] if head.task in ("binary", "multiclass") else []
    return [*RECORD, *likeliest, *(Column(name, float, digits=_DIGITS) for name in _titles(head))]


def _titles(head: HeadConfig) -> list[str]:
    names = value_names(head)
    if head.task != "regression":
        return [f"p_{name}" for name in names]
    return ["prediction"] if len(names) == 1 else [f"prediction_{name}" for name in names]


def prediction_rows(predicted: Predicted, head: HeadConfig) -> Batch:
    """The rows of one record: one, or one per base (with its own start and end) at level "nucleotide"."""
    values_NV = None if predicted.logits is None else values_of(predicted.logits, head)
    columns = prediction_columns(head)
    titles = [column.name for column in columns if column.type is float]
    as_vector = Column("values", float, len(titles))
    vectors_N1V: Any = None if values_NV is None else values_NV[:, None]
    embedded = Embedded(predicted.stretch, predicted.n_bases, vectors_N1V)
    rows = dict(embedding_rows(embedded, [*RECORD, as_vector]))
    shown_NV = rows.pop(as_vector.name)
    if head.task in ("binary", "multiclass"):
        rows["prediction"] = _likeliest(values_NV, value_names(head))
    return rows | {title: shown_NV[:, i] for i, title in enumerate(titles)}


def _likeliest(values_NV: NDArray[np.float64] | None, names: Sequence[str]) -> list[str]:
    return [""] if values_NV is None else [names[i] for i in values_NV.argmax(axis=1).tolist()]


def values_of(logits: NDArray[np.float64], head: HeadConfig) -> NDArray[np.float64]:
    """The values (N, V) of outputs (C,) or (L, C): probabilities, or the numbers of a regression."""
    return probabilities(head.task, np.atleast_2d(logits))


def choose_track(head: HeadConfig, name: str | None) -> int:
    """Which of a head's values a bedGraph shows.

    Raises:
        UsageError: the head does not predict bases, has no such value, or has several and none is named.
    """
    if head.level != "nucleotide":
        raise UsageError(
            "a bedGraph shows predictions of bases, and the model predicts sequences",
            remedy="write a table, as .tsv",
        )
    names = value_names(head)
    if name is not None:
        if name not in names:
            said = f"the model has no output '{name}'"
            raise UsageError(said, at="--track", remedy=nearest(name, list(names)))
        return names.index(name)
    if head.task == "binary":
        return 1
    if len(names) > 1:
        said = f"a bedGraph shows one of the model's {len(names)} outputs"
        raise UsageError(said, remedy=f"name it with --track: {abbreviate(names, 12)}")
    return 0
