"""The plain model against the fast one: `python -m benchmarks.engine [options] [CASE...]`.

With `--base`, the source tree of another version takes its turns too. The plain model (`HyenaDNA.plain`)
makes the same arithmetic as the published code, in the same order.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.processes import Timing, Work, interleave
from benchmarks.results import table, write_section
from hyenadna import Decoder, HyenaConfig, HyenaDNA, preset
from hyenadna.engine.convolution import partition
from hyenadna.engine.tiling import tiling
from hyenadna.engine.training import next_token_loss

Factory = Callable[[], Work]
PROMPT, NEW = 16_384, 1000
_KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
"""Settings of glibc's malloc: no mapping for a single tensor, nothing back to the system."""


def bases(batch: int, length: int) -> Tensor:
    """Random A, C, G and T."""
    return torch.randint(7, 11, (batch, length), generator=torch.Generator().manual_seed(0))


def fresh(config: HyenaConfig) -> HyenaDNA:
    """A model with fresh weights."""
    return HyenaDNA(config, generator=torch.Generator().manual_seed(0))


def forward(config: HyenaConfig, batch: int, length: int, *, plain: bool) -> Work:
    """Inference, logits included."""
    model, ids = fresh(config).eval(), bases(batch, length)

    def work() -> None:
        with torch.inference_mode():
            (model.plain if plain else model)(ids)

    return work


def train(config: HyenaConfig, batch: int, length: int, *, plain: bool, checkpointing: bool = False) -> Work:
    """Loss and gradients of every parameter."""
    model, ids = fresh(config).train(), bases(batch, length + 1)
    model.backbone.activation_checkpointing = checkpointing
    inputs, targets = ids[:, :-1], ids[:, 1:].contiguous()

    def work() -> None:
        model.zero_grad()
        if plain:
            logits = model.plain(inputs).logits.flatten(0, 1)
            loss = functional.cross_entropy(logits, targets.flatten(), reduction="sum")
        else:
            loss = next_token_loss(model, inputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]

    return work


def products(config: HyenaConfig, batch: int, length: int) -> Work:
    """The matrix products of a forward pass and nothing else, in slices as the engine makes them."""
    d, n = config.d_model, tiling(config.d_model, torch.device("cpu")).tokens
    shapes = [(d, 3 * d), (d, d), (d, config.d_inner), (config.d_inner, d)]
    pairs = [(torch.randn(n, a), torch.randn(a, b), torch.empty(n, b)) for a, b in shapes]
    slices = config.n_layer * batch * length // n

    def work() -> None:
        for _ in range(slices):
            for x, w, out in pairs:
                torch.mm(x, w, out=out)

    return work


def transforms(config: HyenaConfig, batch: int, length: int) -> Work:
    """One transform of every sequence of a forward pass and one back, and nothing else."""
    sizes = tiling(config.d_model, torch.device("cpu"))
    part = partition(length, sizes)
    groups = list(sizes.channel_groups(config.d_model, batch * length))
    x = torch.randn(groups[0].stop, batch, part.n_fft)
    spectrum = torch.fft.rfft(x)

    def work() -> None:
        for _ in range(config.n_layer * len(groups) * part.parts):
            torch.fft.rfft(x, out=spectrum)
            torch.fft.irfft(spectrum, n=part.n_fft, out=x)

    return work


def generate(*, plain: bool) -> Work:
    """A thousand tokens after a prompt; plain: one full pass of a length between first and last."""
    model, ids = fresh(preset("small-32k")).eval(), bases(1, PROMPT + NEW // 2)

    def work() -> None:
        if plain:
            with torch.inference_mode():
                model.plain(ids)
            return
        decoder = Decoder(model, ids[:, :PROMPT], NEW)
        for _ in range(NEW):
            decoder.append(decoder.logits_BV[:, 7:11].argmax(-1) + 7)

    return work


def one_thread(work: Factory) -> Work:
    """Work of a single thread, as small passes are compared."""
    torch.set_num_threads(1)
    return work()


def _small_cases() -> dict[str, dict[str, Factory]]:
    config = preset("tiny-1k")
    cases: dict[str, dict[str, Factory]] = {}
    for batch, length in ((1, 128), (2, 256), (8, 256), (4, 1024), (8, 1024)):
        for kind, make in (("forward", forward), ("training step", train)):
            name = f"small {kind}, tiny-1k, {batch} x {length:,}, one thread"
            cases[name] = {
                path: partial(one_thread, partial(make, config, batch, length, plain=path == "plain"))
                for path in ("plain", "fast")
            }
    return cases


def _forward_case(name: str, batch: int, length: int) -> dict[str, Factory]:
    config = preset(name)
    plain: dict[str, Factory] = {}
    if length < 1_000_000:
        plain["plain"] = partial(forward, config, batch, length, plain=True)
    return plain | {
        "fast": partial(forward, config, batch, length, plain=False),
        "products": partial(products, config, batch, length),
        "transforms": partial(transforms, config, batch, length),
    }


def _train_case(d_model: int, n_layer: int, batch: int, length: int) -> dict[str, Factory]:
    config = HyenaConfig(d_model, n_layer, 4 * d_model, length + 2)
    return {path: partial(train, config, batch, length, plain=path == "plain") for path in ("plain", "fast")}


LONG = HyenaConfig(256, 8, 1024, 131_074)
CASES: dict[str, dict[str, Factory]] = {
    "forward, tiny-1k, 32 x 1,024": _forward_case("tiny-1k", 32, 1024),
    "forward, small-32k, 32,768": _forward_case("small-32k", 1, 32_768),
    "forward, small-32k, 32,770": _forward_case("small-32k", 1, 32_770),
    "forward, medium-160k, 160,002": _forward_case("medium-160k", 1, 160_002),
    "forward, large-1m, 1,000,002": _forward_case("large-1m", 1, 1_000_002),
    "training step, tiny-1k, 32 x 1,024": _train_case(128, 2, 32, 1024),
    "training step, width 128 x 2 layers, 131,072": _train_case(128, 2, 1, 131_072),
    "training step, width 256 x 8 layers, 131,072, checkpointing": {
        "fast": partial(train, LONG, 1, 131_072, plain=False, checkpointing=True)
    },
    "generation, small-32k, 1,000 tokens after 16,384": {
        path: partial(generate, plain=path == "plain") for path in ("plain", "fast")
    },
    **_small_cases(),
}
for paths in CASES.values():
    paths["base"] = paths["fast"]
# Rounds and timed calls a round; the quick run has the cases of under a minute only.
LARGE = [(5, 5), (4, 2), (4, 2), (2, 1), (1, 1), (5, 3), (3, 1), (1, 1), (4, 1)]
PLAN = dict(zip(CASES, LARGE + [(3, 9)] * (len(CASES) - len(LARGE)), strict=True))
QUICK = [
    name for name in CASES if name.startswith(("forward, tiny", "forward, small", "training step, tiny"))
]


def row(name: str, timings: dict[str, Timing]) -> list[str]:
    """A line of the table."""
    plain, fast, base = timings.get("plain"), timings["fast"], timings.get("base")
    times = NEW if name.startswith("generation") else 1
    ratio = f"**{plain.median * times / fast.median:,.1f}**" if plain else "-"
    memory = f"{fast.peak / plain.peak:.2f}" if plain else "-"
    bare = [timings[path].median for path in ("products", "transforms") if path in timings]
    floor = f"{sum(bare):.3g} ({' + '.join(f'{s:.2g}' for s in bare)})" if bare else "-"
    above = f"{fast.median / sum(bare):.2f}" if bare else "-"
    shown = f"{times:,} x {plain}" if plain and times > 1 else str(plain or "-")
    against = [str(base), f"**{base.median / fast.median:.2f}**"] if base else ["-", "-"]
    return [
        name,
        shown,
        str(fast),
        ratio,
        plain.gib if plain else "-",
        fast.gib,
        memory,
        floor,
        above,
        *against,
    ]


HEADER = (
    "case",
    "plain s",
    "fast s",
    "plain / fast",
    "plain GiB",
    "fast GiB",
    "fast / plain",
    "floor s (products + transforms)",
    "fast / floor",
    "base s",
    "base / fast",
)
TEXT = """\
Seconds are medians (least-most) of the timed calls of all rounds. The paths take turns, each turn in a
fresh process, whose peak memory (interpreter and torch, 0.2 GiB, included) is given; cases of more than a
few seconds have no call before the timed one. *plain* is `HyenaDNA.plain`: the same arithmetic in the same
order as the published code, which for lengths of a context plus two, as the published models have, means
transforms of lengths with large prime factors; 32,768 has none. A training step is loss and gradients,
without the optimizer. *floor* is the bare cost of the matrix products and of one transform there and back
of every sequence, in pieces of the engine's sizes. Generation is compared with 1,000 full plain passes, of
which one of average length is timed. *base* is the fast path of another version, where one is named
(`make bench BASE=FOLDER`). Small passes are those of one thread in a process whose memory is warm."""


def main() -> None:
    """Measure, print and write RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="beginnings of names; default all")
    parser.add_argument(
        "--quick", action="store_true", help="three cases, one round, nothing written (a minute; all: 20)"
    )
    parser.add_argument("--base", metavar="FOLDER", help="source tree of another version to compare with")
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="let all processes keep what they free, instead of giving it back to the system (glibc)",
    )
    given = parser.parse_args()
    if given.keep_memory:
        os.environ.update(_KEEP_MEMORY)
    chosen = (
        QUICK if given.quick else [n for n in CASES if not given.cases or n.startswith(tuple(given.cases))]
    )
    rows = []
    for name in chosen:
        rounds, calls = (1, 2) if given.quick else PLAN[name]
        paths = [path for path in CASES[name] if path != "base" or given.base]
        timings = interleave("benchmarks.engine", name, paths, rounds=rounds, calls=calls, base=given.base)
        rows.append(row(name, timings))
    text = f"## Engine (`make bench`)\n\n{TEXT}\n\n{table(HEADER, rows)}"
    if given.quick or given.cases or given.keep_memory:
        print(text)
    else:
        write_section("engine", text)


if __name__ == "__main__":
    main()
