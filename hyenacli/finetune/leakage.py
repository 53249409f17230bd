"""What the splits of labelled records share and should not: sequences, 31-mers, regions and groups.

N records, P positions of 31-mers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hyenacli.evaluation.sketch import K, hash_kmers, last_hash
from hyenacli.finetune.splits import Indices, LabelSplits
from hyenacli.genome.dna import strandless_digest
from hyenacli.inference.intervals import SPLITS
from hyenacli.readers.tables import LabelledRecord
from hyenadna import Tokenizer

MAX_KMERS = 1 << 23
SIMILAR = 0.5
"""Records with this share of their 31-mers in training records are worth a warning."""
_PIECE = 1 << 20
# Share of 31-mers that joins two records, and the most records of a 31-mer that are compared with each other.
_JOINED = SIMILAR / 2
_FREQUENT = 20

LeakKind = Literal["sequence", "similar", "region", "group"]
_RELATIONS: dict[LeakKind, str] = {
    "sequence": "have a sequence, or its reverse complement, that is also in",
    "similar": f"have half of their {K}-mers or more in",
    "region": "overlap a region in",
    "group": "belong to a group that is also in",
}


@dataclass(frozen=True)
class Leak:
    """Records of a split that share something with an earlier split.

    Attributes:
        kind: the whole sequence on either strand, half of its 31-mers, bases of the genome, or the group.
        earlier: the split that comes first among train, valid and test.
        later: the split of the records.
        count: records of `later` that share it with a record of `earlier`.
        total: records of `later`.
        examples: some of the records.
        covered: all of them share something else too, which has a warning of its own.
    """

    kind: LeakKind
    earlier: str
    later: str
    count: int
    total: int
    examples: tuple[LabelledRecord, ...]
    covered: bool = False

    @property
    def sentence(self) -> str:
        """A sentence for a warning."""
        share = f"{self.count:,} of {self.total:,} {self.later} records ({self.count / self.total:.1%})"
        first, *others = self.examples
        names = [f"{first.id} ({first.file}, {first.unit} {first.line})", *(record.id for record in others)]
        return f"{share} {_RELATIONS[self.kind]} {self.earlier}, such as {', '.join(names)}"

    def to_json(self) -> dict[str, Any]:
        """Return what metrics.json says of it."""
        return {
            "kind": self.kind,
            "split": self.later,
            "shared_with": self.earlier,
            "records": self.count,
            "share": self.count / self.total,
        }


class LeakFinder:
    """A search for what splits of records share; what depends on the records only is computed once."""

    def __init__(self, records: Sequence[LabelledRecord]) -> None:
        self._records = records

    @cached_property
    def _digests(self) -> list[bytes]:
        return [strandless_digest(record.sequence) for record in self._records]

    @cached_property
    def _kmers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The number of each 31-mer, equal for equal ones on either strand, and its record: two of (P,).

        Of many 31-mers a random sample is taken, the same of every record.
        """
        total = sum(len(record.sequence) for record in self._records)
        limit = last_hash(max(1, -(-total // MAX_KMERS)))
        pieces = [(hashes[hashes <= limit], of[hashes <= limit]) for hashes, of in _hashed(self._records)]
        hashes_P, of_P = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        order_P = np.argsort(hashes_P)
        ordered_P = hashes_P[order_P]
        numbers_P = np.zeros(len(order_P), np.int64)
        numbers_P[order_P[1:]] = np.cumsum(ordered_P[1:] != ordered_P[:-1])
        return numbers_P, of_P

    def components(self) -> list[str]:
        """Return a group of each record: those that share sequences, on either strand, directly or by others.

        Two records are joined where they are equal, or where one has a quarter of its 31-mers in the other:
        half of a record's 31-mers may lie in two others. Of a 31-mer in more than 20 records only the first
        is compared with the others.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        count = len(self._records)
        pairs = [_star(np.unique(self._digests, return_inverse=True)[1], np.arange(count))]
        numbers_P, of_P = self._kmers
        order_P = np.lexsort((of_P, numbers_P))
        numbers_P, of_P = numbers_P[order_P], of_P[order_P]
        firsts = np.flatnonzero((np.diff(numbers_P, prepend=-1) != 0) | (np.diff(of_P, prepend=-1) != 0))
        # how often the record has the 31-mer: simple repeats are few 31-mers, many times
        often_P = np.diff(firsts, append=len(of_P))
        numbers_P, of_P = numbers_P[firsts], of_P[firsts]
        size_N = np.bincount(of_P, often_P, minlength=count)
        indices_P = np.arange(len(of_P))
        shared = [_star(numbers_P, indices_P)]
        rare_P = indices_P[np.bincount(numbers_P)[numbers_P] <= _FREQUENT]
        leads_P = np.diff(numbers_P[rare_P], prepend=-1) != 0
        for distance in range(1, _FREQUENT):
            # pairs with the first record of a 31-mer are counted already
            same_P = (numbers_P[rare_P[distance:]] == numbers_P[rare_P[:-distance]]) & ~leads_P[:-distance]
            shared.append(np.stack([rare_P[:-distance][same_P], rare_P[distance:][same_P]]))
        joined_2P = np.concatenate(shared, axis=1)
        for side in (0, 1):
            weights_P = often_P[joined_2P[side]]
            matrix = coo_array((weights_P, tuple(of_P[joined_2P])), (count, count)).tocsr().tocoo()
            enough = matrix.data >= _JOINED * size_N[(matrix.row, matrix.col)[side]]
            pairs.append(np.stack([matrix.row[enough], matrix.col[enough]]))
        edges = np.concatenate(pairs, axis=1)
        graph = coo_array((np.ones(edges.shape[1]), tuple(edges)), (count, count))
        return [str(group) for group in connected_components(graph, directed=False)[1]]

    def clean(self, splits: LabelSplits) -> Indices:
        """Return the test records that share no sequence, half of their 31-mers or region with training."""
        train, test = splits.train, splits.test
        if not len(test):
            return test
        shares = _in_both(self._digests, train, test) | _overlapping(self._records, train, test)
        return test[~(shares | self._similar(train, test))]

    def find(self, splits: LabelSplits) -> list[Leak]:
        """Return what every two splits share, a `Leak` for each kind; an empty list if they share nothing."""
        groups = [record.group for record in self._records]
        leaks = []
        for earlier, later in combinations(SPLITS, 2):
            earlier_N, later_N = getattr(splits, earlier), getattr(splits, later)
            if not len(earlier_N) or not len(later_N):
                continue
            shared: dict[LeakKind, NDArray[np.bool_]] = {
                "sequence": _in_both(self._digests, earlier_N, later_N),
                "region": _overlapping(self._records, earlier_N, later_N),
                "group": _in_both(groups, earlier_N, later_N),
            }
            warned = np.any(list(shared.values()), axis=0)
            if earlier == "train":
                shared["similar"] = self._similar(earlier_N, later_N)
            for kind, shares in shared.items():
                if shares.any():
                    examples = tuple(self._records[i] for i in later_N[shares][:3].tolist())
                    covered = kind == "similar" and not (shares & ~warned).any()
                    leaks.append(
                        Leak(kind, earlier, later, int(shares.sum()), len(later_N), examples, covered)
                    )
        return leaks

    def _similar(self, training: Indices, held_out: Indices) -> NDArray[np.bool_]:
        """Return which held-out records have half of their 31-mers in training records."""
        numbers_P, of_P = self._kmers
        in_training = np.zeros(len(self._records), np.bool_)
        in_training[training] = True
        known = np.zeros(len(numbers_P), np.bool_)
        known[numbers_P[in_training[of_P]]] = True
        count_N = np.bincount(of_P, minlength=len(self._records))
        known_N = np.bincount(of_P, known[numbers_P], minlength=len(self._records))
        similar_N: NDArray[np.bool_] = (count_N > 0) & (known_N >= SIMILAR * count_N)
        return similar_N[held_out]


def _star(groups_P: NDArray[np.int64], of_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return pairs (2, P) of the first record of each group and each other record of it."""
    order_P = np.argsort(groups_P, kind="stable")
    groups_P, of_P = groups_P[order_P], of_P[order_P]
    first_P = np.append(True, groups_P[1:] != groups_P[:-1])[: len(groups_P)]
    leader_P = of_P[np.maximum.accumulate(np.where(first_P, np.arange(len(first_P)), 0))]
    return np.stack([leader_P[~first_P], of_P[~first_P]])


def _hashed(records: Iterable[LabelledRecord]) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Yield the hashes of 31-mers, and the index of the record of each, for some records at a time."""
    pending: list[bytes] = []
    first = size = 0
    for number, record in enumerate(records, start=1):
        pending.append(record.sequence)
        size += len(record.sequence)
        if size >= _PIECE:
            yield _hash_joined(pending, first)
            pending, first, size = [], number, 0
    yield _hash_joined(pending, first)


def _hash_joined(sequences: Sequence[bytes], first: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    # no 31-mer has an N, and so none spans two sequences
    hashes_P, starts_P = hash_kmers(Tokenizer().encode_array(b"N".join(sequences)))
    ends_N = np.cumsum([len(sequence) + 1 for sequence in sequences])
    return hashes_P, first + np.searchsorted(ends_N, starts_P, side="right")


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
