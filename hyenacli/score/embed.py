"""Vectors of regions: windows are read, positions are pooled on the fly, readings of both strands are joined.

B batch, L and t position, D width of the model, K layers, n positions of one window, N rows of a region,
E numbers per vector (D, or 2 D with rc concat).
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.errors import UserError
from hyenacli.score.batching import Engine, Piece, make_budget
from hyenacli.score.pooling import Floats
from hyenacli.score.recipe import Recipe
from hyenacli.score.stretches import OK, Stretch
from hyenacli.score.windows import Window, cut
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.engine.inference import StateSlice

Span = tuple[int, int]
_WindowEngine = Engine[Span, Iterator[StateSlice], Floats]


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one input record.

    Attributes:
        stretch: the record.
        n_bases: bases pooled into a vector; 0 where there is none.
        vectors: (N, K, E) float32: N = 1, or every base in the order of the + strand where nothing is pooled;
            None where the record's status is not OK.
    """

    stretch: Stretch
    n_bases: int
    vectors: NDArray[np.float32] | None


def embed(
    model: HyenaDNA,
    stretches: Iterable[Stretch],
    recipe: Recipe,
    *,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Iterator[Embedded]:
    """Embed stretches, one answer per record and in their order.

    A stretch longer than the window is read in windows (see `windows.cut`); every base counts once, with
    its state from the window in which it has the most bases to its left. Flanks are read but not pooled; the
    model is causal, so of the two only the one before the region, in reading direction, can matter.

    Args:
        model: in eval mode, on the device to use.
        stretches: the records; those whose status is not OK pass through.
        recipe: pooling, layer, strands and windows.
        batch_size: sequences per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.

    Raises:
        UsageError: the model has no such layer or takes no such window.
        UserError: the model gave values that are not finite, or one window does not fit into memory.
    """
    width, stride = recipe.windows(model.config)
    layers = recipe.layers(model.config)
    device = next(model.parameters()).device
    n_kept = len(layers) if recipe.pooling.per_base else 0
    engine: _WindowEngine = Engine(
        lambda ids_BL, _mask_BL: model.stream_states(ids_BL, layers),
        lambda slices, batch: _reduce(recipe, layers, slices, batch, precision or nullcontext()),
        budget=make_budget(batch_size, model.config.d_model, n_kept, device),
        device=device,
        # Unpooled answers are as large as the states themselves.
        lookahead=1 if recipe.pooling.per_base else 8,
    )
    return _regroup(engine, stretches, recipe, width, stride)


def _reduce(
    recipe: Recipe,
    layers: Sequence[int],
    slices: Iterable[StateSlice],
    batch: Sequence[Piece[Span]],
    precision: AbstractContextManager[Any],
) -> list[Floats]:
    """What each window of a batch gives: (1, K, D), or (n, K, D) unpooled; one transfer for all."""
    reduce = recipe.pooling.reduce
    parts: list[dict[int, list[Tensor]]] = [{layer: [] for layer in layers} for _ in batch]
    with precision:
        for piece in slices:
            tile = piece.tile
            for row, states_tD in enumerate(piece.states, start=tile.first_row):
                first, last = (max(0, place - tile.start) for place in batch[row].note)
                if first < last and first < len(states_tD):
                    taken_n1D = states_tD[first:last, None].float()
                    parts[row][piece.layer].append(reduce(taken_n1D).clone())
    rows = [torch.cat([reduce(torch.cat(of_layer[layer])) for layer in layers], dim=1) for of_layer in parts]
    return np.split(torch.cat(rows).cpu().numpy(), np.cumsum([len(row) for row in rows])[:-1])


@dataclass(frozen=True, slots=True)
class _Reading:
    """One direction of a stretch, cut into windows."""

    reverse: bool
    bases: bytes
    windows: list[Window]


def _readings(stretch: Stretch, recipe: Recipe, width: int, stride: int) -> list[_Reading]:
    readings = []
    for reverse in recipe.readings(stretch.strand) if stretch.status == OK else ():
        bases, offset = stretch.reading(reverse=reverse)
        start, end = recipe.pooling.span(len(stretch), reverse=reverse)
        windows = list(cut(offset + start, offset + end, width, stride))
        readings.append(_Reading(reverse, bases, windows))
    return readings


def _regroup(
    engine: _WindowEngine,
    stretches: Iterable[Stretch],
    recipe: Recipe,
    width: int,
    stride: int,
) -> Iterator[Embedded]:
    """Cut every stretch into pieces, and join the answers by counting them."""
    tokenizer = Tokenizer()
    under_way: deque[tuple[Stretch, list[_Reading]]] = deque()

    def pieces() -> Iterator[Piece[Span]]:
        for stretch in stretches:
            readings = _readings(stretch, recipe, width, stride)
            under_way.append((stretch, readings))
            for reading in readings:
                for start, end, first, last in reading.windows:
                    ids = tokenizer.encode_array(reading.bases[start:end])
                    yield Piece(ids, (first - start, last - start))

    answers = engine.run(pieces())
    for answer in answers:
        while not under_way[0][1]:
            yield Embedded(under_way.popleft()[0], 0, None)
        stretch, readings = under_way[0]
        missing = sum(len(reading.windows) for reading in readings) - 1
        yield _join(stretch, readings, iter([answer, *islice(answers, missing)]), recipe)
        under_way.popleft()
    for stretch, _ in under_way:
        yield Embedded(stretch, 0, None)


def _join(
    stretch: Stretch, readings: Sequence[_Reading], parts: Iterator[Floats], recipe: Recipe
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
