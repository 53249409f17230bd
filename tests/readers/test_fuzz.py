"""Files as grammars make them, whole and damaged, against parsers as plain as the formats allow.

A plain parser gives the rows of a text down to its first fault, and the line of that fault (0 where messages
name the file alone). A reader gives exactly these, in whatever the text is packed.
"""

import contextlib
import csv
import functools
import gzip
import io
import itertools
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyenacli.errors import UserError
from hyenacli.genome.region import Region
from hyenacli.readers.genome import Genome
from hyenacli.readers.regions import Reference, load_regions, read_bed
from hyenacli.readers.sequences import read_fasta
from hyenacli.readers.variants import open_variants
from hyenacli.readers.vcf import quiet_htslib
from hyenacli.writers.variants import open_annotated
from tests.builders import write_fasta

BOM = b"\xef\xbb\xbf"
BGZIP = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0"
BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
LIMIT = 10.0  # seconds of processor time


def counts(few: int, many: int) -> pytest.MarkDecorator:
    """How many inputs a test makes: `few` of them every day, `many` among the slow tests."""
    slow = pytest.param(many, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3600)])
    return pytest.mark.parametrize("count", [pytest.param(few, id="few"), slow])


def try_out(count: int, check: Callable[..., None], *inputs: st.SearchStrategy[Any]) -> None:
    """Call `check` with `count` draws of its arguments; each call has to end within LIMIT."""

    @functools.wraps(check)
    def timed(**drawn: Any) -> None:
        start = time.process_time()
        check(**drawn)
        assert time.process_time() - start < LIMIT

    health = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    limits = settings(max_examples=count, database=None, suppress_health_check=health)
    limits(given(*inputs)(timed))()


# Texts: rows of columns, with faults.

JUNK = [b"", b" ", b"\t", b"\r", b"\n", *b'. * - \0 \xff \xc2\xa0 " , ; > #'.split()]
VALUES = [*JUNK, *b"0 -1 +5 007 1e3 1,000 2147483648 track N acgtu R-*5 \xd9\xa3".split(), b"x y", b"a\x0bb"]
VALUES += [b"9" * 18, b"9" * 19, b"9" * 5000, b"A" * 70_000, b" " * 70_000]
LINES = [b"", b"   ", b"\t\t", b"\r", b"\x0b", b"#", b"# x", b"##x=<ID=y>", b"#CHROM\tPOS", b"chr1\t1\t2"]
LINES += [b"track name=x", b"browser\thide", b" track", b">", b"> x", b">a\0b", b">x\ty", b"chr1 5 . A C . ."]
NEWLINES = [b"\n"] * 5 + [b"\r\n"] * 3 + [b"\r"]
PLACE = st.integers(0, 60)


@st.composite
def texts(draw: st.DrawFn, rows: st.SearchStrategy[list[list[bytes]]], by: bytes = b"\t") -> bytes:
    """Rows as text: as they are in half of the cases, else with columns, lines and bytes changed."""
    table = [list(row) for row in draw(rows)]
    whole = draw(st.booleans())
    faults = st.tuples(st.integers(0, 5), PLACE, PLACE, st.sampled_from(VALUES), st.sampled_from(LINES))
    for kind, line, column, value, other in [] if whole else draw(st.lists(faults, max_size=2)):
        row = table[line % len(table)]
        at = column % len(row)
        if kind == 0:
            row[at : at + 1] = [value]
        elif kind == 1:
            row[at : at + 1] = []
            row[:] = row or [b""]
        elif kind == 2:
            row.insert(at, row[at])
        elif kind == 3:
            row[:] = [b" ".join(row)]
        elif kind == 4:
            table.insert(line % len(table), [other])
        else:
            table.insert(line % len(table), list(row))
    newline = draw(st.sampled_from(NEWLINES[:8] if whole else NEWLINES))
    text = b"".join(by.join(row) + newline for row in table)
    if whole:
        return text
    splices = st.tuples(st.integers(0, 400), st.integers(0, 3), st.sampled_from(JUNK) | st.binary(max_size=2))
    for start, size, new in draw(st.lists(splices, max_size=2)):
        at = start % (len(text) + 1)
        text = text[:at] + new + text[at + size :]
    text = text.removesuffix(newline) if draw(st.booleans()) else text
    return BOM + text if draw(st.integers(0, 9)) == 9 else text


# Packings.


def bgzip_block(data: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    return BGZIP + struct.pack("<H", len(body) + 25) + body + struct.pack("<II", zlib.crc32(data), len(data))


def bgzip(data: bytes, size: int) -> bytes:
    blocks = [bgzip_block(data[i : i + size]) for i in range(0, len(data), size)]
    return b"".join(blocks) + BGZIP_END


@st.composite
def packed(draw: st.DrawFn, content: st.SearchStrategy[bytes]) -> bytes:
    """A text in one of the packings, sometimes damaged."""
    text = draw(content)
    kind = draw(st.sampled_from(["plain", "plain", "gzip", "members", "bgzip", "joined", "mixed"]))
    cut = draw(st.integers(0, 300)) % (len(text) + 1)
    size = max(3 + cut % 50, len(text) // 40)
    head, tail = text[:cut], text[cut:]
    data = {
        "plain": lambda: text,
        "gzip": lambda: gzip.compress(text, 1, mtime=0),
        "members": lambda: gzip.compress(head, 1, mtime=0) + gzip.compress(tail, 1, mtime=0),
        "bgzip": lambda: bgzip(text, min(size, 65_000)),
        "joined": lambda: bgzip(head, min(size, 65_000)) + bgzip(tail, 65_000),
        "mixed": lambda: bgzip(head, 65_000)[:-28] + gzip.compress(tail, 1, mtime=0) + BGZIP_END,
    }[kind]()
    if kind == "plain" or draw(st.integers(0, 3)):
        return data
    damage = draw(st.sampled_from(["cut", "flip", "garbage", "zeros", "end"]))
    at = draw(st.integers(0, 1000)) % (len(data) + 1)
    flipped = bytes([data[at % len(data)] ^ draw(st.integers(1, 255))])
    return {
        "cut": data[:at],
        "flip": data[: at % len(data)] + flipped + data[at % len(data) + 1 :],
        "garbage": data + draw(st.binary(min_size=1, max_size=9)),
        "zeros": data + b"\0" * 9,
        "end": data.removesuffix(BGZIP_END),
    }[damage]


def unpacked(data: bytes) -> bytes | None:
    """The text that was packed, as readers see it; None where it is damaged, cut short, empty or UTF-16."""
    if data.startswith(b"\x1f\x8b"):
        if data[:4] == BGZIP[:4] and data[10:16] == BGZIP[10:] and not data.endswith(BGZIP_END):
            return None
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error, struct.error):
            return None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    text = data.removeprefix(BOM)
    old_mac = b"\r" in text[:-1] and b"\n" not in text and b"\0" not in text
    return (text.replace(b"\r", b"\n") if old_mac else text) or None


# Plain parsers, and what a reader has to show for itself.


class Found(NamedTuple):
    """Rows of a text down to its first fault; `fault` is its line, 0 for the file, None for no fault."""

    rows: list[Any]
    fault: int | None


def outcome(reader: Callable[[], Iterator[Any]]) -> tuple[list[Any], str | None]:
    """What a reader gives, and the message that it ends with."""
    rows: list[Any] = []
    try:
        rows.extend(reader())
    except UserError as error:
        return rows, str(error)
    return rows, None


def agree(
    path: Path, data: bytes, naive: Callable[[bytes], Found], reader: Callable[[], Iterator[Any]]
) -> Found:
    """Assert that a reader of a file gives what the plain parser gives; what that is."""
    path.write_bytes(data)
    text = unpacked(data)
    expected = Found([], 0) if text is None else naive(text)
    rows, message = outcome(reader)
    if message is None:
        assert expected.fault is None
        assert rows == expected.rows
    elif re.match(rf"{re.escape(str(path))}: is an? .*, which is not read here", message):
        # what begins as another format is called by its name, where it is faulty as this one
        assert expected.fault is not None
        assert rows == []
    else:
        lines = (f"{path}, line {expected.fault}: ", f"{path}, lines {expected.fault}, ")
        assert message.startswith(lines if expected.fault else f"{path}: ")
        assert expected.fault is not None
        assert text is None or rows in ([], expected.rows)
    return expected


def lines_of(text: bytes) -> list[bytes]:
    return text.split(b"\n")[:-1] if text.endswith(b"\n") else text.split(b"\n")


def number(text: bytes) -> int | None:
    return int(text) if re.fullmatch(rb"[0-9]{1,18}", text) else None


def unquoted(cell: bytes) -> bytes:
    match = re.fullmatch(rb'"(.*)"', cell.strip(), re.DOTALL)
    return match[1].strip() if match else cell.strip()


def utf8(text: bytes) -> bool:
    return text.decode(errors="replace").encode() == text


# BED.

CONTIGS = {"chr1": 60, "chr2": 90, "HLA*01:02": 40, "é": 5}
CONTIG = st.sampled_from([name.encode() for name in CONTIGS] + [b"chrUn", b"1"])
WORD = st.sampled_from([b".", b"name", b"a b", "größe".encode(), b"0", b"-", b"+", b"", b'"x"', b"a,b;c=d"])


@st.composite
def bed_rows(draw: st.DrawFn) -> list[list[bytes]]:
    size = st.tuples(st.integers(0, 50), st.integers(1, 12))
    rows = draw(st.lists(st.tuples(CONTIG, size, st.lists(WORD, max_size=9)), min_size=1, max_size=6))
    table = [[contig, b"%d" % start, b"%d" % (start + width), *more] for contig, (start, width), more in rows]
    return [[b"browser hide all"], [b"track name=x"], [b"#x"], *table] if draw(st.booleans()) else table


def naive_bed(text: bytes) -> Found:
    rows: list[Any] = []
    for line, raw in enumerate(lines_of(text), 1):
        bare = raw.rstrip(b"\r")
        columns = [unquoted(column) for column in (bare.split(b"\t") if b"\t" in bare else bare.split())]
        if b"\r" in bare:
            return Found(rows, line)
        if not any(columns) or bare.startswith(b"#") or re.match(rb"(track|browser)( |$)", columns[0]):
            continue
        start, end = (number(column) for column in (*columns, b"", b"", b"")[1:3])
        if len(columns) < 3 or start is None or end is None or start > end:
            return Found(rows, line)
        if not columns[0].decode(errors="replace").strip() or not utf8(columns[0]):
            return Found(rows, line)
        texts = [column.decode(errors="replace") for column in columns]
        strand = texts[5] if len(texts) > 5 and texts[5] in ("+", "-") else "."
        rows.append((texts[0], start, end, strand, (*texts, "")[3], tuple(texts), line))
    return Found(rows, None)


def bed_as_read(path: Path) -> Iterator[Any]:
    for record in read_bed(path):
        region = record.region
        yield region.contig, region.start, region.end, region.strand, region.name, record.fields, record.line


def resolved(text: bytes) -> Found:
    """Of the rows of a BED file, where they lie on a genome of CONTIGS."""
    rows, fault = naive_bed(text)
    if fault is not None:
        return Found([], fault)
    if rows and not any(row[0] in CONTIGS for row in rows):
        return Found([], 0)
    inside = [row[0] in CONTIGS and row[1] < row[2] <= CONTIGS[row[0]] for row in rows]
    return Found([row[:3] if good else None for row, good in zip(rows, inside, strict=True)], None)


@counts(80, 20_000)
def test_bed(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.bed"
    genome = Genome(write_fasta(tmp_path / "g.fa", [(name, "A" * size) for name, size in CONTIGS.items()]))

    def load() -> Iterator[Any]:
        for one in load_regions(path, Reference(genome, "exact")):
            yield one.region and (one.region.contig, one.region.start, one.region.end)

    def check(data: bytes) -> None:
        agree(path, data, naive_bed, lambda: bed_as_read(path))
        agree(path, data, resolved, load)

    try_out(count, check, packed(texts(bed_rows()) | texts(bed_rows(), b" ")))


# FASTA and genomes.

BASES = dict(zip(b"ACGTUNRYSWKMBDHVacgtunryswkmbdhv", b"ACGTTNNNNNNNNNNN" * 2, strict=True))


@st.composite
def fasta_rows(draw: st.DrawFn) -> list[list[bytes]]:
    header = st.sampled_from([b"a", b"b x y", "é".encode(), b"c\tx ", b"d:1-5", b"e|f", b"a", b"gi \xff"])
    letters = st.sampled_from([b"ACGTACGTACGTACG", b"acgtunACGTN", b"RYSWKMBDHVryswkmbdhv", b"A", b""])
    rows: list[list[bytes]] = []
    for title, sequence, width in draw(
        st.lists(st.tuples(header, letters, st.integers(1, 25)), min_size=1, max_size=4)
    ):
        rows += [[b">" + title], *([sequence[i : i + width]] for i in range(0, len(sequence), width))]
    return rows


def naive_fasta(text: bytes, *, genome: bool = False) -> Found:
    """Contigs of a genome have unique names and nucleotides only; else bad sequences are empty."""
    rows: list[Any] = []
    fault = None
    for line, raw in enumerate(lines_of(text), 1):
        if not raw.startswith(b">"):
            bare = raw.rstrip(b" \t\r")
            if not rows and raw.strip():
                return Found([], line)
            if rows:
                rows[-1][2].append(bare)
                if genome and not set(bare) <= set(BASES):
                    fault = fault or line
            continue
        if fault:
            break
        title = raw[1:].rstrip(b"\r\n")
        name, more = (*title.split(None, 1), b"", b"")[:2]
        if not title[:1].strip() or b"\r" in title or min(name) < 32 or not utf8(name):
            return Found(sequences(rows), line)
        if genome and name.decode() in [row[0] for row in rows]:
            return Found(sequences(rows), line)
        rows.append((name.decode(), more.rstrip().decode(errors="replace"), []))
    return Found(sequences(rows[:-1] if fault else rows), fault if fault or rows else 0)


def sequences(rows: list[Any]) -> list[Any]:
    joined = [(name, more, b"".join(parts)) for name, more, parts in rows]
    return [
        (name, more, bytes(BASES[x] for x in letters) if set(letters) <= set(BASES) else b"")
        for name, more, letters in joined
    ]


def naive_genome(text: bytes) -> Found:
    rows, fault = naive_fasta(text, genome=True)
    return Found([(name, len(bases), bases, bases[1:-2]) for name, _, bases in rows], fault)


@counts(80, 20_000)
def test_fasta(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.fa"

    def fetch() -> Iterator[Any]:
        with Genome(path) as genome:
            for name, size in genome.lengths.items():
                inner = genome.fetch(name, 1, size - 2) if size > 2 else b""
                yield name, size, genome.fetch(name, 0, size), inner

    def check(data: bytes, piece: int) -> None:
        def stream() -> Iterator[Any]:
            records = read_fasta(path, piece=piece)
            return ((record.name, record.description, record.sequence) for record in records)

        agree(path, data, naive_fasta, stream)
        agree(path, data, naive_genome, fetch)

    try_out(count, check, packed(texts(fasta_rows())), st.sampled_from([1, 2, 7, 1 << 20]))


# VCF and tables of variants.

COLUMNS = [b"#CHROM", b"POS", b"ID", b"REF", b"ALT", b"QUAL", b"FILTER", b"INFO"]
META = [b"##fileformat=VCFv4.2", b'##INFO=<ID=X,Number=.,Type=String,Description="a, b">']
META += [b'##INFO=<ID=Y,Number=0,Type=Flag,Description="c">']
META += [b'##INFO=<ID=END,Number=1,Type=Integer,Description="pysam writes it for symbolic alleles">']
META += [b"##contig=<ID=%s,length=2147483000>" % name.encode() for name in CONTIGS]
POSITION = st.integers(0, 120) | st.sampled_from([0, 1 << 31, 10**12, 10**18 - 1])
REF = st.sampled_from([b"A", b"ACGT", b"acN", b"T" * 30])
ALT = st.sampled_from([b"C", b".", b"A,G", b"*", b"<*>", b"<NON_REF>", b"]chr2:5]A", b"ac,<DEL>,*"])
MISSING = [b"", b"NA", b"N/A", b"n/a", b"#N/A", b"<NA>", b"NaN", b"nan", b"None", b"none", b"null", b"NULL"]
# Where a table's first line is one of these: the delimiter, and the places of chrom, pos, ref and alt.
HEADS: dict[bytes, tuple[bytes | None, list[int]]] = {
    b"chrom\tpos\tref\talt": (b"\t", [0, 1, 2, 3]),
    b"#CHROM\tPOS\tREF\tALT\tscore": (b"\t", [0, 1, 2, 3]),
    b"id,alt,Ref,chr,pos": (b",", [3, 4, 2, 1]),
    b"chrom,pos,ref,alt": (b",", [0, 1, 2, 3]),
    b"alt ref pos  chrom": (None, [3, 2, 1, 0]),
}


@st.composite
def vcf_rows(draw: st.DrawFn) -> list[list[bytes]]:
    info = st.sampled_from([b".", b"X=a", b"X=a,b;Y", b"X=1;"])
    samples = draw(st.sampled_from([0, 0, 2]))
    columns = st.tuples(CONTIG, POSITION, st.sampled_from([b".", b"rs1;rs2"]), REF, ALT, info)
    more, call = (
        [b"FORMAT", b"s1", b"s2"][: samples and samples + 1],
        [b"GT", b"0/1", b"./."][: samples and 3],
    )
    rows = [
        [contig, b"%d" % position, name, ref, alt, b"30", b"PASS", infos, *call]
        for contig, position, name, ref, alt, infos in draw(st.lists(columns, max_size=5))
    ]
    meta = draw(st.sampled_from([META, META[:1], []]))
    return [*([line] for line in meta), [*COLUMNS, *more], *rows]


@st.composite
def table_rows(draw: st.DrawFn) -> list[list[bytes]]:
    head, (delimiter, places) = draw(st.sampled_from([*HEADS.items(), (b"", (b"\t", [0, 1, 2, 3]))]))
    width = len(head.split(delimiter)) if head else 4
    table = [[head]] if head else []
    for contig, position, ref, alt in draw(st.lists(st.tuples(CONTIG, POSITION, REF, ALT), max_size=5)):
        row = [b"x"] * width
        quoted = b'"%s"' % alt if delimiter == b"," and b"," in alt else alt
        for place, cell in zip(places, (contig, b"%d" % position, ref, quoted), strict=True):
            row[place] = cell
        table.append([(delimiter or b"  ").join(row)])
    return table or [[b"chr1\t5\tA\tC"]]


def numbered(text: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, text and line end of every line."""
    newline = b"\n"
    for line, raw in enumerate(io.BytesIO(text), 1):
        bare = raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw
        newline = raw[len(bare) :] or newline
        yield line, bare, newline


def naive_variants(text: bytes) -> Found | None:
    """None where this has no opinion: what kind of file it is would be a guess."""
    if text.startswith((META[0], b"\t".join(COLUMNS))):
        return naive_vcf(text)
    for head, (delimiter, places) in HEADS.items():
        if re.match(re.escape(head) + rb"(\r?\n|\Z)", text):
            return naive_table(text, 1, delimiter, len(head.split(delimiter)), places)
        if text.startswith(head + b"\r"):
            return Found([], 1)
    if re.match(rb"[\w*:]+\t\d{1,9}\t[A-Za-z]+\t[A-Za-z,]*[A-Za-z]\r?\n", text):
        return naive_table(text, 0, b"\t", 4, [0, 1, 2, 3])
    return None


def naive_vcf(text: bytes) -> Found:
    rows: list[Any] = []
    lines = numbered(text)
    for line, bare, _ in lines:
        if bare.split(b"\t")[:8] == COLUMNS and b"\r" not in bare:
            break
        if bare.strip() and not bare.startswith(b"##"):
            return Found([], line)
    else:
        return Found([], 0)
    for line, bare, newline in lines:
        columns = bare.split(b"\t")
        if len(columns) < 8 and not bare.strip():
            continue
        if len(columns) < 8 or not columns[0] or not utf8(columns[0]) or not columns[3]:
            return Found(rows, line)
        position, alts = number(columns[1]), columns[4].split(b",")
        if position is None or b"" in alts:
            return Found(rows, line)
        alts = [] if alts == [b"."] else alts
        rows.append((line, bare, newline, columns[0].decode(), position - 1, columns[3], tuple(alts)))
    return Found(rows, None)


def naive_table(text: bytes, skip: int, by: bytes | None, width: int, places: Sequence[int]) -> Found:
    rows: list[Any] = []
    for line, bare, newline in itertools.islice(numbered(text), skip, None):
        if not bare.strip() or bare.startswith(b"#"):
            continue
        try:
            cells = cells_of(bare) if by == b"," else bare.split(by)
        except csv.Error:
            return Found(rows, line)
        if len(cells) != width:
            return Found(rows, line)
        contig, pos, ref, alt = (cells[place].strip() for place in places)
        position = number(pos)
        if not utf8(contig) or contig.decode().split() != [contig.decode()] or position is None:
            return Found(rows, line)
        ref, alt = (b"." if allele in MISSING else allele for allele in (ref, alt))
        if not re.fullmatch(rb"[A-Za-z]+|[-.]", ref) or not re.fullmatch(
            rb"[^,;= \t\r]+(,[^,;= \t\r]+)*", alt
        ):
            return Found(rows, line)
        alts = () if alt == b"." else tuple(alt.split(b","))
        rows.append((line, bare, newline, contig.decode(), position - 1, ref, alts))
    return Found(rows, None)


def cells_of(text: bytes) -> list[bytes]:
    return [cell.encode("latin-1") for cell in next(csv.reader([text.decode("latin-1")]), [])]


def overlapping(rows: list[Any], regions: list[Region] | None) -> list[Any]:
    if regions is None:
        return rows
    spans = [(row, row[3], row[4], row[4] + len(row[5])) for row in rows]
    return [
        row
        for row, contig, start, end in spans
        if any(r.contig == contig and r.start < end and start < r.end for r in regions if len(r))
    ]


def variants(path: Path, regions: list[Region] | None = None, block: int = 1 << 16) -> Iterator[Any]:
    with open_variants(path, regions, block_bytes=block) as file:
        yield from map(tuple, file)


REGION = st.builds(
    lambda contig, start, size: Region(contig, start, start + size),
    st.sampled_from(list(CONTIGS)),
    st.integers(0, 120) | st.just(1 << 31),
    st.integers(0, 40),
)
REGIONS = st.lists(REGION, max_size=3) | st.none()


@counts(150, 40_000)
def test_variants(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a"

    def check(data: bytes, regions: list[Region] | None, block: int) -> None:
        text = unpacked(data)
        known = text is None or naive_variants(text) is not None

        def naive(text: bytes) -> Found:
            rows, fault = naive_variants(text) or Found([], 0)
            return Found(overlapping(rows, regions), fault)

        if not known:
            path.write_bytes(data)
            with contextlib.suppress(UserError):
                assert {row[1] for row in variants(path, regions, block)} <= {
                    bare for _, bare, _ in numbered(text or b"")
                }
            return
        found = agree(path, data, naive, lambda: variants(path, regions, block))
        if text is not None and text.startswith(META[0]) and found.fault is None:
            unchanged(path, text)

    rows = texts(vcf_rows()) | texts(table_rows())
    try_out(count, check, packed(rows), REGIONS, st.sampled_from([1, 9, 1 << 16]))


def unchanged(path: Path, text: bytes) -> None:
    """What is written with nothing added is the file, but for blank lines between and after records."""
    out = io.TextIOWrapper(io.BytesIO())
    with (
        open_variants(path) as file,
        contextlib.redirect_stdout(out),
        open_annotated(Path("-"), None, file.header, [], []) as writer,
    ):
        for record in file:
            writer.write(record, {})
    lines = [(bare, newline) for _, bare, newline in numbered(text)]
    header = next(i for i, (bare, _) in enumerate(lines, 1) if bare.startswith(b"#CHROM"))
    kept = [*lines[:header], *(line for line in lines[header:] if line[0].strip())]
    written = out.buffer.getvalue()  # type: ignore[attr-defined]
    assert written == b"".join(map(b"".join, kept))
    assert written == text or len(kept) < len(lines) or not text.endswith(b"\n")


# Indexes.


def sorted_vcf(rows: list[list[bytes]]) -> bytes:
    """A VCF with all declarations and the records of rows that an index can hold, in order."""
    names = [name.encode() for name in CONTIGS]
    known = [row for row in rows if len(row) > 7 and row[0] in names and int(row[1]) < 1 << 29]
    known.sort(key=lambda row: (names.index(row[0]), int(row[1])))
    table = [*([line] for line in META), COLUMNS, *(row[:8] for row in known)]
    return b"".join(b"\t".join(row) + b"\n" for row in table)


@counts(40, 5_000)
def test_an_index_damaged_or_not(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.vcf.gz"
    index = Path(f"{path}.tbi")

    def check(rows: list[list[bytes]], regions: list[Region], size: int, damage: int, at: int) -> None:
        text = sorted_vcf(rows)
        path.write_bytes(bgzip(text, size))
        with quiet_htslib():
            pysam.tabix_index(str(path), preset="vcf", force=True)
        damaged = (None, path, index)[damage]
        if damaged:
            data = bytearray(damaged.read_bytes())
            data[at % len(data)] ^= 1 + at % 255
            damaged.write_bytes(data)
            index.touch()
        asked = [region for region in regions if region.end < 1 << 29]
        found, message = outcome(lambda: variants(path, asked))
        if message is None:
            expected = overlapping(naive_vcf(text).rows, asked)
            assert [row[1:] for row in found] == [row[1:] for row in expected]
        else:
            assert damaged
            assert message.startswith(str(path))

    sizes = st.sampled_from([40, 200, 65_000])
    try_out(count, check, vcf_rows(), st.lists(REGION), sizes, st.integers(0, 2), st.integers(0, 5000))


# BCF.


def bcf(path: Path, text: bytes) -> bytes:
    """The BCF of a VCF, not packed."""
    path.write_bytes(text)
    with (
        pysam.VariantFile(str(path)) as source,
        pysam.VariantFile(f"{path}.bcf", "wb", header=source.header) as out,
    ):
        for record in source:
            out.write(record)
    return gzip.decompress(Path(f"{path}.bcf").read_bytes())


def as_pysam_reads(path: Path) -> list[bytes] | None:
    """The lines of the records of a BCF file on disk, None if it is damaged."""
    try:
        with pysam.VariantFile(str(path)) as file:
            return [str(record).encode().removesuffix(b"\n") for record in file]
    except Exception:  # of any kind: what pysam says of damage is its own affair
        return None


@counts(40, 10_000)
def test_bcf(tmp_path: Path, count: int) -> None:
    path, direct = tmp_path / "a.bcf", tmp_path / "b.bcf"
    text = tmp_path / "a.vcf"

    def check(
        rows: list[list[bytes]], splices: list[tuple[int, int, bytes]], tail: int, pack: st.DataObject
    ) -> None:
        with quiet_htslib():
            raw = whole = bcf(text, sorted_vcf(rows))
            for start, size, new in splices:
                at = start % len(raw)
                raw = raw[:at] + new + raw[at + size :]
            raw += b"\0" * tail
            direct.write_bytes(raw)
            expected = as_pysam_reads(direct)
            data = pack.draw(packed(st.just(raw)))
            path.write_bytes(data)
            found, message = outcome(lambda: variants(path))
        if message is None:
            assert [row[1] for row in found] == expected
            assert unpacked(data) == raw
        else:
            assert message.startswith(str(path))
            assert unpacked(data) != whole

    splice = st.tuples(st.integers(0, 3000), st.integers(0, 4), st.binary(max_size=4))
    tails = st.sampled_from([0, 0, 0, 7, 300_000])
    try_out(count, check, vcf_rows(), st.lists(splice, max_size=2), tails, st.data())


# Regions as text.

LENGTHS = {"chr1": 5000, "HLA:01": 7, "two": 50, "two:1-5": 9, "none": 0, "{x}": 3, "a-b": 4}


def naive_region(text: str) -> tuple[str, int, int] | None:
    """Contig, start (0-based) and end of a region as samtools spells it, None where it is none or two."""
    readings = {(text, "")} if text in LENGTHS and not text.startswith("{") else set()
    pattern = (
        r"\{(?P<braced>[^}]*)\}(:(?P<after>.*))?" if text.startswith("{") else r"(?P<name>.*):(?P<rest>.*)"
    )
    if match := re.fullmatch(pattern, text, re.DOTALL):
        name, *_, rest = match.groups(default="")
        if not readings or re.fullmatch("(?a:[0-9,]*-?[0-9,]*)", rest):
            readings.add((name, rest))
    readings = {(name, rest) for name, rest in readings if name in LENGTHS}
    if len(readings) != 1:
        return None
    ((name, rest),) = readings
    limits = re.fullmatch(r"([0-9][0-9,]{0,30})?(?:(-)([0-9][0-9,]{0,30})?)?", rest)
    if not limits or rest == "-":
        return None
    start = int((limits[1] or "1").replace(",", ""))
    end = int((limits[3] or str(LENGTHS[name])).replace(",", ""))
    inside = 1 <= start <= min(end, LENGTHS[name])
    return (name, start - 1, min(end, LENGTHS[name])) if inside else None


@counts(200, 20_000)
def test_regions_as_text(count: int) -> None:
    def check(name: str, brace: bool, parts: list[str]) -> None:
        text = (f"{{{name}}}" if brace else name) + "".join(parts)
        found, message = outcome(lambda: iter([Region.parse(text, LENGTHS)]))
        assert [naive_region(text)] == ([(r.contig, r.start, r.end) for r in found] or [None])
        assert message is None or text in message

    names = st.sampled_from([*LENGTHS, "chr", ""])
    numbers = st.integers(0, 60).map(str) | st.sampled_from(
        ["1,000", "007", "9" * 32, "9" * 5000, "٣", "1e3"]
    )
    marks = st.sampled_from([":", ":", "-", ":1-", ":-", ",", "{", "}", " ", "\0", "\n", "\udcff"])
    try_out(count, check, names, st.booleans(), st.lists(marks | numbers, max_size=5))
