"""Hyena against attention: `python -m benchmarks.transformer [--quick]`; the paper's runtime figure.

Both models have width 128 and two layers; the transformer is pre-norm and causal, with torch's own
scaled_dot_product_attention. Passes have 32,768 tokens up to that length, and one sequence beyond.
"""

import argparse
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.engine import Factory, bases, forward, train
from benchmarks.processes import Timing, Work, interleave
from benchmarks.results import ROOT, table, write_section
from hyenacli.evaluation.figures import BLUE, RED
from hyenadna import HyenaConfig

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, LAYERS, HEADS, TOKENS = 128, 2, 8, 32_768
LENGTHS = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072]
LONGEST_ATTENTION = 32_768
PICTURE = ROOT / "docs" / "runtime.png"
MODES = {"forward": "Forward", "train": "Forward and backward"}


class Attention(nn.Module):
    """Causal multi-head attention and MLP of one block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        q, k, v = (
            t.unflatten(2, (HEADS, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x_BLD)).chunk(3, dim=2)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BLD = x_BLD + self.out(mixed.transpose(1, 2).flatten(2))
        fed_BLD: Tensor = self.fc2(functional.gelu(self.fc1(self.norm2(x_BLD)), approximate="tanh"))
        return x_BLD + fed_BLD


class Transformer(nn.Module):
    """Embedding, blocks, norm, tied head; no positions, which would only add to its time."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, WIDTH)
        self.blocks = nn.Sequential(*(Attention() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Logits (B, L, 16)."""
        return functional.linear(self.norm(self.blocks(self.embedding(ids_BL))), self.embedding.weight)


def attention(length: int, *, mode: str) -> Work:
    """A pass of the transformer."""
    model, ids = Transformer(), bases(max(1, TOKENS // length), length + 1)
    inputs, targets = ids[:, :-1], ids[:, 1:].flatten()

    def work() -> None:
        if mode == "forward":
            with torch.inference_mode():
                model(inputs)
            return
        model.zero_grad()
        loss = functional.cross_entropy(model(inputs).flatten(0, 1), targets)
        loss.backward()  # type: ignore[no-untyped-call]

    return work


def hyena(length: int, *, mode: str) -> Work:
    """The same pass of a Hyena model."""
    config = HyenaConfig(WIDTH, LAYERS, 4 * WIDTH, length + 2)
    make: Callable[..., Work] = forward if mode == "forward" else train
    return make(config, max(1, TOKENS // length), length, plain=False)


CASES: dict[str, dict[str, Factory]] = {
    f"{mode} {length}": {
        "hyena": partial(hyena, length, mode=mode),
        "attention": partial(attention, length, mode=mode),
    }
    for mode in MODES
    for length in LENGTHS
}


def measure(lengths: list[int], rounds: int) -> dict[tuple[str, int, str], float]:
    """Seconds per sequence by mode, length and model; attention where it is not too long for it."""
    found = {}
    for mode in MODES:
        for length in lengths:
            paths = ["hyena", "attention"] if length <= LONGEST_ATTENTION else ["hyena"]
            turns = 1 if length >= LONGEST_ATTENTION else rounds
            timings: dict[str, Timing] = interleave(
                "benchmarks.transformer", f"{mode} {length}", paths, rounds=turns, calls=2
            )
            for path, timing in timings.items():
                found[mode, length, path] = timing.median / max(1, TOKENS // length)
    return found


def extrapolate(found: dict[tuple[str, int, str], float], mode: str, length: int) -> float:
    """Seconds of attention at a length not measured.

    The linear and the quadratic share are those of the two longest measured lengths.
    """
    measured = sorted(n for m, n, path in found if (m, path) == (mode, "attention"))
    a, b = measured[-2:]
    slope_a, slope_b = (found[mode, n, "attention"] / n for n in (a, b))
    quadratic = (slope_b - slope_a) / (b - a)
    return length * (slope_b + quadratic * (length - b))


def rows(found: dict[tuple[str, int, str], float]) -> list[list[str]]:
    """Lines of the table."""
    lines = []
    for mode, length in dict.fromkeys((mode, length) for mode, length, _ in found):
        ours, theirs = found[mode, length, "hyena"], found.get((mode, length, "attention"))
        guess = extrapolate(found, mode, length)
        shown = f"{theirs:.3g}" if theirs else f"({guess:.3g}, extrapolated)"
        ratio = f"**{theirs / ours:.1f}**" if theirs else f"({guess / ours:.0f})"
        lines.append([MODES[mode], f"{length:,}", f"{ours:.3g}", shown, ratio])
    return lines


def draw(found: dict[tuple[str, int, str], float]) -> None:
    """The figure: seconds per sequence against its length."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True)
    for panel, (mode, title) in zip(panels, MODES.items(), strict=True):
        measured = {p: [(n, s) for (m, n, q), s in found.items() if (m, q) == (mode, p)] for p in LINES}
        for path, (color, style, label) in LINES.items():
            panel.plot(*zip(*measured[path], strict=True), style, color=color, label=label, lw=2, ms=5)
        last = measured["attention"][-1]
        rest = [last] + [(n, extrapolate(found, mode, n)) for n, _ in measured["hyena"] if n > last[0]]
        panel.plot(*zip(*rest, strict=True), "--", color=RED, label="extrapolated")
        lengths = [n for n, _ in measured["hyena"]]
        panel.set(xscale="log", yscale="log", title=title, xlabel="sequence length, tokens")
        panel.set_xticks(lengths, [f"{n // 1024}k" for n in lengths], minor=False)
        panel.minorticks_off()
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"seconds per sequence, {torch.get_num_threads()} CPU threads")
    panels[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=90)
    print(f"drew {PICTURE}")


LINES = {"hyena": (BLUE, "o-", "Hyena"), "attention": (RED, "s-", "transformer (SDPA)")}
TEXT = """\
Seconds per sequence, width 128, two layers, medians, the two models taking turns in processes of their own
(three turns of two calls below 32,768 tokens, one from there on). The transformer is causal and pre-norm,
with torch's scaled_dot_product_attention; beyond 32,768 tokens its time is extrapolated by the linear and
the quadratic share of its last two measured lengths, and marked so.

![Runtime against length](../docs/runtime.png)"""


def main() -> None:
    """Measure, draw, print and write RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short lengths only, nothing written or drawn")
    quick = parser.parse_args().quick
    found = measure(LENGTHS[:3] if quick else LENGTHS, 1 if quick else 3)
    text = table(("pass", "length", "Hyena s", "transformer s", "transformer / Hyena"), rows(found))
    if quick:
        print(text)
        return
    draw(found)
    write_section("transformer", f"## Against a transformer (`make bench`)\n\n{TEXT}\n\n{text}")


if __name__ == "__main__":
    main()
