"""bgzip files, and the index of a VCF in one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pysam

from hyenacli.errors import UserError
from hyenacli.readers.bcf import quiet_htslib
from hyenacli.writers.atomic import atomic_path

_logger = logging.getLogger("hyena")
_INDEXES = {".tbi": False, ".csi": True}


class BgzipWriter:
    """Bytes into bgzip blocks.

    Args:
        path: the file.
        target: what messages call it.
        level: of compression, 0 to 9; None for htslib's.
    """

    def __init__(self, path: Path, target: Path, level: int | None = None):
        mode = "w" if level is None else f"w{level}"
        # The stubs do not know the levels.
        self._file = pysam.BGZFile(str(path), mode, index=None)  # type: ignore[arg-type]
        self._target = target

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            UserError: the file cannot be written.
        """
        with self._trouble_named():
            self._file.write(data)

    def end_block(self) -> int:
        """Have what follows begin a block of its own; where in the file that is."""
        with self._trouble_named():
            self._file.flush()
            return self._file.tell() >> 16

    def close(self) -> None:
        """Write what is left, and the mark of a whole file.

        Raises:
            UserError: the file cannot be written.
        """
        with self._trouble_named():
            self._file.close()

    @contextmanager
    def _trouble_named(self) -> Iterator[None]:
        """The reason is not known here: htslib keeps it to itself, and there is one common one."""
        try:
            with quiet_htslib():
                yield
        except OSError as error:
            remedy = "is the disk full?"
            raise UserError("cannot be written", at=self._target, remedy=remedy) from error


@contextmanager
def open_bgzip(path: Path, target: Path, level: int | None = None) -> Iterator[BgzipWriter]:
    """A `BgzipWriter`, closed at the end."""
    writer = BgzipWriter(path, target, level)
    try:
        yield writer
    finally:
        writer.close()


def remove_indexes(target: Path) -> None:
    """Remove the indexes of a file that is about to be replaced: they would find the wrong lines in it."""
    for suffix in _INDEXES:
        Path(f"{target}{suffix}").unlink(missing_ok=True)


def write_index(target: Path) -> None:
    """Write the .tbi of a bgzip VCF, or the .csi where a position is beyond 2^29, which a .tbi cannot hold.

    Records out of order have no index; a warning says so.
    """
    for suffix, csi in _INDEXES.items():
        try:
            with quiet_htslib(), atomic_path(Path(f"{target}{suffix}")) as index:
                pysam.tabix_index(str(target), preset="vcf", index=str(index), force=True, csi=csi)
        except OSError:
            continue
        return
    _logger.warning("%s: no index, as the records are not sorted; bcftools sort does that", target)
