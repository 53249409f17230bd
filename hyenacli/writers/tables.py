"""The table formats, and how an output of one is opened.

To add a format: a module that opens and reads its files, and a line in `TABLES`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hyenacli.errors import UsageError, UserError, nearest
from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.columnar import open_npz, open_parquet, read_npz, read_parquet
from hyenacli.writers.columns import (
    Batch,
    Column,
    Content,
    FileFormat,
    Head,
    TableFormat,
    TableWriter,
    suffix_kind,
)
from hyenacli.writers.fasta import FASTAS
from hyenacli.writers.hdf5 import is_anndata, open_h5ad, open_hdf5, read_h5ad, read_hdf5
from hyenacli.writers.json_lines import JSON_LINES, JSON_LINES_GZ
from hyenacli.writers.text import AGAIN, CSV, TSV, TsvFormat, damaged_shard, open_gzip
from hyenacli.writers.tracks import TRACKS

_HDF5 = b"\x89HDF"
# Key of the checksum in the mark of a shard.
_CHECKSUM = "rows_sha256"


@dataclass(frozen=True, kw_only=True)
class BinaryTable(TableFormat):
    """A binary format: merging reads rows and writes them again.

    Attributes:
        magic: first bytes of its files.
        write: opens (path, columns, provenance) for writing.
        read: reads columns, provenance and rows.
        recognize: tells its files from others with the same first bytes.
    """

    magic: bytes
    write: Callable[[Path, Sequence[Column], Mapping[str, Any]], AbstractContextManager[TableWriter]]
    read: Callable[[Path], Content]
    recognize: Callable[[Path], bool] = lambda _path: True

    @contextmanager
    def open(
        self, target: Path, columns: Sequence[Column], provenance: Mapping[str, Any]
    ) -> Iterator[TableWriter]:
        """Open a table for writing.

        Raises:
            UserError: as `atomic_path`.
        """
        if "shard" not in provenance:
            with atomic_path(target) as path, self.write(path, columns, provenance) as writer:
                yield writer
            return
        about = {**provenance, "shard": dict(provenance["shard"])}
        with atomic_path(target) as path, self.write(path, columns, about) as writer:
            rows = _HashedRows(columns, self, writer)
            yield rows
            about["shard"][_CHECKSUM] = rows.checksum(about)

    def matches(self, path: Path, start: bytes) -> bool:
        """Return whether a file has this format.

        Raises:
            UserError: the package that reads it is missing.
        """
        if not (start.startswith(self.magic) and self.recognize(path)):
            return False
        _check_installed(self)
        return True

    def head(self, path: Path) -> Head:
        """Read what a table tells about itself."""
        columns, provenance, _ = self.read(path)
        return Head([f"{c.name} {c.type.__name__} {c.width}" for c in columns], provenance)

    def join(self, paths: Sequence[Path], target: Path, provenance: Mapping[str, Any]) -> None:
        """Write the rows of all tables as one.

        Raises:
            UsageError: to stdout.
            UserError: a table is damaged.
        """
        columns, _, _ = self.read(paths[0])
        with open_table(target, self.suffix, columns, provenance) as table:
            for path in paths:
                _, about, batches = self.read(path)
                rows = _HashedRows(columns, self, table)
                for batch in reading_shard(path, self.suffix, batches):
                    rows.write(batch)
                if rows.checksum(about) != about["shard"].get(_CHECKSUM):
                    raise damaged_shard(path)


class _HashedRows:
    """Rows on their way to a table, and their sha256, whatever the batches that they come in.

    Args:
        columns: of the rows.
        table: their format.
        writer: takes them.
    """

    def __init__(self, columns: Sequence[Column], table: BinaryTable, writer: TableWriter) -> None:
        vector = np.float16 if table.bytes_per_number == 2 else np.float32
        numbers = {int: np.int64, float: np.float64}
        self._types = {c.name: vector if c.width else numbers.get(c.type) for c in columns}
        self._digests = {column.name: hashlib.sha256() for column in columns}
        self._writer = writer

    def write(self, batch: Batch) -> None:
        """Hash rows, and hand them on."""
        for name, digest in self._digests.items():
            dtype = self._types[name]
            if dtype is None:
                digest.update("".join(f"{value}\0" for value in batch[name]).encode())
            else:
                digest.update(np.ascontiguousarray(batch[name], dtype).tobytes())
        self._writer.write(batch)

    def checksum(self, provenance: Mapping[str, Any]) -> str:
        """Return the sha256 of the rows so far, and of what the table tells about itself."""
        shard = {name: value for name, value in provenance["shard"].items() if name != _CHECKSUM}
        digests = {name: digest.hexdigest() for name, digest in sorted(self._digests.items())}
        about = json.dumps([{**provenance, "shard": shard}, digests], sort_keys=True)
        return hashlib.sha256(about.encode()).hexdigest()


def reading_shard(path: Path, kind: str, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Pass batches on; what the library that reads them makes of damaged data becomes a UserError."""
    try:
        yield from batches
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"cannot be read as {kind}", at=path, remedy=AGAIN) from error


_FORMATS: tuple[TableFormat, ...] = (
    BinaryTable(suffix="parquet", magic=b"PAR1", write=open_parquet, read=read_parquet),
    TSV,
    TsvFormat(suffix="tsv.gz", pack=open_gzip, bytes_per_number=6),
    CSV,
    JSON_LINES,
    JSON_LINES_GZ,
    BinaryTable(suffix="npz", magic=b"PK\x03\x04", write=open_npz, read=read_npz),
    BinaryTable(
        suffix="h5ad",
        magic=_HDF5,
        write=open_h5ad,
        read=read_h5ad,
        recognize=is_anndata,
        package="anndata",
        needs_vectors=True,
    ),
    BinaryTable(
        suffix="h5",
        magic=_HDF5,
        write=open_hdf5,
        read=read_hdf5,
        package="h5py",
        needs_vectors=True,
        whole_records=True,
        bytes_per_number=2,
    ),
)
TABLES = {table.suffix: table for table in _FORMATS}
# Those for tables of single numbers.
SCALAR_TABLES = tuple(table.suffix for table in _FORMATS if not table.needs_vectors)
# Tables, sequences and tracks.
OUTPUTS: dict[str, FileFormat] = {**TABLES, **FASTAS, **TRACKS}


def table_type(target: Path, output_type: str | None, types: Sequence[str] | None = None) -> str:
    """Return the type of an output: of -O, else of the suffix in any case; `-` is TSV.

    Args:
        target: output file, or `-` for stdout.
        output_type: the value of -O, or None.
        types: keys of `OUTPUTS` that the caller writes; None is all of `TABLES`.

    Raises:
        UsageError: the type is unknown, or cannot be streamed to stdout.
        UserError: the package that writes it is not installed.

    >>> table_type(Path("a/peaks.tsv.gz"), None), table_type(Path("-"), None), table_type(Path("a"), "npz")
    ('tsv.gz', 'tsv', 'npz')
    >>> table_type(Path("-"), None, ("bw", "bedgraph"))
    'bedgraph'
    """
    stdout = str(target) == "-"
    types = list(types or TABLES)
    if output_type is not None:
        kind = output_type.removeprefix(".")
        if kind not in types:
            raise UsageError(f"unknown output type '{output_type}'", at="-O", remedy=nearest(kind, types))
    elif stdout:
        kind = next((kind for kind in ("tsv", *types) if kind in types and OUTPUTS[kind].stdout), "")
    else:
        kind = suffix_kind(target, types) or ""
    if not kind:
        suffixes = ", ".join(f".{kind}" for kind in types)
        remedy = f"use one of {suffixes}, or give -O/--output-type"
        raise UsageError("the suffix names no table type", at=target, remedy=remedy)
    if stdout and not OUTPUTS[kind].stdout:
        raise UsageError(f"{kind} does not go to stdout", at="-O", remedy="name a file with -o, or use tsv")
    _check_installed(OUTPUTS[kind])
    return kind


def _check_installed(output: FileFormat) -> None:
    if output.package and find_spec(output.package) is None:
        raise UserError(f".{output.suffix} needs {output.package}", remedy=f"pip install {output.package}")


def open_table(
    target: Path, output_type: str | None, columns: Sequence[Column], provenance: Mapping[str, Any]
) -> AbstractContextManager[TableWriter]:
    """Open a table for writing; the file appears, whole, when the context ends well.

    Args:
        target: output file, or `-` for stdout (TSV).
        output_type: a key of `TABLES`; None takes the suffix.
        columns: the columns, in order.
        provenance: JSON values kept under the key "hyena": Parquet schema metadata, an array of an npz, uns
            of an AnnData, an attribute of an HDF5. A TSV cannot keep them, unless it is a shard.

    Raises:
        UsageError: as `table_type`.
        UserError: as `table_type` and `atomic_path`.
    """
    return TABLES[table_type(target, output_type)].open(target, columns, provenance)
