"""`hyena doctor`: what this machine has, whether its results are right, and how fast it is.

B sequence, L position.
"""

import importlib.util
import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
import typer
from torch import Tensor

from hyenacli import __version__
from hyenacli.console import log
from hyenacli.devices import autocast, available_devices, free_memory, resolve_device, set_threads
from hyenacli.terminal_tables import print_table
from hyenacli.tools.settings import DoctorSettings
from hyenadna import HyenaDNA, preset
from hyenadna.checks.device import DeviceCheck, check_definition, self_test
from hyenadna.tokenizer import A, T

Row = dict[str, object]
Section = Row | list[Row] | str

DTYPES = ("float32", "bfloat16")
# Preset, sequences and tokens of each speed measurement.
SPEED_CASES = (("tiny-1k", 32, 1024), ("small-32k", 1, 8192), ("small-32k", 1, 32_768))
SECONDS_PER_CASE = 1.0
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
CPUINFO = Path("/proc/cpuinfo")


def run(settings: DoctorSettings) -> None:
    """Print the findings as they come, or all of them as JSON; the exit code is 1 if a number is wrong.

    Tables follow each other with a blank line between; the last line says which precision to use where.

    Raises:
        UserError: this machine does not have the device asked for.
    """
    wanted = [settings.device] if settings.device else available_devices()
    devices = [resolve_device(name) for name in wanted]
    set_threads(settings.threads)
    checks: list[DeviceCheck] = []
    sections = _sections(devices, checks, timed=not settings.no_speed)
    if settings.json:
        typer.echo(json.dumps(dict(sections), indent=2))
    else:
        for _, section in sections:
            print_section(section)
    if any(check.verdict == "FAIL" for check in checks):
        raise typer.Exit(1)


def _sections(
    devices: Sequence[torch.device], checks: list[DeviceCheck], *, timed: bool
) -> Iterator[tuple[str, Section]]:
    """The parts of the report by name; `checks` is filled on the way."""
    yield "system", system()
    yield "devices", processors(devices)
    yield "optional", optional()
    log.info("checking the numbers of the definition on cpu")
    checks.append(check_definition())
    for device in devices:
        log.info("checking the numbers on %s", device)
        checks.extend(self_test(device))
    for check in checks:
        if check.problem:
            log.warning("%s, %s, %s: %s", check.device, check.dtype, check.check, check.problem)
    yield "checks", [_check_row(check) for check in checks]
    if timed:
        yield "speed", [row for device in devices for row in _speed_rows(device, checks)]
    yield "advice", "Use " + "; ".join(advice(str(device), checks) for device in devices) + "."


def _check_row(check: DeviceCheck) -> Row:
    return {
        "result": check.verdict,
        "device": check.device,
        "dtype": check.dtype,
        "check": check.check,
        "error": check.error if math.isfinite(check.error) else None,
        "tolerance": check.tolerance,
        "limit": check.limit,
    }


def _speed_rows(device: torch.device, checks: Sequence[DeviceCheck]) -> Iterator[Row]:
    # bfloat16 on a CPU without instructions for it takes many times as long: nobody would use it.
    timed = [dtype for dtype in _trusted(str(device), checks) if dtype == "float32" or device.type != "cpu"]
    for dtype in timed:
        log.info("timing %s on %s", dtype, device)
        yield from (vars(speed) for speed in measure_speed(device, dtype))


def _trusted(device: str, checks: Sequence[DeviceCheck]) -> dict[str, list[DeviceCheck]]:
    """The precisions a run can be trusted in, best first, with their checks.

    Where float64 or the definition is wrong, a mistake too small for the bounds of the others is in all.
    """
    here = [check for check in checks if check.device == device or check.check == "definition"]
    wrong = {check.dtype for check in here if check.verdict == "FAIL"}
    right = [dtype for dtype in DTYPES if not wrong & {dtype, "float64"}]
    return {dtype: [check for check in here if check.dtype == dtype] for dtype in right}


def advice(device: str, checks: Sequence[DeviceCheck]) -> str:
    """Which precision to use on a device."""
    trusted = _trusted(device, checks)
    if not trusted:
        return f"nothing on {device}: its numbers are wrong"
    first, *others = trusted
    also = [f"; {dtype} {_errors(trusted[dtype])}" for dtype in others]
    return f"{first} on {device} (errors {_errors(trusted[first])}{''.join(also)})"


def _errors(checks: Sequence[DeviceCheck]) -> str:
    coarse = any(check.verdict == "WARN" for check in checks)
    return f"up to {max(check.error for check in checks):.0e}" + (", coarser than usual" if coarse else "")


def print_section(section: Section) -> None:
    """One part of the report, and a blank line to tell it from the next."""
    if isinstance(section, str):
        typer.echo(section)
        return
    rows = (
        [{"field": key, "value": value} for key, value in section.items()]
        if isinstance(section, dict)
        else section
    )
    if rows:
        print_table(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])
        typer.echo()


def _cell(value: object) -> object:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else value


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
    if not CPUINFO.exists():
        return {}
    lines = CPUINFO.read_text().split("\n\n", maxsplit=1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _gib(n_bytes: int) -> float:
    return round(n_bytes / (1 << 30), 1)


@dataclass(frozen=True)
class Speed:
    """Tokens a second of inference, logits included, with filters made beforehand."""

    device: str
    dtype: str
    model: str
    batch: int
    length: int
    tokens_per_second: int


def measure_speed(device: torch.device, dtype: str) -> Iterator[Speed]:
    """Time models with fresh weights, for about a second each or one pass, whichever is longer.

    Args:
        device: where the models run.
        dtype: float32, or bfloat16 for autocast.
    """
    generator = torch.Generator().manual_seed(0)
    for name, batch, length in SPEED_CASES:
        model = HyenaDNA(preset(name), generator=generator).eval().to(device)
        ids_BL = torch.randint(A, T + 1, (batch, length), generator=generator).to(device)
        with torch.inference_mode(), autocast(device, dtype):
            seconds = _seconds_per_pass(model, ids_BL)
        yield Speed(str(device), dtype, name, batch, length, round(batch * length / seconds))


def _seconds_per_pass(model: HyenaDNA, ids_BL: Tensor) -> float:
    """The fastest of a second's passes, after one that makes the filters."""
    _pass(model, ids_BL)
    taken: list[float] = []
    while sum(taken) < SECONDS_PER_CASE:
        start = time.perf_counter()
        _pass(model, ids_BL)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _pass(model: HyenaDNA, ids_BL: Tensor) -> None:
    model(ids_BL).logits[0, 0, 0].item()  # reading a number waits until the device is done
