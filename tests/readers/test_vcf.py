import gzip
import hashlib
import io
import os
import random
import re
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenacli.errors import UserError
from hyenacli.genome.region import Region
from hyenacli.readers.variants import open_variants
from hyenacli.readers.vcf import (
    VariantRecord,
    bcf_as_text,
    number_lines,
    quiet_htslib,
)
from tests.builders import Compression, write_bytes

META = b"##fileformat=VCFv4.2\n##contig=<ID=chr1,length=9>\n##contig=<length=4,ID=HLA-A*01:01>\n"
COLUMNS = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
HEADER = META + COLUMNS + b"\n"
BODY = (
    b"chr1\t3\trs1\tA\tC,<*>\t.\tq10\tDP=3\n"
    b"chr1\t0\t.\tN\t.\t.\t.\t.\n"
    b"chr1\t99999999999\t.\tac\t*,]chr2:5]A\t.\t.\tX\n"
)
EXPECTED = [
    (5, "chr1", 2, b"A", (b"C", b"<*>")),
    (6, "chr1", -1, b"N", ()),
    (7, "chr1", 99999999998, b"ac", (b"*", b"]chr2:5]A")),
]


def read(path: Path | str, regions: list[Region] | None = None) -> list[VariantRecord]:
    with open_variants(path, regions) as variants:
        return list(variants)


def plain(records: Iterable[VariantRecord]) -> list[tuple[object, ...]]:
    return [(r.line, r.contig, r.position, r.ref, r.alts) for r in records]


@pytest.mark.parametrize("compression", ["plain", "gzip", "bgzip"])
def test_header_and_records(tmp_path: Path, compression: Compression) -> None:
    path = write_bytes(tmp_path / "a", HEADER + BODY, compression)
    with open_variants(path) as variants:
        assert variants.header.kind == "vcf"
        assert variants.name == str(path)
        assert b"".join(variants.header.lines) == HEADER
        assert variants.header.contigs == ("chr1", "HLA-A*01:01")
        records = list(variants)
    assert plain(records) == EXPECTED
    assert b"".join(record.text + record.newline for record in records) == BODY


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_bytes(tmp_path / "x", HEADER + BODY, "bgzip").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert plain(read("-")) == EXPECTED


def test_line_ends_and_blank_lines_at_the_end(tmp_path: Path) -> None:
    text = (HEADER + BODY).replace(b"\n", b"\r\n")
    records = read(write_bytes(tmp_path / "a.vcf", text + b"\r\n\n"))
    assert plain(records) == EXPECTED
    assert {record.newline for record in records} == {b"\r\n"}
    assert read(write_bytes(tmp_path / "b.vcf", text[:-2])) == records


@given(
    st.lists(st.sampled_from([b"\n", b"\r\n", b"\r\r\n", BODY, BODY.replace(b"\n", b"\r\n")])), st.booleans()
)
@settings(max_examples=50)
def test_blocks_do_not_show(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], ends: bool) -> None:
    text = HEADER + b"".join(parts)
    path = write_bytes(tmp_path_factory.getbasetemp() / "blocks.vcf", text if ends else text.rstrip(b"\n"))
    with path.open("rb") as lines:
        expected = [line for line in number_lines(lines) if line[0] > 4 and line[1].strip()]
    for size in (1, 50, 1 << 16):
        with open_variants(path, block_bytes=size) as variants:
            assert [(r.line, r.text, r.newline) for r in variants] == expected


@pytest.mark.parametrize("compression", ["plain", "bgzip"])
def test_a_survey_counts_the_records_of_contigs(tmp_path: Path, compression: Compression) -> None:
    names = (b"chr1", b"chr2", b"chr10", b"chr1", "größe".encode(), b"chr3")
    rows = list(zip(names, (3000, 1, 2, 1, 4, 3000), strict=True))
    line = b"%s\t5\t.\tA\tC,<DEL>\t.\t.\tX=1\n"
    text = b"".join(line % contig * count for contig, count in rows)
    path = write_bytes(tmp_path / "a.vcf", HEADER + text, compression)
    expected = {"chr1": 3001, "chr2": 1, "chr10": 2, "größe": 4, "chr3": 3000}
    with open_variants(path) as variants:
        contigs, sha256 = variants.survey()
    assert (list(contigs.items()), sha256) == (list(expected.items()), hashlib.sha256(text).hexdigest())
    with open_variants(path, [Region("chr1", 4, 5)]) as variants:
        assert variants.survey()[0] == {"chr1": 3001}
    write_bytes(path, HEADER + text + line % b"chr4" + b"chr4\tx\n", compression)
    with pytest.raises(UserError, match=r"line 6014: 2 columns where VCF"), open_variants(path) as variants:
        variants.survey()


def test_contigs_and_lengths_of_the_header(tmp_path: Path) -> None:
    declared = b"##contig=<ID=1,length=20>\n##contig=<assembly=x,length=7,ID=MT>\n##contig=<ID=X,lengths=5>\n"
    with open_variants(
        write_bytes(tmp_path / "a.vcf", b"##fileformat=VCFv4.3\n" + declared + COLUMNS + b"\n")
    ) as variants:
        assert variants.header.contig_lengths == {"1": 20, "MT": 7}


def test_samples_stay_in_the_text(tmp_path: Path) -> None:
    samples = b"\tGT" + b"\t0/1" * 5000
    line = b"1\t1\t.\tA\tC\t.\t.\t." + samples
    columns = COLUMNS + b"\tFORMAT" + b"".join(b"\ts%d" % i for i in range(5000))
    records = read(write_bytes(tmp_path / "a.vcf", columns + b"\n" + line + b"\n"))
    assert [record.text for record in records] == [line]


def test_a_header_alone_has_no_records(tmp_path: Path) -> None:
    assert read(write_bytes(tmp_path / "a.vcf", HEADER)) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"chr1\t5\t.\tA\tC\t.\t.", "7 columns where VCF has at least 8, separated by tabs; write '.' for"),
        (b"chr1 5 . A C . . .", "1 column where VCF has at least 8"),
        (
            b"chr1\tx5\t.\tA\tC\t.\t.\t.",
            "POS 'x5' is not a position; write a whole number without separators",
        ),
        (b"chr1\t-5\t.\tA\tC\t.\t.\t.", "POS '-5' is not a position"),
        (b"chr1\t" + b"9" * 5000 + b"\t.\tA\tC\t.\t.\t.", "is not a position"),
        (b"chr1\t5\t.\t\tC\t.\t.\t.", "REF is empty; write the reference's bases"),
        (b"chr1\t5\t.\tA\t\t.\t.\t.", "ALT is empty; write '.' for no allele"),
        (b"chr1\t5\t.\tA\tC,\t.\t.\t.", "ALT is empty"),
        (b"\t5\t.\tA\tC\t.\t.\t.", "CHROM is empty or not UTF-8"),
        (b"chr\xff\t5\t.\tA\tC\t.\t.\t.", "CHROM is empty or not UTF-8"),
        (META, "a header line below the header; join VCF files with bcftools concat"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: bytes, message: str) -> None:
    path = write_bytes(tmp_path / "a.vcf", HEADER + BODY + line + b"\n")
    with open_variants(path) as variants:
        assert [next(variants.records).line for _ in EXPECTED] == [5, 6, 7]
        with pytest.raises(UserError) as error:
            next(variants.records)
    assert str(error.value).startswith(f"{path}, line 8: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b">chr1\nACGT\n", "holds FASTA, no variants; give VCF, BCF, or a table with columns chrom"),
        (b"chr1\t5\t6\nchr1\t7\t8\n", "holds BED, no variants"),
        (META, "the header has no #CHROM line; the file may be cut short"),
        (META + BODY, "line 4: the header ends without a #CHROM line"),
        (
            COLUMNS + b"\tFORMAT\ts\rchr1\t5\t.\tA\tC\t.\t.\t.\tGT\t0/1\n",
            "line 1: the #CHROM line is not that of",
        ),
        (META + b"#CHROM\tPOS\tID\n", "line 4: the #CHROM line is not that of a VCF; it begins with #CHROM"),
        (b"hello\n", "line 1: neither VCF nor BCF nor a table of variants; name the columns chrom"),
        (b"BCF\x02\x02garbage", "the BCF data are damaged or cut short"),
        (b"", "the input is empty"),
    ],
)
def test_what_is_no_file_of_variants(tmp_path: Path, text: bytes, message: str) -> None:
    path = write_bytes(tmp_path / "a", text)
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


@pytest.mark.parametrize("compression", ["gzip", "bgzip"])
def test_a_file_cut_short(tmp_path: Path, compression: Compression) -> None:
    body = b"".join(b"chr1\t%d\t.\tA\tC\t.\t.\t.\n" % random.Random(i).randrange(9**9) for i in range(9000))
    path = write_bytes(tmp_path / "a.vcf.gz", HEADER + body, compression)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="cut short"):
        read(path)


def write_bcf(path: Path, count: int) -> list[bytes]:
    """Write a BCF file; the texts of its records."""
    header = pysam.VariantHeader()
    header.contigs.add("chr1", length=10**6)
    header.info.add("AF", "A", "Float", "x")
    with pysam.VariantFile(str(path), "wb", header=header) as file:
        for start in range(count):
            file.write(file.new_record("chr1", start, alleles=("A", "C", "G"), info={"AF": (0.5, 0.25)}))
    return [b"chr1\t%d\t.\tA\tC,G\t.\t.\tAF=0.5,0.25" % (start + 1) for start in range(count)]


def test_bcf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    texts = write_bcf(path, 3000)
    with open_variants(path) as variants:
        assert (variants.header.kind, variants.header.contigs) == ("bcf", ("chr1",))
        assert variants.header.lines[0] == b"##fileformat=VCFv4.2\n"
        records = list(variants)
    assert [record.text for record in records] == texts
    assert (records[0].line, records[1].alts) == (len(variants.header.lines) + 1, (b"C", b"G"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.decompress(path.read_bytes()))))
    assert read("-") == records
    assert [record.position for record in read(path, [Region("chr1", 7, 9)])] == [7, 8]


def test_bcf_is_left_early_and_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "a.bcf"
    write_bcf(path, 20_000)
    with open_variants(path) as variants:
        assert next(iter(variants)).position == 0
    raw = gzip.decompress(path.read_bytes())
    with pytest.raises(UserError, match=r"b\.bcf: the BCF data are damaged or cut short"):
        read(write_bytes(tmp_path / "b.bcf", raw[: len(raw) // 2 + 1]))
    with pytest.raises(UserError, match=r"c\.bcf: the gzip data are damaged or cut short"):
        read(write_bytes(tmp_path / "c.bcf", gzip.compress(raw)[:-9]))


def test_a_bcf_that_htslib_will_not_open_is_left(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.bcf", b"BCF\x09\x09" + bytes(1 << 20))
    with pytest.raises(UserError, match="the BCF data are damaged"):
        read(path)


def test_damage_between_two_bcf_records_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.bcf"
    write_bcf(path, 10)
    stream = mock.Mock(
        read=mock.Mock(side_effect=[gzip.decompress(path.read_bytes()), UserError("cut short")])
    )
    with bcf_as_text(stream) as lines, pytest.raises(UserError, match="cut short"):
        list(lines)


def naive(records: list[VariantRecord], regions: list[Region]) -> list[bytes]:
    return [
        record.text
        for record in records
        if any(
            len(r)
            and r.contig == record.contig
            and r.start < record.position + len(record.ref)
            and record.position < r.end
            for r in regions
        )
    ]


REGIONS = st.lists(
    st.builds(
        lambda contig, start, size: Region(contig, start, start + size),
        st.sampled_from(["chr1", "chr2", "chr3"]),
        st.integers(0, 120),
        st.integers(0, 30),
    ),
    max_size=6,
)


@given(
    st.lists(st.tuples(st.sampled_from(["chr1", "chr2"]), st.integers(0, 140), st.integers(1, 20))), REGIONS
)
@settings(max_examples=60)
def test_regions_with_and_without_an_index(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int]], regions: list[Region]
) -> None:
    body = b"".join(
        b"%s\t%d\t.\t%s\tC\t.\t.\tN=%d\r\n" % (contig.encode(), position, b"A" * size, number)
        for number, (contig, position, size) in enumerate(sorted(rows))
    )
    path = tmp_path_factory.getbasetemp() / "regions.vcf.gz"
    index = Path(f"{path}.tbi")
    index.unlink(missing_ok=True)
    write_bytes(path, HEADER.replace(b"\n", b"\r\n") + body, "bgzip")
    expected = naive(read(path), regions)
    without = read(path, regions)
    assert [record.text for record in without] == expected
    with quiet_htslib():  # it warns of telomeres
        pysam.tabix_index(str(path), preset="vcf", force=True)
    with_index = read(path, regions)
    assert [record._replace(line=0) for record in without] == with_index


SPANS = (
    b"chr1\t10\tblock\tA\t<NON_REF>\t.\t.\tEND=30",
    b"chr1\t10\tsnv\tA\tC\t.\t.\tEND=10",
    b"chr1\t11\tdel\tA\t<DEL>\t.\t.\tSVTYPE=DEL;END=40;CIEND=0,99",
    b"chr1\t12\tback\tACG\t<DEL>\t.\t.\tEND=5",
    b"chr1\t35\tins\tA\t<INS>\t.\t.\tSVLEN=50",
    b"chr1\t36\tno_number\tA\t<DEL>\t.\t.\tEND=x",
)


@pytest.mark.parametrize("indexed", [False, True])
def test_records_reach_to_their_end_as_for_htslib(tmp_path: Path, indexed: bool) -> None:
    meta = META + b"".join(
        b"##INFO=<ID=%s,Number=1,Type=Integer,Description=x>\n" % n for n in (b"END", b"SVLEN")
    )
    path = write_bytes(
        tmp_path / "a.vcf.gz",
        meta + b"##contig=<ID=chr1,length=99>\n" + COLUMNS + b"\n" + b"\n".join(SPANS),
        "bgzip",
    )
    with quiet_htslib():
        pysam.tabix_index(str(path), preset="vcf", force=True)
        with pysam.VariantFile(str(path)) as file:
            expected = {start: [r.id for r in file.fetch("chr1", start, start + 2)] for start in range(45)}
    if not indexed:
        Path(f"{path}.tbi").unlink()
    for start, names in expected.items():
        records = read(path, [Region("chr1", start, start + 2)])
        assert [record.text.split(b"\t")[2].decode() for record in records] == names


def test_a_deletion_without_end_reaches_over_its_length(tmp_path: Path) -> None:
    line = b"chr1\t11\t.\tA\t<DEL:ME>,<DEL>\t.\t.\tSVLEN=-20,-30"
    path = write_bytes(tmp_path / "a.vcf", HEADER + line)
    assert [len(read(path, [Region("chr1", start, start + 1)])) for start in (9, 10, 40, 41)] == [0, 1, 1, 0]


def test_regions_are_of_the_contigs_that_names_stand_for(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.vcf.gz", HEADER + b"chr1\t5\t.\tA\tC\t.\t.\t.\n", "bgzip")
    for _ in range(2):
        with open_variants(path, [Region("1", 4, 5)], {"chr1": "1"}.get) as variants:
            assert len(list(variants)) == 1
        with open_variants(path, [Region("chr1", 4, 5)], {"chr1": "1"}.get) as variants:
            assert not list(variants)
        pysam.tabix_index(str(path), preset="vcf", force=True)


def test_a_record_in_two_regions_is_found_once(tmp_path: Path) -> None:
    lines = [b"chr1\t%d\t.\tACGTACGT\tC\t.\t.\t." % pos for pos in (3, 4, 5)]
    path = write_bytes(tmp_path / "a.vcf.gz", HEADER + b"\n".join(lines) + b"\n", "bgzip")
    pysam.tabix_index(str(path), preset="vcf", force=True)
    regions = [Region("chr1", 6, 8), Region("chr1", 0, 4), Region("chr1", 1, 3)]
    assert [record.text for record in read(path, regions)] == lines


def test_an_index_older_than_its_file_is_not_used(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.vcf.gz", HEADER + b"chr1\t5\t.\tA\tC\t.\t.\t.\n", "bgzip")
    pysam.tabix_index(str(path), preset="vcf", force=True)
    write_bytes(path, HEADER + b"chr1\t5\t.\tA\tC\t.\t.\t.\n" * 3, "bgzip")
    os.utime(f"{path}.tbi", (0, 0))
    assert len(read(path, [Region("chr1", 4, 5)])) == 3


def test_an_index_has_names_beyond_ascii(tmp_path: Path) -> None:
    lines = ["chr1\t5\t.\tA\tC\t.\t.\t.", "chr\N{GREEK SMALL LETTER ALPHA}\t3\tb\tA\tC\t.\t.\t."]
    path = write_bytes(tmp_path / "a.vcf.gz", HEADER + "\n".join(lines).encode() + b"\n", "bgzip")
    pysam.tabix_index(str(path), preset="vcf", force=True)
    regions = [Region("chr\N{GREEK SMALL LETTER ALPHA}", 0, 9)]
    assert [record.text for record in read(path, regions)] == [lines[1].encode()]


def test_a_broken_index_is_named(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.vcf.gz", HEADER + BODY, "bgzip")
    write_bytes(Path(f"{path}.tbi"), b"no index")
    with pytest.raises(UserError, match=r"a\.vcf\.gz\.tbi: the index cannot be read; make it again"):
        read(path, [Region("chr1", 0, 9)])


SEEDS = [
    HEADER + BODY,
    b"chrom,pos,ref,alt\n1,5,A,C\n",
    b"chr1\t5\tA\tC\tx\n",
    b"BCF\x02\x02" + bytes(40),
]


@given(
    st.binary(max_size=200)
    | st.text('chr1\t,#"\r\n.0AC<*>POS=', max_size=80).map(str.encode)
    | st.tuples(st.sampled_from(SEEDS), st.integers(0, 300), st.integers(0, 3), st.binary(max_size=4)).map(
        lambda cut: cut[0][: cut[1]] + cut[3] + cut[0][cut[1] + cut[2] :]
    )
)
@settings(max_examples=300)
def test_any_bytes_give_records_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    path = write_bytes(tmp_path_factory.getbasetemp() / "fuzz", text)
    try:
        records = read(path)
    except UserError as error:
        with pytest.raises(UserError, match=re.escape(str(error))), open_variants(path) as variants:
            variants.survey()
        return
    assert all(record.ref and record.position >= -1 and b"" not in record.alts for record in records)
    chosen = read(path, [Region("chr1", 0, 10)])
    assert [record for record in records if record in chosen] == chosen
    with open_variants(path) as variants:
        assert variants.survey()[0] == Counter(record.contig for record in records)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    line = b"chr1\t5\t.\tA\tC\t.\t.\tX=" + b"x" * 500 + b"\n"
    path = write_bytes(tmp_path / "a.vcf", HEADER + line * 30_000)
    tracemalloc.start()
    with open_variants(path) as variants:
        assert sum(1 for _ in variants) == 30_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 4


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("chr22_20-21M.dbsnp.vcf.gz", 3502),
        ("sars_cov_2_usher_samples.vcf.gz", 423),
        ("edge/merge.gvcf.2.a.vcf", 15),
        ("edge/view64bit.1.vcf", 2),
        ("problematic_sites_sarsCov2.vcf.gz", 481),
    ],
)
def test_real_files(shared: Path, name: str, count: int) -> None:
    assert len(read(shared / "data" / "variants" / name)) == count


def test_a_pipe_that_is_fed_slowly(tmp_path: Path) -> None:
    lines = [
        "from hyenacli.readers.variants import open_variants",
        "with open_variants('-') as variants: print(len(list(variants)))",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], input=HEADER + BODY, capture_output=True, check=True
    )
    assert done.stdout == b"3\n"
