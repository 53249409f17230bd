"""What splits of labelled records share that they should not.

Legend of shape suffixes: N records.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hyenacli.finetune.label_splits import Indices, LabelSplits
from hyenacli.genome.dna import strandless_digest
from hyenacli.inference.intervals import SPLITS
from hyenacli.readers.labelled_record import LabelledRecord

_WHAT = {
    "sequence": "have a sequence, or its reverse complement, that is also in",
    "region": "overlap a region in",
    "group": "belong to a group that is also in",
}


@dataclass(frozen=True)
class Leak:
    """Records of one split that another split has in some form.

    Attributes:
        kind: what they share: the whole sequence on either strand, bases of the genome, or the group.
        seen: the split that has it too, which comes first of train, valid and test.
        held: the split of the records.
        count: how many records of `held` share it with one of `seen`.
        total: records of `held`.
        example: the first of them.
    """

    kind: Literal["sequence", "region", "group"]
    seen: str
    held: str
    count: int
    total: int
    example: LabelledRecord

    @property
    def sentence(self) -> str:
        """A sentence for a warning."""
        share = f"{self.count:,} of {self.total:,} {self.held} records ({self.count / self.total:.1%})"
        where = f"{self.example.id} ({self.example.file}, {self.example.unit} {self.example.line})"
        return f"{share} {_WHAT[self.kind]} {self.seen}, such as {where}"


def find_leaks(records: Sequence[LabelledRecord], splits: LabelSplits) -> list[Leak]:
    """What the splits share, for every two of them and every kind; nothing where all is well."""
    keys = [strandless_digest(record.sequence) for record in records]
    groups = [record.group for record in records]
    ways: dict[Literal["sequence", "region", "group"], Callable[[Indices, Indices], NDArray[np.bool_]]] = {
        "sequence": lambda seen, held: _in_both(keys, seen, held),
        "region": lambda seen, held: _overlapping(records, seen, held),
        "group": lambda seen, held: _in_both(groups, seen, held),
    }
    leaks = []
    for seen, held in combinations(SPLITS, 2):
        held_N: Indices = getattr(splits, held)
        for kind, shared in ways.items():
            hits = held_N[shared(getattr(splits, seen), held_N)]
            if hits.size:
                leaks.append(Leak(kind, seen, held, len(hits), len(held_N), records[int(hits[0])]))
    return leaks


def _in_both(keys: Sequence[bytes] | Sequence[str], seen: Indices, held: Indices) -> NDArray[np.bool_]:
    known = {keys[i] for i in seen.tolist()}
    return np.array([bool(keys[i]) and keys[i] in known for i in held.tolist()], dtype=bool)


def _overlapping(records: Sequence[LabelledRecord], seen: Indices, held: Indices) -> NDArray[np.bool_]:
    """Which held regions share a base with a seen one, on whatever strand."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for i in seen.tolist():
        region = records[i].region
        if region is not None:
            spans.setdefault(region.contig, []).append((region.start, region.end))
    reach = {}
    for contig, mine in spans.items():
        starts, ends = np.array(sorted(mine), dtype=np.int64).T
        reach[contig] = starts, np.maximum.accumulate(ends)
    found = np.zeros(len(held), dtype=bool)
    for place, i in enumerate(held.tolist()):
        region = records[i].region
        if region is not None and region.contig in reach:
            starts, ends = reach[region.contig]
            before = int(np.searchsorted(starts, region.end, side="left"))
            found[place] = before > 0 and ends[before - 1] > region.start
    return found
