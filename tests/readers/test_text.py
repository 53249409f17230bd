import gzip
import io
import os
import sys
import threading
from pathlib import Path

import pytest

from hyenacli.errors import UserError
from hyenacli.readers.genome import Genome
from hyenacli.readers.labelled import open_labelled
from hyenacli.readers.sequences import read_fasta
from hyenacli.readers.text import bare, compression, is_missing, open_binary, read_lines, sniff_format
from hyenacli.readers.variants import open_variants
from tests.builders import Compression, random_dna, write_bytes

TEXT = random_dna(400_000, 3).encode()


@pytest.mark.parametrize("kind", ["plain", "gzip", "bgzip"])
@pytest.mark.parametrize("name", ["data.fa", "data.fa.gz"])
def test_compression_is_told_by_content(tmp_path: Path, kind: Compression, name: str) -> None:
    path = write_bytes(tmp_path / name, TEXT, kind)
    assert compression(path) == kind
    with open_binary(path) as stream:
        assert stream.name == str(path)
        assert stream.read() == TEXT


def test_members_are_joined(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.gz", b"one", "gzip")
    path.write_bytes(path.read_bytes() + gzip.compress(b"", mtime=0) + gzip.compress(b"two"))
    with open_binary(path) as stream:
        assert stream.read() == b"onetwo"


@pytest.mark.parametrize("kind", ["plain", "gzip", "bgzip"])
def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Compression) -> None:
    data = write_bytes(tmp_path / "x", TEXT, kind).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with open_binary(Path("-")) as stream:
        assert stream.name == "standard input"
        assert stream.read() == TEXT
    assert not sys.stdin.buffer.closed


def test_a_dribbling_pipe_is_peeked_whole(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def dribble() -> None:
        with pipe.open("wb", buffering=0) as out:
            for byte in b"# a\nchr1\t1\t2\n":
                out.write(bytes([byte]))

    writer = threading.Thread(target=dribble)
    writer.start()
    with open_binary(pipe) as stream:
        assert sniff_format(stream) == "bed"
        assert stream.read() == b"# a\nchr1\t1\t2\n"
    writer.join()


@pytest.mark.parametrize("kind", ["gzip", "bgzip"])
@pytest.mark.parametrize("cut", [10, 30, 5000, -40, -9, -4])
def test_a_cut_file_is_an_error(tmp_path: Path, kind: Compression, cut: int) -> None:
    path = write_bytes(tmp_path / "a.gz", TEXT, kind)
    path.write_bytes(path.read_bytes()[:cut])
    with (
        pytest.raises(UserError, match=r"a\.gz: the gzip data are damaged or cut short"),
        open_binary(path) as stream,
    ):
        stream.read()


def test_a_bgzip_file_cut_between_blocks_is_an_error(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.gz", TEXT, "bgzip")
    path.write_bytes(path.read_bytes()[:-28])
    assert gzip.decompress(path.read_bytes()) == TEXT
    with pytest.raises(UserError, match="cut short"):
        open_binary(path)


def test_damage_inside_is_an_error(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.gz", TEXT, "gzip")
    data = bytearray(path.read_bytes())
    data[5000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"), open_binary(path) as stream:
        stream.read()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the input is empty"),
        (gzip.compress(b"", mtime=0), "the input is empty"),
        (b"BZh91AY", "compressed with bzip2, which is not read; use gzip or bgzip"),
        (b"\xfd7zXZ\x00\x00", "compressed with xz"),
        (b"\x28\xb5\x2f\xfd\x04", "compressed with zstd"),
        (b"PK\x03\x04\x14", "compressed with zip"),
    ],
)
def test_refused_content(tmp_path: Path, data: bytes, message: str) -> None:
    path = write_bytes(tmp_path / "x", data)
    with pytest.raises(UserError) as error:
        open_binary(path)
    assert str(error.value).startswith(f"{path}: {message}")


def test_refused_paths(tmp_path: Path) -> None:
    locked = write_bytes(tmp_path / "locked", b"x")
    locked.chmod(0)
    cases = {tmp_path / "absent": "no such file", tmp_path: "is a folder", tmp_path / "\0": "cannot be read"}
    if os.geteuid() != 0:
        cases[locked] = "cannot be read: Permission denied"
    for path, message in cases.items():
        with pytest.raises(UserError, match=message):
            open_binary(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b">a\nACGT\n", "fasta"),
        (b"\r\n\n>a\r\n", "fasta"),
        (b"chr1\t10\t20\n", "bed"),
        (b"chr1 10  20\n", "bed"),
        (b"browser position chr1\ntrack name=x\n#c\n\nchr1\t10\t20\tname\n", "bed"),
        (b"track\tname=x\nchr1\t10\t20\n", "bed"),
        (b"#chrom\tstart\tend\nchr1\t10\t20\n", "bed"),
        (b"##fileformat=VCFv4.2\n", "vcf"),
        (b"#CHROM\tPOS\tID\tREF\tALT\n", "vcf"),
        (b"\xef\xbb\xbf>a\nACGT\n", "fasta"),
        (b"\xef\xbb\xbf#chrom\tstart\tend\nchr1\t10\t20\n", "bed"),
        (b"sequence,label\nACGT,1\n", None),
        (b"ACGT\n", None),
        (b"chr1\tsource\tgene\t1\t5\n", None),
        (b"# nothing\n", None),
        (b"\x00\xff\x00", None),
    ],
)
def test_formats_are_told_by_content(tmp_path: Path, text: bytes, expected: str | None) -> None:
    with open_binary(write_bytes(tmp_path / "x", text, "gzip")) as stream:
        if expected is None:
            with pytest.raises(UserError, match="neither FASTA, BED nor VCF; FASTA begins with"):
                sniff_format(stream)
        else:
            assert sniff_format(stream) == expected
        assert stream.read() == text.removeprefix(b"\xef\xbb\xbf")


@pytest.mark.parametrize("kind", ["plain", "gzip", "bgzip"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_lines(tmp_path: Path, kind: Compression, newline: bytes, start: bytes) -> None:
    text = start + newline.join([b"a\tb", b"", "größe ".encode(), b"x" * 600_000, b"end"])
    for end in (b"", newline):
        with open_binary(write_bytes(tmp_path / "a", text + end, kind)) as stream:
            lines = list(read_lines(stream))
        assert lines == [(1, "a\tb"), (2, ""), (3, "größe "), (4, "x" * 600_000), (5, "end")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a\nb\rc\n", "line 2: a carriage return inside the line; convert the line ends to those of Unix"),
        (b"a\nGr\xf6\xdfe\n", "line 2: the line is not UTF-8; save the file as UTF-8"),
        ("a\n".encode("utf-16"), "text in UTF-16, which is not read; save it as UTF-8"),
    ],
)
def test_lines_that_are_no_text(tmp_path: Path, text: bytes, message: str) -> None:
    with (
        pytest.raises(UserError, match=f"{message}$"),
        open_binary(write_bytes(tmp_path / "a", text, "gzip")) as stream,
    ):
        list(read_lines(stream))


@pytest.mark.parametrize(
    "text", ["NA", "NaN", "nan", "None", "none", "null", "NULL", "N/A", "n/a", "#N/A", "<NA>", ""]
)
def test_missing_values(text: str) -> None:
    for cell in (text, f" {text}\t", f'"{text}"', text.encode()):
        assert is_missing(cell)
    assert not is_missing(f"{text}A")


def test_a_cell_keeps_what_is_no_padding() -> None:
    cells = ['"', '""', '"a', 'a"b"', "\N{NO-BREAK SPACE}a", '" a"b "']
    assert [bare(cell) for cell in cells] == ['"', "", '"a', 'a"b"', "\N{NO-BREAK SPACE}a", 'a"b']


FOREIGN = {
    b"@HD\tVN:1.6\n@SQ\tSN:1\tLN:5\n": "a SAM",
    b"BAM\1\0\0\0\0": "a BAM",
    b"##gff-version 3\nchr1\t.\tgene\t1\t5\t.\t+\t.\tID=x\n": "a GFF or GTF",
    b"#!genome-build R64\n": "a GFF or GTF",
    b'# x\nchr1\tsgd\texon\t1\t5\t.\t-\t.\tgene_id "x";\n': "a GFF or GTF",
    b'{"sequence": "ACGT"}\n': "JSON",
    b'[{"sequence": "ACGT"}]\n': "JSON",
    b"<!DOCTYPE html>\n<html>": "HTML",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x26\xfc\x8f\x88\0\0": "a bigWig",
    b"version https://git-lfs.github.com/spec/v1\n": "a pointer of Git LFS",
    b"track type=wiggle_0\nfixedStep chrom=1 start=1 step=1\n1\n": "a wiggle track",
}


@pytest.mark.parametrize("text", FOREIGN)
@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_other_formats_are_called_by_their_names(tmp_path: Path, text: bytes, kind: Compression) -> None:
    path = write_bytes(tmp_path / "x", text, kind)
    message = f"{path}: is {FOREIGN[text]}, which is not read here; "
    readers = [
        lambda: sniff_format(open_binary(path)),
        lambda: list(read_fasta(path)),
        lambda: open_variants(path).__enter__(),
        lambda: Genome(path),
    ]
    if FOREIGN[text] != "a GFF or GTF" and text[:1] != b"{":  # which have regions, or rows
        readers.append(lambda: open_labelled([path], labelled=False))
    for reader in readers:
        with pytest.raises(UserError) as error:
            reader()
        assert str(error.value).startswith(message)
