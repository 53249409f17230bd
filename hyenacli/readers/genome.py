"""Genomes: any interval of any contig of a FASTA, as bases or as token ids.

The first opening reads the file once, checks every letter, and keeps one byte for a base in the user's cache:
a code, which is a token id with its highest bit set where the FASTA is in lower case (soft-masked repeats).
From then on the codes are mapped into memory. Where the cache has no room for them, bases are read through a
pyfaidx index, which is small and in the cache, too.
"""

import errno
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from hyenacli.errors import UsageError, UserError, quote
from hyenacli.genome.dna import normalise
from hyenacli.readers.genome_cache import (
    BlockReader,
    BlockWriter,
    CacheError,
    build_folder,
    cached_folder,
    discard,
    read_folder,
    signature,
)
from hyenacli.readers.sequences import BadLetterError, FastaEntry, bad_letters_error, read_entries
from hyenacli.readers.text import compression, open_binary
from hyenacli.state_files import file_sha256
from hyenadna import Tokenizer
from hyenadna.tokenizer import A, N, T

if TYPE_CHECKING:
    from pyfaidx import Faidx

Tokens = npt.NDArray[np.uint8]
"""Token ids."""
Codes = npt.NDArray[np.uint8]
"""Token ids with the soft-mask bit."""

_logger = logging.getLogger("hyena")

SOFT_MASKED = np.uint8(0x80)
_TOKENS, _INDEX = "tokens-4", "index-4"
# Bases in a byte of a compressed FASTA, about.
_EXPANSION = 4


def _code_tables() -> tuple[bytes, bytes]:
    """Return the code of every nucleotide letter, and the base of every code."""
    letters = np.arange(256, dtype=np.uint8)
    tokens = Tokenizer().encode_array(letters.tobytes())
    codes = tokens | np.where(letters & 0x20, SOFT_MASKED, np.uint8(0))
    bases = bytes.maketrans(bytes(range(A, N + 1)), b"ACGTN")
    return codes.tobytes(), bases[:128] * 2


_CODES, _BASES = _code_tables()


@dataclass(frozen=True)
class Contig:
    """One contig of a genome, as codes.

    Attributes:
        name: of the contig.
        source: its file.
        codes: one per base (length,), on disk until they are read.
        n_bases: number of A, C, G and T.
        n_soft_masked: number of bases in lower case.
        circular: whether the file calls it circular.
    """

    name: str
    source: Path
    codes: Codes
    n_bases: int
    n_soft_masked: int = 0
    circular: bool = False

    def __len__(self) -> int:
        """Return the length in bases, N included."""
        return len(self.codes)

    def tokens(self, start: int, end: int) -> Tokens:
        """Return token ids of bases [start, end), 0-based, or to the contig's end if that comes first."""
        return plain_tokens(self.codes[start:end])


class Genome:
    """The bases of a FASTA file (plain, gzip or bgzip), read at random.

    Nothing is written beside the file and no index found there is trusted: what the first opening makes of it
    is in the cache (`$HYENA_CACHE`, or else `~/.cache/hyena`). Objects can be pickled and used after a fork:
    every process opens what it reads at its first `fetch`. Not for several threads.

    Attributes:
        path: the file as given.
        lengths: length of every contig in bases, in the file's order.
        n_bytes: size of the file.
        sha256: of its contents as they are on disk.
        circular: contigs that are circles: what lies beyond an end of one is at its other end; at first
            those that the file (GenBank, EMBL) calls circular.

    Raises:
        CacheError: the cache has no room for the codes, and these are required or pyfaidx cannot index the
            file as it is.
        UserError: the file is missing, is not FASTA of DNA, or two contigs have one name.
    """

    def __init__(self, path: Path | str, *, codes_required: bool = False) -> None:
        self.path = Path(path)
        self._source = self.path.resolve()
        self._version = signature(self._source)
        self._codes_required = codes_required
        self._folder, description = _prepare(self._source, codes_required=codes_required)
        self.n_bytes: int = description["bytes"]
        self.sha256: str = description["sha256"]
        self._counts: list[tuple[str, int, int, int]] = description["contigs"]
        self.lengths = {name: length for name, length, *_ in self._counts}
        self.circular: frozenset[str] = frozenset(description["circular"])
        starts = accumulate(self.lengths.values(), initial=0)
        self._starts = dict(zip(self.lengths, starts, strict=False))
        self._codes: BlockReader | None = None
        self._index: Faidx | None = None
        self._process = 0

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        """Return the normalised bases [start, end), 0-based, of a contig.

        Raises:
            KeyError: no such contig.
            UserError: the file has changed since this object was made.
            ValueError: the interval is not inside a contig that is no circle; nothing is clipped or padded.
        """
        length = self.lengths[contig]
        if contig in self.circular and not 0 <= start <= end <= length:
            return fetch_around(self, contig, start, end)
        if not 0 <= start <= end <= length:
            raise ValueError(f"[{start}, {end}) is not inside {contig} of {length} bases")
        if self._process != os.getpid():
            self._open()
        if self._codes is not None:
            first = self._starts[contig] + start
            last = first + end - start
            if not self._codes.check(first, last):
                self._rebuild()
                return self.fetch(contig, start, end)
            return self._codes.data[first:last].tobytes().translate(_BASES)
        return _fetch_indexed(self._index, contig, start, end)

    @property
    def contigs(self) -> tuple[Contig, ...]:
        """The contigs as codes, those without bases left out; for genomes opened with `codes_required`."""
        if self._process != os.getpid():
            self._open()
        if self._codes is None:
            raise RuntimeError("opened without codes_required")
        if not self._codes.check(0, len(self._codes.data)):
            self._rebuild()
            return self.contigs
        codes, starts, circles = self._codes.data, self._starts, self.circular
        return tuple(
            Contig(
                name,
                self.path,
                codes[starts[name] : starts[name] + length],
                n_bases,
                n_soft_masked,
                circular=name in circles,
            )
            for name, length, n_bases, n_soft_masked in self._counts
            if length
        )

    def fingerprint(self) -> dict[str, str | int]:
        """Return what the module's `fingerprint` does, without reading the file."""
        return {"path": str(self.path), "bytes": self.n_bytes, "sha256": self.sha256}

    def _open(self) -> None:
        if signature(self._source) != self._version:
            raise UserError("the file changed while it was in use", at=self.path, remedy="start again")
        if read_folder(self._folder) is None:  # another process may have found it damaged
            self._folder, _ = _prepare(self._source, codes_required=self._codes_required)
        codes = self._folder / "codes"
        if codes.exists():
            self._codes = BlockReader(codes)
        else:
            self._index = _open_index(self._folder)
        self._process = os.getpid()

    def _rebuild(self) -> None:
        """Make the codes again, of which a block is not as it was written."""
        discard(self._folder)
        self.close()
        self._folder, _ = _prepare(self._source, codes_required=self._codes_required)
        self._open()

    def close(self) -> None:
        """Close what this process has opened; a later `fetch` opens it again."""
        if self._index is not None:
            self._index.close()
        self._codes, self._index, self._process = None, None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_codes": None, "_index": None, "_process": 0}


def open_genomes(paths: Sequence[Path]) -> list[Genome]:
    """Open FASTA files to read codes from.

    Two files may hold contigs of the same name (chr1 of two genomes), one file may not.

    Raises:
        UserError: as `Genome`; no A, C, G or T in a file, or one file is given twice, be it under two names.
        UsageError: standard input.
    """
    genomes: list[Genome] = []
    for path in paths:
        if str(path) == "-":
            raise UsageError("a genome is read at random, not from a pipe", remedy="give a file on disk")
        genome = Genome(path, codes_required=True)
        for other in genomes:
            if other.sha256 == genome.sha256:
                raise UserError(f"has the same contents as {other.path}", at=path, remedy="give it once")
        if not any(contig.n_bases for contig in genome.contigs):
            raise UserError("no A, C, G or T in any record", at=path, remedy="give a genome FASTA")
        genomes.append(genome)
    return genomes


def plain_tokens(codes: Codes) -> Tokens:
    """Return codes without the soft-mask bit, in memory."""
    return np.bitwise_and(codes, ~SOFT_MASKED, subok=False)


def count_bases(tokens: Tokens) -> int:
    """Count the tokens that are A, C, G or T.

    >>> count_bases(Tokenizer().encode_array("ACNNT"))
    3
    """
    return int(np.count_nonzero((tokens >= A) & (tokens <= T)))


def fingerprint(path: Path) -> dict[str, str | int]:
    """Return a file's path, size in bytes and sha256, for run.json."""
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _prepare(source: Path, *, codes_required: bool) -> tuple[Path, dict[str, Any]]:
    """Return the cache folder of a genome and its description, built where it is not there or damaged.

    It has codes, or else an index.
    """
    folder, index = (cached_folder(source, kind) for kind in (_TOKENS, _INDEX))
    if description := read_folder(folder):
        return folder, description
    if codes_required or not (description := read_folder(index)):
        try:
            return folder, build_folder(source, folder, _write_codes)
        except CacheError as error:
            if codes_required:
                raise
            _logger.warning("%s; reading %s through an index instead, which is slower", error, source)
            return index, build_folder(source, index, _write_index)
    _logger.info("%s is read through its index; remove %s to try to cache its bases again", source, index)
    return index, description


def _read_contigs(source: Path) -> Iterator[tuple[FastaEntry, Iterator[Codes]]]:
    """Read the contigs of a file: the entry, and its codes in blocks, to be read before the next contig.

    Another format than FASTA needs another source of entries.

    Raises:
        UserError: the file is not FASTA of DNA, or two contigs have one name.
    """
    lines: dict[str, int] = {}
    with open_binary(source) as stream:
        for entry in read_entries(stream):
            name = entry.title()[0]
            if name in lines:
                raise UserError(
                    f"contig {quote(name)} was already on line {lines[name]}",
                    at=source,
                    line=entry.line,
                    remedy="give every contig a name of its own",
                )
            lines[name] = entry.line
            yield entry, (np.frombuffer(block.translate(_CODES), np.uint8) for block in entry.blocks())


def _describe(source: Path, use: Callable[[Codes], object]) -> dict[str, Any]:
    """Return size and sha256 of a FASTA, its contigs and their counts; `use` gets each block of codes."""
    contigs, circular = [], []
    for entry, blocks in _read_contigs(source):
        length = n_bases = n_soft_masked = 0
        try:
            for codes in blocks:
                use(codes)
                length += len(codes)
                n_bases += count_bases(plain_tokens(codes))
                n_soft_masked += int(np.count_nonzero(codes >= SOFT_MASKED))
        except BadLetterError as error:
            raise bad_letters_error(source, error) from None
        name = entry.title()[0]
        if entry.circular:
            circular.append(name)
        contigs.append((name, length, n_bases, n_soft_masked))
    facts = {"bytes": source.stat().st_size, "sha256": file_sha256(source)}
    return {**facts, "contigs": contigs, "circular": circular}


def _write_codes(source: Path, folder: Path) -> dict[str, Any]:
    """Write `codes`, all contigs one after another, and return their description."""
    size = source.stat().st_size * (1 if compression(source) == "plain" else _EXPANSION)
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, f"no room for the {size / 1e9:.1f} GB of {source.name}")
    with BlockWriter(folder / "codes") as out:
        return _describe(source, lambda codes: out.write(codes.tobytes()))


def _write_index(source: Path, folder: Path) -> dict[str, Any]:
    """Write an index by pyfaidx, return its description, and refuse a file that it would not read as we do.

    pyfaidx looks at the bytes of lines: blanks at their ends count as bases, lines of equal size may differ
    in line ends, and the last may be longer. It goes by the file's name, and cannot read plain gzip.
    """
    description = _describe(source, lambda _: None)
    (folder / ("genome.fa" if compression(source) == "plain" else "genome.fa.gz")).symlink_to(source)
    from pyfaidx import FastaIndexingError, UnsupportedCompressionFormat

    try:
        index = _open_index(folder)
        with open_binary(source) as stream:
            even = all(_is_even(entry, index.index[entry.title()[0]]) for entry in read_entries(stream))
        index.close()
    except (ValueError, LookupError, RuntimeError, FastaIndexingError, UnsupportedCompressionFormat):
        even = False
    if not even:
        raise CacheError(
            "cannot be indexed as it is, and the cache has no room for its bases",
            at=source,
            remedy="set HYENA_CACHE to a folder with space, or give it even lines, plain or in bgzip",
        )
    return description


def _is_even(entry: FastaEntry, record: Any) -> bool:
    """Check that all lines of a record but the last have as many bases, and the same line end.

    Args:
        entry: the record.
        record: the same in the index of pyfaidx, for which they have as many bytes.
    """
    bases = line_feeds = carriage_returns = 0
    for piece in entry.body:
        text = piece.rstrip()  # pieces before the last end with a base
        bases += len(text.translate(None, b" \t\r\n"))
        line_feeds += text.count(b"\n")
        carriage_returns += text.count(b"\r")
    if bases != record.rlen:
        return False
    line_feeds_due = (bases - 1) // record.lenc if bases else 0
    crlf = record.lenb - record.lenc == 2
    return bool(line_feeds == line_feeds_due and carriage_returns == crlf * line_feeds)


def _open_index(folder: Path) -> "Faidx":
    from pyfaidx import Faidx

    (fasta,) = folder.glob("genome.fa*")
    with warnings.catch_warnings():
        # The key of the folder tells whether an index is of this version of the file, better than times do.
        warnings.filterwarnings("ignore", message=".*is older than FASTA file", category=RuntimeWarning)
        return Faidx(
            str(fasta),
            indexname=str(folder / "index.fai"),
            gzi_indexname=str(folder / "index.gzi"),
            as_raw=True,
            rebuild=False,
        )


def _fetch_indexed(index: Any, contig: str, start: int, end: int) -> bytes:
    return normalise(index.fetch(contig, start + 1, end).encode()) if start < end else b""


class Sequences(Protocol):
    """A source of bases, as `Genome` is."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """Bases of each contig."""

    @property
    def circular(self) -> Collection[str]:
        """Contigs that are circles."""

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        """Return the bases [start, end) of the forward strand, inside the contig unless it is a circle."""


def fetch_around(genome: Sequences, contig: str, start: int, end: int) -> bytes:
    """Return the bases [start, end) of a circle, which are fetched in parts that are inside the contig."""
    length, parts = genome.lengths[contig], []
    while start < end:
        first = start % length
        parts.append(genome.fetch(contig, first, min(length, first + end - start)))
        start += len(parts[-1])
    return b"".join(parts)
