"""Dependency maps: what the substitution of one base changes in the predictions of all others.

L bases of a region, n positions of all substitutions of a batch, D width, V one of A, C, G and T.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyenacli.inference.embedding import check_finite
from hyenacli.inference.substitutions import Substitutions
from hyenacli.readers.records import OK, SequenceRecord, refuse_longer
from hyenadna import HyenaDNA
from hyenadna.engine.inference import BASES

MEASURES = {"log2odds": "log2 odds", "logp": "log p (nats)"}
"""Names of the measures, for people."""
# Added to probabilities, as the paper of the maps does: odds stay finite.
_FLOOR = 1e-10
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
    reader = Substitutions(model, batch_size, precision)
    longest = min(options.max_length, reader.longest)
    for record in (refuse_longer(record, longest) for record in records):
        if record.status != OK:
            yield DependencyMap(record)
        else:
            values_LL = _strand(reader, record, options.measure, reverse=False)
            values_LL += _strand(reader, record, options.measure, reverse=True)[::-1, ::-1]
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


@torch.inference_mode()
def _strand(reader: Substitutions, record: SequenceRecord, measure: str, *, reverse: bool) -> Map:
    """Return what is above the diagonal of the map of one strand, (L, L) in reading direction."""
    length = len(record)
    flat_LL = torch.zeros(length * length, dtype=reader.exact, device=reader.device)
    reading = reader.strand(record, reverse=reverse)
    before_LV = _values(reader, reading.hidden_LD, measure)
    for batch in reading:
        states_nD, number_n, at_n = batch.flat()
        change_n = (_values(reader, states_nD, measure) - before_LV[at_n]).abs().amax(dim=1)
        row_n = torch.tensor(batch.positions, device=reader.device)[number_n]
        # the state of a position predicts the base after it; the largest of three substitutions stays
        flat_LL.scatter_reduce_(0, row_n * length + at_n + 1, change_n, "amax")
    return flat_LL.view(length, length).float().cpu().numpy()


def _values(reader: Substitutions, hidden_nD: Tensor, measure: str) -> Tensor:
    """Compute the measure of the four next bases (n, V)."""
    logits_nV = reader.model.lm_logits(hidden_nD)[..., slice(*BASES)].to(reader.exact)
    if measure == "logp":
        return logits_nV.log_softmax(-1)
    p_nV = logits_nV.softmax(-1) + _FLOOR
    p_nV = p_nV / p_nV.sum(-1, keepdim=True)
    return torch.log2(p_nV) - torch.log2(1 - p_nV)
