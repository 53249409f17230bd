"""Predictions of sequences and regions, a head on their embeddings, and the rows that show them in a table.

C outputs of the head, V values shown of them, L bases, N rows of a record (1, or L).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.console import log
from hyenacli.errors import UsageError, UserError, abbreviate, nearest
from hyenacli.evaluation.calibration import probabilities
from hyenacli.inference.embedding import RECORD_COLUMNS, Embedded, embed, record_rows
from hyenacli.inference.embedding_options import EmbeddingOptions, Pooling, even_windows
from hyenacli.inference.in_context import answer_in_context
from hyenacli.readers.records import OK, SequenceRecord
from hyenacli.writers.columns import Batch, Column
from hyenadna import HyenaDNA
from hyenadna.config import HeadConfig

N_CONTENT = "N_CONTENT"


@dataclass(frozen=True, slots=True)
class Predicted:
    """The prediction for one input record.

    Attributes:
        n_bases: bases pooled into a prediction; 0 if there is none.
        logits: (C,) float64, or (L, C) of every base in the order of the + strand at level "nucleotide"; the
            numbers themselves of a regression; None if the record's status is not OK.
        windows: those whose outputs were averaged, in the record, 0-based half-open; of a circle, they may
            end beyond its length.
        window_logits: of each window by itself (W, C).
    """

    record: SequenceRecord
    n_bases: int
    logits: NDArray[np.float64] | None
    windows: Sequence[tuple[int, int]] = ()
    window_logits: NDArray[np.float64] | None = None


def prediction_head(model: HyenaDNA, name: object = None) -> HeadConfig:
    """Return the head of a model, or the equivalent of its demonstrations.

    Args:
        model: the model.
        name: what messages call it.

    Raises:
        UserError: it has neither.
    """
    if model.config.demonstrations is not None:
        return model.config.demonstrations.head
    if model.config.head is None:
        remedy = "fine-tune one with `hyena finetune`"
        raise UserError("the model has no head to predict with", at=name, remedy=remedy)
    return model.config.head


def prediction_options(
    head: HeadConfig,
    *,
    rc: bool,
    stranded: bool = False,
    window: int | None = None,
    stride: int | None = None,
) -> EmbeddingOptions:
    """Return the options with which a head predicts.

    Args:
        head: sets the pooling.
        rc: read the reverse complement too, and average.
        stranded: read regions on the - strand as reverse complement.
        window: most bases the model reads at once; None is the head's window, or what the model takes.
        stride: bases from one window's start to the next; None is the window.

    >>> prediction_options(HeadConfig("binary", 2, pool="max"), rc=True).pooling
    Pooling(kind='max', size=0)
    """
    return EmbeddingOptions(
        pooling=Pooling(head.pool if head.level == "sequence" else "none"),
        rc="mean" if rc else "none",
        stranded=stranded,
        window=head.window if window is None else window,
        stride=stride,
        average=head.average_windows,
    )


def readable_records(
    records: Iterable[SequenceRecord], options: EmbeddingOptions
) -> Iterator[SequenceRecord]:
    """Mark records that have nothing but N, and warn once if the strand of regions makes a difference.

    A model answers for a sequence of N, but the answer means nothing.
    """
    strand_matters = not options.stranded and options.rc != "mean"
    for record in records:
        if record.strand == "-" and strand_matters:
            log.warning("regions on the - strand are read as on the + strand; --stranded reads their own")
            strand_matters = False
        region = record.bases[record.left : record.left + len(record)]
        all_n = record.status == "OK" and not region.strip(b"N")
        yield replace(record, status="ALL_N", bases=b"") if all_n else record


def predict(
    model: HyenaDNA,
    records: Iterable[SequenceRecord],
    options: EmbeddingOptions,
    *,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Iterator[Predicted]:
    """Apply a model's head to records: one answer each, in their order.

    A record longer than the window is read in windows and pooled by bases as `embed` does it. The head is
    affine, so that it may follow the mean over strands: the prediction is the mean of those of both. With
    `options.average` the prediction is instead the mean of those of its windows (see `even_windows`), without
    windows that are more than half N; a record with no others has the status N_CONTENT. The answer is the
    same for the reverse complement where both strands are read. A model with demonstrations instead of a head
    answers as `answer_in_context`.

    Args:
        model: with a head or demonstrations, in eval mode, on the device to use.
        records: those whose status is not OK pass through.
        options: from `prediction_options`.
        batch_size: sequences per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.

    Raises:
        UserError: the model has nothing to predict with; and as `embed` and `answer_in_context`.
    """
    if model.config.demonstrations is not None:
        answers = answer_in_context(model, records, options, batch_size=batch_size, precision=precision)
        return (Predicted(*answer) for answer in answers)
    prediction_head(model)
    if options.average:
        how = {"batch_size": batch_size, "precision": precision}
        return _averaged(model, records, options, **how)
    assert model.head is not None  # noqa: S101  (internal invariant)
    # In float64, which no autocast touches and some devices do not have.
    head = deepcopy(model.head).cpu().double()

    def project(states: Tensor) -> Tensor:
        return head.project(states.cpu().double())

    embedded = embed(model, records, options, batch_size=batch_size, precision=precision, project=project)
    return (_predicted(answer, options, project) for answer in embedded)


def _predicted(answer: Embedded, options: EmbeddingOptions, project: Callable[[Tensor], Tensor]) -> Predicted:
    if answer.vectors is None:
        return Predicted(answer.record, 0, None)
    outputs_NC = answer.vectors[:, 0].astype(np.float64)
    if options.pooling.per_base:
        return Predicted(answer.record, answer.n_bases, outputs_NC)
    with torch.inference_mode():
        logits_C = project(torch.from_numpy(outputs_NC[0])).numpy()
    return Predicted(answer.record, answer.n_bases, logits_C)


def value_names(head: HeadConfig) -> tuple[str, ...]:
    """Return the names of the values shown of a head: its classes or labels, or else their numbers.

    A binary head may have one output, which is that of the second class.

    >>> value_names(HeadConfig("binary", 1)), value_names(HeadConfig("binary", 1, ("tumour",)))
    (('0', '1'), ('not_tumour', 'tumour'))
    """
    names = head.labels
    if head.task == "binary" and head.n_outputs == 1:
        names = (f"not_{names[0]}", names[0]) if names else ("0", "1")
    count = max(len(names), head.n_outputs)
    return names if len(set(names)) == count else tuple(map(str, range(count)))


def prediction_columns(head: HeadConfig, extra: Sequence[str] = ()) -> list[Column]:
    """Return the columns of predictions: the record's, `extra` ones, the likeliest class, and each value.

    >>> [column.name for column in prediction_columns(HeadConfig("binary", 2, ("no", "yes")))[7:]]
    ['prediction', 'p_no', 'p_yes']
    >>> prediction_columns(HeadConfig("regression", 1, ("expression",)))[7].name
    'prediction'
    """
    likeliest = [Column("prediction", str)] if head.task in ("binary", "multiclass") else []
    texts = [Column(name, str) for name in extra]
    return [
        *RECORD_COLUMNS,
        *texts,
        *likeliest,
        *(Column(name, float, digits=7) for name in value_titles(head)),
    ]


def value_titles(head: HeadConfig) -> list[str]:
    """Return the names of the columns with the values of a head."""
    names = value_names(head)
    if head.task != "regression":
        return [f"p_{name}" for name in names]
    return ["prediction"] if len(names) == 1 else [f"prediction_{name}" for name in names]


def prediction_rows(predicted: Predicted, head: HeadConfig) -> Batch:
    """Return the rows of one record: one, or one per base (with its start and end) at level "nucleotide"."""
    titles = value_titles(head)
    if predicted.logits is None:
        values_NV, likeliest = np.full((1, len(titles)), np.nan), [""]
    else:
        values_NV = head_values(predicted.logits, head)
        names = value_names(head)
        likeliest = [names[i] for i in values_NV.argmax(axis=1).tolist()]
    rows = record_rows(predicted.record, predicted.n_bases, len(values_NV))
    if head.task in ("binary", "multiclass"):
        rows["prediction"] = likeliest
    return rows | {title: values_NV[:, i] for i, title in enumerate(titles)}


def head_values(logits: NDArray[np.float64], head: HeadConfig) -> NDArray[np.float64]:
    """Compute the values (N, V) of outputs (C,) or (L, C): probabilities, or the numbers of a regression."""
    return probabilities(head.task, np.atleast_2d(logits))


def choose_track(head: HeadConfig, name: str | None) -> int:
    """Return the index of the value of a head that a bedGraph shows.

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
            problem = f"the model has no output '{name}'"
            raise UsageError(problem, at="--track", remedy=nearest(name, list(names)))
        return names.index(name)
    if head.task == "binary":
        return 1
    if len(names) > 1:
        problem = f"a bedGraph shows one of the model's {len(names)} outputs"
        raise UsageError(problem, remedy=f"name it with --track: {abbreviate(names, 12)}")
    return 0


def _averaged(
    model: HyenaDNA, records: Iterable[SequenceRecord], options: EmbeddingOptions, **how: Any
) -> Iterator[Predicted]:
    """Predict the windows of records without flanks, and average their outputs."""
    width, stride = options.windows(model.config, model.longest_input)
    waiting: deque[tuple[SequenceRecord, list[tuple[int, int]], list[NDArray[np.float64]]]] = deque()

    def windows() -> Iterator[SequenceRecord]:
        for record in records:
            spans, bases = [], record.bases
            if record.status == OK:
                bases *= 1 + record.circular
                spans = even_windows(len(record), width, stride, circular=record.circular)
                spans = [span for span in spans if 2 * bases.count(b"N", *span) <= span[1] - span[0]]
            lacking = record.status == OK and not spans
            waiting.append((replace(record, status=N_CONTENT) if lacking else record, spans, []))
            for start, end in spans:
                span = record.start + start, record.start + end
                yield replace(record, start=span[0], end=span[1], bases=bases[start:end])

    def finished() -> Iterator[Predicted]:
        while waiting and len(waiting[0][2]) == len(waiting[0][1]):
            record, spans, logits = waiting.popleft()
            if not spans:
                yield Predicted(replace(record, bases=b""), 0, None)
                continue
            logits_WC = np.stack(logits)
            yield Predicted(record, _covered(spans, len(record)), logits_WC.mean(axis=0), spans, logits_WC)

    for answer in predict(model, windows(), replace(options, average=False), **how):
        yield from finished()
        assert answer.logits is not None  # noqa: S101  (every window has bases)
        waiting[0][2].append(answer.logits)
    yield from finished()


def _covered(spans: Sequence[tuple[int, int]], length: int) -> int:
    """Count the bases of windows, each once; an end beyond the length goes on at the start."""
    covered, previous = 0, 0
    split = [(start, min(end, length)) for start, end in spans]
    for start, end in sorted(split + [(0, end - length) for _, end in spans if end > length]):
        covered += max(0, end - max(start, previous))
        previous = max(previous, end)
    return covered
