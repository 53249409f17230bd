"""Named arrays, written one after another: NumPy archives and HDF5, with JSON provenance under "hyena".

Shards are joined by their records: `map_N` is an array of record N of the whole input, and any other array
has an entry of each record.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UsageError, UserError
from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.columns import FileFormat, Head
from hyenacli.writers.hdf5 import created_hdf5
from hyenacli.writers.text import AGAIN


class ArrayWriter(Protocol):
    """A file that takes arrays."""

    def write(self, name: str, array: NDArray[Any]) -> None:
        """Append an array of numbers or texts."""


class _Npz:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def write(self, name: str, array: NDArray[Any]) -> None:
        with self._archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, array, allow_pickle=False)


class _Hdf5Arrays:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, name: str, array: NDArray[Any]) -> None:
        import h5py

        packed = {"compression": "gzip", "shuffle": True} if array.ndim > 1 else {}
        if array.dtype.kind == "U":  # without a text, only its type says what the array is of
            array = array.astype(h5py.string_dtype())
        self._file.create_dataset(name, data=array, **packed)


@contextmanager
def _open_npz(path: Path, provenance: Mapping[str, Any]) -> Iterator[ArrayWriter]:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        arrays = _Npz(archive)
        yield arrays
        arrays.write("hyena", np.array(json.dumps(provenance)))


@contextmanager
def _open_hdf5(path: Path, provenance: Mapping[str, Any]) -> Iterator[ArrayWriter]:
    with created_hdf5(path) as file:
        file.attrs["hyena"] = json.dumps(provenance)
        yield _Hdf5Arrays(file)


# What the libraries make of damaged files; h5py also says RuntimeError, and zipfile its NotImplementedError.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
_FORMATS = {".npz": _open_npz, ".h5": _open_hdf5, ".hdf5": _open_hdf5}


def check_arrays_type(target: Path) -> None:
    """Check that a file's suffix names a type of arrays, and that the package that writes it is installed.

    Raises:
        UsageError: it names none.
        UserError: the package is missing.
    """
    if target.suffix not in _FORMATS:
        raise UsageError("names no type of arrays", at=target, remedy="end it with .npz or .h5")
    if target.suffix != ".npz":
        try:
            import h5py  # noqa: F401
        except ImportError:
            remedy = "pip install 'hyena[hdf5]', or write .npz"
            raise UserError("HDF5 needs the package h5py", at=target, remedy=remedy) from None


@contextmanager
def open_arrays(target: Path, provenance: Mapping[str, Any]) -> Iterator[ArrayWriter]:
    """Open a file of arrays for writing; it appears, whole, when the context ends well.

    Args:
        target: the file; its suffix sets the type.
        provenance: JSON values.

    Raises:
        UserError: as `check_arrays_type` and `atomic_path`.
    """
    check_arrays_type(target)
    with atomic_path(target) as path, _FORMATS[target.suffix](path, provenance) as arrays:
        yield arrays


@contextmanager
def _read(path: Path) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
    """Yield arrays by name, each read when it is taken, and provenance: empty in another tool's file."""
    if zipfile.is_zipfile(path):
        with np.load(path, allow_pickle=False) as archive:
            yield archive, json.loads(str(archive["hyena"])) if "hyena" in archive else {}
        return
    import h5py

    with h5py.File(path) as file:
        yield file, json.loads(file.attrs.get("hyena", "{}"))


@dataclass(frozen=True, kw_only=True)
class ArraysFormat(FileFormat):
    """Arrays of records, whose shards can be merged.

    Attributes:
        magic: first bytes of its files.
    """

    magic: bytes

    def matches(self, path: Path, start: bytes) -> bool:
        """Return whether a file has this format; arrays name their axes, where tables have columns."""
        if not start.startswith(self.magic):
            return False
        try:
            with _read(path) as (_, provenance):
                return "axes" in provenance
        except (*_DAMAGED, ImportError):  # the table that begins alike says it
            return False

    def head(self, path: Path) -> Head:
        """Read what a file tells about itself."""
        with _read(path) as (arrays, provenance):
            return Head([name for name in sorted(arrays) if not name.startswith("map_")], provenance)

    def join(self, paths: Sequence[Path], target: Path, provenance: Mapping[str, Any]) -> None:
        """Write the arrays of all shards as one file.

        Raises:
            UserError: a shard is damaged.
        """
        columns: dict[str, list[Any]] = {}
        with open_arrays(target, provenance) as writer:
            for path in paths:
                for name, array in _read_all(path):
                    if name.startswith("map_"):
                        writer.write(name, array)
                    else:
                        columns.setdefault(name, []).append(array)
            for name, parts in columns.items():
                writer.write(name, np.concatenate(parts))


def _read_all(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of a shard by name, each read when it is taken.

    Raises:
        UserError: it is damaged.
    """
    try:
        with _read(path) as (arrays, _):
            for name in arrays:
                if name != "hyena":
                    yield name, _values(arrays[name])
    except _DAMAGED as error:
        raise UserError("is damaged", at=path, remedy=AGAIN) from error


def _values(array: Any) -> NDArray[Any]:
    """Return an array of texts or numbers."""
    texts = array.dtype.kind == "O"
    return np.asarray(array.asstr()[...] if texts else array[...], dtype=np.str_ if texts else None)


ARRAYS = {
    "arrays.npz": ArraysFormat(suffix="npz", magic=b"PK\x03\x04"),
    "arrays.h5": ArraysFormat(suffix="h5", magic=b"\x89HDF"),
}
