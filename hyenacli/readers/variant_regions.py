"""The records of a file of variants that lie in some regions, with and without an index."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pysam

from hyenacli.errors import UserError
from hyenacli.genome.region import Region
from hyenacli.readers.bcf import quiet_htslib
from hyenacli.readers.streams import Source, compression
from hyenacli.readers.variant_record import VariantRecord

# The last position that htslib looks up.
_LAST = (1 << 31) - 1


class RegionSet:
    """Regions of any order and overlap, merged.

    Attributes:
        spans: contig -> disjoint stretches (start, end) in rising order, 0-based half-open.
    """

    def __init__(self, regions: Iterable[Region]):
        raw: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for region in regions:
            if len(region):
                raw[region.contig].append((region.start, region.end))
        self.spans = {contig: _merged(sorted(spans)) for contig, spans in raw.items()}

    def overlap(self, record: VariantRecord) -> bool:
        """Whether a base of the record's REF lies in a region."""
        spans = self.spans.get(record.contig, ())
        last = bisect_left(spans, (record.end, 0)) - 1
        return last >= 0 and spans[last][1] > record.position


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def usable_index(source: Source, regions: RegionSet) -> Path | None:
    """The tabix index beside a bgzip file, if there is one that cannot have missed a change of the file."""
    if not isinstance(source, (str, Path)) or str(source) == "-":
        return None
    if not all(c.isascii() and spans[-1][1] <= _LAST for c, spans in regions.spans.items()):
        return None
    path = Path(source)
    for suffix in (".tbi", ".csi"):
        index = Path(f"{path}{suffix}")
        if index.is_file() and index.stat().st_mtime >= path.stat().st_mtime:
            return index if compression(path) == "bgzip" else None
    return None


def indexed_lines(path: Path, index: Path, regions: RegionSet) -> Iterator[bytes]:
    """The lines, without line ends, that may overlap a region: in file order, each once.

    Args:
        path: a bgzip VCF file.
        index: of the file.
        regions: which records.

    Raises:
        UserError: the index cannot be used.
    """
    try:
        # Latin-1 gives every byte back as it was.
        with quiet_htslib(), pysam.TabixFile(str(path), index=str(index), encoding="latin-1") as file:
            for contig in file.contigs:
                before = None  # the end of the stretch before, which has found what begins in front of it
                for start, end in regions.spans.get(contig, ()):
                    for line in file.fetch(contig, start, end):
                        if before is None or int(line.split("\t", 2)[1]) > before:
                            yield line.encode("latin-1")
                    before = end
    except (OSError, ValueError) as error:
        remedy = "make it again with tabix -f -p vcf, or remove it"
        raise UserError("the index cannot be read", at=index, remedy=remedy) from error
