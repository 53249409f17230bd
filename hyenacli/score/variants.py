"""The effect of alleles on what a model expects: log-likelihood ratios and distances of states.

Alleles of one window and strand share a reference pass; each then costs its own suffix only, whatever the
size of the window. Windows are those of `haplotypes`; nothing depends on which alleles come together.

B window, L position, K position from the first that any score needs, D width, n scored position of an allele,
M scored positions of several alleles one after another, N allele, V one of A, C, G and T.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.data.store import Tokens
from hyenacli.devices import is_out_of_memory
from hyenacli.errors import UserError
from hyenacli.genome.variant import Variant
from hyenacli.score.haplotypes import (
    N_WINDOW,
    OK,
    Sequences,
    Strand,
    WindowRule,
    placed_haplotypes,
    tokens,
    window_status,
)
from hyenadna import HyenaDNA
from hyenadna.engine.inference import BASES
from hyenadna.engine.suffix import ReferencePass, Suffix
from hyenadna.tokenizer import A, T

_KEPT_BYTES = 1 << 30
_LOOKAHEAD = 1 << 14
_Place = tuple[str, int]
"""Contig and start of a window."""


@dataclass(frozen=True)
class VariantRecipe:
    """What is computed of an allele.

    Attributes:
        rule: which windows are read, and how many positions are scored.
        scores: some of `variant_plan.SCORES`.
        both_strands: take the mean of both strands; else the forward strand alone.
    """

    rule: WindowRule
    scores: tuple[str, ...] = ("llr",)
    both_strands: bool = True


@dataclass(frozen=True, slots=True)
class AlleleScore:
    """The answer for one allele.

    Attributes:
        status: OK, EDGE, or why there are no values.
        values: by the names of the recipe's scores; NaN where a score means nothing, none where all do.
    """

    status: str
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Task:
    """One allele as it reads on one strand: `number` is its place among the alleles looked at together."""

    number: int
    own: Variant


@dataclass(frozen=True, slots=True)
class _Job:
    """A task whose window is row `row` of those read together, its haplotypes as tokens from `offset` on."""

    number: int
    row: int
    offset: int
    ref: Tokens
    alt: Tokens


class _Strands(dict[str, Strand]):
    """One strand of every contig, by name."""

    def __init__(self, genome: Sequences, *, reverse: bool):
        super().__init__()
        self._genome, self._reverse = genome, reverse

    def __missing__(self, contig: str) -> Strand:
        strand = self[contig] = Strand(self._genome, contig, reverse=self._reverse)
        return strand


class VariantScorer:
    """Scores alleles with one model and one genome.

    llr: the sum over the scored positions of log p(base of ALT) - log p(base of REF), each given all bases
    before it in its haplotype; negative where ALT is less likely. site: the first of these differences
    alone. cosine, l2: the distance of the mean states at the scored positions. N count in none of them.
    Probabilities are over A, C, G and T.

    Args:
        model: in eval mode, on the device to use.
        genome: the reference.
        recipe: what to compute.
        batch_tokens: most tokens in one forward pass, those of a soft prompt included.
        precision: context of every pass.
        tell: called while alleles are read, with how many more have been; one strand of two is half of one.
    """

    def __init__(
        self,
        model: HyenaDNA,
        genome: Sequences,
        recipe: VariantRecipe,
        *,
        batch_tokens: int,
        precision: AbstractContextManager[object],
        tell: Callable[[float], None] = lambda _alleles: None,
    ):
        self._tell = tell
        self._model, self._genome, self._recipe = model, genome, recipe
        self._batch_tokens, self._precision = batch_tokens, precision
        self._device = next(model.parameters()).device
        # the site's own bases are predicted from what precedes them: nothing else is read for them
        site_alone = recipe.scores == ("site",)
        self._rule = rule = replace(recipe.rule, downstream=1) if site_alone else recipe.rule
        self._first = rule.size // 2 - 1  # the position before the earliest site
        config, pass_tokens = model.config, model.backbone.n_soft + rule.read
        per_window = 4 * config.d_model * (rule.read - self._first) * (3 * config.n_layer + 1)
        self._windows = max(1, min(_KEPT_BYTES // per_window, batch_tokens // pass_tokens))
        self._states = bool({"cosine", "l2"} & set(recipe.scores))

    def score(self, alleles: Iterable[Variant | str]) -> Iterator[AlleleScore]:
        """The answers, in order.

        Args:
            alleles: variants whose REF is the genome's, or a status that says why there is none.

        Raises:
            UserError: a single window does not fit into memory.
        """
        rest = iter(alleles)
        while chunk := list(islice(rest, _LOOKAHEAD)):
            yield from self._chunk(chunk)

    def _chunk(self, alleles: Sequence[Variant | str]) -> list[AlleleScore]:
        statuses = [allele if isinstance(allele, str) else OK for allele in alleles]
        sums: list[list[dict[str, float]]] = [[] for _ in alleles]
        for reverse in (False, True)[: 1 + self._recipe.both_strands]:
            strands = _Strands(self._genome, reverse=reverse)
            windows = self._tasks(alleles, statuses, strands)
            places = sorted(windows)
            first = 0
            while first < len(places):  # where memory runs out, `_windows` is less from then on
                some = places[first : first + self._windows]
                first += len(some)
                found = self._bearable(some, [windows[place] for place in some], strands)
                for number, values in found:
                    sums[number].append(values)
                self._tell(len(found) / (1 + self._recipe.both_strands))
        return [
            AlleleScore(status, _mean(values) if values and status in (OK, "EDGE") else {})
            for status, values in zip(statuses, sums, strict=True)
        ]

    def _tasks(
        self, alleles: Sequence[Variant | str], statuses: list[str], strands: _Strands
    ) -> dict[_Place, list[_Task]]:
        """The alleles by window; statuses are changed by what the windows are like."""
        windows: dict[_Place, list[_Task]] = defaultdict(list)
        seen: dict[_Place, str] = {}
        for number, allele in enumerate(alleles):
            if isinstance(allele, str):
                continue
            strand = strands[allele.contig]
            own = strand.variant(allele)
            place = allele.contig, self._rule.start(own.position)
            if place not in seen:
                seen[place] = window_status(strand, self._rule, place[1])
            if seen[place] != OK and statuses[number] != N_WINDOW:
                statuses[number] = seen[place]
            if seen[place] != N_WINDOW:
                windows[place].append(_Task(number, own))
        return windows

    def _bearable(
        self, places: Sequence[_Place], tasks: Sequence[Sequence[_Task]], strands: _Strands
    ) -> list[tuple[int, dict[str, float]]]:
        """What `_read` gives, of half as much at a time from now on where memory runs out."""
        try:
            return list(self._read(places, tasks, strands))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, where the error's frames no longer keep the tensors of the failed pass.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(places) // 2
        if half:
            self._windows = half
            first = self._bearable(places[:half], tasks[:half], strands)
            return [*first, *self._bearable(places[half:], tasks[half:], strands)]
        if self._batch_tokens > self._rule.read:
            self._batch_tokens //= 2
            return self._bearable(places, tasks, strands)
        raise UserError(
            f"out of memory on {self._device} with one window of {self._rule.size:,} bases",
            remedy="choose a smaller --window or --downstream, or a device with more memory",
        )

    def _read(
        self, places: Sequence[_Place], tasks: Sequence[Sequence[_Task]], strands: _Strands
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """One reference pass over windows, and the suffixes of their alleles."""
        length = self._rule.read
        rows = [tokens(strands[contig].bases(start, start + length)) for contig, start in places]
        ids_BL = torch.from_numpy(np.stack(rows)).to(self._device).long()
        with torch.inference_mode(), self._precision:
            reference = ReferencePass(self._model, ids_BL, self._first)
            log_p_BKV = self._log_p(reference.hidden_BLD)
            jobs = [
                self._job(row, strands[contig], task)
                for row, ((contig, _), here) in enumerate(zip(places, tasks, strict=True))
                for task in here
            ]
            jobs.sort(key=lambda job: len(job.ref))
            for batch in self._batches(jobs):
                values = self._values(reference, log_p_BKV, batch)
                yield from zip((job.number for job in batch), values, strict=True)

    def _job(self, row: int, strand: Strand, task: _Task) -> _Job:
        found = placed_haplotypes(strand, task.own, self._rule)
        return _Job(task.number, row, found.offset, tokens(found.ref), tokens(found.alt))

    def _batches(self, jobs: Sequence[_Job]) -> Iterator[Sequence[_Job]]:
        """Jobs in rising order of length, as many as fit into a forward pass."""
        start = 0
        for end in range(1, len(jobs) + 1):
            following = len(jobs[min(end, len(jobs) - 1)].ref) + 4
            if end == len(jobs) or (end + 1 - start) * following > self._batch_tokens:
                yield jobs[start:end]
                start = end

    def _values(
        self, reference: ReferencePass, log_p_BKV: Tensor, batch: Sequence[_Job]
    ) -> list[dict[str, float]]:
        """The scores of some alleles of the windows that were read."""
        states = self._suffix_states(reference, batch)
        columns: dict[str, Iterable[float]] = {}
        if {"llr", "site"} & set(self._recipe.scores):
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
        chosen = [columns[name] for name in self._recipe.scores]
        values = [dict(zip(self._recipe.scores, row, strict=True)) for row in zip(*chosen, strict=True)]
        # Equal haplotypes differ by nothing, not by how the two ways of reading them are rounded.
        equal = [np.array_equal(job.ref, job.alt) for job in batch]
        nothing = dict.fromkeys(self._recipe.scores, 0.0)
        return [nothing if same else found for same, found in zip(equal, values, strict=True)]

    def _suffix_states(self, reference: ReferencePass, batch: Sequence[_Job]) -> list[Tensor]:
        """States (n, D) at the ALT's positions that later ones are predicted from, or are pooled."""
        last = None if self._states else -1  # the last position predicts nothing that is scored
        suffixes = [Suffix(job.row, job.offset, torch.from_numpy(job.alt[:last]).long()) for job in batch]
        states = iter(reference.suffixes([suffix for suffix in suffixes if len(suffix.ids)]))
        none_0D = reference.hidden_BLD[0, :0]
        return [next(states) if len(suffix.ids) else none_0D for suffix in suffixes]

    def _differences(
        self, log_p_BKV: Tensor, batch: Sequence[_Job], states: Sequence[Tensor]
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

    def _pooled(self, hidden_KD: Tensor, job: _Job, states_nD: Tensor) -> tuple[Tensor, Tensor]:
        """The mean states of REF and ALT."""
        start = job.offset - self._first
        return _mean_state(hidden_KD[start : start + len(job.ref)], job.ref), _mean_state(states_nD, job.alt)

    def _log_p(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of A, C, G and T after these states, float32 at least."""
        logits = self._model.lm_logits(hidden)[..., slice(*BASES)]
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


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


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of both strands' values."""
    return {name: sum(values[name] for values in found) / len(found) for name in found[0]}
