"""Vectors of regions: windows are read, positions are pooled on the fly, readings of both strands are joined.

B batch, L and t position, D width of the model, K layers, n positions of one window, N rows of a region,
E numbers per vector (D, or 2 D with rc concat), C what a projection makes of D.
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
from hyenacli.inference.batching import Engine, Piece, make_budget
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.pooling import Floats
from hyenacli.inference.windows import Window, cut
from hyenacli.readers.records import OK, SequenceRecord
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.engine.inference import StateSlice

Span = tuple[int, int]
# What is taken of one window: a span for every region that reads it.
_Spans = list[Span]
# The number of a piece, and which of its spans.
_Place = tuple[int, int]
_WindowEngine = Engine[_Spans, Iterator[StateSlice], list[Floats]]
# Bounds what waits for its answer where a whole input reads one and the same window.
_MAX_SHARERS = 16
_TOKENIZER = Tokenizer()


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one input record.

    Attributes:
        stretch: the record.
        n_bases: bases pooled into a vector; 0 where there is none.
        vectors: (N, K, E) float32: N = 1, or every base in the order of the + strand where nothing is pooled;
            None where the record's status is not OK.
    """

    stretch: SequenceRecord
    n_bases: int
    vectors: NDArray[np.float32] | None


def embed(
    model: HyenaDNA,
    stretches: Iterable[SequenceRecord],
    recipe: EmbeddingOptions,
    *,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Embedded]:
    """Embed stretches, one answer per record and in their order.

    A stretch longer than the window is read in windows (see `windows.cut`); every base counts once, with
    its state from the window in which it has the most bases to its left. Flanks are read but not pooled; the
    model is causal, so of the two only the one before the region, in reading direction, can matter. Windows
    of the same bases that come near each other, in whatever records, are read once.

    Args:
        model: in eval mode, on the device to use.
        stretches: the records; those whose status is not OK pass through.
        recipe: pooling, layer, strands and windows.
        batch_size: sequences per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.
        project: an affine map of single states, (n, K, D) to (n, K, C), that stands in for them where nothing
            is pooled: the states of a whole contig would not fit into memory.

    Raises:
        UsageError: the model has no such layer or takes no such window.
        UserError: the model gave values that are not finite, or one window does not fit into memory.
    """
    width, stride = recipe.windows(model.config, model.longest_input)
    layers = recipe.layers(model.config)
    device = next(model.parameters()).device
    n_kept = len(layers) if recipe.pooling.per_base and project is None else 0
    shared = _SharedWindows(1 if recipe.pooling.per_base else _MAX_SHARERS)

    def read(slices: Iterable[StateSlice], batch: Sequence[Piece[_Spans]]) -> list[list[Floats]]:
        shared.close()
        take = project if project and recipe.pooling.per_base else recipe.pooling.reduce
        return _reduce(recipe, layers, slices, batch, precision or nullcontext(), take)

    engine: _WindowEngine = Engine(
        lambda ids_BL, _mask_BL: model.stream_states(ids_BL, layers),
        read,
        budget=make_budget(batch_size, model.config.d_model, n_kept, device),
        device=device,
        # Unpooled answers are as large as the states themselves.
        lookahead=1 if recipe.pooling.per_base else 8,
    )
    return _regroup(engine, shared, (_cut(stretch, recipe, width, stride) for stretch in stretches), recipe)


class _SharedWindows:
    """The windows on their way to the engine, by their bases: whoever reads the same takes part in one pass.

    Args:
        most: regions that may share one pass.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[bytes, tuple[int, _Spans]] = {}
        self._opened = 0

    def add(self, bases: bytes, span: Span) -> tuple[_Place, Piece[_Spans] | None]:
        """Ask for `span` of a window.

        Returns:
            Where its answer will be, and the piece where the window is a new one.
        """
        number, spans = self._open.get(bases, (0, []))
        if 0 < len(spans) < self._most:
            spans.append(span)
            return (number, len(spans) - 1), None
        number, spans = self._opened, [span]
        self._opened += 1
        self._open[bases] = number, spans
        return (number, 0), Piece(_TOKENIZER.encode_array(bases), spans)

    def close(self) -> None:
        """Let nobody take part any more in the pieces handed out so far: they are being read."""
        self._open.clear()


def _reduce(
    recipe: EmbeddingOptions,
    layers: Sequence[int],
    slices: Iterable[StateSlice],
    batch: Sequence[Piece[_Spans]],
    precision: AbstractContextManager[Any],
    take: Callable[[Tensor], Tensor],
) -> list[list[Floats]]:
    """What each window of a batch gives to each of its spans: (1, K, D), or (n, K, D or C) unpooled."""
    reduce = recipe.pooling.reduce
    parts: list[list[dict[int, list[Tensor]]]] = [
        [{layer: [] for layer in layers} for _ in piece.note] for piece in batch
    ]
    with precision:
        for piece in slices:
            tile = piece.tile
            for row, states_tD in enumerate(piece.states, start=tile.first_row):
                for span, part in zip(batch[row].note, parts[row], strict=True):
                    first, last = (max(0, place - tile.start) for place in span)
                    if first < last and first < len(states_tD):
                        taken_n1D = states_tD[first:last, None].float()
                        part[piece.layer].append(take(taken_n1D).clone())
    rows = [
        torch.cat([reduce(torch.cat(part[layer])) for layer in layers], dim=1)
        for of_piece in parts
        for part in of_piece
    ]
    joined = torch.cat(rows).cpu().numpy()
    pooled = iter(np.split(joined, np.cumsum([len(row) for row in rows])[:-1]))
    return [list(islice(pooled, len(piece.note))) for piece in batch]


@dataclass(frozen=True, slots=True)
class _Reading:
    """One direction of a stretch, cut into windows."""

    reverse: bool
    bases: bytes
    windows: list[Window]


@dataclass(slots=True)
class _UnderWay:
    """A stretch, and where the answers of its windows will be, as far as they have been asked for."""

    stretch: SequenceRecord
    readings: list[_Reading]
    places: list[_Place] = field(default_factory=list)
    last_piece: int = -1

    def expect(self, place: _Place) -> None:
        """Add the place of the next window's answer."""
        self.places.append(place)
        self.last_piece = max(self.last_piece, place[0])

    def complete(self, answered: int) -> bool:
        """Whether all windows have been asked for, and are among the first `answered` pieces."""
        windows = sum(len(reading.windows) for reading in self.readings)
        return len(self.places) == windows and self.last_piece < answered


def _cut(stretch: SequenceRecord, recipe: EmbeddingOptions, width: int, stride: int) -> _UnderWay:
    readings = []
    for reverse in recipe.readings(stretch.strand) if stretch.status == OK else ():
        bases, offset = stretch.reading(reverse=reverse)
        start, end = recipe.pooling.span(len(stretch), reverse=reverse)
        windows = list(cut(offset + start, offset + end, width, stride))
        readings.append(_Reading(reverse, bases, windows))
    return _UnderWay(stretch, readings)


def _regroup(
    engine: _WindowEngine, shared: _SharedWindows, stretches: Iterable[_UnderWay], recipe: EmbeddingOptions
) -> Iterator[Embedded]:
    """Ask for the windows of every stretch, and join the answers in the order of the stretches."""
    under_way: deque[_UnderWay] = deque()
    answers: dict[_Place, Floats] = {}

    def pieces() -> Iterator[Piece[_Spans]]:
        for one in stretches:
            under_way.append(one)
            for reading in one.readings:
                for start, end, first, last in reading.windows:
                    place, piece = shared.add(reading.bases[start:end], (first - start, last - start))
                    one.expect(place)
                    if piece is not None:
                        yield piece

    def finished(answered: int) -> Iterator[Embedded]:
        while under_way and under_way[0].complete(answered):
            one = under_way.popleft()
            parts = [answers.pop(place) for place in one.places]
            yield (
                _join(one.stretch, one.readings, iter(parts), recipe)
                if parts
                else Embedded(one.stretch, 0, None)
            )

    answered = 0
    for number, answer in enumerate(engine.run(pieces())):
        answers.update(((number, place), part) for place, part in enumerate(answer))
        answered = number + 1
        yield from finished(answered)
    yield from finished(answered)


def _join(
    stretch: SequenceRecord, readings: Sequence[_Reading], parts: Iterator[Floats], recipe: EmbeddingOptions
) -> Embedded:
    """The vectors of a stretch from its windows' answers, in order."""
    start, end = recipe.pooling.span(len(stretch), reverse=False)
    strands = []
    for reading in readings:
        own = list(islice(parts, len(reading.windows)))
        vectors_NKD = recipe.pooling.combine(own, end - start)
        unpooled_backwards = reading.reverse and recipe.pooling.per_base
        strands.append(vectors_NKD[::-1] if unpooled_backwards else vectors_NKD)
    vectors_NKE = np.concatenate(strands, axis=2) if recipe.rc == "concat" else np.mean(strands, axis=0)
    if not np.isfinite(vectors_NKE).all():
        raise UserError(
            "the model gives values that are not finite",
            at=stretch.id,
            remedy="use --dtype float32, or check the model with `hyena models verify`",
        )
    return Embedded(stretch, 1 if recipe.pooling.per_base else end - start, vectors_NKE.astype(np.float32))
