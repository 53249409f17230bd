"""A whole run on made-up data: write a genome, pretrain on it, embed its regions, see whether they separate.

The genome is random, with four kinds of region whose base composition is the same, so that only their order of
bases can tell them apart:

- coding: codon positions with preferences of their own, in phase over the whole region;
- motifs: one of three 10-base words planted every 25 bases or so;
- repeat: a copy of one 400-base element, one base in ten changed;
- background: independent bases.

Usage: python examples/demo.py OUTPUT_FOLDER
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BASES = np.frombuffer(b"ACGT", np.uint8)
KINDS = ("coding", "motifs", "repeat", "background")
LENGTH = 400
GAP = 200
REGIONS = {"train1": 600, "train2": 600, "heldout": 400}
Sequence = NDArray[np.uint8]


def write_genome(folder: Path, seed: int = 7) -> None:
    """Write genome.fa and regions.bed; the name of a region is its kind."""
    rng = np.random.default_rng(seed)
    words = rng.choice(BASES, (3, 10))
    element = rng.choice(BASES, LENGTH)
    with (folder / "genome.fa").open("w") as fasta, (folder / "regions.bed").open("w") as bed:
        for contig, count in REGIONS.items():
            parts, position = [], 0
            for number in range(count):
                kind = KINDS[rng.integers(len(KINDS))]
                parts += [rng.choice(BASES, GAP), region(kind, rng, words, element)]
                start = position + GAP
                position = start + LENGTH
                bed.write(f"{contig}\t{start}\t{position}\t{kind}-{number}\n")
            text = np.concatenate(parts).tobytes().decode()
            fasta.write(f">{contig}\n" + "".join(f"{text[i : i + 80]}\n" for i in range(0, len(text), 80)))


def region(kind: str, rng: np.random.Generator, words: NDArray[np.uint8], element: Sequence) -> Sequence:
    """One region of a kind, (LENGTH,) ASCII bases; every kind has A, C, G and T in equal shares on average."""
    sequence = rng.choice(BASES, LENGTH)
    if kind == "coding":
        strong, weak = 0.40, 0.20
        preferences = ([strong, weak, weak, weak], [weak, strong, strong, weak], [weak, weak, weak, strong])
        for phase, p in enumerate(preferences):
            size = len(sequence[phase::3])
            sequence[phase::3] = rng.choice(BASES, size, p=np.array(p) / sum(p))
    elif kind == "motifs":
        for start in range(int(rng.integers(25)), LENGTH - 10, 25):
            sequence[start : start + 10] = words[rng.integers(len(words))]
    elif kind == "repeat":
        kept = rng.random(LENGTH) < 0.9
        sequence[kept] = element[kept]
    return sequence


def hyena(*arguments: object) -> None:
    """Run the installed command, showing what a user would type."""
    print(f"\n$ hyena {' '.join(map(str, arguments))}", flush=True)
    subprocess.run([sys.executable, "-m", "hyenacli", *map(str, arguments)], check=True)


def probe(train_x: NDArray[np.float64], train_y: list[str], test_x: NDArray[np.float64], test_y: list[str]) -> float:
    """Accuracy of the nearest class centroid, features scaled by the training regions' spread."""
    scale = train_x.std(axis=0) + 1e-9
    kinds = sorted(set(train_y))
    labels = np.array(train_y)
    centroids = np.stack([(train_x / scale)[labels == kind].mean(axis=0) for kind in kinds])
    distance = ((test_x / scale)[:, None] - centroids[None]) ** 2
    called = np.array(kinds)[distance.sum(axis=2).argmin(axis=1)]
    return float((called == np.array(test_y)).mean())


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    write_genome(out)
