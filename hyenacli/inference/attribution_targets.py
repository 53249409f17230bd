"""What attributions are of: the output of a head, or the likelihood of a region.

B batch, L bases, D width, C outputs of the head, V values shown of them, 4 the bases A, C, G and T.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.errors import UsageError, UserError, abbreviate, nearest
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.likelihood import score_sequences
from hyenacli.inference.prediction import Predicted, predict, prediction_head, value_names
from hyenacli.inference.substitutions import StrandReading, Substituted, Substitutions
from hyenacli.readers.records import OK, SequenceRecord
from hyenadna import HyenaDNA
from hyenadna.config import HeadConfig
from hyenadna.engine.inference import BASES
from hyenadna.heads import pool

LIKELIHOOD = "likelihood"
LETTERS = b"ACGT"
Floats = NDArray[np.floating[Any]]


def one_hot(bases: bytes) -> NDArray[np.bool_]:
    """Return which base stands at each position (4, L); none at N."""
    return np.equal(np.frombuffer(LETTERS, np.uint8)[:, None], np.frombuffer(bases, np.uint8))


@dataclass(frozen=True, slots=True)
class Target:
    """What is attributed of a record.

    Attributes:
        record: nothing is attributed unless its status is OK.
        name: class, label or output, or likelihood.
        score: the number that is attributed.
        contrast_C: weights of a head's outputs whose sum is the score; empty of a likelihood.
    """

    record: SequenceRecord
    name: str = ""
    score: float = float("nan")
    contrast_C: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def region(self) -> bytes:
        """Bases of the record without its flanks, on the + strand."""
        left = self.record.left
        return self.record.bases[left : left + len(self.record)]


class Score(Protocol):
    """A number that a model gives a record, and how it changes with the bases."""

    model: HyenaDNA
    reading: EmbeddingOptions
    longest: int
    """Bases that are read at once."""
    cuts_windows: bool
    """Longer records are read in windows."""

    def targets(self, records: Iterable[SequenceRecord]) -> Iterator[Target]:
        """Compute the scores of records."""

    def substituted(self, target: Target) -> Floats:
        """Compute the score (4, L) with each base at each position instead; 0 at N."""

    def total(
        self, hidden_BLD: Tensor, mask_BL: Tensor, bases_BL4: Tensor, targets: Sequence[Target]
    ) -> Tensor:
        """Compute the sum of the scores of readings, with gradients.

        Args:
            hidden_BLD: states after the final norm.
            mask_BL: true at real tokens.
            bases_BL4: weights of the four bases at each position of the records, 0 elsewhere.
            targets: what each row is of.
        """


def choose_score(
    model: HyenaDNA, name: str | None, reading: EmbeddingOptions, source: object = None, **how: Any
) -> Score:
    """Return what is attributed: `name` of the model's head, or the likelihood of a model without one.

    Args:
        model: the model.
        name: a class, label or output, or likelihood; None as `choose_target` has it.
        reading: strands; of a head also the windows.
        source: what messages call the model.
        how: batch_size and precision.

    Raises:
        UserError: the model has a head whose predictions cannot be attributed.
        UsageError: as `choose_target`.
    """
    if is_likelihood(model, name):
        return LikelihoodScore(model, reading, **how)
    head = attribution_head(model, source)
    return HeadScore(model, choose_target(head, name), reading, **how)


def is_likelihood(model: HyenaDNA, name: str | None) -> bool:
    """Return whether the likelihood is attributed: the model has no head, or it is named and no label is."""
    head = model.config.head
    if model.config.demonstrations is not None:
        return name == LIKELIHOOD
    if head is None:
        if name not in (None, LIKELIHOOD):
            what = f"the model has no head, and so no output '{name}'"
            raise UsageError(what, at="--target", remedy=f"use {LIKELIHOOD}, or a fine-tuned model")
        return True
    return name == LIKELIHOOD and name not in value_names(head)


def attribution_head(model: HyenaDNA, name: object = None) -> HeadConfig:
    """Return the head whose predictions for sequences can be attributed to bases.

    Args:
        model: the model.
        name: what messages call it.

    Raises:
        UserError: it has none.
    """
    remedy = f"use --target {LIKELIHOOD}, or a model fine-tuned "
    if model.config.demonstrations is not None:
        what = "the model answers from demonstrations and has no head"
        raise UserError(what, at=name, remedy=f"{remedy}by another method")
    head = prediction_head(model, name)
    if head.level != "sequence":
        what = "the model predicts every base, and attributions are of one prediction for a sequence"
        raise UserError(what, at=name, remedy=f"{remedy}on labelled sequences")
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
            raise UsageError(what, at="--target", remedy=nearest(name, [*names, LIKELIHOOD]))
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
    identity_CC = np.eye(head.n_outputs)
    if head.task == "binary" and head.n_outputs == 1:
        return np.array([[-1.0], [1.0]])
    if head.task in ("binary", "multiclass"):
        return identity_CC - (1 - identity_CC) / max(1, head.n_outputs - 1)
    return identity_CC


def mean_of_strands(reading: EmbeddingOptions, target: Target, values: Iterable[Floats]) -> Floats:
    """Return the mean of values (4, L) of each strand that is read, on the + strand."""
    strands = zip(reading.readings(target.record.strand), values, strict=True)
    # A, C, G, T backwards are their complements
    turned = [values_4L[::-1, ::-1] if reverse else values_4L for reverse, values_4L in strands]
    mean_4L: Floats = np.mean(turned, axis=0, dtype=np.float64)
    return mean_4L


class HeadScore:
    """An output of a head.

    Args:
        model: with a head, in eval mode.
        value: index of the value; None for the likeliest.
        reading: strands and windows.
        how: batch_size and precision.
    """

    cuts_windows = True

    def __init__(self, model: HyenaDNA, value: int | None, reading: EmbeddingOptions, **how: Any) -> None:
        self.model, self.reading = model, reading
        self.longest = reading.windows(model.config, model.longest_input)[0]
        self._value, self._how, self._reader = value, how, Substitutions(model, **how)
        assert model.head is not None  # noqa: S101  (checked before)
        # In float64, which no autocast touches and some devices do not have.
        self._head = deepcopy(model.head).cpu().double()

    def targets(self, records: Iterable[SequenceRecord]) -> Iterator[Target]:
        """Predict records without their flanks; the score is a contrast of the outputs."""
        head = prediction_head(self.model)
        contrasts_VC, names = target_contrasts(head), value_names(head)

        def target(answer: Predicted) -> Target:
            if answer.logits is None:
                return Target(answer.record)
            scores_V = contrasts_VC @ answer.logits
            value = int(scores_V.argmax()) if self._value is None else self._value
            return Target(answer.record, names[value], float(scores_V[value]), contrasts_VC[value])

        regions = (_trim(record, 0) if record.status == OK else record for record in records)
        return map(target, predict(self.model, regions, self.reading, **self._how))

    def substituted(self, target: Target) -> Floats:
        """Read what changes, or every substitution anew if the record is cut into windows."""
        if len(target.record) > self.longest:
            return self._predicted(target)
        readings = (
            self._reader.strand(target.record, reverse=reverse, with_last=True)
            for reverse in self.reading.readings(target.record.strand)
        )
        return mean_of_strands(self.reading, target, (self._strand(target, strand) for strand in readings))

    @torch.inference_mode()
    def _strand(self, target: Target, strand: StrandReading) -> Floats:
        how, hidden_LD = prediction_head(self.model).pool, strand.hidden_LD.to(self._reader.exact)
        length = len(hidden_LD)
        before_LD = hidden_LD.cummax(0).values if how == "max" else hidden_LD.cumsum(0)
        observed_L = strand.tokens_L - BASES[0]
        values_4L = np.zeros((4, length))
        known_L = ((observed_L >= 0) & (observed_L < 4)).cpu().numpy()
        reference = self._scores(target, pool(hidden_LD[None], how))
        values_4L[observed_L.cpu().numpy()[known_L], known_L.nonzero()[0]] = reference
        for batch in strand:
            pooled = [
                self._pooled(before_LD, at, states_nD, how)
                for at, states_nD in zip(batch.positions, batch.states, strict=True)
            ]
            values_4L[batch.bases, batch.positions] = self._scores(target, torch.stack(pooled))
        return values_4L

    def _pooled(self, before_LD: Tensor, at: int, states_nD: Tensor, how: str) -> Tensor:
        """Pool the states before a substitution, which it does not change, with those from it on."""
        states_nD = states_nD.to(before_LD)
        if how == "last":
            return states_nD[-1]
        if how == "max":
            rest_D = states_nD.amax(0)
            return torch.maximum(rest_D, before_LD[at - 1]) if at else rest_D
        rest_D = states_nD.sum(0) + (before_LD[at - 1] if at else 0)
        return rest_D / len(before_LD)

    def _scores(self, target: Target, pooled_nD: Tensor) -> Floats:
        scores: Floats = self._head.project(pooled_nD.cpu().double()).numpy() @ target.contrast_C
        return scores

    def _predicted(self, target: Target) -> Floats:
        """Predict the record, and with each base substituted by the three others."""
        record, known_4L = target.record, one_hot(target.region)
        changed_4L = known_4L.any(axis=0) & ~known_4L
        sites = [(base, position) for position, base in np.argwhere(changed_4L.T).tolist()]
        substituted = (
            replace(record, bases=b"%b%c%b" % (record.bases[:at], LETTERS[base], record.bases[at + 1 :]))
            for base, at in sites
        )
        answers = predict(self.model, chain([record], substituted), self.reading, **self._how)
        scores = [target.contrast_C @ np.asarray(answer.logits) for answer in answers]
        values_4L: Floats = known_4L * scores[0]
        for site, score in zip(sites, scores[1:], strict=True):
            values_4L[site] = score
        return values_4L

    def total(
        self, hidden_BLD: Tensor, mask_BL: Tensor, bases_BL4: Tensor, targets: Sequence[Target]
    ) -> Tensor:
        """Apply the head, which sees bases through the states only."""
        del bases_BL4
        assert self.model.head is not None  # noqa: S101  (checked before)
        outputs_BC = self.model.head(hidden_BLD, mask_BL)
        contrasts_BC = torch.from_numpy(np.stack([target.contrast_C for target in targets]))
        total: Tensor = (outputs_BC * contrasts_BC.to(outputs_BC)).sum()
        return total


class LikelihoodScore:
    """The sum of log p over the bases of a record given those before them, in nats, as `score_sequences`.

    Args:
        model: in eval mode.
        reading: strands.
        how: batch_size and precision.
    """

    cuts_windows = False

    def __init__(self, model: HyenaDNA, reading: EmbeddingOptions, **how: Any) -> None:
        self.model, self.reading, self._how = model, reading, how
        self._reader = Substitutions(model, **how)
        self.longest = self._reader.longest

    def targets(self, records: Iterable[SequenceRecord]) -> Iterator[Target]:
        """Score the records with as much of their flanks as the model has room for."""
        waiting: deque[SequenceRecord] = deque()  # with their bases, which the answers lack

        def trimmed() -> Iterator[SequenceRecord]:
            for record in records:
                waiting.append(_trim(record, self.longest - len(record)) if record.status == OK else record)
                yield waiting[-1]

        for answer in score_sequences(self.model, trimmed(), self.reading, **self._how):
            record = waiting.popleft()
            if answer.record.status == OK:
                yield Target(record, LIKELIHOOD, answer.log_likelihood)
            else:
                yield Target(answer.record)

    def substituted(self, target: Target) -> Floats:
        """Sum the log p of each base in its place, and those of the bases after it."""
        readings = (
            self._reader.strand(target.record, reverse=reverse)
            for reverse in self.reading.readings(target.record.strand)
        )
        return mean_of_strands(self.reading, target, map(self._strand, readings))

    @torch.inference_mode()
    def _strand(self, strand: StrandReading) -> Floats:
        bases_L = strand.tokens_L - BASES[0]
        known_L = (bases_L >= 0) & (bases_L < 4)
        log_p_L4 = torch.zeros(len(bases_L), 4, dtype=self._reader.exact, device=bases_L.device)
        log_p_L4[1:] = self._log_p(strand.hidden_LD)
        if strand.before_D is not None:
            log_p_L4[0] = self._log_p(strand.before_D)
        at_L1 = bases_L.where(known_L, 0)[:, None]
        observed_L = log_p_L4.gather(1, at_L1)[:, 0].where(known_L, 0)
        # so far the base in its place; the bases after it change too
        values_L4 = observed_L.sum() + (log_p_L4 - observed_L[:, None])
        for batch in strand:
            values_L4[batch.positions, batch.bases] += self._changes(batch, at_L1, known_L, observed_L)
        return values_L4.where(known_L[:, None], 0).T.cpu().numpy()

    def _changes(self, batch: Substituted, at_L1: Tensor, known_L: Tensor, observed_L: Tensor) -> Tensor:
        """Sum, for each substitution, what changes in log p of the bases after it."""
        states_nD, number_n, at_n = batch.flat()
        after_n = at_n + 1
        log_p_n = self._log_p(states_nD).gather(1, at_L1[after_n])[:, 0]
        change_n = (log_p_n - observed_L[after_n]).where(known_L[after_n], 0)
        return change_n.new_zeros(len(batch.positions)).index_add_(0, number_n, change_n)

    def _log_p(self, hidden_nD: Tensor) -> Tensor:
        logits = self.model.lm_logits(hidden_nD)[..., slice(*BASES)].to(self._reader.exact)
        return logits.log_softmax(-1)

    def total(
        self, hidden_BLD: Tensor, mask_BL: Tensor, bases_BL4: Tensor, targets: Sequence[Target]
    ) -> Tensor:
        """Sum log p by the weights of the bases: they are read, and they are predicted."""
        del mask_BL, targets
        log_p_BL4 = self.model.lm_logits(hidden_BLD[:, :-1])[..., slice(*BASES)].float().log_softmax(-1)
        return (log_p_BL4 * bases_BL4[:, 1:]).sum()


def _trim(record: SequenceRecord, room: int) -> SequenceRecord:
    """Return a record with at most `room` bases of each flank."""
    cut = max(0, record.left - room)
    end = record.left + len(record) + room
    return replace(record, bases=record.bases[cut:end], left=record.left - cut)
