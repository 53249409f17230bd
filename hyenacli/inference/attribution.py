"""Attributions: what each base of a sequence adds to a score of a model.

B batch, L bases, D width, 4 the bases A, C, G and T.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hyenacli.evaluation.seqlets import shuffle_dinucleotides
from hyenacli.inference.attribution_targets import (
    Floats,
    Score,
    Target,
    mean_of_strands,
    one_hot,
)
from hyenacli.inference.batching import BatchItem, Engine, make_budget
from hyenacli.inference.embedding import check_finite
from hyenacli.readers.records import OK, SequenceRecord, refuse_longer
from hyenadna import Tokenizer
from hyenadna.engine.inference import BASES
from hyenadna.engine.training import run as run_with_gradients

# States of a layer that its gradient keeps, in numbers per token and dimension: both halves of a block, the
# three projections, and the inner width of the MLP.
_KEPT_PER_LAYER = 12
# Points on the path from a shuffled sequence, and their weights in its integral (Gauss-Legendre).
_SHARES, _WEIGHTS = (
    (points / 2).tolist() for points in np.polynomial.legendre.leggauss(8) + np.array([[1.0], [0.0]])
)
_TOKENIZER = Tokenizer()


@dataclass(frozen=True)
class AttributionOptions:
    """How scores are attributed.

    Attributes:
        method: ism (each substitution through the model), gradient (input x gradient) or integrated
            (gradients along the paths from shuffled sequences).
        max_length: longest record, in bases.
        references: shuffled sequences of a record that integrated gradients start from.
        null: shuffled sequences of a record that are attributed as well, to tell what chance gives.
        seed: of the shuffled sequences.
    """

    method: str = "ism"
    max_length: int = 2000
    references: int = 20
    null: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Attribution:
    """The attributions of one record.

    Attributes:
        record: its status is TOO_LONG where it is longer than the options allow, or than the window of a
            gradient or of a likelihood.
        target: class, label or output that is attributed, or likelihood.
        score: the number that is attributed.
        values_4L: change of the score by each base at each position, in the order of the + strand; 0 at N.
            Relative to the mean of the four, or of integrated gradients to shuffled sequences. None if the
            status is not OK.
        null: attributions (L,) of the bases of shuffled sequences; NaN at N.
    """

    record: SequenceRecord
    target: str = ""
    score: float = float("nan")
    values_4L: Floats | None = None
    null: tuple[Floats, ...] = ()

    @property
    def n_bases(self) -> int:
        """Bases with attributions or N; 0 if there are none."""
        return 0 if self.values_4L is None else self.values_4L.shape[1]

    def one_hot(self) -> Any:
        """Return which base stands at each position (4, L), on the + strand; none at N."""
        left = self.record.left
        return one_hot(self.record.bases[left : left + len(self.record)])

    def observed(self) -> Floats:
        """Return the attribution (L,) of the base that stands at each position; NaN at N."""
        assert self.values_4L is not None  # noqa: S101  (asked of attributions only)
        return _observed(self.values_4L, self.one_hot())


def _observed(values_4L: Floats, one_hot_4L: Any) -> Floats:
    return np.where(one_hot_4L.any(axis=0), (values_4L * one_hot_4L).sum(axis=0), np.nan)


def attribute(
    score: Score,
    records: Iterable[SequenceRecord],
    options: AttributionOptions,
    *,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Iterator[Attribution]:
    """Compute the attributions of records: one answer each, in their order.

    Args:
        score: what is attributed, from `choose_score`.
        records: those whose status is not OK pass through.
        options: method and shuffled sequences.
        batch_size: sequences per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.

    Raises:
        UserError: the model gave values that are not finite.
    """
    longest = options.max_length
    if options.method != "ism" or not score.cuts_windows:
        longest = min(longest, score.longest)
    waiting: deque[tuple[Target, list[Target]]] = deque()

    def sequences() -> Iterator[Target]:
        """Yield each record with a score, and then its shuffled sequences."""
        for target in score.targets(refuse_longer(record, longest) for record in records):
            ok = target.record.status == OK
            shuffled = _shuffled(target, options.seed, range(options.null)) if ok else []
            waiting.append((target, shuffled))
            if ok:
                yield target
                yield from shuffled

    if options.method == "ism":
        answers: Iterator[Floats] = (
            _finished(score.substituted(target), target, centred=True) for target in sequences()
        )
    else:
        gradients = _Gradients(score, options, batch_size, precision or nullcontext())
        answers = gradients.run(sequences())
    for values_4L in answers:
        while waiting[0][0].record.status != OK:
            yield Attribution(waiting.popleft()[0].record)
        target, shuffled = waiting.popleft()
        check_finite(values_4L, target.record)
        null = tuple(_observed(next(answers), one_hot(other.region)) for other in shuffled)
        yield Attribution(target.record, target.name, target.score, values_4L, null)
    yield from (Attribution(target.record) for target, _ in waiting)


def _shuffled(target: Target, seed: int, numbers: range) -> list[Target]:
    """Return targets with the bases of a record shuffled between its flanks."""
    record, region = target.record, target.region
    before, after = record.bases[: record.left], record.bases[record.left + len(record) :]
    shuffled = (shuffle_dinucleotides(region, seed, number) for number in numbers)
    return [replace(target, record=replace(record, bases=before + bases + after)) for bases in shuffled]


def _finished(values_4L: Floats, target: Target, *, centred: bool) -> Floats:
    """Leave out N, and take the mean of the four bases off unless the values are relative to references."""
    known_L = one_hot(target.region).any(axis=0)
    offset_L = values_4L.mean(axis=0) if centred else 0
    finished_4L: Floats = ((values_4L - offset_L) * known_L).astype(np.float32)
    return finished_4L


@dataclass(frozen=True, slots=True)
class _Point:
    """A point on the path from a reference to a sequence, on one strand.

    Attributes:
        target: of the sequence.
        span: positions of the record in the tokens.
        reference: bases of the reference.
        share: of the sequence at the point; the rest is the reference's.
    """

    target: Target
    span: slice
    reference: bytes = b""
    share: float = 1.0

    def weights(self, ids: Any) -> Floats:
        """Return the weights (L, 4) of the bases of the record."""
        bases_L4: Floats = np.equal(ids[self.span, None], np.arange(*BASES)).astype(np.float32)
        if self.reference:
            bases_L4 = self.share * bases_L4 + (1 - self.share) * one_hot(self.reference).T
        return bases_L4


class _Gradients:
    """Gradients of scores by the weights of the four bases at each position."""

    def __init__(
        self,
        score: Score,
        options: AttributionOptions,
        batch_size: int | None,
        precision: AbstractContextManager[Any],
    ) -> None:
        self._score, self._options, self._precision = score, options, precision
        model = self._model = score.model
        model.requires_grad_(False)  # or the gradients of all weights would be computed, too
        kept = _KEPT_PER_LAYER * model.config.n_layer
        device = next(model.parameters()).device
        budget = make_budget(batch_size, model.config.d_model, kept, device)
        self._engine: Engine[_Point, Floats] = Engine(self._slopes, budget=budget, device=device)

    def run(self, targets: Iterable[Target]) -> Iterator[Floats]:
        """Yield the attributions (4, L) of each target."""
        waiting: deque[tuple[Target, list[Target]]] = deque()

        def items() -> Iterator[BatchItem[_Point]]:
            for target in targets:
                references = self._references(target)
                waiting.append((target, references))
                yield from self._items(target, references)

        slopes = self._engine.run(items())
        for first in slopes:
            yield self._joined(*waiting.popleft(), chain([first], slopes))

    def _references(self, target: Target) -> list[Target]:
        """Return the shuffled sequences that paths start from, others than those that tell of chance."""
        first, count = self._options.null, self._options.references
        if self._options.method == "gradient":
            return []
        return _shuffled(target, self._options.seed, range(first, first + count))

    def _items(self, target: Target, references: list[Target]) -> Iterator[BatchItem[_Point]]:
        for reverse in self._score.reading.readings(target.record.strand):
            bases, offset = target.record.reading(reverse=reverse)
            span = slice(offset, offset + len(target.record))
            ids = _TOKENIZER.encode_array(bases[: span.stop])
            others = [record.record.reading(reverse=reverse)[0] for record in references]
            points = [_Point(target, span, other[span], share) for other in others for share in _SHARES]
            yield from (BatchItem(ids, point) for point in points or [_Point(target, span)])

    def _joined(self, target: Target, references: list[Target], slopes: Iterator[Floats]) -> Floats:
        """Return the attributions of a target from the slopes of its points."""
        strands = []
        for reverse in self._score.reading.readings(target.record.strand):
            if not references:
                strands.append(next(slopes))
                continue
            effects = []
            for reference in references:
                slope_4L = sum(weight * next(slopes) for weight in _WEIGHTS)
                base_4L = one_hot(reference.region)
                base_4L = base_4L[::-1, ::-1] if reverse else base_4L
                # of each base instead of the reference's
                effects.append(slope_4L - (slope_4L * base_4L).sum(axis=0))
            strands.append(np.mean(effects, axis=0))
        values_4L = mean_of_strands(self._score.reading, target, strands)
        return _finished(values_4L, target, centred=not references)

    def _slopes(self, ids_BL: Tensor, mask_BL: Tensor, batch: Sequence[BatchItem[_Point]]) -> list[Floats]:
        """Differentiate the scores at points by the weights of the bases, (4, L) of each record."""
        backbone, points = self._model.backbone, [item.metadata for item in batch]
        mixed_BL4 = np.zeros((*ids_BL.shape, 4), np.float32)
        for mixed_L4, item in zip(mixed_BL4, batch, strict=True):
            mixed_L4[item.metadata.span] = item.metadata.weights(item.ids)
        # tensors of inference mode cannot be differentiated: take copies outside of it
        with torch.inference_mode(False), torch.enable_grad():
            bases_BL4 = torch.from_numpy(mixed_BL4).to(ids_BL.device)
            embedding_4D = backbone.embeddings.word_embeddings.weight[slice(*BASES)]
            other_BLD = backbone.embed(ids_BL.clone()).masked_fill(bases_BL4.any(-1, keepdim=True), 0)
            x_BLD = other_BLD + bases_BL4.requires_grad_().to(embedding_4D) @ embedding_4D
            with self._precision:
                hidden_BLD = run_with_gradients(backbone, x_BLD)[0]
                targets = [point.target for point in points]
                total = self._score.total(hidden_BLD, mask_BL.clone(), bases_BL4, targets)
            (slopes_BL4,) = torch.autograd.grad(total, bases_BL4)
        slopes_B4L = slopes_BL4.transpose(1, 2).cpu().numpy()
        return [slopes_4L[:, point.span] for slopes_4L, point in zip(slopes_B4L, points, strict=True)]
