"""Time to open a 2bit of 300 Mb as a genome, the first time and later, and to read it through.

python -m benchmarks.two_bit     (the file is made in a temporary folder, 75 MB)
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from hyenacli.readers.genome import Genome

_CONTIGS, _LENGTH = 3, 100_000_000
_MASKED, _PERIOD = 300, 600
"""Bases of a soft-masked block, and from the start of one to the next: half of a human genome is masked."""


def write_two_bit(path: Path) -> None:
    """Write contigs of random bases with soft-masked blocks, and N at both ends of each."""
    random = np.random.default_rng(0)
    starts = np.arange(0, _LENGTH - _MASKED, _PERIOD, dtype="<u4")
    masks = [len(starts), *starts.tolist(), *[_MASKED] * len(starts)]
    facts = [_LENGTH, 2, 0, _LENGTH - 10_000, 10_000, 10_000, *masks, 0]
    header = np.array(facts, "<u4").tobytes()
    names = [f"chr{i}".encode() for i in range(_CONTIGS)]
    first = 16 + sum(1 + len(name) + 4 for name in names)
    size = len(header) + _LENGTH // 4
    with path.open("wb") as out:
        out.write(np.array([0x1A412743, 0, _CONTIGS, 0], "<u4").tobytes())
        for i, name in enumerate(names):
            out.write(bytes([len(name)]) + name + np.array(first + i * size, "<u4").tobytes())
        for _ in names:
            out.write(header + random.bytes(_LENGTH // 4))


def main() -> None:
    """Print the seconds of each opening."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HYENA_CACHE"] = f"{folder}/cache"
        path = Path(folder) / "genome.2bit"
        write_two_bit(path)
        for opening in ("first", "second", "third"):
            start, cpu = time.perf_counter(), time.process_time()
            with Genome(path, codes_required=True) as genome:
                genome.fetch("chr1", 1_000_000, 1_001_000)
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
            print(f"{opening} opening: {wall:.2f} s, {cpu:.2f} s of CPU", flush=True)
        genome = Genome(path, codes_required=True)
        start, cpu = time.perf_counter(), time.process_time()
        masked = sum(contig.n_soft_masked for contig in genome.contigs)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(
            f"all {_CONTIGS * _LENGTH:,} bases checked, {masked:,} masked: {wall:.2f} s, {cpu:.2f} s of CPU"
        )


if __name__ == "__main__":
    main()
