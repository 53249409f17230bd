"""Speed of tracks and dependency maps, against what they are made of.

- a track beside a bare forward pass over the same bases and strands;
- a dependency map beside brute force: two full passes (both strands) for each substitution, over as many
  bases as the map reads. The ratio grows with the context, which brute force reads again for each
  substitution.

Run it as `python -m benchmarks.maps`.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from hyenacli.genome.region import Region
from hyenacli.inference.base_tracks import Tiles, base_tracks
from hyenacli.inference.dependency import MapOptions, dependency_maps
from hyenacli.readers.records import SequenceRecord
from hyenadna import HyenaConfig, HyenaDNA
from hyenadna.tokenizer import A, T

WINDOW, REGION, BASES, ROUNDS = 1024, 500, 14_336, 2
FLANKS = (0, 512, 7_692)


class RandomGenome:
    """A genome of one contig of random bases."""

    def __init__(self, length: int):
        rng = np.random.default_rng(0)
        self._bases = rng.choice(np.frombuffer(b"ACGT", np.uint8), length).tobytes()
        self.lengths, self.circular = {"chr1": length}, frozenset[str]()

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        """Return bases."""
        del contig
        return self._bases[start:end]


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@torch.inference_mode()
def forward(model: HyenaDNA, passes: int, length: int, batch: int) -> None:
    """Read so many batches of windows, without logits."""
    ids = torch.randint(A, T + 1, (batch, length))
    for _ in range(passes):
        model.hidden(ids)


def main() -> None:
    """Measure in turns, and print ratios of the least times."""
    config = HyenaConfig(d_model=128, n_layer=2, d_inner=512, l_max=16_386)
    model = HyenaDNA(config, generator=torch.Generator().manual_seed(0)).eval()
    genome, tiles = RandomGenome(BASES + 32_768), Tiles(WINDOW - WINDOW // 8, WINDOW // 8)
    pieces = list(tiles.pieces(Region("chr1", 0, BASES)))
    work: dict[str, Callable[[], object]] = {
        "track": lambda: list(base_tracks(model, genome, pieces, tiles, "mean")),
        "forward": lambda: forward(model, 2 * BASES // (14 * WINDOW), WINDOW, 14),
    }
    for flank in FLANKS:
        bases, left = genome.fetch("", 8_192 - flank, 8_192 + REGION + flank), flank
        record = SequenceRecord("x", "chr1", 8_192, 8_192 + REGION, bases=bases, left=left)
        work[f"map {flank}"] = lambda record=record: list(dependency_maps(model, [record], MapOptions()))  # type: ignore[misc]
        length = REGION + flank
        batch = max(1, 8_192 // length)
        work[f"passes {flank}"] = lambda n=length, b=batch: forward(model, 2, n, b)  # type: ignore[misc]
    least = dict.fromkeys(work, float("inf"))
    for _ in range(ROUNDS):
        for name, run in work.items():
            least[name] = min(least[name], seconds(run))
    ratio = least["track"] / least["forward"]
    print(f"track, both strands: {2 * BASES / least['track']:,.0f} bases/s, {ratio:.2f} times a bare pass")
    for flank in FLANKS:
        batch = max(1, 8_192 // (REGION + flank))
        brute = least[f"passes {flank}"] / (2 * batch) * 2 * 3 * REGION
        took = least[f"map {flank}"]
        print(f"map of {REGION} bases, flanks of {flank:,}: {took:.2f} s, {brute / took:.1f} times as fast")


if __name__ == "__main__":
    main()
