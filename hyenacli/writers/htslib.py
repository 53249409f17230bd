"""Files that htslib writes: bgzip, the index of a VCF in one, and BCF."""

import itertools
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pysam
import pysam.bcftools
import pysam.utils

from hyenacli.errors import UserError
from hyenacli.readers.vcf import quiet_htslib
from hyenacli.writers.atomic import atomic_path

_logger = logging.getLogger("hyena")
_INDEXES = {".tbi": False, ".csi": True}
_REMEDY = "write .vcf.gz, where every line stays as it is"


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
        with self._failure_reported():
            self._file.write(data)

    def end_block(self) -> int:
        """End the compressed block, and return the offset in the file where the next one begins."""
        with self._failure_reported():
            self._file.flush()
            return self._file.tell() >> 16

    def close(self) -> None:
        """Write what waits, and the mark of a complete file.

        Raises:
            UserError: the file cannot be written.
        """
        with self._failure_reported():
            self._file.close()

    @contextmanager
    def _failure_reported(self) -> Iterator[None]:
        """Raise a UserError with the most common cause: htslib does not tell the reason."""
        try:
            with quiet_htslib():
                yield
        except OSError as error:
            remedy = "is the disk full?"
            raise UserError("cannot be written", at=self._target, remedy=remedy) from error


@contextmanager
def open_bgzip(path: Path, target: Path, level: int | None = None) -> Iterator[BgzipWriter]:
    """Open a `BgzipWriter`, closed at the end."""
    writer = BgzipWriter(path, target, level)
    try:
        yield writer
    finally:
        writer.close()


def remove_indexes(target: Path) -> None:
    """Remove the indexes of a file that is about to be replaced: they would point to the wrong lines."""
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


@contextmanager
def open_bcf(path: Path, target: Path, header: Sequence[bytes]) -> Iterator[BgzipWriter]:
    """Take the lines of VCF records, and write them as BCF when the context ends well.

    BCF refers to contigs, filters and fields by their number in the header, so what the records use but the
    header does not declare is declared: contigs without length, fields as strings. The text waits in a
    compressed file beside the target, because only the last record shows whether the header is complete.

    Args:
        path: the file.
        target: what messages call it.
        header: lines with line ends, up to and including #CHROM.

    Raises:
        UserError: BCF cannot hold a record: a position is beyond 2^31, or columns are malformed.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:100]}.") as folder:
        text = Path(folder, "text.vcf.gz")
        with open_bgzip(text, target, level=1) as writer:
            for line in header:
                writer.write(line)
            records_start = writer.end_block()
            yield writer
        # Most headers are complete; htslib refuses BCF of records that use what is not declared.
        with suppress(UnicodeDecodeError, pysam.utils.SamtoolsError):
            b"".join(header).decode()
            _convert(text, path)
            return
        complete = Path(folder, "complete.vcf.gz")
        with open_bgzip(complete, target, level=1) as writer:
            writer.write(_complete_header(text, target))
        with text.open("rb") as old, complete.open("ab") as new:
            old.seek(records_start)
            shutil.copyfileobj(old, new)
        text.unlink()
        try:
            _convert(complete, path)
        except pysam.utils.SamtoolsError as error:
            reason = error.value.rpartition("stderr=")[2].strip()
            raise UserError(f"cannot be written: {reason}", at=target, remedy="is the disk full?") from error


def _convert(text: Path, path: Path) -> None:
    """Turn VCF into BCF.

    Raises:
        pysam.utils.SamtoolsError: bcftools cannot.
    """
    with quiet_htslib():
        pysam.bcftools.view("--no-version", "-Ob", "-o", str(path), str(text), catch_stdout=False)


def _complete_header(text: Path, target: Path) -> bytes:
    """Return the header with what the records use declared, as htslib declares it while it reads them."""
    reached = "the header"
    try:
        with quiet_htslib(), pysam.VariantFile(str(text)) as file:
            records = iter(file)
            for number in itertools.count(1):
                reached = f"record {number:,}"
                if next(records, None) is None:
                    break
            reached = "a header that is not UTF-8"
            return str(file.header).encode()
    except (OSError, ValueError) as error:
        raise UserError(f"{reached} cannot be written as BCF", at=target, remedy=_REMEDY) from error
