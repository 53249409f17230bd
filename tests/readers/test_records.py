from hyenacli.genome.region import Region
from hyenacli.readers.records import EMPTY, SequenceRecord, region_records


class OneContig:
    """A genome of one contig."""

    lengths = {"1": 10}  # noqa: RUF012

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        assert 0 <= start <= end <= self.lengths[contig]
        return b"AACCGGTTNN"[start:end]


def test_regions_keep_the_inputs_names_and_flanks_end_with_the_contig() -> None:
    inputs = [
        (Region("chr1", 2, 4, "-", "peak"), Region("1", 2, 4, "-", "peak"), "OK"),
        (Region("chr1", 7, 10), Region("1", 7, 10), "OK"),
        (Region("chrU", 1, 3), None, "NO_CONTIG"),
    ]
    assert list(region_records(inputs, OneContig(), flank=3)) == [
        SequenceRecord("peak", "chr1", 2, 4, "-", b"AACCGGT", 2),
        SequenceRecord("chr1:8-10", "chr1", 7, 10, ".", b"GGTTNN", 3),
        SequenceRecord("chrU:2-3", "chrU", 1, 3, ".", status="NO_CONTIG"),
    ]


def test_sequences_are_whole() -> None:
    records = [SequenceRecord.of_sequence(name, bases) for name, bases in (("s", b"ACGT"), ("none", b""))]
    assert records == [
        SequenceRecord("s", "s", 0, 4, bases=b"ACGT"),
        SequenceRecord("none", "none", 0, 0, status=EMPTY),
    ]


def test_readings_of_both_strands() -> None:
    record = SequenceRecord("x", "1", 10, 12, bases=b"ACCGT", left=1)
    assert record.reading(reverse=False) == (b"ACCGT", 1)
    assert record.reading(reverse=True) == (b"ACGGT", 2)
