"""Draw what `hyena track` and `hyena attribute` write of the demo: track.png and attribute.png.

- track.png: log p of every base of 6,000 held-out bases, over the kinds of region that the demo planted;
- attribute.png: the bases of a region with planted words, as high as their share in its likelihood.

Usage: python -m examples.pictures DEMO_OUTPUT FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from examples.demo import BASES, COLORS, HELD_OUT, KINDS, SEED, draw_words, hyena

TRACKED, SMOOTHED, LETTERS = 6_000, 25, 120
LETTER_COLORS = dict(zip("ACGT", ("#33cc77", "#0072b2", "#d55e00", "#222222"), strict=True))


def spans(folder: Path) -> list[tuple[int, int, str]]:
    """Start, end and kind of the regions of the held-out contig."""
    rows = (line.split("\t") for line in (folder / "regions.bed").read_text().splitlines())
    return [(int(row[1]), int(row[2]), row[3].split("-")[0]) for row in rows if row[0] == HELD_OUT]


def draw_track(folder: Path, path: Path) -> None:
    """Run `hyena track`, and draw the mean over neighbouring bases."""
    from matplotlib import pyplot as plt

    region = ("-r", f"{HELD_OUT}:1-{TRACKED}", "-f", folder / "genome.fa", "-m", folder / "run")
    hyena("track", *region, "-o", path.with_suffix(".npz"))
    with np.load(path.with_suffix(".npz")) as arrays:
        log_p = arrays["track_0"]
    figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
    colors = dict(zip(KINDS, COLORS, strict=True))
    for start, end, kind in spans(folder):
        if end <= TRACKED and kind != "background":
            axes.axvspan(start, end, color=colors[kind], alpha=0.2, lw=0)
            axes.text((start + end) / 2, 0.02, kind, ha="center", va="bottom", fontsize=8)
    mean = np.convolve(log_p, np.ones(SMOOTHED) / SMOOTHED, "same")
    axes.plot(mean, color="#222222", lw=0.8)
    axes.axhline(np.log(0.25), color="#888888", ls="--", lw=1)
    axes.text(4_200, -1.3, "guessing", va="bottom", fontsize=8)
    axes.set(xlim=(0, TRACKED), xlabel=f"position on the held-out contig, mean of {SMOOTHED} bases")
    axes.set(ylim=(-1.7, 0.15), ylabel="log p, nats")
    figure.savefig(path, dpi=90)


def draw_letters(axes: Any, sequence: str, heights: NDArray[np.floating[Any]]) -> None:
    """Draw letters of unit width, as high as their numbers."""
    from matplotlib.patches import PathPatch
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    for place, (letter, height) in enumerate(zip(sequence, heights, strict=True)):
        outline = TextPath((0, 0), letter, size=1)
        box = outline.get_extents()
        scaled = Affine2D().translate(-box.x0, -box.y0).scale(0.9 / box.width, height / box.height)
        shape = outline.transformed(scaled.translate(place, 0))
        axes.add_patch(PathPatch(shape, color=LETTER_COLORS[letter], lw=0))
    axes.set(xlim=(0, len(sequence)), ylim=(min(0, heights.min()), 1.15 * heights.max()))


def draw_attribution(folder: Path, path: Path) -> None:
    """Run `hyena attribute` on a region with planted words, and draw it with the words marked."""
    from matplotlib import pyplot as plt

    start = next(start for start, _, kind in spans(folder) if kind == "motifs")
    region = ("-r", f"{HELD_OUT}:{start + 1}-{start + LETTERS}", "-f", folder / "genome.fa")
    hyena("attribute", *region, "-m", folder / "run", "-o", path.with_suffix(".npz"))
    with np.load(path.with_suffix(".npz")) as arrays:
        one_hot, values = arrays["one_hot"][0], arrays["attributions"][0]
    sequence = "".join(BASES.tobytes().decode()[k] for k in one_hot.argmax(axis=0))
    figure, axes = plt.subplots(figsize=(11, 2.2), layout="constrained")
    draw_letters(axes, sequence, (one_hot * values).sum(axis=0))
    for word in draw_words(np.random.default_rng(SEED)):
        text = word.tobytes().decode()
        for place in range(len(sequence)):
            if sequence.startswith(text, place):
                axes.axvspan(place, place + len(text), color="#888888", alpha=0.2, lw=0)
    axes.set(xlabel="base of the region; planted words are grey", ylabel="nats")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    mpl.use("Agg")
    demo, pictures = Path(sys.argv[1]), Path(sys.argv[2])
    pictures.mkdir(parents=True, exist_ok=True)
    draw_track(demo, pictures / "track.png")
    draw_attribution(demo, pictures / "attribute.png")
