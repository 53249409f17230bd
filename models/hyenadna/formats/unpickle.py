"""Tensors out of a torch file, without ever running what the file says.

A pickle is a program: it may name any importable function and call it. Here no name is ever imported. The few
names a tensor needs stand for functions of this module, all others for one inert class, so the program can
build containers and descriptions of tensors, and nothing else. The numbers are then read from the
archive by this module, and only those of the state dict (a training checkpoint carries the optimizer too).
"""

import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import torch
from torch import Tensor

from hyenadna.errors import ModelError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Inert:
    """Stands for every class or function a pickle may name: whatever is done to it, it does nothing."""

    def __new__(cls, *_args: object, **_kwargs: object) -> Self:  # noqa: D102
        return object.__new__(cls)

    def __init__(self, *_args: object, **_kwargs: object):
        """Accept and forget any arguments."""

    def __call__(self, *_args: object, **_kwargs: object) -> Self:
        """Return itself, for pickles that call what they looked up."""
        return self

    def __setstate__(self, _state: object) -> None:
        pass

    def __setitem__(self, _key: object, _value: object) -> None:
        pass

    def append(self, _value: object) -> None:
        """Ignore a list item."""

    def extend(self, _values: object) -> None:
        """Ignore list items."""

    def add(self, _value: object) -> None:
        """Ignore a set item."""


class _Mapping(dict[Any, Any]):
    """OrderedDict and its kin; attributes a pickle wants to set on it (torch's `_metadata`) are dropped."""

    def __init__(self, *_args: object):
        super().__init__()

    def __setstate__(self, _state: object) -> None:
        pass


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    numel: int

    def __setstate__(self, _state: object) -> None:
        pass


class _Described:
    """A tensor that has not been read: offset, shape and strides in elements of its storage."""

    def __init__(
        self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
    ):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def __setstate__(self, _state: object) -> None:
        pass


class _Parameter:
    """Calling it gives back the tensor."""

    def __new__(cls, data: Any, *_: object) -> Any:
        return data

    def __setstate__(self, _state: object) -> None:
        pass


# classes, not functions: a pickle may set attributes on what it names, which would stay on a function;
# the __setstate__ of a class that is not an instance fails instead
_STAND_INS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _Described,
    ("torch._utils", "_rebuild_tensor_v2"): _Described,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _Parameter,
    ("collections", "OrderedDict"): _Mapping,
}


class _Unpickler(pickle.Unpickler):
    """The program's interpreter, cut off from the world; `storages` collects what it mentions."""

    def __init__(self, stream: IO[bytes]):
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        return _STAND_INS.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _location, numel, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(part is not None for part in view):
            raise pickle.UnpicklingError(f"unknown storage {pid!r}")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, int(numel)))


def read_torch(path: Path) -> dict[str, Tensor]:
    """The tensors of a file written by `torch.save`, zip or legacy: its "state_dict", or the bare dictionary.

    Entries that are no tensors are left out. Tensors keep their dtypes and live on the CPU.

    Raises:
        ModelError: the file is damaged, a TorchScript archive, or holds no tensors.
    """
    try:
        read = _read_zip if zipfile.is_zipfile(path) else _read_legacy
        tensors = read(path)
    except (ModelError, OSError, MemoryError):
        raise
    except Exception as error:
        # a damaged stream can make the unpickler fail in any way at all, and all of them mean the same
        raise ModelError(
            f"cannot be read as a torch checkpoint ({type(error).__name__}: {error})",
            at=path,
            remedy="it is damaged or no checkpoint: fetch or save it again",
        ) from error
    if not tensors:
        raise ModelError("holds no tensors", at=path, remedy="give a state dict or a training checkpoint")
    return tensors


def _read_zip(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        program = next(
            (name for name in sorted(names) if name.count("/") == 1 and name.endswith("/data.pkl")), None
        )
        if program is None:
            raise ModelError("is a zip archive, but no torch checkpoint", at=path)
        root = program.removesuffix("data.pkl")
        if f"{root}constants.pkl" in names:
            raise ModelError("is a TorchScript archive, which is code", at=path, remedy="save its state dict")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ModelError("was written on a big-endian machine", at=path, remedy="save it as safetensors")
        with archive.open(program) as stream:
            described = _state_dict(_Unpickler(stream).load())
        return _materialise(described, lambda storage: archive.read(f"{root}data/{storage.key}"))


def _read_legacy(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as stream:
        if [_Unpickler(stream).load() for _ in range(2)] != [_LEGACY_MAGIC, _LEGACY_PROTOCOL]:
            raise ModelError("is a pickle, but no torch checkpoint", at=path)
        _Unpickler(stream).load()  # facts about the writing machine
        unpickler = _Unpickler(stream)
        described = _state_dict(unpickler.load())
        order = [str(key) for key in _Unpickler(stream).load()]
        blobs = {key: _legacy_blob(stream, unpickler.storages[key]) for key in order}
        return _materialise(described, lambda storage: blobs[storage.key])


def _legacy_blob(stream: IO[bytes], storage: _Storage) -> bytes:
    """The next storage of the file, after its count of elements."""
    (numel,) = struct.unpack("<q", stream.read(8))
    if numel != storage.numel:
        raise EOFError(f"storage {storage.key} has {numel} elements, not {storage.numel}")
    return stream.read(numel * storage.dtype.itemsize)


def _state_dict(root: object) -> dict[str, _Described]:
    if not isinstance(root, dict):
        return {}
    inner = root.get("state_dict", root)
    entries = inner.items() if isinstance(inner, dict) else ()
    return {name: value for name, value in entries if isinstance(name, str) and isinstance(value, _Described)}


def _materialise(described: Mapping[str, _Described], read: Callable[[_Storage], bytes]) -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    tensors = {}
    for name, tensor in described.items():
        storage = tensor.storage
        if storage.key not in flat:
            flat[storage.key] = _elements(storage, read)
        # as_strided refuses shapes that reach outside the storage
        tensors[name] = flat[storage.key].as_strided(tensor.size, tensor.stride, tensor.offset)
    return tensors


def _elements(storage: _Storage, read: Callable[[_Storage], bytes]) -> Tensor:
    if storage.numel == 0:
        return torch.empty(0, dtype=storage.dtype)
    raw = read(storage)
    if len(raw) != storage.numel * storage.dtype.itemsize:
        raise EOFError(f"storage {storage.key} has {len(raw)} bytes for {storage.numel} elements")
    return torch.frombuffer(bytearray(raw), dtype=storage.dtype)
