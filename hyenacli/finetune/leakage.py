"""Records that splits of labelled data share and should not.

Legend of shape suffixes: N records.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hyenacli.finetune.splits import Indices, LabelSplits
from hyenacli.genome.dna import strandless_digest
from hyenacli.inference.intervals import SPLITS
from hyenacli.readers.labelled_record import LabelledRecord

LeakKind = Literal["sequence", "region", "group"]
_RELATIONS: dict[LeakKind, str] = {
    "sequence": "have a sequence, or its reverse complement, that is also in",
    "region": "overlap a region in",
    "group": "belong to a group that is also in",
}


@dataclass(frozen=True)
class Leak:
    """Records of a split that share something with an earlier split.

    Attributes:
        kind: the whole sequence on either strand, bases of the genome, or the group.
        earlier: the split that comes first among train, valid and test.
        later: the split of the records.
        count: records of `later` that share it with a record of `earlier`.
        total: records of `later`.
        example: the first of them.
    """

    kind: LeakKind
    earlier: str
    later: str
    count: int
    total: int
    example: LabelledRecord

    @property
    def sentence(self) -> str:
        """A sentence for a warning."""
        share = f"{self.count:,} of {self.total:,} {self.later} records ({self.count / self.total:.1%})"
        example = f"{self.example.id} ({self.example.file}, {self.example.unit} {self.example.line})"
        return f"{share} {_RELATIONS[self.kind]} {self.earlier}, such as {example}"


def find_leaks(records: Sequence[LabelledRecord], splits: LabelSplits) -> list[Leak]:
    """Return what every two splits share, a `Leak` for each kind; an empty list if they share nothing."""
    digests = [strandless_digest(record.sequence) for record in records]
    groups = [record.group for record in records]
    checks: dict[LeakKind, Callable[[Indices, Indices], NDArray[np.bool_]]] = {
        "sequence": lambda earlier, later: _in_both(digests, earlier, later),
        "region": lambda earlier, later: _overlapping(records, earlier, later),
        "group": lambda earlier, later: _in_both(groups, earlier, later),
    }
    leaks = []
    for earlier, later in combinations(SPLITS, 2):
        later_N: Indices = getattr(splits, later)
        for kind, check in checks.items():
            shared_N = later_N[check(getattr(splits, earlier), later_N)]
            if shared_N.size:
                example = records[int(shared_N[0])]
                leaks.append(Leak(kind, earlier, later, len(shared_N), len(later_N), example))
    return leaks


def _in_both(keys: Sequence[bytes] | Sequence[str], earlier: Indices, later: Indices) -> NDArray[np.bool_]:
    """Return which records of `later` have a key of `earlier`; an empty key is none."""
    earlier_keys = {keys[i] for i in earlier.tolist()} - {"", b""}
    return np.array([keys[i] in earlier_keys for i in later.tolist()], dtype=bool)


def _overlapping(records: Sequence[LabelledRecord], earlier: Indices, later: Indices) -> NDArray[np.bool_]:
    """Return which regions of `later` share a base with one of `earlier`, on either strand."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for i in earlier.tolist():
        region = records[i].region
        if region is not None:
            spans.setdefault(region.contig, []).append((region.start, region.end))
    sorted_spans = {}
    for contig, contig_spans in spans.items():
        starts, ends = np.array(sorted(contig_spans), dtype=np.int64).T
        sorted_spans[contig] = starts, np.maximum.accumulate(ends)
    overlaps = np.zeros(len(later), dtype=bool)
    for index, i in enumerate(later.tolist()):
        region = records[i].region
        if region is not None and region.contig in sorted_spans:
            starts, ends = sorted_spans[region.contig]
            before = int(np.searchsorted(starts, region.end, side="left"))
            overlaps[index] = before > 0 and ends[before - 1] > region.start
    return overlaps
