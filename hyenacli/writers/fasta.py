"""FASTA files, plain or bgzip; shards of them can be merged."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hyenacli.writers.text import TextFormat, open_bgzip

_WIDTH = 80
FASTAS = {
    **{
        kind: TextFormat(suffix=kind, stdout=True, mark=f"; hyena {kind} shard ".encode())
        for kind in ("fa", "fasta")
    },
    **{
        kind: TextFormat(suffix=kind, mark=f"; hyena {kind} shard ".encode(), pack=open_bgzip)
        for kind in ("fa.gz", "fasta.gz")
    },
}
WriteRecord = Callable[[str, bytes], None]


@contextmanager
def open_fasta_output(target: Path, kind: str, provenance: Mapping[str, Any]) -> Iterator[WriteRecord]:
    """Open a FASTA for writing; the file appears, whole, when the context ends well.

    Args:
        target: output file, or `-` for stdout.
        kind: a key of `FASTAS`.
        provenance: JSON values, which only a shard keeps.

    Returns:
        A function that writes a record: (header without '>', bases).

    Raises:
        UserError: as `atomic_path`.
    """
    with FASTAS[kind].open_records(target, provenance) as write:

        def write_record(header: str, bases: bytes) -> None:
            lines = (bases[i : i + _WIDTH] + b"\n" for i in range(0, len(bases), _WIDTH))
            write(b">" + header.encode() + b"\n" + b"".join(lines))

        yield write_record
