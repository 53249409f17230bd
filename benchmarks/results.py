"""RESULTS.md: measured sections are replaced, everything else in it is written by hand."""

import datetime as dt
import os
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_section(name: str, text: str) -> None:
    """Put text, under a line that says on what machine it was measured, between a section's markers."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    body = f"{begin}\n{machine()}\n\n{text.strip()}\n{end}"
    old = RESULTS.read_text()
    new, found = re.subn(f"{begin}.*?{end}", lambda _: body, old, flags=re.DOTALL)
    RESULTS.write_text(new if found else f"{old.rstrip()}\n\n{body}\n")
    print(f"\n{machine()}\n\n{text.strip()}\n")


def machine() -> str:
    """Processor, cores, memory and versions, in one sentence."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, "
        f"{memory:.0f} GiB; Python {platform.python_version()}, torch {torch.__version__}; "
        f"{dt.datetime.now(tz=dt.UTC).date()}."
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()
