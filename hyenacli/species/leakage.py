"""What the splits of species share that they should not: whole contigs, accessions, and k-mers."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, TypeVar

from hyenacli.evaluation.sketch import K, Sketch, shared_kmers, sketch
from hyenacli.inference.intervals import SPLITS, Interval
from hyenacli.inference.sampling import complement
from hyenacli.readers.token_store import Contig
from hyenacli.species.splits import SpeciesSplits

SHARE = 0.05
"""A larger share of k-mers is worth a warning."""
_LEAST = 100
_PIECE = 1 << 20

# INSDC, RefSeq and WGS accessions, alone, with a version, or inside a longer name.
_ACCESSION = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2}_?\d{6,9}|[A-Z]{4,6}\d{8,})(?![A-Za-uw-z0-9])")

Key = TypeVar("Key", str, bytes)
_Place = tuple[int, tuple[str, ...]]
"""A species, and those of its splits that a contig is in."""


@dataclass(frozen=True)
class DuplicateContigs:
    """Contigs that two species, or two splits of one, both have.

    Attributes:
        kind: whether the contigs hold the same bases, be it on two strands, or have one accession.
        first: a species and its splits, such as 'human train'.
        second: another.
        count: how many contigs both have.
        example: one of them in each.
    """

    kind: Literal["contents", "accession"]
    first: str
    second: str
    count: int
    example: tuple[Contig, Contig]

    @property
    def sentence(self) -> str:
        """A sentence for a warning."""
        what = "with the same bases" if self.kind == "contents" else "of one accession"
        names = " and ".join(f"{contig.name} ({contig.source})" for contig in self.example)
        number = f"{self.count:,} contigs" if self.count > 1 else "a contig"
        return f"{self.first} and {self.second} have {number} {what}, such as {names}"


@dataclass(frozen=True)
class KmerContainment:
    """How much of a held-out split occurs in a training split, by a sample of its distinct k-mers.

    Attributes:
        held: a species and its split, such as 'mouse test'.
        seen: a species and its training split.
        count: k-mers of the sample that occur there.
        total: k-mers of the sample.
    """

    held: str
    seen: str
    count: int
    total: int

    @property
    def share(self) -> float | None:
        """The share of the k-mers that occur there; None where the sample is too small to tell."""
        return self.count / self.total if self.total >= _LEAST else None

    @property
    def sentence(self) -> str:
        """A sentence for a report."""
        if self.share is None:
            return f"{self.held}: too few {K}-mers to tell whether {self.seen} has them"
        return f"{self.held}: {self.share:.1%} of its {K}-mers occur in {self.seen}"


@dataclass(frozen=True)
class LeakageReport:
    """What `find_leakage` finds.

    Attributes:
        twins: contigs that should be in one place only; empty where all is well.
        overlaps: of every held-out split with every training split, however small.
    """

    twins: tuple[DuplicateContigs, ...]
    overlaps: tuple[KmerContainment, ...]

    @property
    def pairs(self) -> dict[tuple[str, str], KmerContainment]:
        """The overlaps by what is held out and what is trained on."""
        return {(one.held, one.seen): one for one in self.overlaps}

    def to_json(self) -> dict[str, Any]:
        """For metrics.json."""
        fields = ("held", "seen", "share", "count", "total")
        return {
            "contigs": [twin.sentence for twin in self.twins],
            f"shared_{K}_mers": [{name: getattr(one, name) for name in fields} for one in self.overlaps],
        }

    def sentences(self, above: float = SHARE) -> list[str]:
        """What to warn of: twins, overlaps of more than a share of the k-mers, and those nobody can tell."""
        some = [one for one in self.overlaps if one.share is None or one.share > above]
        return [*(twin.sentence for twin in self.twins), *(overlap.sentence for overlap in some)]


def find_leakage(splits: SpeciesSplits) -> LeakageReport:
    """Look for what the splits of species share; nothing depends on strands or on the order of contigs.

    Contigs of the same bases or accession are looked for between all species, and between the splits of each.
    Every validation and test split is compared with the training splits of all species by its distinct
    31-mers, or a sample of them (see `sketch`). These are too long to occur twice by chance: what is shared
    is copied, which may also be a repeat of the genome, or a gene that related species have.

    Reads every base of every split: about half a minute for a billion.
    """
    places = _places(splits)
    digests = {number: _digest(splits.contigs[number]) for number in places}
    accessions = {number: _accession(splits.contigs[number].name) for number in places}
    twins = [
        *_twins(splits, places, "contents", digests.get, lambda *_: True),
        *_twins(splits, places, "accession", accessions.get, lambda a, b: digests[a] != digests[b]),
    ]
    return LeakageReport(tuple(twins), tuple(_overlaps(splits)))


def _places(splits: SpeciesSplits) -> dict[int, _Place]:
    """Where each contig is, by its number; contigs that are in no split are left out."""
    roles: dict[int, dict[str, None]] = {}
    for split in SPLITS:
        for intervals in splits.intervals(split):
            for interval in intervals:
                roles.setdefault(interval.contig, {})[split] = None
    return {number: (splits.labels[number], tuple(roles[number])) for number in sorted(roles)}


def _twins(
    splits: SpeciesSplits,
    places: dict[int, _Place],
    kind: Literal["contents", "accession"],
    key: Callable[[int], Key | None],
    differ: Callable[[int, int], bool],
) -> Iterator[DuplicateContigs]:
    """DuplicateContigs of one kind: contigs in two places with one key, if they differ."""
    alike: dict[Key, list[int]] = {}
    for number in places:
        if (found := key(number)) is not None:
            alike.setdefault(found, []).append(number)
    pairs: dict[tuple[_Place, _Place], list[tuple[int, int]]] = {}
    for members in alike.values():
        for a, b in _apart(members, places):
            if differ(a, b):
                pairs.setdefault((places[a], places[b]), []).append((a, b))
    for between, found_pairs in pairs.items():
        first, second = (f"{splits.names[label]} {'/'.join(roles)}" for label, roles in between)
        a, b = found_pairs[0]
        yield DuplicateContigs(kind, first, second, len(found_pairs), (splits.contigs[a], splits.contigs[b]))


def _apart(members: Iterable[int], places: dict[int, _Place]) -> Iterator[tuple[int, int]]:
    """A pair of contigs for every two places that they are in, and for a place of several splits."""
    by_place: dict[_Place, list[int]] = {}
    for number in members:
        by_place.setdefault(places[number], []).append(number)
    for (_, roles), (first, *others) in by_place.items():
        if len(roles) > 1 and others:
            yield first, others[0]
    for (a, *_), (b, *_) in combinations(by_place.values(), 2):
        yield a, b


def _digest(contig: Contig) -> bytes:
    """Equal for a sequence and its reverse complement."""
    forward, reverse = (hashlib.blake2b(digest_size=16) for _ in range(2))
    for start in range(0, len(contig), _PIECE):
        forward.update(contig.tokens(start, start + _PIECE).tobytes())
    for end in range(len(contig), 0, -_PIECE):
        reverse.update(complement(contig.tokens(max(0, end - _PIECE), end)).tobytes())
    return min(forward.digest(), reverse.digest())


def _accession(name: str) -> str | None:
    """The accession in a contig's name, without its version.

    >>> _accession("gi|9626243|ref|NC_001416.1|"), _accession("chrUn_KI270302v1"), _accession("chr1")
    ('NC_001416', 'KI270302', None)
    """
    found = _ACCESSION.search(name)
    return found[1] if found else None


def _overlaps(splits: SpeciesSplits) -> Iterator[KmerContainment]:
    training = [_sketch(splits, intervals) for intervals in splits.intervals("train")]
    for split in ("valid", "test"):
        for name, intervals in zip(splits.names, splits.intervals(split), strict=True):
            if intervals:
                held = _sketch(splits, intervals)
                for other, seen in zip(splits.names, training, strict=True):
                    yield KmerContainment(f"{name} {split}", f"{other} train", *shared_kmers(held, seen))


def _sketch(splits: SpeciesSplits, intervals: list[Interval]) -> Sketch:
    stretches = (splits.contigs[i.contig].codes[i.start : i.end] for i in intervals)
    return sketch(stretches, sum(map(len, intervals)))
