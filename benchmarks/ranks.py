"""Pretraining on one process and on two: `python -m benchmarks.ranks`."""

import csv
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import table, write_section

ROUNDS = 2
SETTLING = 1
SHORT = ("--max-length=1024", "--global-batch-size=32", "--micro-batch-size=8", "--max-steps=10")
LONG = (
    *("--preset=medium-160k", "--d-model=128", "--n-layer=2", "--max-length=131072"),
    *("--global-batch-size=1", "--micro-batch-size=1", "--max-steps=3"),
)
CASES = {
    "32 x 1,024: one process": (1, *SHORT),
    "32 x 1,024: two processes": (2, *SHORT),
    "1 x 131,072: one process": (1, *LONG),
    "1 x 131,072: two that share the window": (2, *LONG, "--context-parallel=2"),
}


def measure(genome: Path, processes: int, flags: tuple[str, ...]) -> tuple[float, float]:
    """Median seconds a step, and the peak memory of the largest process in GiB, of a run of its own."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "hyenacli", "pretrain", str(genome), "-o", f"{folder}/run", *flags]
        line += ["--threads=1", "--valid-fraction=0", "--device=cpu", "--activation-checkpointing=none", "-q"]
        line += [f"--nproc-per-node={processes}"] if processes > 1 else []
        subprocess.run(line, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        with Path(folder, "run", "metrics.csv").open() as stream:
            rows = [row for row in csv.DictReader(stream) if row["loss"]]
    ends = [0.0, *(float(row["seconds"]) for row in rows)]
    steps = [end - start for start, end in itertools.pairwise(ends)]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return statistics.median(steps[SETTLING:]), peak


def lines(found: dict[str, list[tuple[float, float]]]) -> list[list[str]]:
    """One row per case; the ratio is to the first case of the same windows."""
    first: dict[str, float] = {}
    rows = []
    for case, runs in found.items():
        windows, _, how = case.partition(": ")
        seconds = statistics.median(run[0] for run in runs)
        spread = f"{min(run[0] for run in runs):.3g}-{max(run[0] for run in runs):.3g}"
        ratio = first.setdefault(windows, seconds) / seconds
        peak = max(run[1] for run in runs)
        rows.append([windows, how, f"{seconds:.3g} ({spread})", f"**{ratio:.2f}**", f"{peak:.2f}"])
    return rows


def main() -> None:
    """Measure in turns, print and write RESULTS.md."""
    found: dict[str, list[tuple[float, float]]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as folder:
        genome = Path(folder) / "genome.fa"
        genome.write_text(">a\n" + "".join(np.random.default_rng(0).choice(list("ACGT"), 1_000_000)) + "\n")
        for _ in range(ROUNDS):
            for case, (processes, *flags) in CASES.items():
                # a process of its own, so that the peak is that of its children alone
                with get_context("spawn").Pool(1) as pool:
                    found[case].append(pool.apply(measure, (genome, processes, tuple(flags))))
    header: tuple[Any, ...] = (
        "windows a step",
        "on",
        "s a step (least-most)",
        "times as fast",
        "GiB a process",
    )
    text = (
        "## Several processes (`make bench`)\n\n"
        "`hyena pretrain` on random bases, width 128, 2 layers; one thread a process, gloo. Medians of "
        f"{ROUNDS} interleaved runs.\n\n"
    )
    write_section("ranks", text + table(header, lines(found)))


if __name__ == "__main__":
    main()
