"""What haplotypes differ by under a model: log-likelihood ratios and distances of mean states.

The windows of several alleles are read once; each allele then costs its own suffix only.

B window, L position, K position from the first that any score needs, D width, n scored position of an allele,
M scored positions of several alleles one after another, N allele, V one of A, C, G and T.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.errors import UserError
from hyenacli.readers.genome import Tokens
from hyenadna import HyenaDNA
from hyenadna.engine.inference import BASES
from hyenadna.engine.suffix import ReferencePass, Suffix
from hyenadna.tokenizer import A, T


@dataclass(frozen=True, slots=True)
class Job:
    """Two haplotypes of one allele.

    Attributes:
        number: what the caller calls it.
        row: of its window among those that are read together.
        offset: where in the window the first position that is scored is.
        ref: the tokens from there on, as long as they are scored.
        alt: those of the other haplotype, as many.
    """

    number: int
    row: int
    offset: int
    ref: Tokens
    alt: Tokens


class Differences:
    """Compares haplotypes with one model.

    Args:
        model: in eval mode, on the device to use.
        scores: some of `variant_plan.SCORES`, as `VariantScorer` defines them.
        first: the position of a window before the earliest one that is scored.
    """

    def __init__(self, model: HyenaDNA, scores: Sequence[str], first: int):
        self._model, self._scores, self._first = model, scores, first
        self._device = next(model.parameters()).device
        self._states = bool({"cosine", "l2"} & set(scores))

    def of(
        self, ids_BL: Tensor, jobs: Sequence[Job], batch_tokens: int
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """One reference pass over windows, and the suffixes of their alleles, by length.

        Args:
            ids_BL: the windows' tokens, on the device.
            jobs: alleles of these windows.
            batch_tokens: most tokens of the suffixes in one forward pass.

        Returns:
            The number of each job with its values by score.

        Raises:
            UserError: the model gives values that are not finite.
        """
        reference = ReferencePass(self._model, ids_BL, self._first)
        log_p_BKV = self._log_p(reference.hidden_BLD)
        for batch in _batches(sorted(jobs, key=lambda job: len(job.ref)), batch_tokens):
            values = self._values(reference, log_p_BKV, batch)
            yield from zip((job.number for job in batch), values, strict=True)

    def _values(
        self, reference: ReferencePass, log_p_BKV: Tensor, batch: Sequence[Job]
    ) -> list[dict[str, float]]:
        """The scores of some alleles of the windows that were read."""
        states = self._suffix_states(reference, batch)
        columns: dict[str, Iterable[float]] = {}
        if {"llr", "site"} & set(self._scores):
            starts_N, nats_M, real_M = self._differences(log_p_BKV, batch, states)
            columns["llr"] = np.add.reduceat(nats_M, starts_N).tolist()
            columns["site"] = np.where(real_M[starts_N], nats_M[starts_N], np.nan).tolist()
        if self._states:
            pairs = [
                self._pooled(reference.hidden_BLD[job.row], job, states_nD)
                for job, states_nD in zip(batch, states, strict=True)
            ]
            columns["cosine"] = [float(1 - torch.cosine_similarity(*pair, dim=0)) for pair in pairs]
            columns["l2"] = [float((alt_D - ref_D).norm()) for ref_D, alt_D in pairs]
        chosen = [columns[name] for name in self._scores]
        values = [dict(zip(self._scores, row, strict=True)) for row in zip(*chosen, strict=True)]
        # Equal haplotypes differ by nothing, not by how the two ways of reading them are rounded.
        equal = [np.array_equal(job.ref, job.alt) for job in batch]
        nothing = dict.fromkeys(self._scores, 0.0)
        return [nothing if same else found for same, found in zip(equal, values, strict=True)]

    def _suffix_states(self, reference: ReferencePass, batch: Sequence[Job]) -> list[Tensor]:
        """States (n, D) at the ALT's positions that later ones are predicted from, or are pooled."""
        last = None if self._states else -1  # the last position predicts nothing that is scored
        suffixes = [Suffix(job.row, job.offset, torch.from_numpy(job.alt[:last]).long()) for job in batch]
        states = iter(reference.suffixes([suffix for suffix in suffixes if len(suffix.ids)]))
        none_0D = reference.hidden_BLD[0, :0]
        return [next(states) if len(suffix.ids) else none_0D for suffix in suffixes]

    def _differences(
        self, log_p_BKV: Tensor, batch: Sequence[Job], states: Sequence[Tensor]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """What each position adds to the llr, all alleles one after another.

        Returns:
            starts_N: the first position of every allele.
            nats_M: log p(base of ALT) - log p(base of REF); N count as 0.
            real_M: whether neither is N.
        """
        lengths = np.array([len(job.ref) for job in batch])
        starts_N = np.cumsum(lengths) - lengths
        # the positions that the reference's bases are predicted from, all windows in a row
        before = [job.row * log_p_BKV.shape[1] + job.offset - 1 - self._first for job in batch]
        at_M = np.repeat(before - starts_N, lengths) + np.arange(lengths.sum())
        ref_MV = log_p_BKV.flatten(0, 1)[torch.from_numpy(at_M).to(self._device)]
        alt_MV = ref_MV.clone()
        later_M = np.ones(len(at_M), dtype=bool)
        later_M[starts_N] = False
        if later_M.any():
            before_mD = torch.cat([s[: len(job.ref) - 1] for s, job in zip(states, batch, strict=True)])
            alt_MV[torch.from_numpy(later_M).to(self._device)] = self._log_p(before_mD)
        ref_M, alt_M = (
            torch.from_numpy(np.concatenate(parts)).to(self._device).long()
            for parts in ([job.ref for job in batch], [job.alt for job in batch])
        )
        nats_M = _chosen(alt_MV, alt_M) - _chosen(ref_MV, ref_M)
        real_M = (_real(ref_M) & _real(alt_M)).cpu().numpy()
        return starts_N, _finite(nats_M).cpu().double().numpy(), real_M

    def _pooled(self, hidden_KD: Tensor, job: Job, states_nD: Tensor) -> tuple[Tensor, Tensor]:
        """The mean states of REF and ALT."""
        start = job.offset - self._first
        return _mean_state(hidden_KD[start : start + len(job.ref)], job.ref), _mean_state(states_nD, job.alt)

    def _log_p(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of A, C, G and T after these states, float32 at least."""
        logits = self._model.lm_logits(hidden)[..., slice(*BASES)]
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _batches(jobs: Sequence[Job], batch_tokens: int) -> Iterator[Sequence[Job]]:
    """Jobs in rising order of length, as many as fit into a forward pass."""
    start = 0
    for end in range(1, len(jobs) + 1):
        following = len(jobs[min(end, len(jobs) - 1)].ref) + 4
        if end == len(jobs) or (end + 1 - start) * following > batch_tokens:
            yield jobs[start:end]
            start = end


def _real(ids: Tensor) -> Tensor:
    return (ids >= A) & (ids <= T)


def _chosen(log_p_nV: Tensor, ids_n: Tensor) -> Tensor:
    """The log-probability of each token, 0 for N."""
    real_n = _real(ids_n)
    picked_n1 = log_p_nV.gather(-1, (ids_n - A).where(real_n, 0)[:, None])
    return picked_n1[:, 0].where(real_n, 0)


def _mean_state(states_nD: Tensor, ids_n: Tokens) -> Tensor:
    """The mean state of the positions that are no N, in float64 where the device has it; NaN without any."""
    real_n = torch.from_numpy((ids_n >= A) & (ids_n <= T)).to(states_nD.device)
    dtype = torch.float32 if states_nD.device.type == "mps" else torch.float64
    return _finite(states_nD[real_n]).mean(0, dtype=dtype)


def _finite(values: Tensor) -> Tensor:
    """Values of a model, which N does not make NaN.

    Raises:
        UserError: some are not finite.
    """
    if values.isfinite().all():
        return values
    raise UserError(
        "the model gives values that are not finite",
        remedy="use --dtype float32, or check the model with `hyena models verify`",
    )
