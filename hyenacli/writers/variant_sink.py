"""Where the lines of variants go: standard output, or a file that appears whole."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.bcf import open_bcf
from hyenacli.writers.bgzip import open_bgzip, remove_indexes, write_index

_BUFFER = 1 << 18


@contextmanager
def open_sink(target: Path, kind: str, above: Sequence[bytes]) -> Iterator[Callable[[bytes], object]]:
    """Takes lines; what stands above them is there already. A vcf.gz gets an index at the end.

    Args:
        target: the file, `-` for stdout.
        kind: vcf, vcf.gz, bcf (which takes the lines of a VCF) or tsv.
        above: lines with line ends.

    Raises:
        UserError: as `atomic_path`, or BCF cannot hold a line.
    """
    if str(target) == "-":
        sys.stdout.buffer.writelines(above)
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    with atomic_path(target) as path:
        if kind == "bcf":
            with open_bcf(path, target, above) as text:
                yield text.write
        elif kind == "vcf.gz":
            with open_bgzip(path, target) as packed:
                packed.write(b"".join(above))
                yield packed.write
        else:
            with path.open("wb", buffering=_BUFFER) as file:
                file.writelines(above)
                yield file.write
        if kind in ("bcf", "vcf.gz") and (target.is_file() or not target.exists()):
            remove_indexes(target)
    if kind == "vcf.gz" and target.is_file():
        write_index(target)
