"""`hyena doctor`: hardware and versions of this machine, correctness of its results, and speed.

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
from hyenadna.checks import DeviceCheck, check_definition, self_test
from hyenadna.engine.products import library
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
    """Print each section when it is ready, or all as JSON; the exit code is 1 if a check failed.

    Tables are separated by blank lines; the last line names the precision to use on each device.

    Raises:
        UserError: this machine does not have the device of --device.
    """
    names = [settings.device] if settings.device else available_devices()
    devices = [resolve_device(name) for name in names]
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
    """Yield the sections of the report by name; append the checks to `checks`."""
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
    # bfloat16 is not timed on a CPU: without instructions for it, it takes many times as long.
    timed = [dtype for dtype in _trusted(str(device), checks) if dtype == "float32" or device.type != "cpu"]
    for dtype in timed:
        log.info("timing %s on %s", dtype, device)
        try:
            yield from (vars(speed) for speed in measure_speed(device, dtype))
        except (RuntimeError, MemoryError) as error:  # no memory, in most cases
            log.warning("%s cannot be timed on %s: %s", dtype, device, _first_line(error))


def _trusted(device: str, checks: Sequence[DeviceCheck]) -> dict[str, list[DeviceCheck]]:
    """Return the precisions without a failed check, best first, with their checks.

    If float64 or the definition fails, no precision is trusted: the error may be in all of them, below their
    bounds.
    """
    device_checks = [check for check in checks if check.device == device or check.check == "definition"]
    wrong = {check.dtype for check in device_checks if check.verdict == "FAIL"}
    right = [dtype for dtype in DTYPES if not wrong & {dtype, "float64"}]
    return {dtype: [check for check in device_checks if check.dtype == dtype] for dtype in right}


def advice(device: str, checks: Sequence[DeviceCheck]) -> str:
    """Return the advice for a device: which precision to use."""
    trusted = _trusted(device, checks)
    if not trusted:
        return f"nothing on {device}: its numbers are wrong"
    first, *others = trusted
    others_text = [f"; {dtype} {_errors(trusted[dtype])}" for dtype in others]
    return f"{first} on {device} (errors {_errors(trusted[first])}{''.join(others_text)})"


def _errors(checks: Sequence[DeviceCheck]) -> str:
    coarse = any(check.verdict == "WARN" for check in checks)
    return f"up to {max(check.error for check in checks):.0e}" + (", coarser than usual" if coarse else "")


def print_section(section: Section) -> None:
    """Print a section and a blank line."""
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
    """Return the versions of the tool and its dependencies, the platform, cores and threads."""
    return {
        "hyena": __version__,
        "python": platform.python_version(),
        "torch": f"{torch.__version__} ({_gpu_build() or 'CPU only'})",
        **{name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "float32 products": "{} ({})".format(*library()),
    }


def processors(devices: Iterable[torch.device]) -> list[Row]:
    """Return name, architecture, bfloat16 and memory (GiB) of each device; None if unknown."""
    describe = {"cpu": _cpu, "cuda": _cuda, "mps": _mps}
    rows = []
    for device in devices:
        try:
            facts, total = describe[device.type](device)
            sizes = {"free_gib": _gib(free_memory(device)), "total_gib": _gib(total)}
        except RuntimeError as error:  # a GPU that another process holds, or that is broken
            log.warning("%s cannot be used: %s", device, _first_line(error))
            facts, sizes = dict.fromkeys(("name", "architecture", "bfloat16")), {}
        rows.append({"device": str(device), **facts, "free_gib": None, "total_gib": None, **sizes})
    return rows


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def optional() -> list[Row]:
    """Return the optional parts, their versions on this machine, and their uses."""
    versions = {
        "torch for GPUs": (_gpu_build(), "used where there is a GPU"),
        "compiler for torch.compile": (_compilers(), "never used"),
        **{name: (_version(name), use) for name, use in _EXTRAS.items()},
    }
    return [
        {"optional": name, "found": version, "use": f"not needed; {use}"}
        for name, (version, use) in versions.items()
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpu_build() -> str | None:
    """Return the GPU platform this torch was built for; None for CPU only."""
    cuda, rocm = torch.version.cuda, torch.version.hip
    return f"CUDA {cuda}" if cuda else f"ROCm {rocm}" if rocm else None


def _cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _compilers() -> str | None:
    """Return the compilers torch.compile would call: C++ on a CPU, triton on a GPU; None without any."""
    cxx = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    paths = {cxx: shutil.which(cxx), "triton": importlib.util.find_spec("triton")}
    return ", ".join(name for name, path in paths.items() if path) or None


def _cpu(_device: torch.device) -> tuple[Row, int]:
    cpuinfo = _cpuinfo()
    flags = set(cpuinfo.get("flags", cpuinfo.get("Features", "")).split())
    name = cpuinfo.get("model name") or platform.processor() or platform.machine()
    bfloat16 = ("native" if flags & _BFLOAT16_FLAGS else "emulated") if flags else None
    facts: Row = {"name": name, "architecture": torch.backends.cpu.get_cpu_capability(), "bfloat16": bfloat16}
    return facts, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cuda(device: torch.device) -> tuple[Row, int]:
    properties = torch.cuda.get_device_properties(device)
    # torch.cuda.is_bf16_supported also counts emulation, and looks at the current device only
    bfloat16 = "native" if torch.version.hip or properties.major >= 8 else "emulated"
    facts: Row = {
        "name": properties.name,
        "architecture": f"sm_{properties.major}{properties.minor}",
        "bfloat16": bfloat16,
    }
    return facts, properties.total_memory


def _mps(device: torch.device) -> tuple[Row, int]:
    facts, total = _cpu(device)
    return {**facts, "architecture": "Metal", "bfloat16": None}, total


def _cpuinfo() -> dict[str, str]:
    """Read the entries of the first processor in /proc/cpuinfo; empty without that file."""
    if not CPUINFO.exists():
        return {}
    lines = CPUINFO.read_text().split("\n\n", maxsplit=1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _gib(n_bytes: int) -> float:
    return round(n_bytes / (1 << 30), 1)


@dataclass(frozen=True)
class Speed:
    """Tokens per second of inference with logits, after the filters were computed."""

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
    """Return the seconds of the fastest pass within about a second, after one that computes the filters."""
    _pass(model, ids_BL)
    taken: list[float] = []
    while sum(taken) < SECONDS_PER_CASE:
        start = time.perf_counter()
        _pass(model, ids_BL)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _pass(model: HyenaDNA, ids_BL: Tensor) -> None:
    model(ids_BL).logits[0, 0, 0].item()  # reading a number waits until the device is done
