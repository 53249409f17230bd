"""The scores of an allele in one table, and what they are computed from: ALT and REF under a model.

To add a score: a function and a `Score` in `SCORES`, and a word in the help of --score and in the README.

B window, L position, K position from the first that any score needs, D width, n scored position of an allele,
M scored positions of several alleles one after another, N allele, V one of A, C, G and T.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.errors import UsageError, UserError, nearest
from hyenacli.readers.genome import Tokens
from hyenadna import HyenaDNA
from hyenadna.engine.inference import BASES
from hyenadna.engine.suffix import ReferencePass, Suffix
from hyenadna.tokenizer import A, T


@dataclass(frozen=True, slots=True)
class AlleleTokens:
    """Both haplotypes of one allele in a window, from the first position that is scored on.

    Attributes:
        index: of the allele among those that the caller looks at.
        row: of its window among those that are read together.
        offset: of the first position that is scored, in the window.
        ref: the tokens from there on, as many as are scored.
        alt: those of the other haplotype, as many.
    """

    index: int
    row: int
    offset: int
    ref: Tokens
    alt: Tokens


class WindowPass:
    """One pass over windows of the reference, which all their alleles share.

    Args:
        model: in eval mode.
        ids_BL: the windows' tokens, on the model's device.
        first: the position before the earliest one that is scored.
    """

    def __init__(self, model: HyenaDNA, ids_BL: Tensor, first: int):
        self._model, self.ids_BL, self.first = model, ids_BL, first
        self.reference = ReferencePass(model, ids_BL, first)

    @cached_property
    def log_p_BKV(self) -> Tensor:  # noqa: N802, its shape
        """Log-probabilities after every position kept."""
        return self.log_p(self.reference.hidden_BLD)

    def reference_loss(self) -> tuple[float, int]:
        """Return the sum of -log p of the bases after the first position kept, and their number."""
        bases_BK = self.ids_BL[:, self.first + 1 : self.first + self.log_p_BKV.shape[1]]
        nats_BK = _base_log_p(self.log_p_BKV[:, :-1].flatten(0, 1), bases_BK.flatten())
        return -float(nats_BK.sum()), int(_is_base(bases_BK).sum())

    def log_p(self, hidden: Tensor) -> Tensor:
        """Compute log-probabilities of A, C, G and T after these states, float32 at least."""
        logits = self._model.lm_logits(hidden)[..., slice(*BASES)]
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


class LogRatios(NamedTuple):
    """The share of each position in the log-likelihood ratio, all alleles one after another.

    Attributes:
        starts_N: index of the first position of every allele.
        nats_M: log p(base of ALT) - log p(base of REF); N count as 0.
        real_M: whether neither base is N.
    """

    starts_N: NDArray[np.int64]
    nats_M: NDArray[np.float64]
    real_M: NDArray[np.bool_]


class _Predictions(NamedTuple):
    """The scored bases and the log-probabilities at each, all alleles one after another."""

    starts_N: NDArray[np.int64]
    ref_M: Tensor
    alt_M: Tensor
    ref_MV: Tensor
    alt_MV: Tensor


class Comparison:
    """ALT and REF of several alleles under the model; a quantity is computed when a score first needs it.

    Args:
        windows: the pass over the alleles' windows.
        alleles: in any order.
        pooled: read ALT to the last scored position, whose state only means of states need.

    Raises:
        UserError: by all properties, if the model gives values that are not finite.
    """

    def __init__(self, windows: WindowPass, alleles: Sequence[AlleleTokens], *, pooled: bool):
        self._windows, self._alleles, self._pooled = windows, alleles, pooled

    @cached_property
    def _predictions(self) -> _Predictions:
        """What each scored base is predicted from under REF and under ALT."""
        alleles, first, log_p_BKV = self._alleles, self._windows.first, self._windows.log_p_BKV
        lengths = np.array([len(allele.ref) for allele in alleles])
        starts_N = np.cumsum(lengths) - lengths
        # the positions that the reference's bases are predicted from, all windows in a row
        before = [allele.row * log_p_BKV.shape[1] + allele.offset - 1 - first for allele in alleles]
        indices_M = np.repeat(before - starts_N, lengths) + np.arange(lengths.sum())
        device = log_p_BKV.device
        ref_MV = log_p_BKV.flatten(0, 1)[torch.from_numpy(indices_M).to(device)]
        alt_MV = ref_MV.clone()
        later_M = np.ones(len(indices_M), dtype=bool)
        later_M[starts_N] = False
        if later_M.any():
            pairs = zip(self._alt_states, alleles, strict=True)
            before_mD = torch.cat([states_nD[: len(allele.ref) - 1] for states_nD, allele in pairs])
            alt_MV[torch.from_numpy(later_M).to(device)] = self._windows.log_p(before_mD)
        ref_M, alt_M = (
            torch.from_numpy(np.concatenate(parts)).to(device).long()
            for parts in ([allele.ref for allele in alleles], [allele.alt for allele in alleles])
        )
        return _Predictions(starts_N, ref_M, alt_M, ref_MV, alt_MV)

    @cached_property
    def log_ratios(self) -> LogRatios:
        """The log-likelihood ratio of every position."""
        starts_N, ref_M, alt_M, ref_MV, alt_MV = self._predictions
        nats_M = _base_log_p(alt_MV, alt_M) - _base_log_p(ref_MV, ref_M)
        real_M = (_is_base(ref_M) & _is_base(alt_M)).cpu().numpy()
        return LogRatios(starts_N, _check_finite(nats_M).cpu().double().numpy(), real_M)

    @cached_property
    def divergences(self) -> Sequence[float]:
        """The mean divergence of every allele's predictions after the site; NaN where there are none."""
        starts_N, _, _, ref_MV, alt_MV = self._predictions
        bits_M = _check_finite(_jensen_shannon(ref_MV, alt_MV)).cpu().double().numpy()
        counted_M = self.log_ratios.real_M.astype(np.float64)
        counted_M[starts_N] = 0  # both haplotypes predict the site from the same bases
        n_N = np.add.reduceat(counted_M, starts_N)
        sums_N = np.add.reduceat(bits_M * counted_M, starts_N)
        return [total / n if n else math.nan for total, n in zip(sums_N.tolist(), n_N.tolist(), strict=True)]

    @cached_property
    def mean_states(self) -> list[tuple[Tensor, Tensor]]:
        """The mean states (D,) of REF and ALT over the scored positions of every allele."""
        hidden_BKD, pairs = self._windows.reference.hidden_BLD, []
        for allele, states_nD in zip(self._alleles, self._alt_states, strict=True):
            start = allele.offset - self._windows.first
            ref_nD = hidden_BKD[allele.row, start : start + len(allele.ref)]
            pairs.append((_mean_state(ref_nD, allele.ref), _mean_state(states_nD, allele.alt)))
        return pairs

    @cached_property
    def _alt_states(self) -> list[Tensor]:
        """States (n, D) at the ALT's positions that later ones are predicted from, or that are pooled."""
        reference = self._windows.reference
        end = None if self._pooled else -1  # the last position predicts nothing that is scored
        suffixes = [Suffix(a.row, a.offset, torch.from_numpy(a.alt[:end]).long()) for a in self._alleles]
        states = iter(reference.suffixes([suffix for suffix in suffixes if len(suffix.ids)]))
        empty_0D = reference.hidden_BLD[0, :0]
        return [next(states) if len(suffix.ids) else empty_0D for suffix in suffixes]


def _is_base(ids: Tensor) -> Tensor:
    return (ids >= A) & (ids <= T)


def _base_log_p(log_p_nV: Tensor, ids_n: Tensor) -> Tensor:
    """Return the log-probability of each token, 0 for N."""
    real_n = _is_base(ids_n)
    picked_n1 = log_p_nV.gather(-1, (ids_n - A).where(real_n, 0)[:, None])
    return picked_n1[:, 0].where(real_n, 0)


def _jensen_shannon(first_MV: Tensor, second_MV: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of distributions given as logarithms, in bits, 0 to 1."""
    # small differences cancel to second order: float64 where the device has it
    dtype = torch.float32 if first_MV.device.type == "mps" else torch.float64
    pair_2MV = torch.stack([first_MV, second_MV]).to(dtype)
    mixture_MV = pair_2MV.logsumexp(0) - math.log(2)
    return (pair_2MV.exp() * (pair_2MV - mixture_MV)).sum((0, -1)).clamp(min=0) / (2 * math.log(2))


def _mean_state(states_nD: Tensor, ids_n: Tokens) -> Tensor:
    """Return the mean state of the positions that are not N, in float64 where the device has it; else NaN."""
    real_n = torch.from_numpy((ids_n >= A) & (ids_n <= T)).to(states_nD.device)
    dtype = torch.float32 if states_nD.device.type == "mps" else torch.float64
    return _check_finite(states_nD[real_n]).mean(0, dtype=dtype)


def _check_finite(values: Tensor) -> Tensor:
    """Return the values of a model, which N does not make NaN.

    Raises:
        UserError: some are not finite.
    """
    if values.isfinite().all():
        return values
    raise UserError(
        "the model gives values that are not finite",
        remedy="use --dtype float32, or check the model with `hyena models verify`",
    )


def _llr(comparison: Comparison) -> Sequence[float]:
    ratios = comparison.log_ratios
    return list(np.add.reduceat(ratios.nats_M, ratios.starts_N).tolist())


def _site(comparison: Comparison) -> Sequence[float]:
    starts_N, nats_M, real_M = comparison.log_ratios
    return list(np.where(real_M[starts_N], nats_M[starts_N], np.nan).tolist())


def _jsd(comparison: Comparison) -> Sequence[float]:
    return comparison.divergences


def _cosine(comparison: Comparison) -> Sequence[float]:
    return [float(1 - torch.cosine_similarity(*pair, dim=0)) for pair in comparison.mean_states]


def _l2(comparison: Comparison) -> Sequence[float]:
    return [float((alt_D - ref_D).norm()) for ref_D, alt_D in comparison.mean_states]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score.

    Attributes:
        description: a sentence for a file's header; {sum}, {span}, {strands}, {window}, {grid} are filled in.
        compute: the values of a comparison's alleles; NaN where the score is undefined.
        site_only: only the first position that differs is scored, so nothing behind it is read.
        pooled: the states at all scored positions are needed, also at the last.
    """

    description: str
    compute: Callable[[Comparison], Sequence[float]]
    site_only: bool = False
    pooled: bool = False


SCORES = {
    "llr": Score(
        description="{sum} of log p(ALT) - log p(REF) in nats, p over A C G T, {strands}, window {window}, "
        "grid {grid}; negative: ALT is less likely",
        compute=_llr,
    ),
    "site": Score(
        description="log p(ALT) - log p(REF) in nats of the first differing base, given those before "
        "it, p over A C G T, {strands}; negative: ALT is less likely",
        compute=_site,
        site_only=True,
    ),
    "jsd": Score(
        description="Mean Jensen-Shannon divergence in bits, 0 to 1, of the next-base distributions of ALT "
        "and REF over {span}, this one not counted, {strands}",
        compute=_jsd,
    ),
    "cosine": Score(
        description="Cosine distance of the mean embeddings of ALT and REF over {span}, {strands}",
        compute=_cosine,
        pooled=True,
    ),
    "l2": Score(
        description="Euclidean distance of the mean embeddings of ALT and REF over {span}, {strands}",
        compute=_l2,
        pooled=True,
    ),
}


def parse_scores(text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list, each once.

    Raises:
        UsageError: a name is not in `SCORES`.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in SCORES:
            raise UsageError(f"unknown score '{name}'", at="--score", remedy=nearest(name, list(SCORES)))
    return names


def compare(
    windows: WindowPass, alleles: Sequence[AlleleTokens], scores: Sequence[str]
) -> list[Mapping[str, float]]:
    """Return the values of each allele by the names of the scores.

    Raises:
        UserError: the model gives values that are not finite.
    """
    comparison = Comparison(windows, alleles, pooled=any(SCORES[name].pooled for name in scores))
    columns = [SCORES[name].compute(comparison) for name in scores]
    rows = [dict(zip(scores, row, strict=True)) for row in zip(*columns, strict=True)]
    # Equal haplotypes differ by nothing, not by how the two ways of reading them are rounded.
    zeros = dict.fromkeys(scores, 0.0)
    return [
        zeros if np.array_equal(allele.ref, allele.alt) else row
        for allele, row in zip(alleles, rows, strict=True)
    ]
