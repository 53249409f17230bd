"""The species of a contig: the outputs of a head on each of its windows, pooled.

C outputs of the head, S species, W windows of a contig.
"""

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError
from hyenacli.evaluation.calibration import probabilities
from hyenacli.inference.embedding_options import EmbeddingOptions, cut
from hyenacli.inference.prediction import predict
from hyenacli.readers.records import EMPTY, OK, SequenceRecord
from hyenacli.readers.sequences import FastaRecord, read_fasta
from hyenacli.readers.shards import Shard, survey_fasta
from hyenadna import HyenaDNA
from hyenadna.config import HeadConfig

TOO_SHORT, N_CONTENT = "TOO_SHORT", "N_CONTENT"
Floats = NDArray[np.float64]
Span = tuple[int, int]
_OVERHEAD = 1 << 10  # bytes of a contig beside its sequence


@dataclass(frozen=True, slots=True)
class Classified:
    """The prediction for one contig.

    Attributes:
        status: OK, or the reason for no prediction: EMPTY, TOO_SHORT or N_CONTENT.
        windows: the windows that were read, 0-based half-open, in order; none unless the status is OK.
        n_bases: bases of the windows, each counted once.
        p: probabilities of the species (S,); None unless the status is OK.
        window_p: probabilities of the species in each window by itself (W, S).
    """

    contig: FastaRecord
    status: str
    windows: Sequence[Span] = ()
    n_bases: int = 0
    p: Floats | None = None
    window_p: Floats | None = None


def open_contigs(
    stream: io.BufferedReader, source: Path, shard: Shard | None = None, *, keep_text: bool = False
) -> tuple[Iterator[FastaRecord], dict[str, Any]]:
    """Open the contigs of a FASTA; return them, and the facts of a shard, under "shard", for the output.

    Args:
        stream: the FASTA.
        source: its path, to count the records of a shard.
        shard: the part to read.
        keep_text: whether records keep their text.

    Raises:
        UsageError: as `survey_fasta`.
        UserError: the file does not begin like FASTA, or the first record cannot be read; errors of later
            records are raised when they are read.
    """
    contigs = read_fasta(stream, keep_text=keep_text)
    if shard is None:
        return chain([next(contigs)], contigs), {}
    count, sha256 = survey_fasta(source)
    part = shard.part(count)
    return islice(contigs, part.start, part.stop), shard.describe(count, sha256)


def species_head(model: HyenaDNA, name: object = None) -> HeadConfig:
    """Return the head of a model, whose outputs are species.

    Args:
        model: the model.
        name: its name in messages.

    Raises:
        UserError: it has no head, or the head's outputs are not named classes of whole sequences.
    """
    head = model.config.head
    classes = ("binary", "multiclass")
    if head is not None and head.task in classes and head.level == "sequence" and head.labels:
        return head
    if head is None:
        what = "the model has no head, so it knows no species"
    elif head.level != "sequence":
        what = "the model predicts each base by itself, and no species"
    elif head.task not in classes:
        what = f"the model's head is for {head.task}, and not for one of several species"
    else:
        what = f"the {head.n_outputs} classes of the model have no names, so they are no species"
    raise UserError(what, at=name, remedy="train one with `hyena classify-species train`")


def classify(
    model: HyenaDNA,
    contigs: Iterable[FastaRecord],
    options: EmbeddingOptions,
    *,
    min_length: int,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
    on_progress: Callable[[int], None] | None = None,
    max_idle_bytes: int = 1 << 24,
) -> Iterator[Classified]:
    """Predict the species of contigs, in their order.

    A contig is cut into windows as by `windows.cut`: they cover every base, and the last one is moved back to
    the end. Windows that are more than half N are left out. A contig's log-probabilities are the mean of
    those of its windows, each weighted by its bases that no window before it has read, normalised again. As
    logits and log-probabilities differ by a constant for each window, this is the softmax of the mean of the
    logits; with both strands, each window's logits are the mean of both.

    Memory holds the contigs of a few batches. A result does not depend on the contigs around it, or on the
    size of batches, but for rounding.

    Args:
        model: with a head as of `species_head`, in eval mode, on the device to use.
        contigs: the records.
        options: from `prediction_options`: strands and windows.
        min_length: bases below which a contig is TOO_SHORT.
        batch_size: windows per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.
        on_progress: called with the bases of each window after its prediction.
        max_idle_bytes: size of the contigs without windows that may wait for the predictions before them.

    Raises:
        UsageError: the model takes no such window, or the stride leaves gaps.
        UserError: the model gave values that are not finite, or one window does not fit into memory.
    """
    head = species_head(model)
    width, stride = options.windows(model.config, model.longest_input)
    on_progress = on_progress or (lambda _bases: None)

    def numbered() -> Iterator[tuple[int, _Pending]]:
        idle = 0
        for contig in contigs:
            pending = _cut(contig, width, stride, min_length)
            idle += 0 if pending.windows else len(contig.sequence) + len(contig.text) + _OVERHEAD
            yield idle // max_idle_bytes, pending

    def predictions() -> Iterator[Classified]:
        # A contig without windows waits for the contigs before it, and these for their batch to be full. The
        # end of a group ends the pass, which completes the batch, after many contigs without windows.
        for _, group in groupby(numbered(), key=itemgetter(0)):
            queue: deque[_Pending] = deque()
            windows = _windows((pending for _, pending in group), queue)
            for predicted in predict(model, windows, options, batch_size=batch_size, precision=precision):
                yield from _finished(queue, head)
                assert predicted.logits is not None  # noqa: S101  (every window has bases)
                queue[0].logits.append(predicted.logits)
                on_progress(len(predicted.record))
            yield from _finished(queue, head)

    return predictions()


@dataclass(slots=True)
class _Pending:
    """A contig, its windows, and the outputs (C,) for the first of them, as far as they are computed."""

    contig: FastaRecord
    status: str
    windows: list[Span]
    logits: list[Floats] = field(default_factory=list)


def _cut(contig: FastaRecord, width: int, stride: int, min_length: int) -> _Pending:
    length = len(contig.sequence)
    if length < min_length:
        return _Pending(contig, TOO_SHORT if length else EMPTY, [])
    windows = [
        (start, end)
        for start, end, _, _ in cut(0, length, width, stride)
        if 2 * contig.sequence.count(b"N", start, end) <= end - start
    ]
    return _Pending(contig, OK if windows else N_CONTENT, windows)


def _windows(contigs: Iterable[_Pending], queue: deque[_Pending]) -> Iterator[SequenceRecord]:
    """Yield the windows of contigs; each contig joins the queue before its first window."""
    for pending in contigs:
        queue.append(pending)
        name, bases = pending.contig.name, pending.contig.sequence
        for start, end in pending.windows:
            yield SequenceRecord(name, name, start, end, bases=bases[start:end])


def _finished(queue: deque[_Pending], head: HeadConfig) -> Iterator[Classified]:
    while queue and len(queue[0].logits) == len(queue[0].windows):
        yield _pooled(queue.popleft(), head)


def _pooled(pending: _Pending, head: HeadConfig) -> Classified:
    if not pending.windows:
        return Classified(pending.contig, pending.status)
    logits_WC = np.stack(pending.logits)
    n_bases, logits_C = pool(pending.windows, logits_WC)
    p_S, p_WS = probabilities(head.task, logits_C), probabilities(head.task, logits_WC)
    return Classified(pending.contig, OK, pending.windows, n_bases, p_S, p_WS)


def pool(windows: Sequence[Span], logits_WC: Floats) -> tuple[int, Floats]:
    """Return the bases of windows, each counted once, and the mean outputs (C,), weighted by new bases.

    >>> pool([(0, 4), (2, 6)], np.array([[3.0], [0.0]]))
    (6, array([2.]))
    """
    starts_W, ends_W = np.array(windows).T
    previous_W = np.concatenate([[0], ends_W[:-1]])
    new_W = ends_W - np.maximum(starts_W, previous_W)
    n_bases = int(new_W.sum())
    return n_bases, new_W @ logits_WC / n_bases
