import io
import sys
from pathlib import Path

import pytest

from hyenacli.errors import UserError
from hyenacli.genome.region import Region
from hyenacli.readers.variants import open_variants
from hyenacli.readers.vcf import VariantRecord
from tests.builders import Compression, write_bytes

TSV = b"chrom\tpos\tref\talt\tgene\nchr1\t5\tA\tC\tBRCA 1\nchr2\t7\tAC\tA,ACC\t\n"
EXPECTED = [("chr1", 4, b"A", (b"C",)), ("chr2", 6, b"AC", (b"A", b"ACC"))]


def read(path: Path | str) -> list[VariantRecord]:
    with open_variants(path) as variants:
        assert variants.header.kind == "table"
        assert variants.header.contigs == ()
        assert variants.header.lines == ()
        return list(variants)


def plain(records: list[VariantRecord]) -> list[tuple[object, ...]]:
    return [(r.contig, r.position, r.ref, r.alts) for r in records]


@pytest.mark.parametrize("compression", ["plain", "gzip", "bgzip"])
def test_a_table_with_names(tmp_path: Path, compression: Compression) -> None:
    records = read(write_bytes(tmp_path / "a", TSV, compression))
    assert plain(records) == EXPECTED
    assert [(r.line, r.text) for r in records] == list(enumerate(TSV.split(b"\n")[1:3], 2))


@pytest.mark.parametrize(
    "text",
    [
        TSV.split(b"\n", 1)[1],
        b"#CHROM\tPOS\tREF\tALT\tGENE" + TSV[TSV.index(b"\n") :],
        b"## CADD\n#Chrom\tPos\tRef\tAlt\tGene" + TSV[TSV.index(b"\n") :] + b"\n\n",
        b"# a comment\n" + TSV.replace(b"\n", b"\r\n"),
        b"chr pos ref alt\nchr1  5 A C\n# more\n chr2 7 AC A,ACC\n",
        b'"id","alt","ref","pos","chr"\n"x","C","A",5,"chr1"\n"y","A,ACC","AC",7,"chr2"\n',
        b'\xef\xbb\xbfchrom,pos,ref,alt\nchr1,5,A,C\nchr2,7,AC,"A,ACC"',
        b'\xef\xbb\xbfchr1,5,A,C\nchr2,7,AC,"A,ACC"',
        b"chr1 5 A C\nchr2 7 AC A,ACC",
    ],
    ids=[
        "no names",
        "upper case",
        "comments",
        "CRLF",
        "blanks",
        "quoted CSV",
        "Excel with names",
        "Excel",
        "blanks only",
    ],
)
def test_spellings_of_a_table(tmp_path: Path, text: bytes) -> None:
    assert plain(read(write_bytes(tmp_path / "a", text))) == EXPECTED


def test_alleles_with_commas_between_blanks(tmp_path: Path) -> None:
    assert plain(read(write_bytes(tmp_path / "a", b"chr2 7 AC A,ACC\n"))) == EXPECTED[1:]


def test_columns(tmp_path: Path) -> None:
    with open_variants(write_bytes(tmp_path / "a", b"chr1\t5\tA\tC\tx\ty\n")) as variants:
        table = variants.header.table
        assert table is not None
        assert table.names == (b"chrom", b"pos", b"ref", b"alt", b"column5", b"column6")
        assert table.cells(next(iter(variants)).text)[4:] == [b"x", b"y"]


def test_standard_input_and_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TSV)))
    with open_variants("-", [Region("chr2", 7, 9)]) as variants:
        assert plain(list(variants)) == EXPECTED[1:]


def test_a_table_of_a_header_line_has_no_records(tmp_path: Path) -> None:
    assert read(write_bytes(tmp_path / "a", b"chrom\tpos\tref\talt\n")) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"chr1\t5\tA\tC", "4 columns where the table has 5"),
        (b"chr1\t100.0\tA\tC\t", "'100.0' (pos) is not a position; write a whole number without separators"),
        (b"chr1\t1,000\tA\tC\t", "'1,000' (pos) is not a position; write a whole number without separators"),
        (b"chr1\tNA\tA\tC\t", "'NA' (pos) is not a position; every variant needs one"),
        (b"chr1\t5\trs1\tC\t", "'rs1' (ref) is not a sequence; name the columns chrom, pos, ref and alt"),
        (b"chr1\t5\tA\tC,\t", "'C,' (alt) has an empty allele; write one comma between two alleles"),
        (b"\t5\tA\tC\t", "'' (chrom) is not the name of a contig"),
        (b"chr\xff\t5\tA\tC\t", "(chrom) is not the name of a contig"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: bytes, message: str) -> None:
    path = write_bytes(tmp_path / "a", TSV + line + b"\n")
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}, line 4: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"gene\tscore\nx\t5\n", "line 1: neither VCF nor BCF nor a table of variants"),
        (b"# nothing\n\n", "no variants"),
        (
            b"PAR1\x15\x04PAR1",
            "is a Parquet table, which is not read here; convert it to text (VCF",
        ),
        (
            b'chrom,pos,ref,alt,note\n1,4,A,C,x\n1,5,A,C,"two\nlines"\n',
            "line 4: a cell in quotes has a line break; write a blank in place of line breaks",
        ),
        (b"chrom\tpos\tref\talt\rchr1\t5\tA\tC\n", "line 1: a carriage return inside the line; convert the"),
        (b"chrom,pos,ref,alt,alt\n1,5,A,C,G\n", "line 1: columns 4 and 5 are both alt; rename or remove one"),
        (b"Chr,chrom,pos,ref,alt\n1,1,5,A,C\n", "line 1: columns 1 and 2 are both chrom; rename"),
        (b'a,"' + b"x" * 200_000 + b"\n", "neither VCF nor BCF nor a table of variants"),
    ],
    ids=[
        "another table",
        "comments only",
        "Parquet",
        "a line break in a cell",
        "a carriage return",
        "alt twice",
        "a synonym",
        "an endless cell",
    ],
)
def test_what_is_no_table_of_variants(tmp_path: Path, text: bytes, message: str) -> None:
    path = write_bytes(tmp_path / "a", text)
    with pytest.raises(UserError) as error:
        read(path)
    assert message in str(error.value)


@pytest.mark.parametrize("delimiter", [b"\t", b" "])
@pytest.mark.parametrize("n_columns", [5, 8, 10])
def test_a_vcf_without_its_header(
    tmp_path: Path, delimiter: bytes, n_columns: int, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        ["chr1", "5", "rs1", "A", "C", ".", "PASS", "AC=1", "GT", "0/1"],
        ["chr2", "7", ".", "AC", "A,<DEL>", "5", ".", ".", "GT", "1/1"],
    ]
    text = b"".join(delimiter.join(cell.encode() for cell in row[:n_columns]) + b"\n" for row in rows)
    with caplog.at_level("INFO", "hyena"), open_variants(write_bytes(tmp_path / "a", text)) as variants:
        assert variants.header.table is not None
        assert (len(variants.header.table.names), variants.header.table.indices["id"]) == (n_columns, 2)
        expected = [("chr1", 4, b"A", (b"C",)), ("chr2", 6, b"AC", (b"A", b"<DEL>"))]
        assert plain(list(variants)) == expected
    assert "read as those of a VCF: CHROM POS ID REF ALT" in caplog.text


@pytest.mark.parametrize("cell", ["", "NA", ".", "None", "<NA>"])
def test_a_missing_allele_costs_no_other_row(tmp_path: Path, cell: str) -> None:
    text = f"chrom,pos,ref,alt\n1,5,A,{cell}\n1,6,{cell},C\n1,7,-,C\n1,8,A,-\n"
    records = read(write_bytes(tmp_path / "a", text.encode()))
    assert [(r.ref, r.alts) for r in records] == [
        (b"A", ()),
        (b".", (b"C",)),
        (b"-", (b"C",)),
        (b"A", (b"-",)),
    ]
