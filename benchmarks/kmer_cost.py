"""Time that the k-mer model adds to a fine-tuning: its fit, its outputs, joining and the verdict.

Run as `python -m benchmarks.kmer_cost FOLDER` with OMP_NUM_THREADS=1; FOLDER has the labelled sets as
`NAME_{train,dev,test}.csv.gz`. The network's outputs are random: joining takes the same steps for any.
"""

import csv
import gzip
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from hyenacli.evaluation.calibration import probabilities
from hyenacli.evaluation.joining import NETWORK, fit_joint
from hyenacli.evaluation.kmers import fit_kmers
from hyenacli.evaluation.metrics import paired_difference

SETS = ("gue_mouse2", "gue_prom_300_tata")
RECORDS = 3_000


def read(path: Path) -> tuple[list[bytes], np.ndarray]:
    """Read sequences and classes of at most 3,000 records."""
    with gzip.open(path, "rt") as stream:
        rows = [row for row, _ in zip(csv.DictReader(stream), range(RECORDS), strict=False)]
    return [row["sequence"].upper().encode() for row in rows], np.array([int(row["label"]) for row in rows])


def main() -> None:
    """Print CPU seconds of each step, for each set."""
    folder = Path(sys.argv[1])
    print("| set | records | bases | fit | outputs | join | verdict | CPU seconds together |")
    for name in SETS:
        train, valid, test = (read(folder / f"{name}_{split}.csv.gz") for split in ("train", "dev", "test"))
        clock = [time.process_time()]
        model = fit_kmers(*train, "binary", valid=valid)
        clock.append(time.process_time())
        outputs = [model.outputs(sequences) for sequences, _ in (train, valid, test)]
        clock.append(time.process_time())
        random = np.random.default_rng(0)
        network = [random.normal(size=values[0].shape) for values in outputs]
        parts = {NETWORK: network[1][None], "kmers": outputs[1]}
        fit_joint("binary", parts, valid[1], [(NETWORK,), ("kmers",), (NETWORK, "kmers")])
        clock.append(time.process_time())
        kmers, random_model = (probabilities("binary", values) for values in (outputs[2][0], network[2]))
        paired_difference("binary", test[1], kmers, random_model)
        clock.append(time.process_time())
        seconds = [f"{second - first:.1f}" for first, second in pairwise(clock)]
        numbers = [name, f"{len(train[0]):,}", str(len(train[0][0])), *seconds, f"{clock[-1] - clock[0]:.1f}"]
        print(f"| {' | '.join(numbers)} |")


if __name__ == "__main__":
    main()
