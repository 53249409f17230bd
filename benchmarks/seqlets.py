"""Seqlets on planted words: how many words `hyena attribute --seqlets` finds, and how many seqlets are words.

The folder is what `make demo` leaves: regions named motifs have words of 12 bases in random sequence. With
HEAD, a `hyena finetune` run on its kinds.bed, the class motifs is attributed instead of the likelihood.

Usage: python -m benchmarks.seqlets DEMO_OUTPUT [HEAD]
"""

import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from benchmarks.results import table
from examples.demo import HELD_OUT, SEED, draw_words
from hyenacli.app import app
from hyenacli.readers.genome import Genome

REGIONS, LENGTH, FDR = 40, 250, 0.1
METHODS = ("gradient", "integrated")

Span = tuple[int, int]


def motif_regions(bed: Path) -> list[Span]:
    """Return the first bases of the first held-out regions that have words."""
    rows = [line.split("\t") for line in bed.read_text().splitlines()]
    starts = [int(row[1]) for row in rows if row[0] == HELD_OUT and row[3].startswith("motifs")]
    return [(start, start + LENGTH) for start in starts[:REGIONS]]


def planted_words(genome: Path, regions: list[Span]) -> list[Span]:
    """Return where whole words stand in regions of the held-out contig."""
    words = [row.tobytes().decode() for row in draw_words(np.random.default_rng(SEED))]
    with Genome(genome) as bases:
        texts = [(start, bases.fetch(HELD_OUT, start, end).decode()) for start, end in regions]
    found = ((start, match) for start, text in texts for match in re.finditer("|".join(words), text))
    return [(start + match.start(), start + match.end()) for start, match in found]


def overlapping(spans: list[Span], others: list[Span]) -> int:
    """Count the spans of which half the bases lie in one of the others, or half of one of those in them."""

    def meets(a: Span, b: Span) -> bool:
        return 2 * (min(a[1], b[1]) - max(a[0], b[0])) >= min(a[1] - a[0], b[1] - b[0])

    return sum(any(meets(span, other) for other in others) for span in spans)


def main(folder: Path, head: Path | None) -> None:
    """Print a row for each method."""
    regions = motif_regions(folder / "regions.bed")
    words = planted_words(folder / "genome.fa", regions)
    target = ("-m", folder / "run") if head is None else ("-m", head, "--target", "motifs")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        bed, seqlets = Path(name, "regions.bed"), Path(name, "seqlets.bed")
        bed.write_text("".join(f"{HELD_OUT}\t{start}\t{end}\n" for start, end in regions))
        inputs = ("attribute", bed, "-f", folder / "genome.fa", *target)
        for method in METHODS:
            outputs = ("-o", Path(name, "a.npz"), "--seqlets", seqlets, "--fdr", FDR, "-q")
            run = CliRunner().invoke(app, [*map(str, (*inputs, "--method", method, *outputs))])
            if run.exit_code:
                sys.exit(run.stderr)
            found = [(int(s), int(e)) for _, s, e, *_ in map(str.split, seqlets.read_text().splitlines())]
            right = overlapping(found, words) / len(found) if found else float("nan")
            recall = overlapping(words, found) / len(words)
            rows.append((method, f"{len(words)}", f"{len(found)}", f"{recall:.1%}", f"{right:.1%}"))
    print(table(("method", "words", "seqlets", "words found", "seqlets that are words"), rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
