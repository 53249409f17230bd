"""Random access to the bases of a genome."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import pysam

from hyenacli.errors import UserError
from hyenacli.genome.dna import normalise
from hyenacli.readers.genome_cache import indexed, signature


class Genome:
    """The bases of a FASTA file (plain, bgzip, or plain gzip, which is copied once), read at random.

    The first opening reads the whole file, refuses what is not DNA, and keeps an index in
    `$XDG_CACHE_HOME/hyena` (`~/.cache/hyena`); nothing is written beside the file and no index found there
    is trusted. Objects can be pickled and used after a fork: every process opens the file for itself at its
    first `fetch`. Not for several threads.

    Attributes:
        path: the file as given.
        lengths: length of every contig in bases, in the file's order.

    Raises:
        UserError: the file is missing, is not FASTA of DNA, or two contigs have one name.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._source = self.path.resolve()
        self._files, self._version = indexed(self._source)
        self.lengths = self._files.lengths()
        self._handle: pysam.FastaFile | None = None
        self._owner = 0

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        """The normalised bases [start, end), 0-based, of a contig.

        Raises:
            KeyError: no such contig.
            ValueError: the interval is not inside the contig; nothing is clipped or padded.
        """
        return normalise(self.fetch_raw(contig, start, end))

    def fetch_raw(self, contig: str, start: int, end: int) -> bytes:
        """As `fetch`, with the letters of the file: lower case (soft masking) and IUPAC codes are kept."""
        length = self.lengths[contig]
        if not 0 <= start <= end <= length:
            raise ValueError(f"[{start}, {end}) is not inside {contig} of {length} bases")
        if start == end:
            return b""
        return self._open().fetch(contig, start, end).encode("ascii")

    def close(self) -> None:
        """Close this process's handle; a later `fetch` opens it again."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_handle": None}

    def _open(self) -> pysam.FastaFile:
        if self._handle is None or self._owner != os.getpid():
            if signature(self._source) != self._version:
                raise UserError("the file changed while it was in use", at=self.path, remedy="start again")
            files = self._files
            gzi = None if files.gzi is None else str(files.gzi)
            self._handle = pysam.FastaFile(
                str(files.fasta), filepath_index=str(files.fai), filepath_index_compressed=gzi
            )
            self._owner = os.getpid()
        return self._handle
