"""Speed of `hyena generate` and `hyena score-sequences`, as ratios: `python -m benchmarks.generation`.

A model of 4 layers of width 256 continues prompts of 1,024 bases by 500: one at a time and 32 together,
beside a full pass of the definition for every base, of the mean length. The same model scores sequences and
embeds them. The fastest run of each counts.
"""

import time
from collections.abc import Callable

import torch

from hyenacli.generate.constraints import Constraints
from hyenacli.generate.generation import GenerationOptions, generate
from hyenacli.inference.embedding import embed
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.likelihood import score_sequences
from hyenacli.readers.records import SequenceRecord
from hyenadna import HyenaConfig, HyenaDNA, Tokenizer

PROMPT, NEW, TOGETHER, ROUNDS = 1024, 500, 32, 2


def timed(work: Callable[[], object]) -> float:
    """Seconds that work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print tokens per second and ratios."""
    config = HyenaConfig(d_model=256, n_layer=4, d_inner=1024, l_max=2050)
    model = HyenaDNA(config, generator=torch.Generator().manual_seed(0)).eval()
    generator = torch.Generator().manual_seed(1)
    ids_NL = torch.randint(7, 11, (TOGETHER, PROMPT), generator=generator)
    prompts = [
        SequenceRecord.of_sequence(f"p{i}", Tokenizer().decode(ids_L).encode())
        for i, ids_L in enumerate(ids_NL)
    ]
    options = GenerationOptions(constraints=Constraints(length=NEW))
    one_strand = EmbeddingOptions()

    @torch.no_grad()
    def full_pass() -> None:
        model.plain(torch.cat([ids_NL[:1], ids_NL[1:2, : NEW // 2]], dim=1))

    works: dict[str, Callable[[], object]] = {
        "full pass": full_pass,
        "one prompt": lambda: list(generate(model, prompts[:1], options)),
        "32 prompts": lambda: list(generate(model, prompts, options)),
        "embed": lambda: list(embed(model, prompts, one_strand)),
        "score-sequences": lambda: list(score_sequences(model, prompts, one_strand)),
    }
    for work in works.values():
        work()
    seconds = {name: min(timed(work) for _ in range(ROUNDS)) for name, work in works.items()}
    one, many = NEW / seconds["one prompt"], TOGETHER * NEW / seconds["32 prompts"]
    print(f"| one prompt | {one:,.0f} bases/s | {one * seconds['full pass']:.0f}x a full pass a base |")
    print(f"| 32 prompts | {many:,.0f} bases/s | {many / one:.1f}x one prompt |")
    bases = TOGETHER * PROMPT
    for name in ("embed", "score-sequences"):
        print(f"| {name} | {bases / seconds[name]:,.0f} bases/s | {seconds['embed'] / seconds[name]:.2f} |")


if __name__ == "__main__":
    main()
