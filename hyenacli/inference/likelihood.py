"""Likelihood of records: how well a model predicts each base from those before it.

B batch, W bases of a window.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyenacli.inference.batching import BatchItem, Engine, make_budget
from hyenacli.inference.embedding import check_finite
from hyenacli.inference.embedding_options import EmbeddingOptions, cut
from hyenacli.readers.records import OK, SequenceRecord
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.engine.inference import BASES, token_log_probs

# The sum of log p of the bases that count, and their number.
_Sum = tuple[float, int]
_TOKENIZER = Tokenizer()
ALL_N, TOO_SHORT = "ALL_N", "TOO_SHORT"


@dataclass(frozen=True, slots=True)
class SequenceLikelihood:
    """How likely a model finds one record.

    Attributes:
        record: its status is TOO_SHORT or ALL_N where no base of it can be predicted.
        n_bases: predictions that count on a strand: of A, C, G and T with a base before them.
        log_likelihood: sum of log p over them in nats, the mean over the strands that are read; NaN if the
            record's status is not OK.
        bits_per_base: mean of -log2 p over the predictions of all strands; NaN likewise.
    """

    record: SequenceRecord
    n_bases: int
    log_likelihood: float = math.nan
    bits_per_base: float = math.nan


def score_sequences(
    model: HyenaDNA,
    records: Iterable[SequenceRecord],
    options: EmbeddingOptions,
    *,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Iterator[SequenceLikelihood]:
    """Compute the likelihood of records: one answer each, in their order.

    p is of the next base given those before it in the window, renormalised over A, C, G and T, in float32.
    The first base of a sequence has nothing before it and is not predicted; N is read, and not predicted.
    A record longer than the window is read in windows that share a base (see `cut`): each base counts once,
    from the window with the most bases before it. Flanks are read and not counted.

    Args:
        model: in eval mode, on the device to use.
        records: those whose status is not OK pass through.
        options: strands (rc "none", or any other word for both), and windows.
        batch_size: windows per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.

    Raises:
        UsageError: the model takes no such window.
        UserError: the model gave values that are not finite, or one window does not fit into memory.
    """
    width, stride = options.windows(model.config, model.longest_input)
    device = next(model.parameters()).device

    def compute(ids_BW: Tensor, _mask_BW: Tensor, batch: Sequence[BatchItem[int]]) -> list[_Sum]:
        with precision or nullcontext():
            return _sums(model, ids_BW, [item.metadata for item in batch])

    engine: Engine[int, _Sum] = Engine(
        compute, budget=make_budget(batch_size, model.config.d_model, 0, device), device=device
    )
    return _regroup(engine, records, options, width, stride)


def _sums(model: HyenaDNA, ids_BW: Tensor, first_B: Sequence[int]) -> list[_Sum]:
    """Sum log p over the bases of each window from its `first` prediction on."""
    targets_BL = ids_BW[:, 1:]
    log_p_BL = token_log_probs(model, ids_BW[:, :-1], targets_BL)
    first_B1 = torch.tensor(first_B, device=ids_BW.device)[:, None]
    position_L = torch.arange(targets_BL.shape[1], device=ids_BW.device)
    counted_BL = (targets_BL >= BASES[0]) & (targets_BL < BASES[1]) & (position_L >= first_B1)
    # sums in float64 where the device has it: a window may have a million bases
    exact = torch.float32 if ids_BW.device.type == "mps" else torch.float64
    sums_B = log_p_BL.where(counted_BL, 0).sum(1, dtype=exact)
    return list(zip(sums_B.tolist(), counted_BL.sum(1).tolist(), strict=True))


def _items(
    record: SequenceRecord, options: EmbeddingOptions, width: int, stride: int
) -> list[list[BatchItem[int]]]:
    """Cut each reading of a record into windows; an item's metadata is the first prediction that counts.

    Prediction i is made at base i, of base i + 1.
    """
    readings = []
    for reverse in options.readings(record.strand) if record.status == OK else ():
        bases, offset = record.reading(reverse=reverse)
        first, end = max(0, offset - 1), offset + len(record) - 1
        readings.append(
            [
                BatchItem(_TOKENIZER.encode_array(bases[start : stop + 1]), take - start)
                for start, stop, take, _ in cut(first, end, width, stride)
            ]
        )
    return readings


def _regroup(
    engine: Engine[int, _Sum],
    records: Iterable[SequenceRecord],
    options: EmbeddingOptions,
    width: int,
    stride: int,
) -> Iterator[SequenceLikelihood]:
    """Request the windows of every record, and join the answers in the order of the records."""
    waiting: deque[tuple[SequenceRecord, list[int]]] = deque()
    answers: deque[_Sum] = deque()

    def items() -> Iterator[BatchItem[int]]:
        for record in records:
            readings = _items(record, options, width, stride)
            # Without its bases: an input of short records may have many waiting.
            waiting.append((replace(record, bases=b""), [len(windows) for windows in readings]))
            for windows in readings:
                yield from windows

    def finished() -> Iterator[SequenceLikelihood]:
        while waiting and len(answers) >= sum(waiting[0][1]):
            record, counts = waiting.popleft()
            strands = [[answers.popleft() for _ in range(count)] for count in counts]
            yield _join(record, strands)

    for answer in engine.run(items()):
        answers.append(answer)
        yield from finished()
    yield from finished()


def _join(record: SequenceRecord, strands: Sequence[Sequence[_Sum]]) -> SequenceLikelihood:
    """Combine the windows of all strands of a record."""
    if record.status != OK:
        return SequenceLikelihood(record, 0)
    log_p = math.fsum(value for strand in strands for value, _ in strand)
    counts = [sum(count for _, count in strand) for strand in strands]
    if not sum(counts):
        too_short = len(record) < 2
        problem = "the only base has none before it" if too_short else "no base but N can be predicted"
        status = TOO_SHORT if too_short else ALL_N
        return SequenceLikelihood(replace(record, status=status, problem=problem), 0)
    check_finite(np.array(log_p), record)
    bits = -log_p / math.log(2) / sum(counts)
    return SequenceLikelihood(record, max(counts), log_p / len(strands), bits)
