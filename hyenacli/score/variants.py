"""The effect of alleles on what a model expects: log-likelihood ratios and distances of states.

Alleles of one window and strand share a reference pass; each then costs its own suffix only, whatever the
size of the window. Windows are those of `haplotypes`; nothing depends on which alleles come together.

B window, L position, D width, n position of a suffix, V one of A, C, G and T.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from hyenacli.genome.variant import Variant
from hyenacli.score.haplotypes import (
    N_WINDOW,
    OK,
    Haplotypes,
    Sequences,
    Strand,
    WindowRule,
    haplotypes,
    tokens,
    window_status,
)
from hyenadna import HyenaDNA
from hyenadna.engine.inference import BASES
from hyenadna.engine.suffix import ReferencePass, Suffix
from hyenadna.tokenizer import A, T

SCORES = ("llr", "site", "cosine", "l2")
_KEPT_BYTES = 1 << 30
_LOOKAHEAD = 2048


@dataclass(frozen=True)
class VariantRecipe:
    """What is computed of an allele.

    Attributes:
        rule: which windows are read, and how many positions are scored.
        scores: some of `SCORES`.
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
    """One allele on one strand: `number` is its place among the alleles looked at together."""

    number: int
    found: Haplotypes


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
        batch_tokens: most tokens in one forward pass.
        precision: context of every pass.
    """

    def __init__(
        self,
        model: HyenaDNA,
        genome: Sequences,
        recipe: VariantRecipe,
        *,
        batch_tokens: int,
        precision: AbstractContextManager[object],
    ):
        self._model, self._genome, self._recipe = model, genome, recipe
        self._batch_tokens, self._precision = batch_tokens, precision
        self._device = next(model.parameters()).device
        config = model.config
        per_window = 4 * config.d_model * recipe.rule.read * (3 * config.n_layer + 1)
        self._windows = max(1, min(_KEPT_BYTES // per_window, batch_tokens // recipe.rule.read))
        self._states = bool({"cosine", "l2"} & set(recipe.scores))

    def score(self, alleles: Iterable[Variant | str]) -> Iterator[AlleleScore]:
        """The answers, in order.

        Args:
            alleles: variants whose REF is the genome's, or a status that says why there is none.
        """
        rest = iter(alleles)
        while chunk := list(islice(rest, _LOOKAHEAD)):
            yield from self._chunk(chunk)

    def _chunk(self, alleles: Sequence[Variant | str]) -> list[AlleleScore]:
        statuses = [allele if isinstance(allele, str) else OK for allele in alleles]
        sums: list[list[dict[str, float]]] = [[] for _ in alleles]
        for reverse in (False, True)[: 1 + self._recipe.both_strands]:
            windows = self._tasks(alleles, statuses, reverse=reverse)
            places = sorted(windows)
            for first in range(0, len(places), self._windows):
                some = places[first : first + self._windows]
                for number, values in self._read(some, [windows[place] for place in some], reverse=reverse):
                    sums[number].append(values)
        return [
            AlleleScore(status, _mean(found) if found and status in (OK, "EDGE") else {})
            for status, found in zip(statuses, sums, strict=True)
        ]

    def _tasks(
        self, alleles: Sequence[Variant | str], statuses: list[str], *, reverse: bool
    ) -> dict[tuple[str, int], list[_Task]]:
        """The alleles by contig and window start; statuses are changed by what the windows are like."""
        windows: dict[tuple[str, int], list[_Task]] = defaultdict(list)
        strands: dict[str, Strand] = {}
        seen: dict[tuple[str, int], str] = {}
        for number, allele in enumerate(alleles):
            if isinstance(allele, str):
                continue
            name = allele.contig
            strand = strands.setdefault(name, Strand(self._genome, name, reverse=reverse))
            found = haplotypes(strand, allele, self._recipe.rule)
            place = name, found.start
            if place not in seen:
                seen[place] = window_status(strand, self._recipe.rule, found.start)
            if seen[place] != OK and statuses[number] != N_WINDOW:
                statuses[number] = seen[place]
            if seen[place] != N_WINDOW:
                windows[place].append(_Task(number, found))
        return windows

    def _read(
        self, places: Sequence[tuple[str, int]], tasks: Sequence[Sequence[_Task]], *, reverse: bool
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """One reference pass over windows, and the suffixes of their alleles."""
        length = self._recipe.rule.read
        rows = [
            tokens(Strand(self._genome, contig, reverse=reverse).bases(start, start + length))
            for contig, start in places
        ]
        ids_BL = torch.from_numpy(np.stack(rows)).to(self._device).long()
        with torch.inference_mode(), self._precision:
            reference = ReferencePass(self._model, ids_BL)
            log_p_BLV = self._log_p(reference.hidden_BLD)
            jobs = [(row, task) for row, here in enumerate(tasks) for task in here]
            jobs.sort(key=lambda job: len(job[1].found.ref))
            for batch in self._batches(jobs):
                states = self._suffix_states(reference, batch)
                for (row, task), states_nD in zip(batch, states, strict=True):
                    hidden_LD = reference.hidden_BLD[row]
                    yield task.number, self._values(task.found, log_p_BLV[row], hidden_LD, states_nD)

    def _batches(self, jobs: Sequence[tuple[int, _Task]]) -> Iterator[Sequence[tuple[int, _Task]]]:
        """Jobs in rising order of length, as many as fit into a forward pass."""
        start = 0
        for end in range(1, len(jobs) + 1):
            following = len(jobs[min(end, len(jobs) - 1)][1].found.ref) + 4
            if end == len(jobs) or (end + 1 - start) * following > self._batch_tokens:
                yield jobs[start:end]
                start = end

    def _suffix_states(self, reference: ReferencePass, batch: Sequence[tuple[int, _Task]]) -> list[Tensor]:
        """States (n, D) at the ALT's positions that later ones are predicted from, or are pooled."""
        if self._recipe.scores == ("site",):
            return [reference.hidden_BLD[0, :0]] * len(batch)
        last = None if self._states else -1  # the last position predicts nothing that is scored
        suffixes = [
            Suffix(row, task.found.offset, torch.from_numpy(tokens(task.found.alt[:last])).long())
            for row, task in batch
        ]
        wanted = [suffix for suffix in suffixes if len(suffix.ids)]
        states = iter(reference.suffixes(wanted) if wanted else [])
        return [next(states) if len(s.ids) else reference.hidden_BLD[0, :0] for s in suffixes]

    def _values(
        self, found: Haplotypes, log_p_LV: Tensor, hidden_LD: Tensor, states_nD: Tensor
    ) -> dict[str, float]:
        offset, n = found.offset, len(found.ref)
        ref, alt = (torch.from_numpy(tokens(bases)).long() for bases in (found.ref, found.alt))
        before_1V = log_p_LV[offset - 1 : offset]
        values = {}
        if "site" in self._recipe.scores:
            both_real = bool(_real(ref[0]) & _real(alt[0]))
            site = _chosen(before_1V, alt[:1]) - _chosen(before_1V, ref[:1])
            values["site"] = float(site) if both_real else float("nan")
        if "llr" in self._recipe.scores:
            alt_nV = torch.cat([before_1V, self._log_p(states_nD[: n - 1])])
            ref_nV = log_p_LV[offset - 1 : offset - 1 + n]
            values["llr"] = float((_chosen(alt_nV, alt) - _chosen(ref_nV, ref)).sum(dtype=torch.float64))
        if self._states:
            ref_D = _pooled(hidden_LD[offset : offset + n], ref)
            alt_D = _pooled(states_nD, alt)
            values["cosine"] = float(1 - torch.cosine_similarity(ref_D, alt_D, dim=0))
            values["l2"] = float((alt_D - ref_D).norm())
        return {name: values[name] for name in self._recipe.scores}

    def _log_p(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of A, C, G and T after these states, float32 at least."""
        logits = self._model.lm_logits(hidden)[..., slice(*BASES)]
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _real(ids: Tensor) -> Tensor:
    return (ids >= A) & (ids <= T)


def _chosen(log_p_nV: Tensor, ids_n: Tensor) -> Tensor:
    """The log-probability of each token, 0 for N."""
    ids_n = ids_n.to(log_p_nV.device)
    real_n = _real(ids_n)
    picked_n1 = log_p_nV.gather(-1, (ids_n - A).where(real_n, 0)[:, None])
    return picked_n1[:, 0].where(real_n, 0)


def _pooled(states_nD: Tensor, ids_n: Tensor) -> Tensor:
    """The mean state of the positions that are no N, float64."""
    return states_nD[_real(ids_n).to(states_nD.device)].mean(0, dtype=torch.float64)


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of both strands' values."""
    return {name: sum(values[name] for values in found) / len(found) for name in found[0]}
