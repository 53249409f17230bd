import io
import re
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from Bio.SeqIO.FastaIO import SimpleFastaParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyenacli.errors import UserError
from hyenacli.genome.dna import normalise
from hyenacli.readers.sequences import read_entries, read_fasta
from hyenacli.readers.text import open_binary, sniff_format
from tests.builders import Compression, fasta_bytes, random_dna, write_bytes, write_fasta


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b">a\nACGT\n", [("a", "", b"ACGT")]),
        (b">a the first\nAC\nGT\n>b\nTT", [("a", "the first", b"ACGT"), ("b", "", b"TT")]),
        (b">a\r\nac\r\ngu\r\n>b\r\nRyN\r\n", [("a", "", b"ACGT"), ("b", "", b"NNN")]),
        (b"\n \n>a\n\nAC\n\n\nGT\n\n>b\n", [("a", "", b"ACGT"), ("b", "", b"")]),
        (b">a\n>b\n>c", [("a", "", b""), ("b", "", b""), ("c", "", b"")]),
        (b">a\tx  y \nAC \t\nGT  ", [("a", "x  y", b"ACGT")]),
        (b">a >b\nAC\n", [("a", ">b", b"AC")]),
        (b">a\nAC\n>a\nGT\n", [("a", "", b"AC"), ("a", "", b"GT")]),
        (b"\xef\xbb\xbf>a\nAC\n", [("a", "", b"AC")]),
        (">séq Größe\nAC\n".encode(), [("séq", "Größe", b"AC")]),
        (b">a Gr\xf6\xdfe\nAC\n", [("a", "Gr��e", b"AC")]),
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 3, 1 << 20])
def test_records(tmp_path: Path, text: bytes, expected: list[tuple[str, str, bytes]], piece: int) -> None:
    path = write_bytes(tmp_path / "a.fa", text)
    records = list(read_fasta(path, piece=piece))
    assert [(record.name, record.description, record.sequence) for record in records] == expected
    assert [record.status for record in records] == ["OK" if bases else "EMPTY" for _, _, bases in expected]
    kept = b"".join(record.text for record in read_fasta(path, keep_text=True, piece=piece))
    assert text.endswith(kept)
    assert not text[: len(text) - len(kept)].removeprefix(b"\xef\xbb\xbf").strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\n\nACGT\n>a\nAC\n", ", line 3: text before the first record; FASTA begins with '>'"),
        (b"r\nACGT\n", ", line 1: text before the first record"),
        (b"\n \n", ": no FASTA records"),
        (b">a\nAC\n>\nGT\n", ", line 3: the record has no name; write a name directly after '>'"),
        (b"> a\nAC\n", ", line 1: the record has no name"),
        (b">a\rACGT\r>b\rACGT\n", ", line 1: a carriage return inside the line"),
        (b">a\x00b\nACGT\n", ", line 1: the record's name has a control character"),
        (b">\xff\nACGT\n", ", line 1: the record's name is not UTF-8"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: bytes, message: str) -> None:
    path = write_bytes(tmp_path / "a.fa", text)
    with pytest.raises(UserError) as error:
        list(read_fasta(path))
    assert str(error.value).startswith(f"{path}{message}")


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (b">a\nAC\n>b x\nACGT\n\nAC-T\n>c\nGT\n", 6, "'-' in record 'b' is not a nucleotide code"),
        (b">a\nAC\n>b\r\nACGT \r\nAC1T\r\n>c\nGT", 5, "'1' in record 'b' is not a nucleotide code"),
        (b">a\nAC\n>b\nAC GT\n>c\nGT\n", 4, "' ' in record 'b' is not a nucleotide code"),
        (b">a\nAC\n>b\nMKV*\n*\n>c\nGT\n", 4, "'*' in record 'b' is not a nucleotide code"),
        (b">a\nAC\n>b\nAC\x00GT\n>c\nGT\n", 4, "'\\x00' in record 'b' is not a nucleotide code"),
        (b">a\nAC\n>b\n>c\nGT\n", 3, ""),
    ],
)
@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_a_bad_record_costs_no_other(
    tmp_path: Path, text: bytes, line: int, problem: str, piece: int
) -> None:
    a, b, c = read_fasta(write_bytes(tmp_path / "a.fa", text), keep_text=True, piece=piece)
    assert (a.sequence, a.status, c.sequence, c.status) == (b"AC", "OK", b"GT", "OK")
    assert (b.sequence, b.line, b.problem) == (b"", line, problem)
    assert b.status == ("BAD_LETTER" if problem else "EMPTY")
    assert a.text + b.text + c.text == text


def test_blanks_without_end_are_refused_at_once(tmp_path: Path) -> None:
    begin = time.monotonic()
    (record,) = read_fasta(write_bytes(tmp_path / "a.fa", b">a\n" + b" " * 200_000 + b"A\n"))
    assert (record.status, record.line) == ("BAD_LETTER", 2)
    assert time.monotonic() < begin + 5


def test_records_before_an_error_are_given(tmp_path: Path) -> None:
    records = read_fasta(write_bytes(tmp_path / "a.fa", b">a\nAC\n>\nA\n"))
    assert next(records).name == "a"
    with pytest.raises(UserError, match="line 3"):
        next(records)


def test_an_opened_stream_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b">a\nACGT\n")))
    stream = open_binary("-")
    assert sniff_format(stream) == "fasta"
    assert [record.sequence for record in read_fasta(stream)] == [b"ACGT"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(text=st.binary() | st.text(">acgtN \t\r\nx-", max_size=60).map(str.encode), piece=st.integers(1, 9))
def test_any_bytes_give_records_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, piece: int
) -> None:
    path = write_bytes(tmp_path_factory.getbasetemp() / "fuzz.fa", text)
    try:
        records = list(read_fasta(path, piece=piece))
    except UserError as error:
        with pytest.raises(UserError, match=re.escape(str(error))):
            list(read_fasta(path))
        return
    assert records == list(read_fasta(path))
    joined = b"".join(record.sequence for record in records)
    with open_binary(path) as stream:
        text = stream.read()
    assert len(records) == (b"\n" + text).count(b"\n>")
    assert len(joined) + text.count(b"\n") <= len(text)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[!-=?-~]{1,8}( [ -~]{1,9})?", fullmatch=True),
            st.text("ACGTNacgtnUuRy", max_size=99),
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 40),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["plain", "gzip", "bgzip"]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[tuple[str, str]],
    width: int,
    newline: str,
    compression: Compression,
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.fa"
    write_fasta(path, records, width=width, newline=newline, compression=compression)
    found = [(record.name, record.sequence) for record in read_fasta(path)]
    assert found == [(header.split()[0], normalise(bases.encode())) for header, bases in records]


def test_real_genomes_read_as_biopython_reads_them(shared: Path) -> None:
    for path in sorted((shared / "data" / "genomes").iterdir()):
        with open_binary(path) as stream:
            expected = [
                (*title.split(None, 1), bases) for title, bases in SimpleFastaParser(io.TextIOWrapper(stream))
            ]
        for record, (name, *_, bases) in zip(read_fasta(path), expected, strict=True):
            assert record.name == name
            assert record.sequence == normalise(bases.encode()), (path, name)


def test_the_yeast_genome_has_all_its_bases(shared: Path) -> None:
    records = read_fasta(shared / "data" / "genomes" / "yeast_R64.fa.gz")
    assert sum(len(record.sequence) for record in records) == 12_157_105


def test_memory_holds_one_record(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "many.fa", fasta_bytes([("a", random_dna(1000))]) * 20_000)
    tracemalloc.start()
    count = sum(1 for _ in read_fasta(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 8_000_000


@pytest.mark.parametrize("width", [60, 10_000_000])
def test_memory_holds_a_piece_of_a_long_record(tmp_path: Path, width: int) -> None:
    sequence = random_dna(1000) * 10_000
    path = write_fasta(tmp_path / "long.fa", [("a", sequence), ("b", "AC")], width=width)
    tracemalloc.start()
    with open_binary(path) as stream:
        lengths = [sum(map(len, entry.blocks())) for entry in read_entries(stream)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lengths == [10_000_000, 2]
    assert peak < 8_000_000


def test_what_is_not_read_of_a_record_is_skipped(tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "a.fa", [("a", "ACGT" * 9), ("b", "TT"), ("c", "*"), ("d", "GG")], width=4)
    with open_binary(path) as stream:
        entries = [
            (entry.title()[0], entry.line, next(entry.blocks()) if entry.title()[0] != "c" else b"")
            for entry in read_entries(stream, piece=7)
        ]
    assert entries == [("a", 1, b"ACGT"), ("b", 11, b"TT"), ("c", 13, b""), ("d", 15, b"G")]
