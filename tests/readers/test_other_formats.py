"""Sequences and genomes in FASTQ, GenBank, EMBL and 2bit are those of the same FASTA."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord

from hyenacli.errors import UserError
from hyenacli.readers.genome import Genome
from hyenacli.readers.labelled import open_labelled
from hyenacli.readers.sequences import FastaRecord, read_fasta

RECORDS = {"c1": "ACGTNNNNACGTTTGA", "c2": "GGGTA"}


def two_bit(order: str) -> bytes:
    """RECORDS, of which bases 8 to 11 of c1 are masked."""
    codes = {"T": 0, "C": 1, "A": 2, "G": 3, "N": 0}
    start, index, body = 16 + 2 * (1 + 2 + 4), b"", b""
    for name, bases in RECORDS.items():
        index += struct.pack("B", len(name)) + name.encode() + struct.pack(order + "I", start + len(body))
        blocks = [(4, 4)] if "N" in bases else []
        masks = [(8, 4)] if name == "c1" else []
        body += struct.pack(order + "I", len(bases))
        for spans in (blocks, masks):
            body += struct.pack(order + "I", len(spans))
            body += b"".join(struct.pack(order + "I", at) for at, _ in spans)
            body += b"".join(struct.pack(order + "I", size) for _, size in spans)
        body += struct.pack(order + "I", 0)
        padded = bases + "T" * (-len(bases) % 4)
        for i in range(0, len(padded), 4):
            packed = 0
            for base in padded[i : i + 4]:
                packed = packed << 2 | codes[base]
            body += bytes([packed])
    return struct.pack(order + "4I", 0x1A412743, 0, 2, 0) + index + body


def write(path: Path, kind: str) -> Path:
    if kind.startswith("2bit"):
        path.write_bytes(two_bit(kind[-1]))
    else:
        about = {"molecule_type": "DNA"}
        records = [SeqRecord(Seq(text), name, name, "", annotations=about) for name, text in RECORDS.items()]
        for record in records:
            record.letter_annotations["phred_quality"] = [30] * len(record)
        SeqIO.write(records, path, kind)
    return path


@pytest.mark.parametrize("kind", ["fastq", "genbank", "embl", "2bit<", "2bit>"])
def test_they_are_the_same_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write(tmp_path / "a", kind)
    assert {record.name: record.sequence.decode() for record in read_fasta(path)} == RECORDS
    with Genome(path, codes_required=True) as genome:
        assert genome.lengths == {name: len(bases) for name, bases in RECORDS.items()}
        assert genome.fetch("c1", 2, 12).decode() == RECORDS["c1"][2:12]
        if kind.startswith("2bit"):
            assert [contig.n_soft_masked for contig in genome.contigs] == [4, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@r\nACGT\n+\nIII\n", "line 1: not a FASTQ record"),
        ("@r\nACGT\n+\nIIII\n@s\nAC\n", "line 5: not a FASTQ record"),
        ("@r\nACGT\n+\nIIII\n\n@s\nAC\n+\nII\n", "line 5: not a FASTQ record"),
        ("@r\nACGT\n+\nIIII\n\n \n\n\n\n@s\n", "line 5: not a FASTQ record"),
        ("\n@r\nACGT\n+\nIIII\n", "line 1: not a FASTQ record"),
        ("@r\nAC\nGT\n+\nII\nII\n", "line 1: .*sequences on several lines are not read"),
        ("LOCUS       c1  9 bp  DNA  linear  UNK\nCONTIG      join(X.1:1..9)\n//\n", "has no bases"),
    ],
)
def test_what_is_not_whole_is_named(tmp_path: Path, text: str, message: str) -> None:
    with gzip.open(tmp_path / "a.gz", "wt") as file:
        file.write(text)
    with pytest.raises(UserError, match=message):
        list(read_fasta(tmp_path / "a.gz"))


PLAIN = [
    b"@r1 the first\nACGT\n+\nIIII\n",
    b"@r2\nacgun\n+r2\n@+>!~\n",
    b"@r3  two  blanks \n\n+\n\n",
    b"@r1\nTT\n+\n@r\n",
]
ODD = [
    b"@r1\tthe first\nACGT\n+\nIIII\n",
    "@r1 Größe\nACGT\n+\nIIII\n".encode(),
    b"@r1\nAC-T\n+\nIIII\n",
    b"@r1\nACGT \n+\nIIII\n",
    b"@r1\r\nACGT\r\n+\r\nIIII\r\n",
    b"@r1\nACGT\n+\nIII\n",
    b"r1\nACGT\n+\nIIII\n",
    b"@ r1\nACGT\n+\nIIII\n",
    b"@r\x01@r\nACGT\n+\nIIII\n",
    b"@r1\nACGT\nIIII\n+\n",
    b"\n@r1\nACGT\n+\nIIII\n",
    b"@r1\nACGT\n+\n",
    b"@r1\nACGT\n+\nIIII",
    b"@r1\nAC\nGT\n+\nII\nII\n",
]


@pytest.mark.parametrize("odd", [b"", *ODD])
@pytest.mark.parametrize("piece", [1, 60, 1 << 20])
def test_records_of_fastq_read_together_are_those_read_alone(tmp_path: Path, odd: bytes, piece: int) -> None:
    (tmp_path / "a.fq").write_bytes(b"".join([*PLAIN, odd, *PLAIN]))

    def read(*, keep_text: bool) -> list[object]:
        found: list[object] = []
        try:
            records = read_fasta(tmp_path / "a.fq", piece=piece, keep_text=keep_text)
            found.extend(replace(record, text=b"") for record in records)
        except UserError as error:
            found.append(str(error))
        return found

    together = read(keep_text=False)
    assert together == read(keep_text=True), "a record whose text is kept is read alone"
    names = [(record.name, record.description) for record in together[:4] if isinstance(record, FastaRecord)]
    assert names == [("r1", "the first"), ("r2", ""), ("r3", "two  blanks"), ("r1", "")]


def test_the_first_read_may_be_longer_than_what_is_seen_of_it(tmp_path: Path) -> None:
    bases = "ACGT" * 100_000
    (tmp_path / "a.fq").write_text(f"@r\n{bases}\n+\n{'I' * len(bases)}\n")
    with open_labelled([tmp_path / "a.fq"], labelled=False) as rows:
        assert [(record.id, len(record.sequence)) for record in rows] == [("r", len(bases))]


def test_a_2bit_that_is_cut_short_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write(tmp_path / "a.2bit", "2bit<")
    whole = path.read_bytes()
    path.write_bytes(whole[:8])
    with pytest.raises(UserError, match=r"a\.2bit: a 2bit without a sequence: it is cut short; "):
        list(read_fasta(path))
    path.write_bytes(whole[:-1])
    for read in (read_fasta, Genome):
        with pytest.raises(
            UserError, match=r"a\.2bit: the bases of record 'c2' cannot be read: .*download it"
        ):
            list(read(path))


@pytest.mark.parametrize("kind", ["genbank", "embl"])
def test_lines_of_a_flat_file_are_those_of_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write(tmp_path / "a", kind)
    start = "LOCUS" if kind == "genbank" else "ID "
    lines = [i for i, line in enumerate(path.read_text().splitlines(), 1) if line.startswith(start)]
    assert len(lines) == 2
    records = list(read_fasta(path, keep_text=True))
    assert [record.line for record in records] == lines
    text = b"".join(record.text for record in records)
    (tmp_path / "a.fa").write_bytes(text)
    assert {record.name: record.sequence.decode() for record in read_fasta(tmp_path / "a.fa")} == RECORDS
    path.write_text(path.read_text().replace("c2", "c1"))
    with pytest.raises(UserError, match=f"line {lines[1]}: contig 'c1' was already on line {lines[0]}"):
        Genome(path)
    path.write_text(path.read_text().replace("gggta", "ggxta"))
    (record,) = [record for record in read_fasta(path) if record.problem]
    assert (record.status, record.line) == ("BAD_LETTER", lines[1])
