"""Embeddings as rows of a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hyenacli.inference.embedding import Embedded
from hyenacli.inference.pooling import FINAL
from hyenacli.writers.columns import Batch, Column

_RECORD = [
    *(Column("id", str), Column("chrom", str), Column("start", int), Column("end", int)),
    *(Column("strand", str), Column("n_bases", int), Column("status", str)),
]

# Of a table that holds float32: 4.
_BYTES_PER_NUMBER = {"h5": 2, "tsv": 12, "tsv.gz": 6}


def embedding_columns(layers: Sequence[int], width: int) -> list[Column]:
    """The columns: the record's, then one vector per layer.

    A single layer is `embedding` (TSV: e0, e1, ...), whichever it is. Of several, block K is `embedding_K`
    (TSV: lK_e0, ...) and the final norm `embedding`.

    >>> [column.name for column in embedding_columns((1, 2, -1), 128)[7:]]
    ['embedding_1', 'embedding_2', 'embedding']
    """
    return [*_RECORD, *(_vector(layer, width, alone=len(layers) == 1) for layer in layers)]


def _vector(layer: int, width: int, *, alone: bool) -> Column:
    if alone or layer == FINAL:
        return Column("embedding", float, width)
    return Column(f"embedding_{layer}", float, width, prefix=f"l{layer}_e")


def embedding_rows(embedded: Embedded, columns: Sequence[Column]) -> Batch:
    """The rows of one record: one, or one per base (with its own start and end) where nothing was pooled."""
    record, vectors = embedded.stretch, columns[len(_RECORD) :]
    vectors_NKE = embedded.vectors
    if vectors_NKE is None:
        vectors_NKE = np.full((1, len(vectors), vectors[0].width), np.nan, dtype=np.float32)
    n_rows = len(vectors_NKE)
    starts, ends = np.array([record.start]), np.array([record.end])
    if n_rows > 1:
        starts = np.arange(record.start, record.end)
        ends = starts + 1
    rows: dict[str, Any] = {
        "id": [record.id] * n_rows,
        "chrom": [record.chrom] * n_rows,
        "start": starts,
        "end": ends,
        "strand": [record.strand] * n_rows,
        "n_bases": [embedded.n_bases] * n_rows,
        "status": [record.status] * n_rows,
    }
    return rows | {column.name: vectors_NKE[:, k] for k, column in enumerate(vectors)}


def embedding_record(embedded: Embedded, columns: Sequence[Column]) -> Batch:
    """One record with the vectors of all its bases, in the order of the + strand; none where it has none."""
    record, vectors = embedded.stretch, columns[len(_RECORD) :]
    vectors_NKE = embedded.vectors
    if vectors_NKE is None:
        vectors_NKE = np.empty((0, len(vectors), vectors[0].width), dtype=np.float32)
    about = (
        record.id,
        record.chrom,
        record.start,
        record.end,
        record.strand,
        len(vectors_NKE),
        record.status,
    )
    values = {column.name: [value] for column, value in zip(_RECORD, about, strict=True)}
    return values | {column.name: vectors_NKE[:, k] for k, column in enumerate(vectors)}


def per_base_bytes(bases: int, columns: Sequence[Column], kind: str) -> int:
    """About how large the file of the vectors of so many bases is, before compression.

    >>> per_base_bytes(1_000_000, embedding_columns((-1,), 256), "h5")
    512000000
    """
    return bases * sum(column.width for column in columns) * _BYTES_PER_NUMBER.get(kind, 4)
