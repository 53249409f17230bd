import csv
import io
import itertools
import logging
import math
import random
import struct
import sys
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pysam
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.region import Region
from hyenacli.readers.variants import open_variants
from hyenacli.writers.variants import open_annotated, resolve_format
from hyenacli.writers.vcf import InfoField, Values, VcfWriter, value_text, value_texts
from tests.builders import write_bytes

FIELDS = (
    InfoField("HYENA_LLR", "A", "Float", 'ratio of "likelihoods"'),
    InfoField("HYENA_STATUS", "A", "String", "status"),
)
PROVENANCE = ("##hyena_version=1.2.3", "##hyena_command=hyena score-variants a\nb")
META = b'##fileformat=VCFv4.2\n##INFO=<ID=DP,Number=1,Type=Integer,Description="x">\n'
COLUMNS = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
ADDED = (
    b'##INFO=<ID=HYENA_LLR,Number=A,Type=Float,Description="ratio of \\"likelihoods\\"">\n'
    b'##INFO=<ID=HYENA_STATUS,Number=A,Type=String,Description="status">\n'
    b"##hyena_version=1.2.3\n"
    b"##hyena_command=hyena score-variants a b\n"
)
HEADER = META + COLUMNS + b"\n"
# The values that the tests give: -0.1 for the first ALT allele, none for others.
LINES = {
    b"1\t5\t.\tA\tC\t1.50\tq10\t.": b"1\t5\t.\tA\tC\t1.50\tq10\tHYENA_LLR=-0.1;HYENA_STATUS=OK",
    b"1\t6\tx\tA\t<*>,C\t.\t.\tDP=3;F": b"1\t6\tx\tA\t<*>,C\t.\t.\tDP=3;F;HYENA_LLR=-0.1,.;HYENA_STATUS=OK,.",
    b"1\t7\t.\tA\t.\t.\t.\tDP=3": b"1\t7\t.\tA\t.\t.\t.\tDP=3",
    b"1\t8\t.\tA\tC\t.\t.\tAF=0.1000;": b"1\t8\t.\tA\tC\t.\t.\tAF=0.1000;HYENA_LLR=-0.1;HYENA_STATUS=OK",
    b"1\t9\t.\tA\tC\t.\t.\tHYENA_LLR=7;HYENA_LLR_X=2;X=HYENA_LLR;HYENA_STATUS": (
        b"1\t9\t.\tA\tC\t.\t.\tHYENA_LLR_X=2;X=HYENA_LLR;HYENA_LLR=-0.1;HYENA_STATUS=OK"
    ),
    b"1\t10\t.\tA\tC\t.\t.\tHYENA_LLR=7": b"1\t10\t.\tA\tC\t.\t.\tHYENA_LLR=-0.1;HYENA_STATUS=OK",
}
BODY, ANNOTATED = (b"".join(line + b"\n" for line in lines) for lines in (LINES, LINES.values()))


def values(alts: Sequence[bytes]) -> Values:
    first: Mapping[str, float | str] = {"HYENA_LLR": -0.1, "HYENA_STATUS": "OK"}
    return {name: ([value, *[None] * (len(alts) - 1)] if alts else []) for name, value in first.items()}


def annotate(source: Path, target: Path, output_type: str | None = None) -> None:
    with (
        open_variants(source) as variants,
        open_annotated(target, output_type, variants.header, FIELDS, PROVENANCE) as out,
    ):
        for record in variants:
            out.write(record, values(record.alts))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_bytes(tmp_path / "in.vcf", HEADER + BODY)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_every_other_byte_stays(tmp_path: Path, newline: bytes) -> None:
    path = write_bytes(tmp_path / "in.vcf", (HEADER + BODY).replace(b"\n", newline))
    annotate(path, tmp_path / "out.vcf")
    expected = META + ADDED + COLUMNS + b"\n" + ANNOTATED
    assert (tmp_path / "out.vcf").read_bytes() == expected.replace(b"\n", newline)


def test_samples_stay(tmp_path: Path) -> None:
    columns, samples = COLUMNS + b"\tFORMAT\ta\tb\n", b"\tGT:HYENA_LLR\t0/1:x\t./.\n"
    path = write_bytes(tmp_path / "in.vcf", META + columns + next(iter(LINES)) + samples)
    annotate(path, tmp_path / "out.vcf")
    lines = (tmp_path / "out.vcf").read_bytes().splitlines(keepends=True)
    assert lines[-2:] == [columns, next(iter(LINES.values())) + samples]


def test_annotating_again_changes_nothing(tmp_path: Path, source: Path) -> None:
    annotate(source, tmp_path / "once.vcf")
    annotate(tmp_path / "once.vcf", tmp_path / "twice.vcf")
    assert (tmp_path / "twice.vcf").read_bytes() == (tmp_path / "once.vcf").read_bytes()


@pytest.mark.parametrize(
    "infos", [[b"DP=3"], [b"DP=3", b".", b"", b"F;", b"DP=3\tGT\t0/1"], [b"HYENA_LLR=1;F"]]
)
def test_lines_that_wait_come_out_as_one_by_one(tmp_path: Path, infos: list[bytes]) -> None:
    rng = random.Random(0)
    lines = [
        b"1\t%d\t.\tA\t%b\t.\t.\t%b" % (pos, rng.choice([b"C", b"C,G", b".", b"C,G,T"]), rng.choice(infos))
        for pos in range(5000)
    ]
    path = write_bytes(tmp_path / "in.vcf", HEADER + b"\n".join(lines))
    written = []
    for buffer_bytes in (1 << 18, 0):
        chunks: list[bytes] = []
        with open_variants(path) as variants:
            writer = VcfWriter(
                *(chunks.append, variants.header, FIELDS),
                max_position=5000,
                target="out.vcf",
                buffer_bytes=buffer_bytes,
            )
            for record in variants:
                writer.write(record, values(record.alts))
            writer.flush()
        written.append(b"".join(chunks))
    assert len(chunks) >= 5000
    assert written[0] == written[1]
    assert len(written[0].splitlines()) == 5000


def test_memory_of_a_writer_does_not_grow(tmp_path: Path) -> None:
    line = b"1\t5\t.\tA\tC\t.\t.\tX=" + b"x" * 5000 + b"\n"
    path = write_bytes(tmp_path / "in.vcf", HEADER + line * 3000)
    tracemalloc.start()
    annotate(path, tmp_path / "out.vcf")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 4


def test_earlier_declarations_are_replaced(tmp_path: Path) -> None:
    old = b'##INFO=<Number=1,ID=HYENA_LLR,Type=String,Description="old">\n'
    path = write_bytes(tmp_path / "in.vcf", old + HEADER)
    annotate(path, tmp_path / "out.vcf")
    assert (tmp_path / "out.vcf").read_bytes() == b"##fileformat=VCFv4.2\n" + META + ADDED + COLUMNS + b"\n"


def test_bgzip_with_an_index(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "out.vcf.gz"
    write_bytes(tmp_path / "out.vcf.gz.csi", b"of another file, and looked at first")
    annotate(source, target)
    annotate(source, tmp_path / "out.vcf")
    with pysam.BGZFile(str(target), "r", index=None) as file:
        assert file.read() == (tmp_path / "out.vcf").read_bytes()
    with pysam.TabixFile(str(target), index=f"{target}.tbi") as file:
        assert len(list(file.fetch("1", 5, 8))) == 3
    with open_variants(target, [Region("1", 5, 8)]) as variants:
        assert [record.position for record in variants] == [5, 6, 7]
    assert {path.name for path in tmp_path.iterdir()} == {"in.vcf", "out.vcf", "out.vcf.gz", "out.vcf.gz.tbi"}


def test_bcf_has_an_index(tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture) -> None:
    annotate(source, tmp_path / "out.bcf")
    with pysam.VariantFile(str(tmp_path / "out.bcf")) as file:
        everything = [str(row) for row in file]
        contig = next(iter(file.header.contigs))
        found = [str(row) for row in file.fetch(contig)]
    assert found == [row for row in everything if row.startswith(f"{contig}\t")] != []
    annotate(write_bytes(tmp_path / "in.vcf", HEADER + BODY + BODY), tmp_path / "out.bcf")
    assert "out.bcf: no index, as the records are not sorted" in caplog.text
    assert not (tmp_path / "out.bcf.csi").exists()


def test_a_bgz_is_a_gz_and_a_csv_has_commas(tmp_path: Path, source: Path) -> None:
    for name in ("a.vcf.bgz", "b.vcf.gz", "a.csv", "b.tsv"):
        annotate(source, tmp_path / name)
    assert (tmp_path / "a.vcf.bgz").read_bytes() == (tmp_path / "b.vcf.gz").read_bytes()
    assert (tmp_path / "a.vcf.bgz.tbi").exists()
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [line.split("\t") for line in (tmp_path / "b.tsv").read_text().splitlines()]


def test_a_csi_where_positions_are_too_large_for_a_tbi(tmp_path: Path) -> None:
    body = b"1\t5\t.\tA\tC\t.\t.\t.\n1\t%d\t.\tA\tC\t.\t.\t.\n" % (2**29 + 9)
    annotate(write_bytes(tmp_path / "in.vcf", HEADER + body), tmp_path / "out.vcf.gz")
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.vcf.gz", "out.vcf.gz.csi"]
    with open_variants(tmp_path / "out.vcf.gz", [Region("1", 2**29, 2**30)]) as variants:
        assert [(record.line, record.position) for record in variants] == [(0, 2**29 + 8)]


def test_unsorted_records_have_no_index(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.vcf.gz"
    annotate(source, target)
    with caplog.at_level(logging.WARNING, "hyena"):
        annotate(write_bytes(source, HEADER + BODY + BODY), target)
    assert "no index, as the records are not sorted; bcftools sort does that" in caplog.text
    assert [path.name for path in tmp_path.glob("out*")] == ["out.vcf.gz"]
    said = capfd.readouterr()
    assert said.out == ""
    assert "[E::" not in said.err  # htslib's own complaint


UNDECLARED = (
    COLUMNS
    + b"\tFORMAT\ts1\n"
    + b"chr9\t0\t.\tN\tA\t12.5\tq10;q20\tDP=3;NEW=a,b;FLAG\tGT:XX\t0/1:7\n"
    + b"2\t3\trs1\tAC\t<DEL>,A\t.\t.\tEND=3\tGT\t1|0\n"
    + b"2\t3\t.\tA\t.\t.\tPASS\t.\tGT\t.\n"
)


def test_bcf_declares_what_the_header_does_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_bytes(tmp_path / "in.vcf", UNDECLARED)
    annotate(path, tmp_path / "out.bcf")
    annotate(path, tmp_path / "out.vcf")
    with open_variants(tmp_path / "out.bcf") as binary, open_variants(tmp_path / "out.vcf") as text:
        assert (binary.header.kind, binary.header.contigs) == ("bcf", ("chr9", "2"))
        assert [record.text for record in binary] == [record.text for record in text]
        assert set(text.header.lines) < set(binary.header.lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("in.vcf", "out.bcf", "out.bcf.csi", "out.vcf"),
    ]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("old", [b"\t9\t", b"q20", b"NEW", b"XX"])
def test_bcf_with_one_thing_undeclared(tmp_path: Path, old: bytes) -> None:
    lines = [
        b"##contig=<ID=9>\n",
        b'##FILTER=<ID=q20,Description="x">\n',
        b'##INFO=<ID=NEW,Number=1,Type=String,Description="x">\n',
        b'##FORMAT=<ID=XX,Number=1,Type=String,Description="x">\n',
    ]
    declarations = b"".join(line for line in lines if old.strip() not in line)
    record = b"9\t3\t.\tA\tC\t.\tq20\tNEW=a\tXX\t7\n"
    path = write_bytes(tmp_path / "in.vcf", declarations + COLUMNS + b"\tFORMAT\ts1\n" + record)
    annotate(path, tmp_path / "out.bcf")
    with open_variants(tmp_path / "out.bcf") as variants:
        texts = [record.text for record in variants]
    assert texts == [record.replace(b"NEW=a", b"NEW=a;HYENA_LLR=-0.1;HYENA_STATUS=OK").strip()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1\t3000000000\t.\tA\tC\t.\t.\t.\t.\t.\n", "cannot hold line 2 at position 3,000,000,000; write"),
        (
            b"1\t3\t.\tA\tC\t.\t.\t.\tGT\n",
            "record 1 cannot be written as BCF; write .vcf.gz, where every line",
        ),
    ],
)
def test_what_bcf_cannot_hold(tmp_path: Path, text: bytes, message: str) -> None:
    path = write_bytes(tmp_path / "in.vcf", COLUMNS + b"\tFORMAT\ts1\n" + text)
    with pytest.raises(UserError) as error:
        annotate(path, tmp_path / "out.bcf")
    assert str(error.value).startswith(f"{tmp_path / 'out.bcf'}: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]


def test_bcf_in_text_out(tmp_path: Path, source: Path) -> None:
    annotate(source, tmp_path / "a.bcf")
    annotate(tmp_path / "a.bcf", tmp_path / "b.vcf")
    with open_variants(tmp_path / "b.vcf") as variants:
        assert [record.alts for record in variants][:3] == [(b"C",), (b"<*>", b"C"), ()]
    assert (tmp_path / "b.vcf").read_bytes().count(b"##INFO=<ID=HYENA_LLR,") == 1


def test_tsv_has_a_row_per_allele(tmp_path: Path, source: Path) -> None:
    annotate(source, tmp_path / "out.tsv")
    rows = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert rows[:5] == [
        ["chrom", "pos", "id", "ref", "alt", "HYENA_LLR", "HYENA_STATUS"],
        ["1", "5", ".", "A", "C", "-0.1", "OK"],
        ["1", "6", "x", "A", "<*>", "-0.1", "OK"],
        ["1", "6", "x", "A", "C", "", ""],
        ["1", "7", ".", "A", ".", "", ""],
    ]
    assert len(rows) == 8


def test_parquet_has_a_row_per_allele(tmp_path: Path, source: Path) -> None:
    annotate(source, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    rows = table.slice(1, 3).to_pylist()
    assert [list(row.values())[:5] for row in rows] == [
        ["1", 6, "x", "A", "<*>"],
        ["1", 6, "x", "A", "C"],
        ["1", 7, ".", "A", "."],
    ]
    assert (rows[0]["HYENA_LLR"], rows[0]["HYENA_STATUS"]) == (-0.1, "OK")
    assert [row["HYENA_STATUS"] for row in rows] == ["OK", None, None]
    assert not any(row["HYENA_LLR"] == row["HYENA_LLR"] and row["HYENA_LLR"] for row in rows[1:])
    assert b'"hyena_version": "1.2.3"' in table.schema.metadata[b"hyena"]


TABLE = b'id,chrom,pos,ref,alt,note\nrs 1,chr1,5,A,C,"x\ty"\n,chr2,7,AC,"A,ACC",\n,chr2,8,A,.,\n'


def test_a_table_keeps_its_columns(tmp_path: Path) -> None:
    annotate(write_bytes(tmp_path / "in.csv", TABLE), tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_text().splitlines() == [
        "id\tchrom\tpos\tref\talt\tnote\tHYENA_LLR\tHYENA_STATUS",
        "rs 1\tchr1\t5\tA\tC\tx y\t-0.1\tOK",
        "\tchr2\t7\tAC\tA\t\t-0.1\tOK",
        "\tchr2\t7\tAC\tACC\t\t\t",
        "\tchr2\t8\tA\t.\t\t\t",
    ]


def test_a_table_becomes_a_vcf(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "in.csv", TABLE)
    annotate(path, tmp_path / "out.vcf")
    assert (tmp_path / "out.vcf").read_bytes() == (
        b"##fileformat=VCFv4.2\n" + ADDED + COLUMNS + b"\n"
        b"chr1\t5\trs_1\tA\tC\t.\t.\tHYENA_LLR=-0.1;HYENA_STATUS=OK\n"
        b"chr2\t7\t.\tAC\tA,ACC\t.\t.\tHYENA_LLR=-0.1,.;HYENA_STATUS=OK,.\n"
        b"chr2\t8\t.\tA\t.\t.\t.\t.\n"
    )
    annotate(path, tmp_path / "out.bcf")
    annotate(path, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == ["rs 1", "", "", ""]
    with open_variants(tmp_path / "out.bcf") as variants:
        assert variants.header.contigs == ("chr1", "chr2")


@pytest.mark.parametrize(("name", "suffix"), [("in.vcf", "vcf"), ("in.csv", "tsv")])
def test_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str) -> None:
    path = write_bytes(tmp_path / name, HEADER + BODY if suffix == "vcf" else TABLE)
    annotate(path, tmp_path / f"out.{suffix}")
    with (tmp_path / "stdout").open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        annotate(path, Path("-"))
        assert (tmp_path / "stdout").read_bytes() == (tmp_path / f"out.{suffix}").read_bytes()


def test_a_broken_pipe_passes_through(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def write(self, data: object) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Broken()))
    with pytest.raises(BrokenPipeError):
        annotate(source, Path("-"))


@pytest.mark.parametrize("suffix", ["vcf", "vcf.gz", "bcf", "tsv", "parquet"])
def test_an_error_leaves_the_old_files_and_nothing_else(tmp_path: Path, source: Path, suffix: str) -> None:
    target = write_bytes(tmp_path / f"out.{suffix}", b"old")
    write_bytes(tmp_path / "out.vcf.gz.tbi", b"old index")
    before = set(tmp_path.iterdir())
    with (
        pytest.raises(ValueError, match="2 values of HYENA_LLR for 1 allele"),
        open_variants(source) as variants,
        open_annotated(target, None, variants.header, FIELDS, PROVENANCE) as out,
    ):
        out.write(next(iter(variants)), {"HYENA_LLR": [1.0, 2.0], "HYENA_STATUS": ["OK", "OK"]})
    assert target.read_bytes() == b"old"
    assert set(tmp_path.iterdir()) == before
    assert (tmp_path / "out.vcf.gz.tbi").read_bytes() == b"old index"


def test_a_device_is_written(source: Path) -> None:
    annotate(source, Path("/dev/null"), "vcf.gz")
    assert Path("/dev/null").is_char_device()


def test_a_full_disk_is_an_error_of_the_user(source: Path) -> None:
    with pytest.raises(UserError, match="/dev/full: cannot be written; is the disk full"):
        annotate(source, Path("/dev/full"), "vcf.gz")


@pytest.mark.parametrize(
    ("target", "output_type", "message"),
    [
        ("out", None, "out: the suffix names no type of variants; use one of .vcf, .vcf.gz, .bcf"),
        ("out.vcf", "vfc", "-O: unknown output type 'vfc'; did you mean 'vcf'"),
        ("-", "bcf", "-O: bcf does not go to stdout; name a file with -o, or use vcf or tsv"),
    ],
)
def test_types_that_cannot_be(target: str, output_type: str | None, message: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve_format(Path(target), output_type, "vcf")
    assert str(error.value).startswith(message)


@given(st.floats(width=32, allow_nan=False))
def test_floats_round_trip_in_the_fewest_digits(value: float) -> None:
    text = value_text(value)
    assert struct.pack("f", float(text)) == struct.pack("f", value)
    if math.isfinite(value):
        shorter = (f"{value:.{digits}g}" for digits in itertools.count(1))
        fewest = next(t for t in shorter if struct.pack("f", float(t)) == struct.pack("f", value))
        assert len(significant(text)) <= len(significant(fewest))


@given(st.lists(st.floats(width=32) | st.floats(-1e4, 1e4, width=32) | st.none(), max_size=50))
@example([1e-4, 1.0001e-4, 999999.94, 1e6, 2.0**-13, -0.0, 0.1, 8.5899346e9])
@example([value + scale for scale in (1e-3, 1.0, 8.0, 2.0**19) for value in (-0.5, 0.0, 0.25)])
def test_texts_of_many_floats_are_those_of_each(values: list[float | None]) -> None:
    assert value_texts(values) == [value_text(value).encode() for value in values]


def test_texts_of_random_floats_are_those_of_each() -> None:
    rng = random.Random(0)
    values = [rng.gauss(0, 1) * 10 ** rng.uniform(-5, 7) for _ in range(20_000)]
    assert value_texts(values) == [value_text(value).encode() for value in values]


def significant(text: str) -> str:
    return text.partition("e")[0].replace(".", "").lstrip("-0").rstrip("0")
