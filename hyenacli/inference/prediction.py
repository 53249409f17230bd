"""Predictions of sequences and regions: a head on what `embed` makes of them.

C outputs of the head, L bases, N rows (1, or L).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.errors import UserError
from hyenacli.inference.embedding import Embedded, embed
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.in_context import answer_in_context
from hyenacli.inference.pooling import Pooling
from hyenacli.readers.records import SequenceRecord
from hyenadna import HyenaDNA
from hyenadna.config import HeadConfig


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a head says of one input record.

    Attributes:
        stretch: the record.
        n_bases: bases pooled into a prediction; 0 where there is none.
        logits: (C,) float64, or (L, C) of every base in the order of the + strand at level "nucleotide"; the
            numbers themselves of a regression; None where the record's status is not OK.
    """

    stretch: SequenceRecord
    n_bases: int
    logits: NDArray[np.float64] | None


def predict(
    model: HyenaDNA,
    stretches: Iterable[SequenceRecord],
    *,
    rc: bool,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Iterator[Predicted]:
    """Apply a model's head to stretches, one answer per record and in their order.

    The bases of a stretch are read as they stand, whatever its strand. A stretch longer than the window is
    read in windows and pooled by bases as `embed` does it. The head is affine, so that it may follow the
    mean over strands: with `rc` a prediction is the mean of those of both. For a model with demonstrations
    instead of a head, see `answer_in_context`.

    Args:
        model: with a head or demonstrations, in eval mode, on the device to use.
        stretches: the records; those whose status is not OK pass through.
        rc: whether the reverse complement is read too.
        window: most bases the model reads at once; None is the head's window, or what the model takes.
        stride: bases from one window's start to the next; None is the window.
        batch_size: sequences per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.

    Raises:
        UserError: the model has nothing to predict with; and as `embed` and `answer_in_context`.
    """
    recipe = prediction_options(head_of(model), rc=rc, window=window, stride=stride)
    return predict_by(model, stretches, recipe, batch_size=batch_size, precision=precision)


def head_of(model: HyenaDNA, name: object = None) -> HeadConfig:
    """The head of a model that messages call `name`, or what demonstrations take the place of.

    Raises:
        UserError: there is none.
    """
    head, demonstrations = model.config.head, model.config.demonstrations
    if demonstrations is not None:
        return demonstrations.head
    if head is None:
        raise _no_head(name)
    return head


def _no_head(name: object = None) -> UserError:
    what = "the model has no head to predict with"
    return UserError(what, at=name, remedy="fine-tune one with `hyena finetune`")


def prediction_options(
    head: HeadConfig,
    *,
    rc: bool,
    stranded: bool = False,
    window: int | None = None,
    stride: int | None = None,
) -> EmbeddingOptions:
    """How regions become what a head takes.

    >>> prediction_options(HeadConfig("binary", 2, pool="max"), rc=True).pooling
    Pooling(kind='max', size=0)
    """
    pooling = Pooling(head.pool if head.level == "sequence" else "none")
    kind = "mean" if rc else "none"
    return EmbeddingOptions(
        pooling=pooling, rc=kind, stranded=stranded, window=window or head.window, stride=stride
    )


def predict_by(
    model: HyenaDNA,
    stretches: Iterable[SequenceRecord],
    recipe: EmbeddingOptions,
    *,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Iterator[Predicted]:
    """`predict` by a recipe from `prediction_options`."""
    if model.config.demonstrations is not None:
        said = answer_in_context(model, stretches, recipe, batch_size=batch_size, precision=precision)
        return (Predicted(*one) for one in said)
    if model.head is None:
        raise _no_head()
    # In float64, which no autocast touches and some devices do not have.
    head = deepcopy(model.head).cpu().double()

    def project(states: Tensor) -> Tensor:
        return head.project(states.cpu().double())

    answers = embed(model, stretches, recipe, batch_size=batch_size, precision=precision, project=project)
    return (_predicted(answer, recipe, project) for answer in answers)


def _predicted(answer: Embedded, recipe: EmbeddingOptions, project: Callable[[Tensor], Tensor]) -> Predicted:
    if answer.vectors is None:
        return Predicted(answer.stretch, 0, None)
    outputs_NC = answer.vectors[:, 0].astype(np.float64)
    if recipe.pooling.per_base:
        return Predicted(answer.stretch, answer.n_bases, outputs_NC)
    with torch.inference_mode():
        logits_C = project(torch.from_numpy(outputs_NC[0])).numpy()
    return Predicted(answer.stretch, answer.n_bases, logits_C)
