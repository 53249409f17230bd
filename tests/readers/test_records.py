from pathlib import Path

import pytest

from hyenacli.genome.region import Region
from hyenacli.readers.labelled import open_labelled
from hyenacli.readers.records import SequenceRecord, open_rows, region_records
from hyenacli.readers.regions import BedRecord, ResolvedRegion
from hyenacli.readers.tables import Columns


class OneContig:
    """A genome of one contig."""

    lengths = {"1": 10}  # noqa: RUF012
    circular: frozenset[str] = frozenset()

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        assert 0 <= start <= end <= self.lengths[contig]
        return b"AACCGGTTNN"[start:end]


def test_regions_keep_the_inputs_names_and_flanks_end_with_the_contig() -> None:
    inputs = [
        ResolvedRegion(BedRecord(Region("chr1", 2, 4, "-", "peak"), (), 1), Region("1", 2, 4, "-", "peak")),
        ResolvedRegion(BedRecord(Region("chr1", 7, 10), (), 2), Region("1", 7, 10)),
        ResolvedRegion(BedRecord(Region("chrU", 1, 3), (), 3), None, "NO_CONTIG", "no contig"),
    ]
    assert list(region_records(inputs, OneContig(), flank=3)) == [
        SequenceRecord("peak", "chr1", 2, 4, "-", b"AACCGGT", 2, line=1),
        SequenceRecord("chr1:8-10", "chr1", 7, 10, ".", b"GGTTNN", 3, line=2),
        SequenceRecord("chrU:2-3", "chrU", 1, 3, ".", status="NO_CONTIG", line=3, problem="no contig"),
    ]


def test_records_without_a_result_are_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.fa"
    path.write_text(">a\nAC\n>b\nA*\n>c\n>d\nAX\n>e\nGT\n")
    columns = Columns(labels=())
    with open_labelled([path], columns, labelled=False) as rows:
        records = list(open_rows(rows, path, columns).records)
    assert [record.status for record in records] == ["OK", "BAD_LETTER", "EMPTY", "BAD_LETTER", "OK"]
    [message] = caplog.messages
    assert message.startswith(
        f"{path}: 3 records without a result, the first as '*' in record 'b' is not a n"
    )
    assert message.endswith(": BAD_LETTER in lines 4, 7; EMPTY in line 5")


def test_readings_of_both_strands() -> None:
    record = SequenceRecord("x", "1", 10, 12, bases=b"ACCGT", left=1)
    assert record.reading(reverse=False) == (b"ACCGT", 1)
    assert record.reading(reverse=True) == (b"ACGGT", 2)
