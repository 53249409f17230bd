"""The inference engine: token sequences in padded batches, answers in input order; counts of a run.

B batch, L longest item of the batch. Items carry no key: the answers come in the order of the items, so a
caller that cuts records into items joins the answers again by counting.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli import console
from hyenacli.console import log
from hyenacli.devices import free_memory, is_out_of_memory
from hyenacli.errors import UsageError, UserError, check_range
from hyenacli.readers.records import TOO_LONG, SequenceRecord
from hyenadna.tokenizer import PAD

Metadata = TypeVar("Metadata")
Answer = TypeVar("Answer")

# Larger batches are not faster: the model works on slices of a batch anyway.
_MAX_TOKENS = 1 << 20
_MAX_NUMBERS_ON_CPU = 1 << 22
# float32 numbers a pass holds per token and dimension: residual stream, gated values, and room for the slices
# it works on.
_FLOATS_PER_TOKEN = 6


@dataclass(frozen=True, slots=True)
class BatchItem(Generic[Metadata]):
    """One input of the model.

    Attributes:
        ids: token ids, shape (length,).
        metadata: passed on to the function that computes the answer.
    """

    ids: NDArray[np.integer[Any]]
    metadata: Metadata


def parse_batch_size(text: str, flag: str = "--batch-size") -> int | None:
    """Parse --batch-size: a number of sequences, or None for auto.

    Raises:
        UsageError: it is neither.
    """
    if text == "auto":
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(f"unknown batch size '{text}'", at=flag, remedy="use auto or a number from 1 on")


@dataclass
class Budget:
    """Limits of one forward pass, which shrink when memory runs out.

    Attributes:
        tokens: most tokens, padding included; a single sequence may have more.
        sequences: most sequences.
    """

    tokens: int
    sequences: int

    def holds(self, sequences: int, length: int) -> bool:
        """Return whether so many sequences padded to `length` fit."""
        return sequences <= 1 or (sequences <= self.sequences and sequences * length <= self.tokens)

    def shrink_below(self, sequences: int, length: int) -> None:
        """Allow at most half of so many sequences of `length`, which were too many."""
        self.sequences = min(self.sequences, max(1, sequences // 2))
        self.tokens = min(self.tokens, sequences // 2 * length)


def make_budget(batch_size: int | None, d_model: int, n_kept: int, device: torch.device) -> Budget:
    """Return a budget of `batch_size` sequences or, for None, of as many as fit in device memory.

    These fill half of the free memory, at (6 + n_kept) float32 numbers per token and dimension, and have at
    most 1,048,576 tokens, on a CPU 4,194,304 / d_model.

    Args:
        batch_size: sequences per forward pass, or None.
        d_model: width of the model.
        n_kept: layers whose states are kept, not pooled on the way.
        device: where the model runs.

    Raises:
        UsageError: the batch size is below 1.
    """
    check_range("--batch-size", batch_size, 1)
    if batch_size is not None:
        return Budget(tokens=1 << 62, sequences=batch_size)
    per_token = 4 * d_model * (_FLOATS_PER_TOKEN + n_kept)
    limit = _MAX_NUMBERS_ON_CPU // d_model if device.type == "cpu" else _MAX_TOKENS
    return Budget(tokens=max(1, min(limit, free_memory(device) // 2 // per_token)), sequences=1 << 62)


class Engine(Generic[Metadata, Answer]):
    """Runs a model over any number of token sequences in constant memory.

    An answer depends on its item alone: batches are padded on the right, and the model is causal.

    Args:
        compute: (ids_BL int64, mask_BL bool, true at real tokens, the items in row order) to one answer per
            item. It should leave no tensor of the size of the model's output alive.
        budget: limits of one forward pass, which shrink when memory runs out.
        device: where ids and mask are put.
        lookahead: batches' worth of items sorted by length at a time: enough that neighbours are of similar
            length, few enough that their answers fit into memory.
    """

    def __init__(
        self,
        compute: Callable[[Tensor, Tensor, Sequence[BatchItem[Metadata]]], Sequence[Answer]],
        *,
        budget: Budget,
        device: torch.device,
        lookahead: int = 8,
    ) -> None:
        self.compute, self.budget, self.device, self.lookahead = compute, budget, device, lookahead

    def run(self, items: Iterable[BatchItem[Metadata]]) -> Iterator[Answer]:
        """Compute the answers, in the order of the items.

        Raises:
            UserError: a single item does not fit into memory.
        """
        for chunk in self._chunks(items):
            yield from self._answer(chunk)

    def _chunks(self, items: Iterable[BatchItem[Metadata]]) -> Iterator[list[BatchItem[Metadata]]]:
        chunk: list[BatchItem[Metadata]] = []
        tokens = 0
        for item in items:
            chunk.append(item)
            tokens += len(item.ids)
            full = max(tokens / self.budget.tokens, len(chunk) / self.budget.sequences)
            if full >= self.lookahead:
                yield chunk
                chunk, tokens = [], 0
        yield chunk

    def _answer(self, chunk: Sequence[BatchItem[Metadata]]) -> list[Answer]:
        # Longest first: if memory is short, that shows at once.
        order = sorted(range(len(chunk)), key=lambda i: -len(chunk[i].ids))
        answers: list[Answer | None] = [None] * len(chunk)
        bounds = self._bounds([len(chunk[i].ids) for i in order])
        for start, end in pairwise(bounds):
            indices = order[start:end]
            for i, answer in zip(indices, self._pass([chunk[i] for i in indices]), strict=True):
                answers[i] = answer
        return answers  # type: ignore[return-value]

    def _bounds(self, lengths: Sequence[int]) -> Iterator[int]:
        """Yield where batches begin, and the end, for items in order of falling length."""
        start = 0
        yield start
        for i in range(len(lengths)):
            if not self.budget.holds(i + 1 - start, lengths[start]):
                start = i
                yield start
        if lengths:
            yield len(lengths)

    def _pass(self, batch: Sequence[BatchItem[Metadata]]) -> Sequence[Answer]:
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

    def _forward(self, batch: Sequence[BatchItem[Metadata]]) -> Sequence[Answer]:
        ids_BL = np.full((len(batch), len(batch[0].ids)), PAD, dtype=np.uint8)
        for row, item in zip(ids_BL, batch, strict=True):
            row[: len(item.ids)] = item.ids
        lengths_B1 = torch.tensor([[len(item.ids)] for item in batch], device=self.device)
        with torch.inference_mode():
            tokens_BL = torch.from_numpy(ids_BL).to(self.device).long()
            mask_BL = torch.arange(ids_BL.shape[1], device=self.device) < lengths_B1
            return self.compute(tokens_BL, mask_BL, batch)


class RecordAnswer(Protocol):
    """What a model says of a record."""

    @property
    def record(self) -> SequenceRecord:
        """Return the record."""

    @property
    def n_bases(self) -> int:
        """Return the bases that were read for it, 0 for none."""


OfRecord = TypeVar("OfRecord", bound=RecordAnswer)


class RunSummary:
    """Counts of records by status, and of bases.

    Args:
        verb: of the command, as embed.
        doing: shown beside the bar, as embedding.
        done: begins the last line, as embedded.
        unit: what a record is called.
        too_long: what to do about records that are too long for the verb.
    """

    def __init__(self, verb: str, doing: str, done: str, unit: str = "record", too_long: str = "") -> None:
        self.verb, self.doing, self.done, self.unit = verb, doing, done, unit
        self.statuses: Counter[str] = Counter()
        self._too_long, self._first_too_long = too_long, ""
        self.bases = 0
        self.start = time.monotonic()

    def watch(self, answers: Iterable[OfRecord], total: int | None) -> Iterator[OfRecord]:
        """Pass answers on, count them and show the progress.

        Args:
            answers: one per record.
            total: number of records, if it is known.
        """
        with console.Progress(self.doing, total, f"{self.unit}s") as progress:
            for records, answer in enumerate(answers, 1):
                yield answer
                self.statuses[answer.record.status] += 1
                if answer.record.status == TOO_LONG and not self._first_too_long:
                    self._first_too_long = f"{answer.record.id}: {answer.record.problem}"
                self.bases += len(answer.record) if answer.n_bases else 0
                speed = self.bases / max(1e-9, time.monotonic() - self.start)
                progress.update(records, f"{speed:,.0f} bases/s")

    def report(self, destination: str, details: str = "", **facts: Any) -> None:
        """Log how many records are done, and how many are not, by status.

        Args:
            destination: where the output is, as "to peaks.tsv".
            details: of those that are done.
            facts: what else the event says.
        """
        seconds = time.monotonic() - self.start
        if self._first_too_long:
            log.warning("TOO_LONG, the first as %s; %s", self._first_too_long, self._too_long)
        done, not_done = self.statuses["OK"], self.statuses - Counter(OK=self.statuses["OK"])
        failed = "".join(f", {count:,} {status}" for status, count in not_done.most_common())
        counts = f"{console.counted(done, self.unit)}{details}{failed}: {console.counted(self.bases, 'base')}"
        log.info("%s %s in %.1f s, %s", self.done, counts, seconds, destination)
        counted: dict[str, Any] = {f"{self.unit}s": done, "failed": dict(not_done), "bases": self.bases}
        console.event(self.verb, **counted, **facts, seconds=round(seconds, 3))
