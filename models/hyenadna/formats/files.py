"""Files of a model directory: weights (torch, safetensors, shards) and JSON, and directories written whole.

What is written here ends in a checksum, and is compared with it when it is read: the tensors by a line in the
metadata of the safetensors file, a configuration by its last key.

A pickle is a program: it may name any importable function and call it. torch reads its files here through a
pickle module that imports nothing: the few names that tensors need stand for classes of this file, all others
for one inert class, so that the program can build containers and tensors, and nothing else.
"""

import errno
import hashlib
import json
import os
import pickle
import re
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from hyenadna.errors import ModelError

WEIGHTS_SUFFIXES = {".safetensors", ".bin", ".ckpt", ".pt", ".pth"}
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "weights.ckpt",
)
BESIDE = ("trainer.json", "trainer.safetensors", "experts.json", "experts.safetensors")
"""Files that a training puts into a model directory, and that go with the model when it is replaced."""
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CHECKSUM = "sha256"
CONFIG_SHA256 = "adapter_config_sha256"
# where the base of an adapter lies: users edit it when they move one, and the base has a hash of its own
_UNCHECKED = (_CHECKSUM, CONFIG_SHA256, "base_model_name_or_path")
_UNDAMAGED = "take an undamaged copy"
# the format's own bound
_MAX_HEADER = 100_000_000


def find_weights(folder: Path) -> Path:
    """Return the weights file of a model directory: one with a published name, else the only one.

    Raises:
        ModelError: there is none, or several that could be meant.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS_SUFFIXES and path.is_file())
    if len(others) == 1:
        return others[0]
    if others:
        names = ", ".join(path.name for path in others)
        raise ModelError(f"has several weights files ({names})", at=folder, remedy="name the file itself")
    raise ModelError(
        "has a config.json, but no weights", at=folder, remedy=f"expected one of {', '.join(_WEIGHTS)}"
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
        ModelError: the file is not JSON, its top level is not an object, or its checksum is of another one.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"is not valid JSON ({_reason(error)})", at=path, remedy=_UNDAMAGED) from error
    if not isinstance(raw, dict):
        raise ModelError("is JSON, but not an object", at=path, remedy=_UNDAMAGED)
    if raw.pop(_CHECKSUM, None) not in (None, json_sha256(raw)):
        raise ModelError(
            "has been changed since it was written: its checksum does not fit",
            at=path,
            remedy=f'{_UNDAMAGED}, or if you edited it, delete its line "{_CHECKSUM}"',
        )
    return raw


def write_json(raw: Mapping[str, Any], path: Path) -> None:
    """Write an object as JSON, and its checksum as the last key."""
    path.write_text(json.dumps({**raw, _CHECKSUM: json_sha256(raw)}, indent=2) + "\n", encoding="utf-8")


def json_sha256(raw: Mapping[str, Any]) -> str:
    """Return the checksum of an object as JSON; a path that users may correct does not enter."""
    checked = {key: value for key, value in raw.items() if key not in _UNCHECKED}
    return hashlib.sha256(json.dumps(checked, sort_keys=True).encode()).hexdigest()


def _reason(error: Exception) -> str:
    # a library may quote a whole file
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of a weights file; its kind is told by its content, not by its name.

    They may be views of the file: copy those that outlive it.

    Raises:
        ModelError: the file is none of torch zip, torch legacy, safetensors and index of shards, or damaged.
    """
    with path.open("rb") as stream:
        start = stream.read(32)
    # first of all: it begins with a number, whose bytes may look like the start of anything else
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < _MAX_HEADER:
        return _read_safetensors(path)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return read_torch(path)
    if start.startswith(b"{"):
        return _read_shards(path)
    if start.startswith(b"version https://git-lfs"):
        raise ModelError("is a git-lfs pointer, not the weights", at=path, remedy="run `git lfs pull`")
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        why = f"is not a torch or safetensors file, or is damaged ({_reason(error)})"
        raise ModelError(why, at=path, remedy="fetch it again") from error
    if metadata.get(_CHECKSUM) not in (None, tensors_sha256(tensors)):
        raise ModelError("is damaged: its checksum does not fit", at=path, remedy="take an undamaged copy")
    return tensors


def _read_shards(index: Path) -> dict[str, Tensor]:
    shards: Any = read_json(index).get("weight_map")
    if not isinstance(shards, Mapping) or not all(isinstance(file, str) for file in shards.values()):
        raise ModelError("is JSON without a weight_map", at=index, remedy="give the weights file itself")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(shards.values())):
        if Path(file).name != file or not (index.parent / file).is_file():
            raise ModelError(
                f"names the shard {file!r}, which is not beside it", at=index, remedy="fetch all shards"
            )
        tensors |= read_tensors(index.parent / file)
    missing = sorted(set(shards) - set(tensors))
    if missing:
        raise ModelError(f"{len(missing)} tensors of the index are in no shard, first {missing[0]}", at=index)
    return tensors


def read_torch(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file written by `torch.save`, zip or legacy, without running what the file says.

    They are those of its "state_dict", or of the bare dictionary; other entries are left out. Tensors keep
    their dtypes and live on the CPU; those of a zip file are mapped, so that an optimizer's are never read.

    Raises:
        ModelError: the file is damaged, a TorchScript archive, or holds no tensors.
    """
    try:
        with path.open("rb") as stream:
            zipped = stream.read(4) == b"PK\x03\x04"
        if zipped:
            _check_archive(path)
        elif tarfile.is_tarfile(path):
            raise ModelError("is a tar archive, not a torch checkpoint", at=path)
        root = _unpickle(path, mapped=zipped)
    except ModelError:
        raise
    except Exception as error:
        # a damaged stream can make the unpickler fail in any way at all, and all of them mean the same
        raise ModelError(
            f"cannot be read as a torch checkpoint ({type(error).__name__}: {_reason(error)})",
            at=path,
            remedy="it is damaged or not a checkpoint: fetch or save it again",
        ) from error
    inner = root.get("state_dict", root) if isinstance(root, dict) else {}
    entries = inner.items() if isinstance(inner, dict) else ()
    tensors = {name: t for name, t in entries if isinstance(name, str) and isinstance(t, Tensor)}
    if not tensors:
        raise ModelError("holds no tensors", at=path, remedy="give a state dict or a training checkpoint")
    return tensors


def _unpickle(path: Path, *, mapped: bool) -> Any:
    """Return the object in a torch file, made of stand-ins and tensors."""
    # torch takes a file for safetensors by its name, which an alias keeps from it
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        alias = Path(scratch, "weights")
        alias.symlink_to(path.resolve())
        # a warning is an error: torch warns before it hands an archive of code to torch.jit
        warnings.simplefilter("error", UserWarning)
        return torch.load(
            alias, map_location="cpu", weights_only=False, mmap=mapped, pickle_module=_TensorPickle
        )


def _check_archive(path: Path) -> None:
    """Raise ModelError unless a zip archive is an undamaged torch checkpoint that can be mapped."""
    with zipfile.ZipFile(path) as archive:
        records = {name.partition("/")[2]: name for name in archive.namelist()}
        if "data.pkl" not in records:
            raise ModelError("is a zip archive, but not a torch checkpoint", at=path)
        if "constants.pkl" in records:
            raise ModelError("is a TorchScript archive, which is code", at=path, remedy="save its state dict")
        if "byteorder" in records and archive.read(records["byteorder"]) != b"little":
            raise ModelError("was written on a big-endian machine", at=path, remedy="save it as safetensors")
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise ModelError("is a compressed archive", at=path, remedy="save it again with torch.save")
        damaged = archive.testzip()
    if damaged is not None:
        raise ModelError(f"is damaged at {damaged}", at=path, remedy="fetch or save it again")


class _Inert:
    """Stand-in for every class or function that a pickle may name: it accepts anything and does nothing."""

    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        return object.__new__(cls)

    def __call__(self, *_args: object, **_kwargs: object) -> Self:
        """Return itself, for pickles that call what they looked up."""
        return self

    def _ignore(self, *_args: object, **_kwargs: object) -> None:
        """Do nothing."""

    __init__ = __setstate__ = __setitem__ = append = extend = add = _ignore


# Classes, not functions, each with a __setstate__: a pickle may set attributes on what it names. They would
# stay on a function; of a class, its __setstate__ is called, which sets nothing.
class _Mapping(dict[Any, Any]):
    """Stand-in for OrderedDict; attributes that a pickle sets on it (torch's `_metadata`) are dropped."""

    def __init__(self, *_args: object):
        super().__init__()

    def __setstate__(self, _state: object) -> None:
        pass


class _Rebuilt(_Inert):
    """Stand-in for `torch._utils._rebuild_tensor` and its second version: gives a plain tensor."""

    def __new__(cls, storage: Any, offset: int, size: Any, stride: Any, *_: object) -> Any:
        # refuses shapes that reach outside the storage
        return torch._utils._rebuild_tensor(storage, offset, size, stride)  # type: ignore[no-untyped-call]  # noqa: SLF001


class _Parameter(_Inert):
    """Stand-in for `torch._utils._rebuild_parameter`: gives back the tensor."""

    def __new__(cls, data: Any, *_: object) -> Any:
        return data


_STAND_INS: dict[tuple[str, str], type] = {
    ("torch._utils", "_rebuild_tensor"): _Rebuilt,
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuilt,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _Parameter,
    ("collections", "OrderedDict"): _Mapping,
}


class _TensorPickle:
    """A pickle module, as `torch.load` takes it, cut off from the world.

    torch adds storages itself: its subclass of `Unpickler` resolves names with "Storage" in them, and
    persistent ids, to descriptions of its own.
    """

    class Unpickler(pickle.Unpickler):
        """The interpreter of the program."""

        def find_class(self, module: str, name: str) -> Any:
            """Return the stand-in for a name; nothing is ever imported."""
            return _STAND_INS.get((module, name), _Inert)

    @staticmethod
    def load(stream: IO[bytes], **options: Any) -> Any:
        """Read one object, for the parts of legacy files that torch reads through the module's `load`."""
        return _TensorPickle.Unpickler(stream, **options).load()


@contextmanager
def whole_directory(target: Path, replaceable: Collection[str]) -> Iterator[Path]:
    """Yield an empty directory to fill, which becomes `target` at the end, and is removed after an error.

    Args:
        target: an existing directory is replaced, if it has no other files than the replaceable.
        replaceable: the names of the files such a directory may hold.

    Raises:
        ModelError: `target` is a file, or holds another file.
    """
    _check_target(target, replaceable)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            new = Path(scratch, "new")
            new.mkdir()
            yield new
            # after a crash a renamed directory would otherwise be there without what is in its files
            for path in (*new.iterdir(), new):
                _sync(path)
            _replace(target, new, Path(scratch, "old"))
    except OSError as error:
        room = "free some space or " if error.errno in _FULL_DISK else ""
        why, remedy = f"cannot be written ({error.strerror or error})", f"{room}choose another directory"
        raise ModelError(why, at=target, remedy=remedy) from error


def _check_target(target: Path, replaceable: Collection[str]) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ModelError("is a file, not a directory", at=target, remedy="choose another name")
    foreign = sorted(path.name for path in target.iterdir() if path.name not in replaceable)
    if foreign:
        raise ModelError(
            f"holds {foreign[0]!r}, so it is not a model directory and is not replaced",
            at=target,
            remedy="choose another directory",
        )


def _replace(target: Path, new: Path, old: Path) -> None:
    """Rename `new` to `target`; what was there goes to `old`, and comes back if that fails."""
    if not target.exists():
        new.rename(target)
        return
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file that whoever may read its directory may read: the library makes it private."""
    metadata = {"format": "pt", _CHECKSUM: tensors_sha256(tensors)}
    try:
        safetensors.torch.save_file(dict(tensors), path, metadata=metadata)
    except safetensors.SafetensorError as error:
        # the library passes on what the system says as text only
        match = re.search(r"os error (\d+)", str(error))
        code = int(match[1]) if match else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
    path.chmod(path.parent.stat().st_mode & 0o666)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the checksum of named tensors: over their names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
