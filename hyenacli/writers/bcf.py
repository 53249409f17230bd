"""VCF text turned into BCF at the end, when it is known what the records use."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pysam
import pysam.bcftools
import pysam.utils

from hyenacli.errors import UserError
from hyenacli.readers.bcf import quiet_htslib
from hyenacli.writers.bgzip import BgzipWriter, open_bgzip

_REMEDY = "write .vcf.gz, where every line stays as it is"


@contextmanager
def open_bcf(path: Path, target: Path, header: Sequence[bytes]) -> Iterator[BgzipWriter]:
    """Take the lines of VCF records, and write the BCF file when the context ends well.

    BCF refers to contigs, filters and fields by their number in the header, so what the records use but the
    header does not declare is declared: contigs without length, fields as strings. The text waits in a
    compressed file beside the target, as no header is known to be complete before the last record.

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
            records_at = writer.end_block()
            yield writer
        # Most headers are complete; htslib refuses BCF of records that use what is not declared.
        with suppress(UnicodeDecodeError, pysam.utils.SamtoolsError):
            b"".join(header).decode()
            _convert(text, path)
            return
        whole = Path(folder, "whole.vcf.gz")
        with open_bgzip(whole, target, level=1) as writer:
            writer.write(_complete_header(text, target))
        with text.open("rb") as old, whole.open("ab") as new:
            old.seek(records_at)
            shutil.copyfileobj(old, new)
        text.unlink()
        try:
            _convert(whole, path)
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
    """The header with what the records use declared, as htslib declares it while it reads them."""
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
        raise _unwritable(reached, target) from error


def _unwritable(what: str, target: Path) -> UserError:
    return UserError(f"{what} cannot be written as BCF", at=target, remedy=_REMEDY)
