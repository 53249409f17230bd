"""Directories that appear whole or not at all."""

import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
from torch import Tensor

from hyenadna.errors import ModelError


@contextmanager
def whole_directory(target: Path, known: Collection[str]) -> Iterator[Path]:
    """An empty directory to fill, which becomes `target` at the end, and is removed after an error.

    Args:
        target: what is there already is replaced, if it is a directory of such files only.
        known: the names of the files such a directory may hold.

    Raises:
        ModelError: `target` is a file, or holds another.
    """
    _check_target(target, known)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        new = Path(scratch, "new")
        new.mkdir()
        yield new
        _put(new, target, Path(scratch, "old"))


def _check_target(target: Path, known: Collection[str]) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ModelError("is a file, not a directory", at=target, remedy="choose another name")
    foreign = sorted(path.name for path in target.iterdir() if path.name not in known)
    if foreign:
        raise ModelError(
            f"holds {foreign[0]!r}, so it is no model directory and is not replaced",
            at=target,
            remedy="choose another directory",
        )


def _put(new: Path, target: Path, old: Path) -> None:
    """Rename `new` to `target`; what was there goes to `old` and comes back if that fails."""
    if not target.exists():
        new.rename(target)
        return
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file that whoever may read its directory may read: the library makes it private."""
    safetensors.torch.save_file(dict(tensors), path, metadata={"format": "pt"})
    path.chmod(path.parent.stat().st_mode & 0o666)
