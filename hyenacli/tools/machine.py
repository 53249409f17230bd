"""What this machine has, for `hyena doctor`: versions, processors, memory, and what is optional."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import torch

from hyenacli import __version__
from hyenacli.devices import free_memory

Row = dict[str, object]

_PACKAGES = (
    "numpy",
    "safetensors",
    "typer",
    "rich",
    "PyYAML",
    "pysam",
    "pyarrow",
    "scikit-learn",
    "matplotlib",
)
_EXTRAS = {
    "huggingface_hub": "fetches models by name (extra hub)",
    "tensorboard": "shows training as it goes (extra tensorboard)",
}
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
_CPUINFO = Path("/proc/cpuinfo")


def system() -> Row:
    """Versions of the tool and of what it needs, the platform, cores and threads."""
    return {
        "hyena": __version__,
        "python": platform.python_version(),
        "torch": f"{torch.__version__} ({_gpu_build() or 'CPU only'})",
        **{name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
    }


def processors(devices: Iterable[torch.device]) -> list[Row]:
    """Name, architecture, bfloat16 and memory (GiB) of each device; None where it is not known."""
    describe = {"cpu": _cpu, "cuda": _cuda, "mps": _mps}
    rows = []
    for device in devices:
        facts, total = describe[device.type](device)
        free = free_memory(device)
        rows.append({"device": str(device), **facts, "free_gib": _gib(free), "total_gib": _gib(total)})
    return rows


def optional() -> list[Row]:
    """What the tool can do without, whether it is here, and what it would be for."""
    found = {
        "torch for GPUs": (_gpu_build(), "used where there is a GPU"),
        "compiler for torch.compile": (_compilers(), "never used"),
        **{name: (_version(name), use) for name, use in _EXTRAS.items()},
    }
    return [
        {"optional": name, "found": what, "use": f"not needed; {use}"} for name, (what, use) in found.items()
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpu_build() -> str | None:
    """The kind of GPU this torch was built for."""
    cuda, rocm = torch.version.cuda, torch.version.hip
    return f"CUDA {cuda}" if cuda else f"ROCm {rocm}" if rocm else None


def _cores() -> int:
    """Cores this process may use, as far as the system says."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _compilers() -> str | None:
    """What torch.compile would call: a C++ compiler on a CPU, triton on a GPU."""
    cxx = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    here = {cxx: shutil.which(cxx), "triton": importlib.util.find_spec("triton")}
    return ", ".join(name for name, found in here.items() if found) or None


def _cpu(_device: torch.device) -> tuple[Row, int]:
    about = _cpuinfo()
    flags = set(about.get("flags", about.get("Features", "")).split())
    name = about.get("model name") or platform.processor() or platform.machine()
    bfloat16 = ("native" if flags & _BFLOAT16_FLAGS else "emulated") if flags else None
    facts: Row = {"name": name, "architecture": torch.backends.cpu.get_cpu_capability(), "bfloat16": bfloat16}
    return facts, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cuda(device: torch.device) -> tuple[Row, int]:
    about = torch.cuda.get_device_properties(device)
    # By the architecture: torch.cuda.is_bf16_supported counts emulation, and asks about the current device.
    bfloat16 = "native" if torch.version.hip or about.major >= 8 else "emulated"
    facts: Row = {"name": about.name, "architecture": f"sm_{about.major}{about.minor}", "bfloat16": bfloat16}
    return facts, about.total_memory


def _mps(device: torch.device) -> tuple[Row, int]:
    facts, total = _cpu(device)
    return {**facts, "architecture": "Metal", "bfloat16": None}, total


def _cpuinfo() -> dict[str, str]:
    """The first processor's entries in Linux's list; empty elsewhere."""
    if not _CPUINFO.exists():
        return {}
    lines = _CPUINFO.read_text().split("\n\n", maxsplit=1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _gib(n_bytes: int) -> float:
    return round(n_bytes / (1 << 30), 1)
