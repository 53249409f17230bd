"""Which species a contig comes from: a head on each of its windows, pooled.

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
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.prediction import predict_by
from hyenacli.inference.windows import cut
from hyenacli.readers.fasta_blocks import read_blocks
from hyenacli.readers.records import EMPTY, OK, SequenceRecord
from hyenacli.readers.shards import Shard, survey_fasta
from hyenadna import HyenaDNA
from hyenadna.config import HeadConfig

TOO_SHORT, N_CONTENT = "TOO_SHORT", "N_CONTENT"
Floats = NDArray[np.float64]
Span = tuple[int, int]
# Bytes of contigs without windows that may wait for the answers of those before them; each takes some more.
_MAX_IDLE, _OVERHEAD = 1 << 24, 1 << 10


@dataclass(frozen=True, slots=True)
class Contig:
    """One record of a FASTA.

    Attributes:
        name: the header up to its first blank; records may share one.
        bases: upper-case A C G T N; may be empty.
        text: the record as it stands in the file, where it is kept.
    """

    name: str
    bases: bytes
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class Classified:
    """What a model says of one contig.

    Attributes:
        contig: the record.
        status: OK, or why nothing is said: EMPTY, TOO_SHORT or N_CONTENT.
        windows: those that were read, 0-based half-open, in order; none where the status is not OK.
        n_bases: bases of the windows, each counted once.
        p: of each species (S,); None where the status is not OK.
        window_p: of each species in each window by itself (W, S).
    """

    contig: Contig
    status: str
    windows: Sequence[Span] = ()
    n_bases: int = 0
    p: Floats | None = None
    window_p: Floats | None = None


def open_contigs(
    stream: io.BufferedReader, source: Path, shard: Shard | None = None, *, keep_text: bool = False
) -> tuple[Iterator[Contig], dict[str, Any]]:
    """The contigs of a FASTA, and what the output says where they are a shard's, under "shard".

    Args:
        stream: the FASTA.
        source: the same as a path, to count its records where there is a shard.
        shard: the part to take.
        keep_text: whether records keep their text.

    Raises:
        UsageError: as `survey_fasta`.
        UserError: it does not begin as FASTA does, or the first record cannot be read; what follows shows
            when it is read.
    """
    contigs = _read_contigs(stream, keep_text=keep_text)
    if shard is None:
        return chain([next(contigs)], contigs), {}
    count, sha256 = survey_fasta(source)
    part = shard.part(count)
    return islice(contigs, part.start, part.stop), shard.describe(count, sha256)


def _read_contigs(stream: io.BufferedReader, *, keep_text: bool) -> Iterator[Contig]:
    start = stream.peek(1).find(b">")
    for block in read_blocks(stream):
        # What a block leaves out is the header's line end: its size tells LF, CRLF and the end of the file.
        size = block.offset - start - len(b">" + block.header) if start >= 0 else 1
        line_end = b"\n".rjust(size, b"\r")[:size]
        text = b">%b%b%b" % (block.header, line_end, block.body) if keep_text else b""
        start = block.offset + len(block.body)
        yield Contig(block.title()[0], block.sequence(), text)


def species_head(model: HyenaDNA, name: object = None) -> HeadConfig:
    """The head of a model that messages call `name`, whose outputs are species.

    Raises:
        UserError: there is none, or its outputs are no named classes of whole sequences.
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
    contigs: Iterable[Contig],
    recipe: EmbeddingOptions,
    *,
    min_length: int,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[Classified]:
    """Say of each contig how probable each species is, in the order of the contigs.

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
        recipe: from `prediction_options`: strands and windows.
        min_length: bases below which a contig is TOO_SHORT.
        batch_size: windows per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.
        on_progress: called with the bases of each window when its answer is there.

    Raises:
        UsageError: the model takes no such window, or the stride leaves gaps.
        UserError: the model gave values that are not finite, or one window does not fit into memory.
    """
    head = species_head(model)
    width, stride = recipe.windows(model.config, model.longest_input)
    on_progress = on_progress or (lambda _bases: None)

    def numbered() -> Iterator[tuple[int, _UnderWay]]:
        idle = 0
        for contig in contigs:
            one = _cut(contig, width, stride, min_length)
            idle += 0 if one.windows else len(contig.bases) + len(contig.text) + _OVERHEAD
            yield idle // _MAX_IDLE, one

    def answer() -> Iterator[Classified]:
        # A contig without windows waits for those before it, and these wait for their batch to be full: with
        # many of the former in a row, the pass is ended, which completes the batch.
        for _, group in groupby(numbered(), key=itemgetter(0)):
            under_way: deque[_UnderWay] = deque()
            windows = _stretches((one for _, one in group), under_way)
            for predicted in predict_by(model, windows, recipe, batch_size=batch_size, precision=precision):
                yield from _finished(under_way, head)
                assert predicted.logits is not None  # noqa: S101  (every window has bases)
                under_way[0].logits.append(predicted.logits)
                on_progress(len(predicted.stretch))
            yield from _finished(under_way, head)

    return answer()


@dataclass(slots=True)
class _UnderWay:
    """A contig, its windows, and the outputs (C,) for the first of them, as far as they are there."""

    contig: Contig
    status: str
    windows: list[Span]
    logits: list[Floats] = field(default_factory=list)


def _cut(contig: Contig, width: int, stride: int, min_length: int) -> _UnderWay:
    length = len(contig.bases)
    if length < min_length:
        return _UnderWay(contig, TOO_SHORT if length else EMPTY, [])
    windows = [
        (start, end)
        for start, end, _, _ in cut(0, length, width, stride)
        if 2 * contig.bases.count(b"N", start, end) <= end - start
    ]
    return _UnderWay(contig, OK if windows else N_CONTENT, windows)


def _stretches(contigs: Iterable[_UnderWay], under_way: deque[_UnderWay]) -> Iterator[SequenceRecord]:
    """The windows of contigs, each of which is put under way before its first window."""
    for one in contigs:
        under_way.append(one)
        name, bases = one.contig.name, one.contig.bases
        for start, end in one.windows:
            yield SequenceRecord(name, name, start, end, bases=bases[start:end])


def _finished(under_way: deque[_UnderWay], head: HeadConfig) -> Iterator[Classified]:
    while under_way and len(under_way[0].logits) == len(under_way[0].windows):
        yield _pooled(under_way.popleft(), head)


def _pooled(one: _UnderWay, head: HeadConfig) -> Classified:
    if not one.windows:
        return Classified(one.contig, one.status)
    logits_WC = np.stack(one.logits)
    n_bases, logits_C = pool(one.windows, logits_WC)
    p_S = probabilities(head.task, logits_C)
    return Classified(one.contig, OK, one.windows, n_bases, p_S, window_p=probabilities(head.task, logits_WC))


def pool(windows: Sequence[Span], logits_WC: Floats) -> tuple[int, Floats]:
    """Bases of windows, each counted once, and their outputs pooled (C,): weighted by a window's new bases.

    >>> pool([(0, 4), (2, 6)], np.array([[3.0], [0.0]]))
    (6, array([2.]))
    """
    starts_W, ends_W = np.array(windows).T
    seen_W = np.concatenate([[0], ends_W[:-1]])
    new_W = ends_W - np.maximum(starts_W, seen_W)
    n_bases = int(new_W.sum())
    return n_bases, new_W @ logits_WC / n_bases
