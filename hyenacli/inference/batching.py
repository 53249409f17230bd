"""The inference engine: pieces of many sequences in padded batches, answers in input order.

B batch, L longest piece of the batch. Pieces carry no key: the answers come in the order of the pieces, so a
caller that cuts sequences into pieces joins them again by counting.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.console import log
from hyenacli.devices import free_memory, is_out_of_memory
from hyenacli.errors import UserError
from hyenadna.tokenizer import PAD

T = TypeVar("T")
Output = TypeVar("Output")
Answer = TypeVar("Answer")

# Larger batches are not faster: the model works on slices of a batch anyway.
_MAX_TOKENS = 1 << 20
_MAX_NUMBERS_ON_CPU = 1 << 22
# float32 numbers a pass holds per token and dimension: residual stream, gated values, and room for the pieces
# it works on.
_FLOATS_PER_TOKEN = 6


@dataclass(frozen=True, slots=True)
class Piece(Generic[T]):
    """One input of the model.

    Attributes:
        ids: token ids, shape (length,).
        note: what the reader of the answer needs to know about it.
    """

    ids: NDArray[np.integer[Any]]
    note: T


@dataclass
class Budget:
    """How much goes into one forward pass; it shrinks when memory runs out.

    Attributes:
        tokens: most tokens, padding included; one piece may have more.
        sequences: most pieces.
    """

    tokens: int
    sequences: int

    def holds(self, sequences: int, length: int) -> bool:
        """Whether so many pieces padded to `length` fit."""
        return sequences <= 1 or (sequences <= self.sequences and sequences * length <= self.tokens)

    def shrink_below(self, sequences: int, length: int) -> None:
        """Learn that so many pieces of `length` are too much: half of them is the most from now on."""
        self.sequences = min(self.sequences, max(1, sequences // 2))
        self.tokens = min(self.tokens, sequences // 2 * length)


def make_budget(batch_size: int | None, d_model: int, n_kept: int, device: torch.device) -> Budget:
    """A budget of `batch_size` sequences or, for None, of what memory and device bear.

    auto: half of the free memory, at (6 + n_kept) float32 numbers per token and dimension, and at most
    1,048,576 tokens, on a CPU 4,194,304 / d_model.

    Args:
        batch_size: sequences per forward pass, or None.
        d_model: width of the model.
        n_kept: layers whose states are kept, not pooled on the way.
        device: where the model runs.
    """
    if batch_size is not None:
        return Budget(tokens=1 << 62, sequences=batch_size)
    per_token = 4 * d_model * (_FLOATS_PER_TOKEN + n_kept)
    most = _MAX_NUMBERS_ON_CPU // d_model if device.type == "cpu" else _MAX_TOKENS
    return Budget(tokens=max(1, min(most, free_memory(device) // 2 // per_token)), sequences=1 << 62)


class Engine(Generic[T, Output, Answer]):
    """Runs a model over any number of pieces in constant memory.

    An answer depends on its piece alone: batches are padded on the right, and the model is causal.

    Args:
        forward: (ids_BL int64, mask_BL bool, true at real tokens) to the model's output.
        read: the output and the batch's pieces, in row order, to one answer each. It should leave no tensor
            of the output's size alive.
        budget: most that goes into one forward pass; shared, and shrunk when memory runs out.
        device: where ids and mask are put.
        lookahead: batches' worth of pieces sorted by length at a time: enough that neighbours are of like
            length, few enough that their answers can be held.
    """

    def __init__(
        self,
        forward: Callable[[Tensor, Tensor], Output],
        read: Callable[[Output, Sequence[Piece[T]]], Sequence[Answer]],
        *,
        budget: Budget,
        device: torch.device,
        lookahead: int = 8,
    ) -> None:
        self.forward, self.read, self.budget, self.device = forward, read, budget, device
        self.lookahead = lookahead

    def run(self, pieces: Iterable[Piece[T]]) -> Iterator[Answer]:
        """The answers, in the order of the pieces.

        Raises:
            UserError: one piece by itself does not fit into memory.
        """
        for chunk in self._chunks(pieces):
            yield from self._answer(chunk)

    def _chunks(self, pieces: Iterable[Piece[T]]) -> Iterator[list[Piece[T]]]:
        chunk: list[Piece[T]] = []
        tokens = 0
        for piece in pieces:
            chunk.append(piece)
            tokens += len(piece.ids)
            full = max(tokens / self.budget.tokens, len(chunk) / self.budget.sequences)
            if full >= self.lookahead:
                yield chunk
                chunk, tokens = [], 0
        yield chunk

    def _answer(self, chunk: Sequence[Piece[T]]) -> list[Answer]:
        # Longest first: if memory is short, that shows at once.
        order = sorted(range(len(chunk)), key=lambda i: -len(chunk[i].ids))
        answers: list[Answer | None] = [None] * len(chunk)
        bounds = self._bounds([len(chunk[i].ids) for i in order])
        for start, end in pairwise(bounds):
            places = order[start:end]
            for place, answer in zip(places, self._pass([chunk[i] for i in places]), strict=True):
                answers[place] = answer
        return answers  # type: ignore[return-value]

    def _bounds(self, lengths: Sequence[int]) -> Iterator[int]:
        """Where batches begin, and the end, for pieces in order of falling length."""
        start = 0
        yield start
        for i in range(len(lengths)):
            if not self.budget.holds(i + 1 - start, lengths[start]):
                start = i
                yield start
        if lengths:
            yield len(lengths)

    def _pass(self, batch: Sequence[Piece[T]]) -> Sequence[Answer]:
        try:
            return self._forward(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, where the error's frames no longer keep the tensors of the failed pass.
        longest = len(batch[0].ids)
        if len(batch) == 1:
            raise UserError(
                f"out of memory on {self.device} with one sequence of {longest:,} tokens",
                remedy="cut sequences with a smaller --window, or use a device with more memory",
            )
        self.budget.shrink_below(len(batch), longest)
        log.warning("out of memory with %d sequences of %d: going on with half", len(batch), longest)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        return [*self._pass(batch[:half]), *self._pass(batch[half:])]

    def _forward(self, batch: Sequence[Piece[T]]) -> Sequence[Answer]:
        ids_BL = np.full((len(batch), len(batch[0].ids)), PAD, dtype=np.uint8)
        for row, piece in zip(ids_BL, batch, strict=True):
            row[: len(piece.ids)] = piece.ids
        lengths_B1 = torch.tensor([[len(piece.ids)] for piece in batch], device=self.device)
        with torch.inference_mode():
            tokens_BL = torch.from_numpy(ids_BL).to(self.device).long()
            mask_BL = torch.arange(ids_BL.shape[1], device=self.device) < lengths_B1
            return self.read(self.forward(tokens_BL, mask_BL), batch)
