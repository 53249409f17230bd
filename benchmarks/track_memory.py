"""Memory of `hyena track` on contigs of growing length, whole and without the genome, which is mapped.

The model is as small as can be, since memory, not time, is measured; the bases are random.

Usage: python -m benchmarks.track_memory [MEGABASES ...]
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.results import table
from hyenadna import HyenaConfig, HyenaDNA, save_model

LINE = 100_000


def write_contig(path: Path, length: int) -> None:
    """Write one contig of random bases."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(b">chr1\n")
        for _ in range(length // LINE):
            file.write(rng.choice(np.frombuffer(b"ACGT", np.uint8), LINE).tobytes() + b"\n")


def measure(megabases: str) -> None:
    """Print seconds and MiB for a contig; called in a process of its own, so that the peak is its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_contig(folder / "genome.fa", int(float(megabases) * 1e6))
        config = HyenaConfig(d_model=8, n_layer=1, d_inner=8, l_max=8194)
        save_model(HyenaDNA(config), folder / "model")
        inputs = ("--all", "-f", folder / "genome.fa", "-m", folder / "model", "-o", folder / "out.bw")
        how = ("--strand", "forward", "--context", 64, "-b", 8, "--threads", 1, "-q")
        command = [sys.executable, "-m", "hyenacli", "track", *map(str, (*inputs, *how))]
        start = time.perf_counter()
        process = subprocess.Popen(command, env=os.environ | {"HYENA_CACHE": str(folder / "cache")})
        own = 0
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if found := re.search(r"RssAnon:\s+(\d+) kB", status):
                own = max(own, int(found[1]))
            time.sleep(0.2)
        seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(process.returncode)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{seconds:.0f} {peak / 1024:.0f} {own / 1024:.0f}")


def main(lengths: list[str]) -> None:
    """Print a row for each length."""
    rows = []
    for megabases in lengths:
        command = [sys.executable, "-m", "benchmarks.track_memory", "--one", megabases]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        rows.append((megabases, *answer))
        print(rows[-1], file=sys.stderr)
    print(table(("Mb", "seconds", "MiB, peak", "MiB, peak of its own pages"), rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(sys.argv[2])
    else:
        main(sys.argv[1:] or ["3", "30", "100"])
