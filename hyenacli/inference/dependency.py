"""Dependency maps: what the substitution of one base changes in the predictions of all others.

L bases of a region, N suffixes, n positions of all suffixes of a batch, D width, V one of A, C, G and T.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.devices import is_out_of_memory
from hyenacli.errors import UserError
from hyenacli.inference.batching import make_budget
from hyenacli.inference.embedding import check_finite
from hyenacli.readers.records import OK, SequenceRecord, refuse_longer
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.engine.inference import BASES
from hyenadna.engine.suffix import ReferencePass, Suffix

MEASURES = {"log2odds": "log2 odds", "logp": "log p (nats)"}
"""Names of the measures, for people."""
# Added to probabilities, as the paper of the maps does: odds stay finite.
_FLOOR = 1e-10
_TOKENIZER = Tokenizer()
Map = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class MapOptions:
    """What a map shows.

    Attributes:
        measure: log2odds or logp.
        symmetrize: none, mean or max of both directions.
        max_length: longest record, in bases.
    """

    measure: str = "log2odds"
    symmetrize: str = "none"
    max_length: int = 1000


@dataclass(frozen=True, slots=True)
class DependencyMap:
    """The map of one record.

    Attributes:
        record: its status is TOO_LONG where it is longer than the options or the model allow.
        values_LL: row: base that is substituted; column: base whose prediction changes; both in the order of
            the + strand. The largest absolute change over three substitutions and four predicted bases; 0 on
            the diagonal, NaN in rows and columns of N. None if the status is not OK.
    """

    record: SequenceRecord
    values_LL: Map | None = None

    @property
    def n_bases(self) -> int:
        """Bases of the map."""
        return 0 if self.values_LL is None else len(self.values_LL)

    @property
    def sequence(self) -> str:
        """Bases of the region, on the + strand."""
        return self.record.bases[self.record.left : self.record.left + len(self.record)].decode()

    def influence(self) -> NDArray[np.float64]:
        """Compute the mean (L,) over the other bases of what a substitution changes; NaN at N.

        A record of a single known base has no other: its influence is 0.
        """
        assert self.values_LL is not None  # noqa: S101  (asked of maps only)
        known_LL = np.isfinite(self.values_LL)
        sums_L = np.where(known_LL, self.values_LL, 0).sum(axis=1, dtype=np.float64)
        others_L = known_LL.sum(axis=1) - 1
        return np.where(others_L >= 0, sums_L / np.maximum(others_L, 1), np.nan)


def dependency_maps(
    model: HyenaDNA,
    records: Iterable[SequenceRecord],
    options: MapOptions,
    *,
    batch_size: int | None = None,
    precision: AbstractContextManager[Any] | None = None,
) -> Iterator[DependencyMap]:
    """Compute the maps of records: one answer each, in their order.

    The model is causal: a substitution at i changes the predictions of bases after i only. The same on the
    reverse complement gives the bases before i. Each strand is read once, and each of its 3 L substitutions
    costs the bases after it. Flanks are read as context, as far as the model goes.

    Args:
        model: in eval mode, on the device to use.
        records: those whose status is not OK pass through.
        options: what the maps show.
        batch_size: substitutions per forward pass; None derives it from the free memory.
        precision: entered around every forward pass, such as an autocast.

    Raises:
        UserError: the model gave values that are not finite, or one substitution does not fit into memory.
    """
    device = next(model.parameters()).device
    tokens = make_budget(batch_size, model.config.d_model, 0, device).tokens
    mapper = _Mapper(model, options.measure, batch_size or tokens, tokens, precision or nullcontext())
    longest = min(options.max_length, model.longest_input, model.config.context)
    for record in (refuse_longer(record, longest) for record in records):
        if record.status != OK:
            yield DependencyMap(record)
        else:
            values_LL = mapper.strand(record, reverse=False)
            values_LL += mapper.strand(record, reverse=True)[::-1, ::-1]
            check_finite(values_LL, record)
            yield DependencyMap(record, _finished(values_LL, record, options.symmetrize))


def _finished(values_LL: Map, record: SequenceRecord, symmetrize: str) -> Map:
    """Join both directions if they are to be, and leave out N."""
    if symmetrize == "mean":
        values_LL = (values_LL + values_LL.T) * np.float32(0.5)
    elif symmetrize == "max":
        values_LL = np.maximum(values_LL, values_LL.T)
    region = record.bases[record.left : record.left + len(record)]
    unknown_L = np.frombuffer(region, np.uint8) == ord("N")
    values_LL[unknown_L] = np.nan
    values_LL[:, unknown_L] = np.nan
    return values_LL


class _Mapper:
    """Maps of single strands.

    Args:
        model: the model.
        measure: of predictions.
        sequences: most substitutions of a pass.
        tokens: most tokens of a pass; both shrink where memory runs out.
        precision: context of every pass.
    """

    def __init__(
        self,
        model: HyenaDNA,
        measure: str,
        sequences: int,
        tokens: int,
        precision: AbstractContextManager[Any],
    ):
        self._model, self._measure, self._precision = model, measure, precision
        self._sequences, self._tokens = sequences, tokens
        self._device = next(model.parameters()).device
        self._exact = torch.float32 if self._device.type == "mps" else torch.float64

    def strand(self, record: SequenceRecord, *, reverse: bool) -> Map:
        """Return what is above the diagonal of the map of one strand, (L, L) in reading direction."""
        bases, offset = record.reading(reverse=reverse)
        length = len(record)
        end = offset + length - 1  # the last base is predicted, but need not be read
        begin = max(0, end - min(self._model.longest_input, self._model.config.context))
        ids_L = torch.from_numpy(_TOKENIZER.encode_array(bases[begin:end])).to(self._device).long()
        first = offset - begin
        flat_LL = torch.zeros(length * length, dtype=self._exact, device=self._device)
        if length > 1:
            with torch.inference_mode(), self._precision:
                reference = ReferencePass(self._model, ids_L[None], first)
                before_LV = self._values(reference.hidden_BLD[0])
                for batch in self._batches(_substitutions(ids_L, first)):
                    states = self._read(reference, batch)
                    self._add(flat_LL, batch, states, before_LV, first)
        return flat_LL.view(length, length).float().cpu().numpy()

    def _batches(self, suffixes: list[Suffix]) -> Iterator[list[Suffix]]:
        """Yield suffixes, the longest first, as many as fit into a pass."""
        start = 0
        while start < len(suffixes):
            each = len(suffixes[start].ids) + 8
            batch = suffixes[start : start + max(1, min(self._sequences, self._tokens // each))]
            yield batch
            start += len(batch)

    def _read(self, reference: ReferencePass, batch: list[Suffix]) -> list[Tensor]:
        """Compute the states of suffixes, with half as many at a time from now on where memory runs out."""
        try:
            return reference.suffixes(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, where the error's frames no longer keep the tensors of the failed pass.
        if len(batch) == 1:
            what = f"out of memory on {self._device} with one substitution"
            raise UserError(what, remedy="choose shorter regions or a smaller --flank")
        half = self._sequences = len(batch) // 2
        return [*self._read(reference, batch[:half]), *self._read(reference, batch[half:])]

    def _add(
        self, flat_LL: Tensor, batch: list[Suffix], states: list[Tensor], before_LV: Tensor, first: int
    ) -> None:
        """Enter the changes of a batch into the map; the largest of a base's three substitutions stays."""
        length = len(before_LV) + 1
        rows = [suffix.start - first for suffix in batch]
        at_n = torch.cat([torch.arange(row, length - 1, device=self._device) for row in rows])
        counts = torch.tensor([length - 1 - row for row in rows], device=self._device)
        row_n = torch.tensor(rows, device=self._device).repeat_interleave(counts)
        change_n = (self._values(torch.cat(states)) - before_LV[at_n]).abs().amax(dim=1)
        # the state of a position predicts the base after it
        flat_LL.scatter_reduce_(0, row_n * length + at_n + 1, change_n, "amax")

    def _values(self, hidden_nD: Tensor) -> Tensor:
        """Compute the measure of the four next bases (n, V)."""
        logits_nV = self._model.lm_logits(hidden_nD)[..., slice(*BASES)].to(self._exact)
        if self._measure == "logp":
            return logits_nV.log_softmax(-1)
        p_nV = logits_nV.softmax(-1) + _FLOOR
        p_nV = p_nV / p_nV.sum(-1, keepdim=True)
        return torch.log2(p_nV) - torch.log2(1 - p_nV)


def _substitutions(ids_L: Tensor, first: int) -> list[Suffix]:
    """Return the three substitutions of every base from position `first` on that is no N, longest first."""
    suffixes = []
    for position, token in enumerate(ids_L.tolist()):
        if position < first or not BASES[0] <= token < BASES[1]:
            continue
        for other in range(*BASES):
            if other != token:
                changed = ids_L[position:].clone()
                changed[0] = other
                suffixes.append(Suffix(0, position, changed))
    return suffixes
