import io
import sys
from pathlib import Path

import pytest

from hyenacli.errors import UserError
from hyenacli.genome.region import Region
from hyenacli.readers.genome_file import Genome
from hyenacli.readers.regions import load_regions
from tests.builders import write_bed, write_fasta


@pytest.fixture
def genome(tmp_path: Path) -> Genome:
    return Genome(write_fasta(tmp_path / "g.fa", [("1", "ACGT" * 5), ("MT", "AC")]))


def test_every_record_is_kept_in_order(
    tmp_path: Path, genome: Genome, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_bed(tmp_path / "a.bed", [("chr1", 0, 20, "x", 0, "-"), ("chrUn", 5, 500), ("chrM", 1, 2)])
    with caplog.at_level("INFO", "hyena"):
        regions = load_regions(path, genome)
    assert [item.status for item in regions] == ["OK", "NO_CONTIG", "OK"]
    assert [item.region for item in regions] == [Region("1", 0, 20, "-", "x"), None, Region("MT", 1, 2)]
    assert [item.record.region.contig for item in regions] == ["chr1", "chrUn", "chrM"]
    assert f"{path}: matched 2/3 contigs (missing: chrUn)" in caplog.text


def test_standard_input_and_aliases(genome: Genome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"NC_1\t2\t3\n")))
    (item,) = load_regions("-", genome, "exact", {"NC_1": "1"})
    assert item.region == Region("1", 2, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the input is empty"),
        ([("#only", "a", "comment")], "no regions"),
        ([("chr9", 1, 2)], "no contig of this input is in "),
        (
            [("chr1", 1, 2), ("chr1", 19, 21)],
            ", line 2: end 21 is outside contig 1 of 20 bases in ",
        ),
    ],
)
def test_errors_name_file_and_line(
    tmp_path: Path, genome: Genome, rows: list[tuple[object, ...]], message: str
) -> None:
    path = write_bed(tmp_path / "a.bed", rows)
    with pytest.raises(UserError) as error:
        load_regions(path, genome)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_yeast_windows_lie_on_the_yeast_genome(shared: Path) -> None:
    with Genome(shared / "data" / "genomes" / "yeast_R64.fa.gz") as genome:
        regions = load_regions(
            shared / "data" / "annotation" / "yeast_emp_H3_H4_windows_R64.bed.gz", genome, "exact"
        )
    assert {item.status for item in regions} == {"OK"}
