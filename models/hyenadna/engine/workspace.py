"""Memory that is used again and again, within a pass and from one pass to the next.

Fresh memory of more than a few megabytes comes from the operating system page by page, which takes longer
than filling it with results. The memory of a finished pass therefore waits for the next one.
"""

import math
from collections import defaultdict

import torch
from torch import Tensor

_IDLE_BYTES = 1 << 28
_LEAST_BYTES = 1 << 16
"""Less than this stays with the process anyway."""
_MOST_BYTES = 1 << 26
"""More than this at once belongs to a pass so long that fresh memory costs it little."""


class _Idle:
    """Memory on the CPU that no pass works in, at most `_IDLE_BYTES` of it.

    Threads and the garbage collector may come in at any point: every change is a single call of a list.
    """

    def __init__(self) -> None:
        self._buffers: defaultdict[int, list[Tensor]] = defaultdict(list)

    @property
    def n_bytes(self) -> int:
        """Memory kept."""
        return sum(size * len(buffers) for size, buffers in list(self._buffers.items()))

    def take(self, size: int) -> Tensor:
        """Return that many bytes with any content."""
        try:
            return self._buffers[size].pop()
        except IndexError:
            # a tensor made in inference mode could not be written to outside it
            with torch.inference_mode(False):
                return torch.empty(size, dtype=torch.uint8)

    def give(self, buffer: Tensor) -> None:
        """Keep memory for the next `take`, after dropping what has been kept if both are too much."""
        size = buffer.numel()
        if size > _MOST_BYTES:
            return
        if self.n_bytes + size > _IDLE_BYTES:
            self.drop()
        self._buffers[size].append(buffer)

    def drop(self) -> None:
        """Free all of it."""
        self._buffers.clear()


_IDLE = _Idle()


class Workspace:
    """Memory of a pass, by name. When the workspace is gone, others get its memory.

    Nothing that a caller keeps may lie in it.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}
        self._bytes: dict[tuple[str, torch.dtype], Tensor] = {}

    def empty(self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a tensor with any content on the device of `like`; it overwrites the last of that name."""
        n, key = math.prod(shape), (name, dtype)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < n:
            self._buffers.pop(key, None)
            self._bytes.pop(key, None)
            self._buffers[key] = buffer = self._take(key, n, like)
        return buffer[:n].view(shape)

    def _take(self, key: tuple[str, torch.dtype], n: int, like: Tensor) -> Tensor:
        dtype = key[1]
        n_bytes = n * dtype.itemsize
        if like.device.type != "cpu" or n_bytes < _LEAST_BYTES:
            return torch.empty(n, dtype=dtype, device=like.device)  # torch itself keeps a GPU's memory
        # sizes in steps of an eighth to a quarter, so that passes of like lengths share memory
        step = 1 << (n_bytes.bit_length() - 3)
        self._bytes[key] = _IDLE.take(-(-n_bytes // step) * step)
        return self._bytes[key].view(dtype)

    def __del__(self) -> None:
        for buffer in self._bytes.values():
            _IDLE.give(buffer)
