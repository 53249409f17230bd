"""Named arrays, written one after another: NumPy archives and HDF5, with JSON provenance under "hyena"."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UsageError, UserError
from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.hdf5 import created_hdf5


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
