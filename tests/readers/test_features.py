"""Features are what Biopython's own `extract` gives, joined, reverse and across the origin of a circle."""

import gzip
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import CompoundLocation, SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord

from hyenacli.errors import UsageError, UserError
from hyenacli.readers.annotation import read_features
from hyenacli.readers.features import FeatureChoice
from hyenacli.readers.records import SequenceRecord, open_regions
from hyenacli.readers.regions import open_reference
from hyenacli.readers.text import open_binary

BASES = "".join(random.Random(0).choices("ACGT", k=400))
JOINED = FeatureChoice(("CDS",), joined=True)


@pytest.fixture(autouse=True)
def genome(tmp_path: Path) -> Path:
    (tmp_path / "g.fa").write_text(f">c1\n{BASES}\n>c2\n{BASES[::-1]}\n")
    return tmp_path / "g.fa"


def read(
    path: Path, choice: FeatureChoice, flank: int = 0, circular: str | None = None, genome: str = "g.fa"
) -> list[SequenceRecord]:
    with (
        open_reference(path.with_name(genome), "auto", None, circular) as reference,
        open_binary(path) as stream,
    ):
        return list(open_regions(stream, reference, choice=choice, flank=flank).records)


def stranded(record: SequenceRecord) -> str:
    bases, left = record.reading(reverse=record.strand == "-")
    return bases[left : left + len(record)].decode()


def reverse(bases: str) -> str:
    return str(Seq(bases).reverse_complement())


GFF = """##gff-version 3
c1\tx\tgene\t11\t200\t.\t-\t.\tID=g1;Name=one%3B1;biotype=coding
c1\tx\tmRNA\t11\t200\t.\t-\t.\tID=t1;Parent=g1
c1\tx\tmRNA\t51\t200\t.\t-\t.\tID=t2;Parent=g1
c1\tx\tmRNA\t51\t200\t.\t-\t.\tID=t3;Parent=g1
c1\tx\texon\t151\t200\t.\t-\t.\tParent=t1,t2
c1\tx\texon\t11\t60\t.\t-\t.\tParent=t1
c1\tx\texon\t51\t90\t.\t-\t.\tParent=t2
c1\tx\tCDS\t151\t160\t.\t-\t0\tID=p1;Parent=t1
c1\tx\tCDS\t21\t60\t.\t-\t0\tID=p1;Parent=t1
c2\tx\tCDS\t391\t401\t.\t+\t0\tID=p2

###
##FASTA
>c1
ACGT
"""


def test_rows_are_lines_with_their_attributes(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.gff.gz", "wt") as file:
        file.write("track name=genes\n" + GFF.removeprefix("##gff-version 3\n"))
    (gene,) = read(
        tmp_path / "a.gff.gz", FeatureChoice(("gene",), "Name", attributes=("biotype", "ID")), flank=5
    )
    assert (gene.id, gene.chrom, gene.start, gene.end, gene.strand) == ("one;1", "c1", 10, 200, "-")
    assert gene.extra == (("type", "gene"), ("biotype", "coding"), ("ID", "g1"))
    assert stranded(gene) == reverse(BASES[10:200])
    parts = read(tmp_path / "a.gff.gz", FeatureChoice(("CDS",)))
    assert [(part.id, part.start, part.end, part.status) for part in parts] == [
        ("p1", 150, 160, "OK"),
        ("p1", 20, 60, "OK"),
        ("p2", 390, 401, "OUT_OF_RANGE"),
    ]


def test_joined_parts_are_read_as_they_are_transcribed(tmp_path: Path) -> None:
    (tmp_path / "a.gff").write_text(GFF)
    coding, outside = read(tmp_path / "a.gff", JOINED, flank=7)
    assert (coding.start, coding.end, len(coding)) == (20, 160, 50)
    assert stranded(coding) == reverse(BASES[20:60] + BASES[150:160])
    assert coding.bases.decode() == BASES[13:60] + BASES[150:167]
    assert outside.status == "OUT_OF_RANGE"
    transcripts = read(tmp_path / "a.gff", FeatureChoice(("mRNA",), joined=True))
    assert [record.status for record in transcripts] == ["OK", "OK", "NO_PARTS"]
    assert stranded(transcripts[1]) == reverse(BASES[50:90] + BASES[150:200])


def test_gtf_has_transcripts_of_exons(tmp_path: Path) -> None:
    lines = [("transcript", 21, 90), ("exon", 21, 30), ("exon", 81, 90), ("CDS", 25, 30), ("CDS", 81, 84)]
    (tmp_path / "a.gtf").write_text(
        "".join(
            f'c1\tx\t{kind}\t{start}\t{end}\t.\t+\t.\tgene_id "g;1"; transcript_id "t1"; tag "a"; tag "b";\n'
            for kind, start, end in lines
        )
    )
    for kind, bases in (("transcript", BASES[20:30] + BASES[80:90]), ("CDS", BASES[24:30] + BASES[80:84])):
        (record,) = read(
            tmp_path / "a.gtf", FeatureChoice((kind,), joined=True, attributes=("gene_id", "tag"))
        )
        assert (record.id, stranded(record)) == ("t1", bases)
        assert record.extra == (("type", kind), ("gene_id", "g;1"), ("tag", "a,b"))


def locations() -> list[SimpleLocation | CompoundLocation]:
    spliced = [SimpleLocation(100, 120, 1), SimpleLocation(150, 155, 1), SimpleLocation(300, 333, 1)]
    around = [SimpleLocation(380, 400, 1), SimpleLocation(0, 30, 1), SimpleLocation(40, 45, 1)]
    simple = [SimpleLocation(5, 50, 1), SimpleLocation(60, 90, -1)]
    both = [CompoundLocation(parts) for parts in (spliced, around)]
    flipped = [
        CompoundLocation([SimpleLocation(part.start, part.end, -1) for part in parts[::-1]])
        for parts in (spliced, around)
    ]
    return [*simple, *both, *flipped]


@pytest.mark.skipif(shutil.which("bedtools") is None, reason="bedtools is not installed")
def test_regions_are_what_bedtools_extracts(tmp_path: Path) -> None:
    (tmp_path / "a.gff").write_text(GFF.partition("##FASTA")[0])
    lines = [(0, 9, "+"), (100, 400, "-"), (399, 400, "-"), (7, 31, ".")]
    (tmp_path / "a.bed").write_text("".join(f"c2\t{a}\t{b}\tx\t0\t{strand}\n" for a, b, strand in lines))
    genes = [r for kind in ("gene", "CDS") for r in read(tmp_path / "a.gff", FeatureChoice((kind,)))]
    for name, kinds, records in (
        ("a.bed", (), read(tmp_path / "a.bed", FeatureChoice())),
        ("a.gff", ("gene", "CDS"), [record for record in genes if record.status == "OK"]),
    ):
        texts = (tmp_path / name).read_text().splitlines(keepends=True)
        chosen = [text for kind in kinds for text in texts if f"\tx\t{kind}\t" in text and "401" not in text]
        (tmp_path / f"chosen.{name}").write_text("".join(chosen or texts))
        assert [stranded(record) for record in records] == _getfasta(tmp_path, f"chosen.{name}")
    joined = [
        record
        for kind in ("mRNA", "CDS")
        for record in read(tmp_path / "a.gff", FeatureChoice((kind,), joined=True))
        if record.status == "OK"
    ]
    assert max(len(record.spans) for record in joined) == 2
    blocks = [
        "\t".join(
            map(
                str,
                (
                    *(record.chrom, record.start, record.end, record.id, 0, record.strand),
                    *(record.start, record.end, 0, len(record.spans)),
                    ",".join(str(end - start) for start, end in record.spans),
                    ",".join(str(start - record.start) for start, _ in record.spans),
                ),
            )
        )
        for record in joined
    ]
    (tmp_path / "joined.bed").write_text("\n".join(blocks) + "\n")
    assert [stranded(record) for record in joined] == _getfasta(tmp_path, "joined.bed", "-split")


def _getfasta(folder: Path, name: str, *flags: str) -> list[str]:
    command = ["bedtools", "getfasta", "-s", "-fi", "g.fa", "-bed", name, *flags]
    output = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    return output.splitlines()[1::2]


@pytest.mark.parametrize("kind", ["genbank", "embl"])
def test_features_are_what_biopython_extracts(tmp_path: Path, kind: str) -> None:
    features = [
        SeqFeature(location, "CDS", qualifiers={"locus_tag": [f"b{i}"], "product": ["a thing"]})
        for i, location in enumerate(locations())
    ]
    about = {"molecule_type": "DNA", "topology": "circular"}
    record = SeqRecord(Seq(BASES), "c1", "c1", "a plasmid", annotations=about, features=features)
    SeqIO.write(record, tmp_path / "a.flat", kind)
    with (tmp_path / "a.flat").open() as file:
        parsed = SeqIO.read(file, kind)
    choice = FeatureChoice(("CDS",), joined=True, attributes=("product",))
    records = read(tmp_path / "a.flat", choice, circular="c1")
    assert read(tmp_path / "a.flat", choice, genome="a.flat") == records, "the file says that it is a circle"
    assert [record.id for record in records] == [f"b{i}" for i in range(6)]
    for record, feature in zip(records, parsed.features, strict=True):
        assert stranded(record) == str(feature.extract(parsed.seq))
        assert record.extra == (("type", "CDS"), ("product", "a thing"))


GENBANK = """LOCUS       c1                        40 bp    DNA     linear   UNK 01-JAN-1980
DEFINITION  x.
ACCESSION   c1
FEATURES             Location/Qualifiers
     source          1..40
     CDS             join(1..4,complement(8..12))
                     /locus_tag="b1"
     5'UTR           20..21
     CDS             {}
                     /locus_tag="b2"
ORIGIN
        1 acgtacgtac gtacgtacgt acgtacgtac gtacgtacgt
//
"""


def test_features_of_a_flat_file_have_its_lines(tmp_path: Path) -> None:
    (tmp_path / "a.gb").write_text(GENBANK.format("join(30..33,38..44)") * 2)
    choice = FeatureChoice(("CDS",))
    with open_binary(tmp_path / "a.gb") as stream:
        features = read_features(stream, choice)
    found = [(row.region.start, row.region.end, row.region.strand, row.line, row.status) for row in features]
    first = [(0, 4, "+", 6, "OK"), (7, 12, "-", 6, "OK"), (29, 33, "+", 9, "OK"), (37, 44, "+", 9, "OK")]
    assert found == [*first, *((a, b, strand, line + 13, status) for a, b, strand, line, status in first)]
    with open_binary(tmp_path / "a.gb") as stream:
        joined = read_features(stream, replace(choice, joined=True))
    assert [(row.line, row.status, row.parts) for row in joined[:2]] == [
        (6, "SEVERAL_STRANDS", ((0, 4), (7, 12))),
        (9, "OK", ((29, 33), (37, 44))),
    ]
    (tmp_path / "a.gb").write_text(GENBANK.format("join(30..33,AB1.2:8..12)"))
    with open_binary(tmp_path / "a.gb") as stream:
        assert [row.status for row in read_features(stream, choice)] == ["OK", "OK", "OK", "SEVERAL_STRANDS"]
    (tmp_path / "a.gb").write_text(GENBANK.format("30.."))
    with (
        open_binary(tmp_path / "a.gb") as stream,
        pytest.raises(UserError, match="line 9: the location of CDS 'b2' cannot be read; correct or remove"),
    ):
        read_features(stream, choice)


@pytest.mark.parametrize(
    ("text", "choice", "message"),
    [
        (GFF, FeatureChoice(), "several types; choose with --feature of: gene .1., mRNA .3., exon"),
        (GFF, FeatureChoice(("cds",)), "no feature of type 'cds'; it has gene"),
        (
            GFF,
            FeatureChoice(("gene",), attributes=("x",)),
            "no chosen feature has the attribute 'x'; they have ID",
        ),
        ("##gff-version 3\nc1 x gene 1 9 . + . ID=a\n", FeatureChoice(), "line 2: 1 column where GFF has 9"),
        (
            'c1 x gene 1 9 . + . gene_id "a";\n',
            FeatureChoice(),
            "line 1: 1 column where .* blanks .* by tabs",
        ),
        ("##gff-version 3\nc1\tx\tgene\t9\t1\t.\t+\t.\tID=a\n", FeatureChoice(), "line 2: start 9 and end 1"),
        (
            "##gff-version 3\nc1\tx\tgene\t1\tend\t.\t+\t.\tID=a\n",
            FeatureChoice(),
            "line 2: '1-end' are not two",
        ),
        ("c1\t1\t9\n", FeatureChoice(("gene",)), "has no features"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, text: str, choice: FeatureChoice, message: str) -> None:
    (tmp_path / "a.gff").write_text(text)
    with pytest.raises((UserError, UsageError), match=message):
        read(tmp_path / "a.gff", choice)


def test_parts_on_both_strands_are_a_status(tmp_path: Path) -> None:
    rows = [
        f"c1\tx\tCDS\t{start}\t{start + 9}\t.\t{strand}\t0\tID=p\n" for start, strand in ((5, "+"), (50, "-"))
    ]
    (tmp_path / "a.gff").write_text("##gff-version 3\n" + "".join(rows))
    (record,) = read(tmp_path / "a.gff", JOINED)
    assert (record.status, record.bases) == ("SEVERAL_STRANDS", b"")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("ID=a ;Note=see ID=5; OtherID=7;x", {"ID": "a", "Note": "see ID=5", "OtherID": "7", "x": ""}),
        ("OtherID=7;ID=b%3Bc;Note=ID=5", {"ID": "b;c", "OtherID": "7", "Note": "ID=5"}),
        (" ID=a; Name=b", {"ID": "a", "Name": "b"}),
        ("ID=a;My%20Note=5%25;Note= b", {"ID": "a", "My Note": "5%", "Note": " b"}),
        ('ID "a;b"; Note "see ID "; Note "d"; level 2', {"ID": "a;b", "Note": "see ID ,d", "level": "2"}),
        ('ID "3\\" end"; Note "a ""b""; ID "; level 2', {"ID": '3" end', "Note": 'a "b"; ID ', "level": "2"}),
        ('ID ""; Note "a\\b"; level "";', {"ID": "", "Note": "a\\b", "level": ""}),
        ('My_ID "c"; ID a;level "x; ID "; ID "b"', {"ID": "a,b", "My_ID": "c", "level": "x; ID "}),
    ],
)
def test_each_attribute_is_read_as_written(tmp_path: Path, text: str, values: dict[str, str]) -> None:
    line = f"c1\tx\tgene\t1\t9\t.\t+\t.\t{text}\r\n"
    (tmp_path / "a.gff").write_bytes(f"##gff-version 3\r\n{line}{line}".encode())
    records = read(tmp_path / "a.gff", FeatureChoice(("gene",), attributes=tuple(values)))
    assert [dict(record.extra) for record in records] == [{"type": "gene", **values}] * 2
    assert records[0].id == (values["ID"] if "=" in text else "c1:1-9"), "GTF is named by its transcript"
