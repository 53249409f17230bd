"""Devices, threads and precision: chosen once per run, by name."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from hyenacli.distributed import current_ranks
from hyenacli.errors import UsageError, UserError, check_range, check_word

_CGROUP = Path("/sys/fs/cgroup")


def available_devices() -> list[str]:
    """Return the names of the devices of this machine, the fastest first.

    >>> available_devices()[-1]
    'cpu'
    """
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def resolve_device(name: str) -> torch.device:
    """Return the device called auto, cpu, cuda, cuda:N or mps.

    auto is the fastest kind on this machine. cuda without a number is the device of this process's local
    rank under torchrun.

    Raises:
        UsageError: not a device name.
        UserError: this machine does not have it.
    """
    devices = available_devices()
    kind = devices[0].partition(":")[0] if name == "auto" else name
    if kind.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise UsageError(
            f"unknown device '{name}'", at="--device", remedy="use auto, cpu, cuda, cuda:N or mps"
        )
    if kind == "cuda":
        kind = f"cuda:{current_ranks().local_rank}"
    if kind not in devices:
        raise UserError(
            f"{kind} is not on this machine", at="--device", remedy=f"use one of {', '.join(devices)}"
        )
    return torch.device(kind)


def set_threads(threads: int | None) -> None:
    """Set the number of CPU threads; None leaves it to torch (all cores). UsageError if it is below 1."""
    check_range("--threads", threads, 1)
    if threads is not None:
        torch.set_num_threads(threads)


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    """Return a context in which the model computes in `dtype`: bfloat16 by autocast.

    Args:
        device: of the model.
        dtype: float32 or bfloat16.

    Raises:
        UsageError: it is another dtype.
    """
    check_word("--dtype", dtype, ("float32", "bfloat16"))
    return nullcontext() if dtype == "float32" else torch.autocast(device.type, torch.bfloat16)


def free_memory(device: torch.device) -> int:
    """Return the free bytes of the device's memory, for a CPU of the machine within its container's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    free = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    try:
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        usage = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        used -= int(usage["inactive_file"])  # pages of files, given up when memory is needed
    except (OSError, ValueError, KeyError):  # no container, or no limit ("max")
        return free
    return min(free, max(0, limit - used))


def is_out_of_memory(error: Exception) -> bool:
    """Return True if an error of a pass means that memory ran out; only CUDA's has a class of its own."""
    words = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    message = str(error).lower()
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or any(
        word in message for word in words
    )
