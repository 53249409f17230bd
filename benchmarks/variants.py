"""Alleles scored from shared passes against two whole passes each: `python -m benchmarks.variants [CASE...]`.

Needs the human data of the tests, in HYENA_TEST_DATA.

B window of either haplotype, L position.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.data import GENOMES, VARIANTS
from benchmarks.engine import fresh
from benchmarks.processes import Timing, Work, interleave
from benchmarks.results import ROOT, table, write_section
from hyenacli.evaluation.line_plots import write_length_chart
from hyenacli.genome.dna import normalise
from hyenacli.genome.variant import Variant
from hyenacli.inference.batching import make_budget
from hyenacli.readers.genome import Genome
from hyenacli.readers.variants import open_variants
from hyenacli.variants.haplotypes import Strand, WindowRule, build_haplotypes, status_of, tokens
from hyenacli.variants.scorer import ScoringOptions, VariantScorer
from hyenadna import HyenaConfig, HyenaDNA, preset
from hyenadna.engine.inference import token_log_probs
from hyenadna.engine.tiling import slices
from hyenadna.tokenizer import A

Window = tuple[Tensor, slice]

GENOME = GENOMES / "hg_chr22_20-21M.fa.gz"
VCF = VARIANTS / "chr22_20-21M.dbsnp.vcf.gz"
FIRST = 800_000
"""Where the alleles of the cases begin: from here on they lie as far apart as on the whole piece, 285 bases
in the mean, and no window reaches past the piece."""
PICTURE = ROOT / "docs" / "cost-per-variant.svg"


@dataclass(frozen=True)
class Case:
    """What is compared.

    Attributes:
        config: the architecture; weights are fresh.
        rule: the windows.
        span: bases from `FIRST` on whose alleles are scored.
        step: all substitutions of every so many bases there; 0 for the records of dbSNP.
        sample: so many of these alleles are scored by brute force, spread evenly.
        scores: what is computed.
        goal: brute force over this, per allele, at least.
    """

    config: HyenaConfig
    rule: WindowRule
    span: int
    step: int = 0
    sample: int = 8
    scores: tuple[str, ...] = ("llr",)
    goal: float = math.nan


def alleles_of(case: Case, genome: Genome) -> list[Variant]:
    """The alleles of a case, in the order of their positions."""
    (contig,) = genome.lengths
    first, last = FIRST, FIRST + case.span
    if case.step:
        bases = list(enumerate(genome.fetch(contig, first, last), first))[:: case.step]
        snvs = ((at, bytes((ref,)), bytes((alt,))) for at, ref in bases for alt in b"ACGT" if alt != ref)
        return [Variant(contig, *snv) for snv in snvs]
    found = []
    with open_variants(VCF) as records:
        for record in records:
            for alt in record.alts if first <= record.position < last else ():
                spelled = record.position, record.ref, alt
                if status_of(genome, contig, *spelled, max_allele=case.rule.size // 4) == "OK":
                    found.append(Variant(contig, record.position, normalise(record.ref), normalise(alt)))
    return found


def spread(alleles: Sequence[Variant], count: int) -> list[Variant]:
    """So many of them, evenly."""
    return [alleles[(2 * i + 1) * len(alleles) // (2 * count)] for i in range(min(count, len(alleles)))]


def budget(model: HyenaDNA) -> int:
    """Tokens of a pass, as `hyena score-variants` chooses them."""
    return make_budget(None, model.config.d_model, 0, torch.device("cpu")).tokens


def shared(case: Case) -> Work:
    """All alleles of a case."""
    model, genome = fresh(case.config).eval(), Genome(GENOME)
    alleles = alleles_of(case, genome)
    scorer = VariantScorer(
        model,
        genome,
        ScoringOptions(case.rule, case.scores),
        batch_tokens=budget(model),
        precision=nullcontext(),
    )
    list(scorer.score(alleles[:1]))  # makes the filters
    return lambda: list(scorer.score(alleles))


def brute_force(case: Case) -> Callable[[], list[float]]:
    """A sample of them, each allele and strand by whole passes over both windows, as far as any is scored."""
    model, genome = fresh(case.config).eval(), Genome(GENOME)
    alleles = spread(alleles_of(case, genome), case.sample)
    rows = max(1, budget(model) // case.rule.read)
    any_BL = torch.full((rows, case.rule.read), A)
    token_log_probs(model, any_BL, any_BL)  # makes the filters

    def work() -> list[float]:
        windows = [window for allele in alleles for window in windows_of(case.rule, allele, genome)]
        sums = [total for some in slices(len(windows), rows) for total in log_p(model, windows[some])]
        llrs = [alt - ref for ref, alt in zip(sums[::2], sums[1::2], strict=True)]
        return [(forward + reverse) / 2 for forward, reverse in zip(llrs[::2], llrs[1::2], strict=True)]

    return work


def windows_of(rule: WindowRule, allele: Variant, genome: Genome) -> Iterator[Window]:
    """REF and ALT on the forward, then on the reverse strand."""
    for reverse in (False, True):
        strand = Strand(genome, allele.contig, reverse=reverse)
        found = build_haplotypes(strand, strand.variant(allele), rule)
        before = strand.bases(found.start, found.start + found.offset)
        end = found.offset + len(found.ref)
        after = strand.bases(found.start + end, found.start + rule.read)
        for bases in (found.ref, found.alt):
            yield torch.from_numpy(tokens(before + bases + after)).long(), slice(found.offset, end)


def log_p(model: HyenaDNA, windows: Sequence[Window]) -> list[float]:
    """The log-probability of the scored bases of some windows: one pass."""
    ids_BL = torch.stack([ids_L for ids_L, _ in windows])
    log_p_BL = token_log_probs(model, ids_BL[:, :-1], ids_BL[:, 1:]).double()
    return [
        float(log_p_L[s.start - 1 : s.stop - 1].sum())
        for log_p_L, (_, s) in zip(log_p_BL, windows, strict=True)
    ]


SMALL, MEDIUM, LONG = preset("small-32k"), preset("medium-160k"), HyenaConfig(128, 2, 512, 131_074)
INPUTS: dict[str, Case] = {
    "dbSNP, small-32k, 8,192, all downstream": Case(
        SMALL, WindowRule.of(8192, downstream=8192), 8192, sample=4, goal=2.2
    ),
    "dbSNP, small-32k, 8,192, downstream 512": Case(SMALL, WindowRule.of(8192), 16_384, sample=6, goal=4),
    "dbSNP, small-32k, 32,768, downstream 512": Case(SMALL, WindowRule.of(32_768), 32_768, sample=2, goal=15),
    "dbSNP, medium-160k, 160,000, downstream 512": Case(
        MEDIUM, WindowRule.of(160_000), 20_000, sample=1, goal=60
    ),
    "every SNV of every 16th of 2,000 bases, small-32k, 32,768, downstream 512": Case(
        SMALL, WindowRule.of(32_768), 2000, step=16, sample=2, goal=40
    ),
    "every SNV of 2,048 bases, small-32k, 32,768, site": Case(
        SMALL, WindowRule.of(32_768, downstream=1), 2048, step=1, sample=2, scores=("site",), goal=1000
    ),
}
COST = {
    f"cost, {size:,}": Case(LONG, WindowRule.of(size, downstream=512), 65_536, sample=1)
    for size in (1 << power for power in range(10, 18))
}
PATHS = {"brute force": brute_force, "shared": shared}
CASES: dict[str, dict[str, Callable[[], Work]]] = {
    name: {path: partial(make, case) for path, make in PATHS.items()}
    for name, case in (INPUTS | COST).items()
}


def per_allele(timings: dict[str, Timing], scored: int, sample: int) -> dict[str, float]:
    """Seconds per allele of each path."""
    counts = {"brute force": sample, "shared": scored}
    return {path: timing.median / counts[path] for path, timing in timings.items()}


def row(name: str, case: Case, seconds: dict[str, float], scored: int) -> list[str]:
    """A line of the table."""
    brute, ours = seconds["brute force"], seconds["shared"]
    counts = f"{scored:,} ({case.sample})"
    goal = "-" if math.isnan(case.goal) else f"{case.goal:g}"
    return [name, counts, shown(brute * 1000), shown(ours * 1000), f"**{shown(brute / ours)}**", goal]


def shown(number: float) -> str:
    """Three digits, and all before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def draw(times: dict[int, dict[str, float]]) -> None:
    """Draw milliseconds per allele, by each path, against the window."""
    write_length_chart(
        PICTURE,
        list(times),
        {path: [by[path] * 1000 for by in times.values()] for path in ("shared", "brute force")},
        x_label="window, bases; 512 downstream are scored",
        y_label="ms per allele",
    )
    print(f"drew {PICTURE}")


HEADER = ("case", "alleles (by brute force)", "brute force ms", "shared ms", "ratio", "goal")
TEXT = """\
Milliseconds per allele, both strands, fresh weights, windows on the default grid. *shared*
is `VariantScorer` for all alleles of the case, which follow each other in the genome; *brute force* is, for
each allele and strand, a pass over the whole window of REF and one over that of ALT, cut off behind the last
position that is scored, in the same engine, as many windows in a batch; for a sample of these alleles.
One run of each, one after the other, in processes of their own, once the filters are made."""
COST_TEXT = """\
The same against the window: width 128, two layers, dbSNP, 512 downstream. An allele costs its own 512
positions, and a share of the pass over a window that the alleles of half a window, less 512 bases, have in
common; with windows of 2,048 and less most alleles have one to themselves.

![Milliseconds per allele against the window](../docs/cost-per-variant.svg)"""


def main() -> None:
    """Measure, draw, print and write RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="beginnings of names; default all (15 min)")
    given = parser.parse_args()
    if not VCF.exists():
        parser.error(f"{VCF} is not there: set HYENA_TEST_DATA to the folder that holds data/")
    lines: dict[str, list[str]] = {}
    costs: dict[int, dict[str, float]] = {}
    for name, case in (INPUTS | COST).items():
        if given.cases and not name.startswith(tuple(given.cases)):
            continue
        timings = interleave("benchmarks.variants", name, list(PATHS), rounds=1, calls=1)
        with Genome(GENOME) as genome:
            scored = len(alleles_of(case, genome))
        seconds = per_allele(timings, scored, case.sample)
        lines[name] = row(name, case, seconds, scored)
        if name in COST:
            costs[case.rule.size] = seconds
    first = table(HEADER, [line for name, line in lines.items() if name in INPUTS])
    second = table(HEADER[:-1], [line[:-1] for name, line in lines.items() if name in COST])
    text = f"## Alleles (`make bench`)\n\n{TEXT}\n\n{first}\n\n{COST_TEXT}\n\n{second}"
    if given.cases:
        print(text)
        return
    draw(costs)
    write_section("variants", text)


if __name__ == "__main__":
    main()
