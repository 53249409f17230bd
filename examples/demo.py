"""A whole run on made-up data: write a genome, pretrain on it, embed its regions, score its variants.

The genome is random, with four kinds of region of equal base composition, so that only the order of the bases
can tell them apart:

- coding: codon positions with preferences of their own, in phase over the whole region;
- motifs: one of three 12-base words planted every 25 bases;
- repeat: a copy of one 400-base element, one base in ten changed;
- background: independent bases.

Regions of a kind should lie together, and a substitution should be unexpected where the bases follow a rule.

Usage: python examples/demo.py OUTPUT_FOLDER
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from hyenacli.app import app
from hyenacli.readers.genome import Genome
from hyenadna import HyenaDNA, load_model, save_model

BASES = np.frombuffer(b"ACGT", np.uint8)
KINDS = ("background", "coding", "motifs", "repeat")
COLORS = ("#888888", "#0072b2", "#d55e00", "#222222")  # the colour-blind can tell them apart
LENGTH, GAP = 400, 200
CONTIGS = {"train1": 600, "train2": 600, "heldout": 400}
OTHER = {f"other{number}": 60_000 for number in range(6)}
HELD_OUT = "heldout"
VARIANTS = 240
SEED = 7
# Share of A, C, G and T at each codon position; over the three, every base has a quarter.
CODON_SHARES = ((0.70, 0.10, 0.10, 0.10), (0.02, 0.48, 0.48, 0.02), (0.03, 0.17, 0.17, 0.63))

Features = NDArray[np.floating]
Labels = NDArray[np.str_]


def draw_words(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the words of the kind motifs, a row each, as ASCII bases."""
    return np.stack([rng.permutation(np.repeat(BASES, 3)) for _ in range(3)])


def write_genome(folder: Path, seed: int = SEED) -> None:
    """Write genome.fa, regions.bed (names: a kind and a number) and kinds.bed (names: a kind)."""
    rng = np.random.default_rng(seed)
    words = draw_words(rng)
    element = rng.permutation(np.repeat(BASES, LENGTH // 4))
    with (
        (folder / "genome.fa").open("w") as fasta,
        (folder / "regions.bed").open("w") as bed,
        (folder / "kinds.bed").open("w") as kinds,
    ):
        for contig, count in CONTIGS.items():
            parts: list[NDArray[np.uint8]] = []
            for number in range(count):
                kind = KINDS[rng.integers(len(KINDS))]
                parts += [rng.choice(BASES, GAP), region(kind, rng, words, element)]
                end = (number + 1) * (GAP + LENGTH)
                bed.write(f"{contig}\t{end - LENGTH}\t{end}\t{kind}-{number}\n")
                kinds.write(f"{contig}\t{end - LENGTH}\t{end}\t{kind}\n")
            text = np.concatenate(parts).tobytes().decode()
            fasta.write(f">{contig}\n" + "".join(f"{text[i : i + 80]}\n" for i in range(0, len(text), 80)))


def write_other(folder: Path, seed: int = 9) -> None:
    """Write other.fa: a second species, richer in G and C."""
    rng = np.random.default_rng(seed)
    with (folder / "other.fa").open("w") as fasta:
        for contig, length in OTHER.items():
            text = rng.choice(BASES, length, p=[0.2, 0.3, 0.3, 0.2]).tobytes().decode()
            fasta.write(f">{contig}\n{text}\n")


def write_variants(folder: Path, seed: int = 8) -> None:
    """Write variants.vcf: substitutions in regions of the held-out contig, each with the name of its own."""
    rng = np.random.default_rng(seed)
    rows = [line.split("\t") for line in (folder / "regions.bed").read_text().splitlines()]
    held = [row for row in rows if row[0] == HELD_OUT]
    with Genome(folder / "genome.fa") as genome, (folder / "variants.vcf").open("w") as vcf:
        vcf.write(f"##fileformat=VCFv4.2\n##contig=<ID={HELD_OUT},length={genome.lengths[HELD_OUT]}>\n")
        vcf.write("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for i in sorted(rng.choice(len(held), min(VARIANTS, len(held)), replace=False)):
            contig, start, _, name = held[i]
            position = int(start) + int(rng.integers(LENGTH // 2, LENGTH))
            ref = genome.fetch(contig, position, position + 1).decode()
            alt = rng.choice([base for base in "ACGT" if base != ref])
            vcf.write(f"{contig}\t{position + 1}\t{name}\t{ref}\t{alt}\t.\t.\t.\n")


def region(
    kind: str, rng: np.random.Generator, words: NDArray[np.uint8], element: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """One region of a kind as (LENGTH,) ASCII bases."""
    sequence = rng.choice(BASES, LENGTH)
    if kind == "coding":
        for phase, shares in enumerate(CODON_SHARES):
            sequence[phase::3] = rng.choice(BASES, len(sequence[phase::3]), p=shares)
    elif kind == "motifs":
        for start in range(int(rng.integers(25)), LENGTH - words.shape[1], 25):
            sequence[start : start + words.shape[1]] = words[rng.integers(len(words))]
    elif kind == "repeat":
        kept = rng.random(LENGTH) < 0.9
        sequence[kept] = element[kept]
    return sequence


def hyena(*arguments: object) -> None:
    """Run a command, showing what a user would type; in this process, which has imported torch already."""
    print(f"\n$ hyena {' '.join(map(str, arguments))}", flush=True)
    sys.argv = ["hyena", *map(str, arguments)]  # what reports name as the command
    try:
        app(prog_name="hyena")
    except SystemExit as end:
        if end.code:
            raise


def composition(genome: Path, contigs: Sequence[str], starts: Sequence[int]) -> Features:
    """Share of each base in every region (regions, 4)."""
    with Genome(genome) as bases:
        regions = [bases.fetch(c, int(s), int(s) + LENGTH) for c, s in zip(contigs, starts, strict=True)]
    return np.array([[text.count(base.tobytes()) / LENGTH for base in BASES] for text in regions])


def probe(features: Features, kinds: Labels, held: NDArray[np.bool_]) -> float:
    """Accuracy on held-out regions of the nearest class centroid of the others."""
    scaled = (features - features[~held].mean(axis=0)) / (features[~held].std(axis=0) + 1e-9)
    centroids = np.stack([scaled[~held][kinds[~held] == kind].mean(axis=0) for kind in KINDS])
    distances = ((scaled[held][:, None] - centroids[None]) ** 2).sum(axis=2)
    return float((np.array(KINDS)[distances.argmin(axis=1)] == kinds[held]).mean())


def effects(path: Path) -> Table:
    """What a table of scored variants says of each kind of region."""
    header, *lines = (line.split("\t") for line in path.read_text().splitlines())
    place = header.index("HYENA_LLR")
    table = Table(title="Substitutions on the held-out contig: log p(ALT) - log p(REF), nats")
    for name in ("in", "median", "ALT less likely"):
        table.add_column(name, justify="left" if name == "in" else "right")
    for kind in KINDS:
        found = np.array([float(line[place]) for line in lines if line[2].startswith(kind)])
        table.add_row(kind, f"{np.median(found):+.2f}", f"{(found < 0).mean():.0%} of {len(found)}")
    return table


def draw(path: Path, before: Features, after: Features, kinds: Labels) -> None:
    """The first two principal components of the regions, before and after pretraining."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for panel, features, title in zip(panels, (before, after), ("untrained", "pretrained"), strict=True):
        centred = features - features.mean(axis=0)
        _, spread, axes = np.linalg.svd(centred, full_matrices=False)
        share = spread**2 / (spread**2).sum()
        points = centred @ axes[:2].T
        for kind, color in zip(KINDS, COLORS, strict=True):
            panel.scatter(*points[kinds == kind].T, s=9, color=color, label=kind, alpha=0.7)
        panel.set(title=title, xlabel=f"PC 1 ({share[0]:.0%})", ylabel=f"PC 2 ({share[1]:.0%})")
    panels[0].legend(frameon=False, markerscale=2)
    figure.suptitle("Regions of a held-out contig, mean embedding")
    figure.savefig(path, dpi=110)


def main(out: Path) -> None:
    """Run it all in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    print(f"Writing a made-up genome of {sum(CONTIGS.values()) * (LENGTH + GAP):,} bases to {out}")
    write_genome(out)
    write_other(out)
    write_variants(out)
    genome, regions, run = out / "genome.fa", out / "regions.bed", out / "run"
    sizes = ("--preset", "tiny-1k", "--d-model", 64, "--max-length", 256)
    steps = ("--max-steps", 700, "--global-batch-size", 16, "--micro-batch-size", 16, "--lr", 3e-3)
    hyena("pretrain", genome, "-o", run, *sizes, *steps, "--valid-contigs", HELD_OUT, "--force")
    fresh = HyenaDNA(load_model(run).config, generator=torch.Generator().manual_seed(0))
    save_model(fresh, out / "untrained")
    tables = {}
    for model in ("run", "untrained"):
        hyena("embed", regions, "-f", genome, "-m", out / model, "-o", out / f"{model}.npz")
        tables[model] = np.load(out / f"{model}.npz")
    hyena("score-variants", out / "variants.vcf", "-f", genome, "-m", run, "-o", out / "variants.tsv")
    rows = tables["run"]
    kinds = np.array([name.split("-")[0] for name in rows["id"]])
    held = rows["chrom"] == HELD_OUT
    table = Table(title=f"Kind of {held.sum()} held-out regions, by the nearest centroid of the others")
    table.add_column("from")
    table.add_column("right", justify="right")
    for name, features in {
        "chance": None,
        "base composition": composition(genome, rows["chrom"], rows["start"]),
        "embedding, untrained model": tables["untrained"]["embedding"],
        "embedding, pretrained model": rows["embedding"],
    }.items():
        share = 1 / len(KINDS) if features is None else probe(features, kinds, held)
        table.add_row(name, f"{share:.1%}", "█" * round(30 * share))
    picture = out / "regions_pca.png"
    draw(picture, tables["untrained"]["embedding"][held], rows["embedding"][held], kinds[held])
    Console().print("", table, "", effects(out / "variants.tsv"))
    start = int(rows["start"][held & (kinds == "repeat")][0])
    region = ("-r", f"{HELD_OUT}:{start + 1}-{start + 120}", "-f", genome, "-m", run, "-q")
    hyena("dependency-map", *region, "-o", out / "map.npz", "--plot", out / "map")
    hyena("generate", *region, "--length", 60, "-o", out / "generated.fa")
    generated = (out / "generated.fa").read_text().splitlines()
    print(f"\n60 bases that the model writes after a repeat of the held-out contig:\n{generated[-1]}")
    print(f"\nPicture: {picture}\nMap of which bases depend on which: {out / 'map'}")
    print(f"Report:  {run / 'report.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
