"""Any weights file, by its content: torch zip, torch legacy, safetensors, or an index of shards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from hyenadna.errors import ModelError

from .jsons import read_json
from .unpickle import read_torch

# the format's own bound
_MAX_HEADER = 100_000_000


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of one weights file, as they are in it.

    Raises:
        ModelError: the file is none of the known kinds, or damaged.
    """
    with path.open("rb") as stream:
        start = stream.read(32)
    # First of all: it begins with a number, whose bytes may look like the start of anything else.
    if _begins_as_safetensors(start):
        return _read_safetensors(path)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return read_torch(path)
    if start.startswith(b"{"):
        return _read_shards(path)
    if start.startswith(b"version https://git-lfs"):
        raise ModelError("is a git-lfs pointer, not the weights", at=path, remedy="run `git lfs pull`")
    return _read_safetensors(path)


def _begins_as_safetensors(start: bytes) -> bool:
    """Whether a file begins with the size of a JSON header, and the header."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < _MAX_HEADER


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise ModelError(
            f"is no torch or safetensors file, or is damaged ({error})", at=path, remedy="fetch it again"
        ) from error


def _read_shards(index: Path) -> dict[str, Tensor]:
    placed: Any = read_json(index).get("weight_map")
    if not isinstance(placed, Mapping) or not all(isinstance(file, str) for file in placed.values()):
        raise ModelError("is JSON without a weight_map", at=index, remedy="give the weights file itself")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(placed.values())):
        if Path(file).name != file or not (index.parent / file).is_file():
            raise ModelError(
                f"names the shard {file!r}, which is not beside it", at=index, remedy="fetch all shards"
            )
        tensors |= read_tensors(index.parent / file)
    lost = sorted(set(placed) - set(tensors))
    if lost:
        raise ModelError(f"{len(lost)} tensors of the index are in no shard, first {lost[0]}", at=index)
    return tensors
