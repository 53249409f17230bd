"""Attributions: what each base of a sequence adds to the prediction of a model with a head.

B batch, L bases, D width, C outputs of the head, V values shown of them, 4 the bases A, C, G and T.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.errors import UsageError, UserError, abbreviate, nearest
from hyenacli.inference.batching import BatchItem, Engine, make_budget
from hyenacli.inference.embedding import check_finite
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.prediction import Predicted, predict, prediction_head, value_names
from hyenacli.readers.records import SequenceRecord, refuse_longer
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.config import HeadConfig
from hyenadna.engine.inference import BASES
from hyenadna.engine.training import run as run_with_gradients

_LETTERS = b"ACGT"
# States of a layer that its gradient keeps, in numbers per token and dimension: both halves of a block, the
# three projections, and the inner width of the MLP.
_KEPT_PER_LAYER = 12
_TOKENIZER = Tokenizer()
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class AttributionOptions:
    """What is attributed, and how.

    Attributes:
        method: ism (each substitution through the model) or gradient (input x gradient).
        target: a class, label or output of the head; None as `choose_target` has it.
        max_length: longest record, in bases.
    """

    method: str = "ism"
    target: str | None = None
    max_length: int = 2000


@dataclass(frozen=True, slots=True)
class Attribution:
    """The attributions of one record.

    Attributes:
        record: its status is TOO_LONG where it is longer than the options allow, or than the window of a
            gradient.
        target: class, label or output that is attributed.
        score: the number of `target_contrasts` for the record.
        values_4L: change of the score by each base at each position, less the mean of the four, in the order
            of the + strand; 0 at N. None if the status is not OK.
    """

    record: SequenceRecord
    target: str = ""
    score: float = float("nan")
    values_4L: Floats | None = None

    @property
    def n_bases(self) -> int:
        """Bases with attributions or N; 0 if there are none."""
        return 0 if self.values_4L is None else self.values_4L.shape[1]

    def one_hot(self) -> NDArray[np.bool_]:
        """Return which base stands at each position (4, L), on the + strand; none at N."""
        return _one_hot(self.record.bases)

    def observed(self) -> Floats:
        """Return the attribution (L,) of the base that stands at each position; NaN at N."""
        assert self.values_4L is not None  # noqa: S101  (asked of attributions only)
        one_hot_4L = self.one_hot()
        return np.where(one_hot_4L.any(axis=0), (self.values_4L * one_hot_4L).sum(axis=0), np.nan)


def attribution_head(model: HyenaDNA, name: object = None) -> HeadConfig:
    """Return the head whose predictions for sequences can be attributed to bases.

    Args:
        model: the model.
        name: what messages call it.

    Raises:
        UserError: it has none.
    """
    if model.config.demonstrations is not None:
        what, remedy = (
            "the model answers from demonstrations and has no head",
            "fine-tune with another method",
        )
        raise UserError(what, at=name, remedy=remedy)
    head = prediction_head(model, name)
    if head.level != "sequence":
        what = "the model predicts every base, and attributions are of one prediction for a sequence"
        raise UserError(what, at=name, remedy="use a model that was fine-tuned on labelled sequences")
    return head


def choose_target(head: HeadConfig, name: str | None) -> int | None:
    """Return the index of the value of a head that is attributed.

    Without a name it is the only one, the second of two classes, or None: of several classes the likeliest of
    each record.

    Raises:
        UsageError: the head has no such value, or has several labels or numbers and none is named.

    >>> choose_target(HeadConfig("binary", 2, ("no", "yes")), None)
    1
    """
    names = value_names(head)
    if name is not None:
        if name not in names:
            what = f"the model has no output '{name}'"
            raise UsageError(what, at="--target", remedy=nearest(name, list(names)))
        return names.index(name)
    if len(names) == 1:
        return 0
    if head.task == "binary":
        return 1
    if head.task == "multiclass":
        return None
    what = f"attributions are of one of the model's {len(names)} outputs"
    raise UsageError(what, remedy=f"name it with --target: {abbreviate(names, 12)}")


def target_contrasts(head: HeadConfig) -> NDArray[np.float64]:
    """Return the weights (V, C) that make the attributed score of each value from the outputs of a head.

    Of exclusive classes it is the logit less the mean logit of the others, as only differences of their
    logits mean something; of two classes that is the log odds. A label's is its logit, a regression's the
    number.

    >>> target_contrasts(HeadConfig("multiclass", 3)).tolist()
    [[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]]
    >>> target_contrasts(HeadConfig("binary", 1)).tolist()
    [[-1.0], [1.0]]
    """
    own_CC = np.eye(head.n_outputs)
    if head.task == "binary" and head.n_outputs == 1:
        return np.array([[-1.0], [1.0]])
    if head.task in ("binary", "multiclass"):
        return own_CC - (1 - own_CC) / max(1, head.n_outputs - 1)
    return own_CC


@dataclass(frozen=True, slots=True)
class _Target:
    """What is attributed of a record: the score is `contrast_C @ logits`; no contrast if there is nothing."""

    record: SequenceRecord
    name: str = ""
    score: float = float("nan")
    contrast_C: NDArray[np.float64] | None = None


def attribute(
    model: HyenaDNA,
    records: Iterable[SequenceRecord],
    options: AttributionOptions,
    reading: EmbeddingOptions,
    *,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Iterator[Attribution]:
    """Compute the attributions of records without flanks: one answer each, in their order.

    Args:
        model: with a head, in eval mode, on the device to use.
        records: those whose status is not OK pass through.
        options: method and target.
        reading: from `prediction_options`: strands and window. Attributions are of what `predict` says.
        batch_size: sequences per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.

    Raises:
        UserError: the model has no head, or gave values that are not finite.
        UsageError: as `choose_target`.
    """
    head = attribution_head(model)
    chosen, contrasts_VC, names = (
        choose_target(head, options.target),
        target_contrasts(head),
        value_names(head),
    )
    longest = options.max_length
    if options.method == "gradient":
        longest = min(longest, reading.windows(model.config, model.longest_input)[0])
    how: dict[str, Any] = {"batch_size": batch_size, "precision": precision or nullcontext()}

    def target(answer: Predicted) -> _Target:
        if answer.logits is None:
            return _Target(answer.record)
        scores_V = contrasts_VC @ answer.logits
        value = int(scores_V.argmax()) if chosen is None else chosen
        return _Target(answer.record, names[value], float(scores_V[value]), contrasts_VC[value])

    short = (refuse_longer(record, longest) for record in records)
    targets = map(target, predict(model, short, reading, **how))
    for answer in METHODS[options.method](model, targets, reading, **how):
        if answer.values_4L is not None:
            check_finite(answer.values_4L, answer.record)
        yield answer


def _mutagenesis(
    model: HyenaDNA, targets: Iterable[_Target], reading: EmbeddingOptions, **how: Any
) -> Iterator[Attribution]:
    """Predict every record with each base substituted by the three others."""
    for target in targets:
        if target.contrast_C is None:
            yield Attribution(target.record)
            continue
        record = target.record
        changed_4L = _one_hot(record.bases).any(axis=0) & ~_one_hot(record.bases)
        sites = [(base, position) for position, base in np.argwhere(changed_4L.T).tolist()]
        substituted = (
            replace(record, bases=b"%b%c%b" % (record.bases[:at], _LETTERS[base], record.bases[at + 1 :]))
            for base, at in sites
        )
        values_4L = np.zeros((4, len(record)))
        for site, answer in zip(sites, predict(model, substituted, reading, **how), strict=True):
            assert answer.logits is not None  # noqa: S101  (the record itself has a prediction)
            values_4L[site] = target.contrast_C @ answer.logits - target.score
        yield _attribution(target, values_4L)


def _gradients(
    model: HyenaDNA,
    targets: Iterable[_Target],
    reading: EmbeddingOptions,
    *,
    batch_size: int | None,
    precision: AbstractContextManager[Any],
) -> Iterator[Attribution]:
    """Differentiate the score of every record by the one-hot of its bases, on each strand that is read."""
    assert model.head is not None  # noqa: S101  (internal invariant)
    model.requires_grad_(False)  # or the gradients of all weights would be computed, too
    embedding_4D = model.backbone.embeddings.word_embeddings.weight[slice(*BASES)]

    def compute(ids_BL: Tensor, mask_BL: Tensor, batch: Sequence[BatchItem[Floats]]) -> list[Floats]:
        # tensors of inference mode cannot be differentiated: take copies outside of it
        with torch.inference_mode(False), torch.enable_grad(), precision:
            contrasts_BC = torch.from_numpy(np.stack([item.metadata for item in batch])).to(ids_BL.device)
            x_BLD = model.backbone.embed(ids_BL.clone()).requires_grad_()
            hidden_BLD = run_with_gradients(model.backbone, x_BLD)[0]
            assert model.head is not None  # noqa: S101
            outputs_BC = model.head(hidden_BLD, mask_BL.clone())
            (slopes_BLD,) = torch.autograd.grad((outputs_BC * contrasts_BC.to(outputs_BC)).sum(), x_BLD)
        slopes_B4L = torch.einsum("bld,vd->bvl", slopes_BLD.float(), embedding_4D.float()).cpu().numpy()
        return [slopes_4L[:, : len(item.ids)] for slopes_4L, item in zip(slopes_B4L, batch, strict=True)]

    waiting: deque[_Target] = deque()

    def items() -> Iterator[BatchItem[Floats]]:
        for target in targets:
            waiting.append(target)
            if target.contrast_C is not None:
                for reverse in reading.readings(target.record.strand):
                    bases, _ = target.record.reading(reverse=reverse)
                    yield BatchItem(_TOKENIZER.encode_array(bases), target.contrast_C)

    kept = _KEPT_PER_LAYER * model.config.n_layer
    budget = make_budget(batch_size, model.config.d_model, kept, model.device)
    answers = Engine(compute, budget=budget, device=model.device).run(items())
    for slopes_4L in answers:
        while waiting[0].contrast_C is None:
            yield Attribution(waiting.popleft().record)
        target = waiting.popleft()
        strands = []
        for i, reverse in enumerate(reading.readings(target.record.strand)):
            strand_4L = slopes_4L if i == 0 else next(answers)
            # A, C, G, T backwards are their complements
            strands.append(strand_4L[::-1, ::-1] if reverse else strand_4L)
        yield _attribution(target, np.mean(strands, axis=0, dtype=np.float64))
    yield from (Attribution(target.record) for target in waiting)


METHODS = {"ism": _mutagenesis, "gradient": _gradients}


def _attribution(target: _Target, values_4L: Floats) -> Attribution:
    """Take the mean of the four bases off, and leave out N."""
    values_4L = (values_4L - values_4L.mean(axis=0)) * _one_hot(target.record.bases).any(axis=0)
    return Attribution(target.record, target.name, target.score, values_4L.astype(np.float32))


def _one_hot(bases: bytes) -> NDArray[np.bool_]:
    return np.equal(np.frombuffer(_LETTERS, np.uint8)[:, None], np.frombuffer(bases, np.uint8))
