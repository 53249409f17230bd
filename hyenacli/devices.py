"""Devices, threads and precision: chosen once per run, by name."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from hyenacli.distributed import current_ranks
from hyenacli.errors import UsageError, UserError

_CGROUP = Path("/sys/fs/cgroup")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def available_devices() -> list[str]:
    """Names of the devices this machine has, the fastest first.

    >>> available_devices()[-1]
    'cpu'
    """
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def resolve_device(name: str) -> torch.device:
    """The device meant by auto, cpu, cuda, cuda:N or mps.

    auto is the fastest kind there is. A cuda without a number is this process's own: under torchrun each
    process of a machine has one.

    Raises:
        UsageError: not a device name.
        UserError: this machine does not have it.
    """
    here = available_devices()
    kind = here[0].partition(":")[0] if name == "auto" else name
    if kind.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise UsageError(
            f"unknown device '{name}'", at="--device", remedy="use auto, cpu, cuda, cuda:N or mps"
        )
    if kind == "cuda":
        kind = f"cuda:{current_ranks().local_rank}"
    if kind not in here:
        raise UserError(
            f"{kind} is not on this machine", at="--device", remedy=f"use one of {', '.join(here)}"
        )
    return torch.device(kind)


def set_threads(threads: int | None) -> None:
    """Use this many CPU threads; None leaves the choice to torch (all cores)."""
    if threads is not None:
        torch.set_num_threads(threads)


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    """A context in which the model computes in `dtype`: float32 as it is, bfloat16 by autocast.

    Raises:
        UsageError: another dtype.
    """
    if dtype not in _DTYPES:
        raise UsageError(f"unknown dtype '{dtype}'", at="--dtype", remedy=f"use {' or '.join(_DTYPES)}")
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, _DTYPES[dtype])


def free_memory(device: torch.device) -> int:
    """Free bytes of the device's memory (of the machine's, where they are one), a container's bound kept."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    free = os.sysconf(known) * os.sysconf("SC_PAGE_SIZE")
    try:
        bound, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        kept = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        used -= int(kept["inactive_file"])  # what was read from files gives way
    except (OSError, ValueError, KeyError):  # no container, or "max": no bound
        return free
    return min(free, max(0, bound - used))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of a pass means that memory ran out; allocators other than CUDA's only say so."""
    words = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    said = str(error).lower()
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or any(word in said for word in words)
