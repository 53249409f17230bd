import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenacli.errors import UserError
from hyenacli.genome.region import Region
from hyenacli.readers.genome import Genome
from hyenacli.readers.regions import BedRecord, Reference, load_regions, read_aliases, read_bed
from tests.builders import Compression, write_bed, write_bytes, write_fasta


@pytest.fixture
def genome(tmp_path: Path) -> Genome:
    return Genome(write_fasta(tmp_path / "g.fa", [("1", "ACGT" * 5), ("MT", "AC")]))


def test_every_record_is_kept_in_order(
    tmp_path: Path, genome: Genome, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_bed(tmp_path / "a.bed", [("chr1", 0, 20, "x", 0, "-"), ("chrUn", 5, 500), ("chrM", 1, 2)])
    with caplog.at_level("INFO", "hyena"):
        regions = load_regions(path, Reference(genome))
    assert [item.status for item in regions] == ["OK", "NO_CONTIG", "OK"]
    assert [item.region for item in regions] == [Region("1", 0, 20, "-", "x"), None, Region("MT", 1, 2)]
    assert [item.record.region.contig for item in regions] == ["chr1", "chrUn", "chrM"]
    assert f"{path}: matched 2/3 contigs, chrM read as MT, chr1 read as 1" in caplog.text
    assert f"{path}: 1 of 3 contigs are not in {genome.path}: chrUn (1 record)" in caplog.text


def test_a_bad_region_costs_no_other(tmp_path: Path, genome: Genome) -> None:
    rows = [
        ("chr1", 1, 2),
        ("chr1", 19, 21),
        ("chr1", 5, 5),
        ("chr1", 20, 20),
        ("chr1", 30, 40),
        ("chr1", 3, 4),
    ]
    path = write_bed(tmp_path / "a.bed", rows)
    regions = load_regions(path, Reference(genome))
    assert [item.status for item in regions] == ["OK", "OUT_OF_RANGE", "EMPTY", "EMPTY", "OUT_OF_RANGE", "OK"]
    assert regions[1].problem == f"end 21 is outside contig 1 of 20 bases in {genome.path}"
    assert regions[2].problem == "start and end are both 5"
    clipped = load_regions(path, Reference(genome), clip=True)
    assert clipped[1].region == Region("1", 19, 20)
    assert [item.status for item in clipped] == ["OK", "OK", "EMPTY", "EMPTY", "OUT_OF_RANGE", "OK"]


def test_standard_input_and_aliases(genome: Genome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"NC_1\t2\t3\n")))
    (item,) = load_regions("-", Reference(genome, "exact", {"NC_1": "1"}))
    assert item.region == Region("1", 2, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the input is empty"),
        ([("chr9", 1, 2)], "no contig of this input is in "),
    ],
)
def test_errors_name_file_and_line(
    tmp_path: Path, genome: Genome, rows: list[tuple[object, ...]], message: str
) -> None:
    path = write_bed(tmp_path / "a.bed", rows)
    with pytest.raises(UserError) as error:
        load_regions(path, Reference(genome))
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_an_empty_part_has_no_regions(
    tmp_path: Path, genome: Genome, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_bed(tmp_path / "a.bed", [("#only", "a", "comment")])
    assert load_regions(path, Reference(genome)) == []
    assert "a.bed: no regions" in caplog.text


def test_yeast_windows_lie_on_the_yeast_genome(shared: Path) -> None:
    with Genome(shared / "data" / "genomes" / "yeast_R64.fa.gz") as genome:
        regions = load_regions(
            shared / "data" / "annotation" / "yeast_emp_H3_H4_windows_R64.bed.gz", Reference(genome, "exact")
        )
    assert {item.status for item in regions} == {"OK"}


def test_aliases_file(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.txt", b"# old new\nNC_1 chr1\r\n\nNC_2\tchr2\nNC_1 chr1\n", "gzip")
    assert read_aliases(path) == {"NC_1": "chr1", "NC_2": "chr2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a b\na\n", "line 2: 1 columns instead of 2; write the input's name"),
        (b"a b c\n", "line 1: 3 columns instead of 2"),
        (b"a b\na c\n", "line 2: 'a' is both 'b' and 'c'"),
    ],
)
def test_aliases_errors(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_aliases(write_bytes(tmp_path / "a.txt", text))


TEXT = (
    b"browser position chr1:1-100\n"
    b'track name="x" color=1,2,3\n'
    b"# comment\n"
    b"\n"
    b"chr1\t0\t10\n"
    b"chr2\t5\t7\tgene one\t0\t-\r\n"
    b"chr3   5  9 name\n"
    b"   \n"
    b"track1\t1\t2\tn\t.\t*\textra\t\n"
)
RECORDS = [
    BedRecord(Region("chr1", 0, 10), ("chr1", "0", "10"), 5),
    BedRecord(Region("chr2", 5, 7, "-", "gene one"), ("chr2", "5", "7", "gene one", "0", "-"), 6),
    BedRecord(Region("chr3", 5, 9, ".", "name"), ("chr3", "5", "9", "name"), 7),
    BedRecord(Region("track1", 1, 2, ".", "n"), ("track1", "1", "2", "n", ".", "*", "extra", ""), 9),
]


@pytest.mark.parametrize("compression", ["plain", "gzip", "bgzip"])
def test_records(tmp_path: Path, compression: Compression) -> None:
    assert list(read_bed(write_bytes(tmp_path / "a.bed", TEXT, compression))) == RECORDS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("##gff-version 3\nchr1\tx\tgene\t1\t9\t.\t+\t.\tID=a\n", "a.txt: is a GFF or GTF, which"),
        ('chr1\tx\tgene\t1\t9\t.\t+\t.\tgene_id "a";\n', "a.txt: is a GFF or GTF, which"),
        ("##fileformat=VCFv4.2\n#CHROM\tPOS\nchr1\t5\t.\tA\tC\t.\t.\t.\n", "a.txt: is a VCF, which"),
    ],
)
def test_another_format_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write_bytes(tmp_path / "a.txt", text.encode())
    with pytest.raises(UserError, match=message):
        list(read_bed(path))


def test_a_line_like_another_format_is_of_the_bed_that_it_stands_in(tmp_path: Path) -> None:
    path = tmp_path / "a.bed"
    path.write_text("chr1\t3\t9\t0\t0\tname\t-\t.\nchr1\tx\t9\n")  # the first line is a GFF's, too
    with pytest.raises(UserError, match=r"a\.bed, line 2: "):
        list(read_bed(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chr1", "1 column where BED has at least 3; write contig, start and end, separated by tabs"),
        ("chr1\t5", "2 columns where BED has at least 3"),
        (
            "chrom\tstart\tend",
            "start 'start' is not a position; write a whole number without separators, and begin",
        ),
        ("chr1\t1,000\t2,000", "start '1,000' is not a position"),
        ("chr1\t1\t2e3", "end '2e3' is not a position"),
        ("chr1\t1\t٣", "end '٣' is not a position"),
        ("chr1\t1\t", "end '' is not a position"),
        ("chr1\t1\t" + "9" * 5000, "is not a position"),
        ("chr1\t-1\t5", "start '-1' is negative; BED counts bases from 0"),
        ("chr1\t9\t5", "end 5 is before start 9; correct or remove the line"),
        (">chr1 human 1", "a FASTA header, not a region"),
        ("\t5\t6", "the contig (column 1) is empty"),
    ],
)
def test_bed_errors_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = write_bytes(tmp_path / "a.bed", f"# x\nchr1\t1\t2\n{line}\n".encode())
    records = read_bed(path)
    assert next(records).line == 2
    with pytest.raises(UserError) as error:
        next(records)
    assert str(error.value).startswith(f"{path}, line 3: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"chr1\t1\t2\tn\rchr1\t3\t4\tn\n",
            "a carriage return inside the line; convert the line ends to those",
        ),
        (b"# comment\rchr1\t1\t2\r\n", "a carriage return inside the line"),
        (b"chr\xff\t1\t2\n", "the contig (column 1) is not UTF-8"),
        (b"chr1\xc2\xa010 20\n", "2 columns where BED has at least 3"),
    ],
    ids=["a carriage return", "one in a comment", "Latin-1", "no-break space"],
)
def test_bytes_that_would_hide_or_rename_a_region(tmp_path: Path, text: bytes, message: str) -> None:
    path = write_bytes(tmp_path / "a.bed", text)
    with pytest.raises(UserError) as error:
        list(read_bed(path))
    assert str(error.value).startswith(f"{path}, line 1: {message}")


@pytest.mark.parametrize("first", [b"", b"#c\n"])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path, first: bytes) -> None:
    path = write_bytes(tmp_path / "a.bed", b"\xef\xbb\xbf" + first + b"chr1\t1\t2\n")
    assert [record.region.contig for record in read_bed(path)] == ["chr1"]


@given(st.binary() | st.text("chr1 \t\r\n0123456789-#", max_size=60).map(str.encode))
def test_any_bytes_give_records_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    path = write_bytes(tmp_path_factory.getbasetemp() / "fuzz.bed", text)
    try:
        records = list(read_bed(path))
    except UserError:
        return
    # a region may be empty, which is a status later on
    assert all(0 <= r.region.start <= r.region.end and len(r.fields) >= 3 for r in records)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[A-Za-z0-9_.]{1,9}", fullmatch=True),
            st.integers(0, 10**9),
            st.integers(1, 10**6),
            st.sampled_from("+-."),
        ).filter(lambda row: row[0] not in ("track", "browser")),
        min_size=1,
    )
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.bed"
    write_bed(path, [(contig, start, start + size, "n", 0, strand) for contig, start, size, strand in rows])
    expected = [Region(contig, start, start + size, strand, "n") for contig, start, size, strand in rows]
    assert [record.region for record in read_bed(path)] == expected


@pytest.mark.parametrize(
    ("name", "count", "columns"),
    [("sars_cov_2.artic.bed9.bed", 393, 9), ("yeast_emp_H3_H4_windows_R64.bed.gz", 5706, 6)],
)
def test_real_files(shared: Path, name: str, count: int, columns: int) -> None:
    records = list(read_bed(shared / "data" / "annotation" / name))
    assert len(records) == count
    assert {len(record.fields) for record in records} == {columns}
    assert {record.region.strand for record in records} <= {"+", "-"}
