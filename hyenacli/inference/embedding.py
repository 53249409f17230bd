"""Vectors of regions: windows are read, positions pooled as they come, both strands combined; their rows.

B batch, L and t position, D width of the model, K layers, n positions of one window, N rows of a region,
E numbers per vector (D, or 2 D with rc concat), C outputs of a projection.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.errors import UserError
from hyenacli.inference.batching import BatchItem, Engine, make_budget
from hyenacli.inference.embedding_options import FINAL, EmbeddingOptions, Floats, Window, cut
from hyenacli.readers.records import OK, SequenceRecord
from hyenacli.writers.columns import Batch, Column, TableFormat
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.engine.inference import StateSlice

Span = tuple[int, int]
# Positions taken of one window: a span for every region that reads it.
_Spans = list[Span]
# The number of a batch item, and the index of one of its spans.
_SpanIndex = tuple[int, int]
_WindowEngine = Engine[_Spans, list[Floats]]
# Bounds the answers that wait if a whole input reads one and the same window.
_MAX_SHARERS = 16
_TOKENIZER = Tokenizer()
RECORD_COLUMNS = [
    *(Column("id", str), Column("chrom", str), Column("start", int), Column("end", int)),
    *(Column("strand", str), Column("n_bases", int), Column("status", str)),
]


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one input record.

    Attributes:
        n_bases: bases pooled into a vector; 0 if there is none.
        vectors: (N, K, E) float32: N = 1, or every base in the order of the + strand if nothing is pooled;
            None if the record's status is not OK.
    """

    record: SequenceRecord
    n_bases: int
    vectors: NDArray[np.float32] | None


def embed(
    model: HyenaDNA,
    records: Iterable[SequenceRecord],
    options: EmbeddingOptions,
    *,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Embedded]:
    """Embed records: one answer each, in their order.

    A record longer than the window is read in windows (see `windows.cut`); every base counts once, with its
    state from the window in which it has the most bases to its left. Flanks are read but not pooled; the
    model is causal, so of the two only the one before the region, in reading direction, can matter. Windows
    of the same bases are read once if they are close together in the input, also in different records.

    Args:
        model: in eval mode, on the device to use.
        records: those whose status is not OK pass through.
        options: pooling, layer, strands and windows.
        batch_size: sequences per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.
        project: an affine map of single states, (n, K, D) to (n, K, C), that replaces them if nothing is
            pooled: the states of a whole contig would not fit into memory.

    Raises:
        UsageError: the model has no such layer or takes no such window.
        UserError: the model gave values that are not finite, or one window does not fit into memory.
    """
    width, stride = options.windows(model.config, model.longest_input)
    layers = options.layers(model.config)
    device = next(model.parameters()).device
    per_base = options.pooling.per_base
    n_kept = len(layers) if per_base and project is None else 0
    shared = _SharedWindows(1 if per_base else _MAX_SHARERS)
    take = project if project and per_base else options.pooling.reduce

    def compute(ids_BL: Tensor, _mask_BL: Tensor, batch: Sequence[BatchItem[_Spans]]) -> list[list[Floats]]:
        shared.close()
        slices = model.stream_states(ids_BL, layers)
        return _reduce(options, layers, slices, batch, precision or nullcontext(), take)

    engine: _WindowEngine = Engine(
        compute,
        budget=make_budget(batch_size, model.config.d_model, n_kept, device),
        device=device,
        # Unpooled answers are as large as the states themselves.
        lookahead=1 if per_base else 8,
    )
    return _regroup(engine, shared, (_cut(record, options, width, stride) for record in records), options)


class _SharedWindows:
    """The windows on their way to the engine, by their bases: regions that read the same share one pass.

    Args:
        max_sharers: regions that may share one pass.
    """

    def __init__(self, max_sharers: int) -> None:
        self._max_sharers = max_sharers
        self._open: dict[bytes, tuple[int, _Spans]] = {}
        self._opened = 0

    def add(self, bases: bytes, span: Span) -> tuple[_SpanIndex, BatchItem[_Spans] | None]:
        """Request `span` of a window.

        Returns:
            The index of its answer, and the batch item if the window is a new one.
        """
        number, spans = self._open.get(bases, (0, []))
        if 0 < len(spans) < self._max_sharers:
            spans.append(span)
            return (number, len(spans) - 1), None
        number, spans = self._opened, [span]
        self._opened += 1
        self._open[bases] = number, spans
        return (number, 0), BatchItem(_TOKENIZER.encode_array(bases), spans)

    def close(self) -> None:
        """Let no further region share the windows handed out so far: they are being read."""
        self._open.clear()


def _reduce(
    options: EmbeddingOptions,
    layers: Sequence[int],
    slices: Iterable[StateSlice],
    batch: Sequence[BatchItem[_Spans]],
    precision: AbstractContextManager[Any],
    take: Callable[[Tensor], Tensor],
) -> list[list[Floats]]:
    """Reduce each window of a batch, for each of its spans: (1, K, D), or (n, K, D or C) unpooled."""
    reduce = options.pooling.reduce
    parts: list[list[dict[int, list[Tensor]]]] = [
        [{layer: [] for layer in layers} for _ in item.metadata] for item in batch
    ]
    with precision:
        for piece in slices:
            tile = piece.tile
            for row, states_tD in enumerate(piece.states, start=tile.first_row):
                for span, part in zip(batch[row].metadata, parts[row], strict=True):
                    first, end = (max(0, position - tile.start) for position in span)
                    if first < end and first < len(states_tD):
                        taken_n1D = states_tD[first:end, None].float()
                        part[piece.layer].append(take(taken_n1D).clone())
    rows = [
        torch.cat([reduce(torch.cat(part[layer])) for layer in layers], dim=1)
        for of_item in parts
        for part in of_item
    ]
    joined = torch.cat(rows).cpu().numpy()
    pooled = iter(np.split(joined, np.cumsum([len(row) for row in rows])[:-1]))
    return [list(islice(pooled, len(item.metadata))) for item in batch]


@dataclass(frozen=True, slots=True)
class _Reading:
    """One direction of a record, cut into windows."""

    reverse: bool
    bases: bytes
    windows: list[Window]


@dataclass(slots=True)
class _Pending:
    """A record, and the indices of the answers of its windows, as far as they have been requested."""

    record: SequenceRecord
    readings: list[_Reading]
    indices: list[_SpanIndex] = field(default_factory=list)
    last_item: int = -1

    def expect(self, index: _SpanIndex) -> None:
        """Add the index of the next window's answer."""
        self.indices.append(index)
        self.last_item = max(self.last_item, index[0])

    def complete(self, answered: int) -> bool:
        """Return whether all windows have been requested, and are among the first `answered` items."""
        windows = sum(len(reading.windows) for reading in self.readings)
        return len(self.indices) == windows and self.last_item < answered


def _cut(record: SequenceRecord, options: EmbeddingOptions, width: int, stride: int) -> _Pending:
    readings = []
    for reverse in options.readings(record.strand) if record.status == OK else ():
        bases, offset = record.reading(reverse=reverse)
        start, end = options.pooling.span(len(record), reverse=reverse)
        windows = list(cut(offset + start, offset + end, width, stride))
        readings.append(_Reading(reverse, bases, windows))
    return _Pending(record, readings)


def _regroup(
    engine: _WindowEngine, shared: _SharedWindows, records: Iterable[_Pending], options: EmbeddingOptions
) -> Iterator[Embedded]:
    """Request the windows of every record, and join the answers in the order of the records."""
    waiting: deque[_Pending] = deque()
    answers: dict[_SpanIndex, Floats] = {}

    def items() -> Iterator[BatchItem[_Spans]]:
        for pending in records:
            waiting.append(pending)
            for reading in pending.readings:
                for start, end, first, last in reading.windows:
                    index, item = shared.add(reading.bases[start:end], (first - start, last - start))
                    pending.expect(index)
                    if item is not None:
                        yield item

    def finished(answered: int) -> Iterator[Embedded]:
        while waiting and waiting[0].complete(answered):
            pending = waiting.popleft()
            parts = [answers.pop(index) for index in pending.indices]
            yield _join(pending, iter(parts), options) if parts else Embedded(pending.record, 0, None)

    answered = 0
    for number, answer in enumerate(engine.run(items())):
        answers.update(((number, i), part) for i, part in enumerate(answer))
        answered = number + 1
        yield from finished(answered)
    yield from finished(answered)


def _join(pending: _Pending, parts: Iterator[Floats], options: EmbeddingOptions) -> Embedded:
    """Combine the answers of a record's windows, in order, to its vectors."""
    record, per_base = pending.record, options.pooling.per_base
    start, end = options.pooling.span(len(record), reverse=False)
    strands = []
    for reading in pending.readings:
        of_strand = list(islice(parts, len(reading.windows)))
        vectors_NKD = options.pooling.combine(of_strand, end - start)
        strands.append(vectors_NKD[::-1] if reading.reverse and per_base else vectors_NKD)
    if len(strands) == 1:  # not copied: the vectors of every base are many
        vectors_NKE = strands[0]
    elif options.rc == "concat":
        vectors_NKE = np.concatenate(strands, axis=2)
    else:
        vectors_NKE = np.mean(strands, axis=0, dtype=np.float64)
    check_finite(vectors_NKE, record)
    return Embedded(record, 1 if per_base else end - start, vectors_NKE.astype(np.float32, copy=False))


def check_finite(values: Floats, record: SequenceRecord) -> None:
    """Check that the values computed for a record are finite; UserError if one is not."""
    if not np.isfinite(values).all():
        raise UserError(
            "the model gives values that are not finite",
            at=record.id,
            remedy="use --dtype float32, or check the model with `hyena models verify`",
        )


def record_rows(record: SequenceRecord, n_bases: int, n_rows: int) -> dict[str, Any]:
    """Return the record's cells in each of its rows; where these are many, a row is a base."""
    starts, ends = np.array([record.start]), np.array([record.end])
    if n_rows > 1:
        starts = np.concatenate([np.arange(*span) for span in record.spans])
        ends = starts + 1
    return {
        "id": [record.id] * n_rows,
        "chrom": [record.chrom] * n_rows,
        "start": starts,
        "end": ends,
        "strand": [record.strand] * n_rows,
        "n_bases": [n_bases] * n_rows,
        "status": [record.status] * n_rows,
        **{name: [value] * n_rows for name, value in record.extra},
    }


def embedding_columns(layers: Sequence[int], width: int, extra: Sequence[str] = ()) -> list[Column]:
    """Return the columns of embeddings: the record's, `extra` ones of text, then one vector per layer.

    A single layer is `embedding` (TSV: e0, e1, ...), whichever it is. Of several, block K is `embedding_K`
    (TSV: lK_e0, ...) and the final norm `embedding`.

    >>> [column.name for column in embedding_columns((1, 2, -1), 128)[7:]]
    ['embedding_1', 'embedding_2', 'embedding']
    """
    texts = [Column(name, str) for name in extra]
    return [*RECORD_COLUMNS, *texts, *(_vector(layer, width, single=len(layers) == 1) for layer in layers)]


def _vector(layer: int, width: int, *, single: bool) -> Column:
    if single or layer == FINAL:
        return Column("embedding", float, width)
    return Column(f"embedding_{layer}", float, width, prefix=f"l{layer}_e")


def embedding_rows(embedded: Embedded, columns: Sequence[Column]) -> Batch:
    """Return the rows of one record: one, or one per base (each with its start and end) if unpooled."""
    vectors = [column for column in columns if column.width]
    vectors_NKE = embedded.vectors
    if vectors_NKE is None:
        vectors_NKE = np.full((1, len(vectors), vectors[0].width), np.nan, dtype=np.float32)
    rows = record_rows(embedded.record, embedded.n_bases, len(vectors_NKE))
    return rows | {column.name: vectors_NKE[:, k] for k, column in enumerate(vectors)}


def embedding_record(embedded: Embedded, columns: Sequence[Column]) -> Batch:
    """Return one record with the vectors of all its bases, in the order of the + strand; perhaps none."""
    vectors = [column for column in columns if column.width]
    vectors_NKE = embedded.vectors
    if vectors_NKE is None:
        vectors_NKE = np.empty((0, len(vectors), vectors[0].width), dtype=np.float32)
    row = record_rows(embedded.record, len(vectors_NKE), 1)
    return row | {column.name: vectors_NKE[:, k] for k, column in enumerate(vectors)}


def per_base_bytes(bases: int, columns: Sequence[Column], table: TableFormat) -> int:
    """Estimate the size of a file of vectors per base, before compression.

    >>> from hyenacli.writers.tables import TABLES
    >>> per_base_bytes(1_000_000, embedding_columns((-1,), 256), TABLES["h5"])
    512000000
    """
    return bases * sum(column.width for column in columns) * table.bytes_per_number
