"""Scores of promoter variants beside their measured effects: `python -m benchmarks.measured_effects`.

The variants are a saturation mutagenesis: nearly every substitution of two human promoters, with the log2
change of the expression that a reporter assay found. Nothing here is fitted to them.

A alleles, W bases in a window.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.data import GENOMES, VARIANTS
from benchmarks.results import table, write_section
from hyenacli.evaluation.markov import MarkovModels
from hyenacli.genome.variant import Variant
from hyenacli.readers.genome import Genome, Tokens, open_genomes
from hyenacli.readers.variants import open_variants
from hyenacli.variants.haplotypes import Strand, WindowRule, build_haplotypes, tokens
from hyenacli.variants.scorer import ScoringOptions, VariantScorer
from hyenacli.variants.scores import SCORES
from hyenadna import HyenaDNA, load_model
from hyenadna.tokenizer import A, T

VCF = VARIANTS / "kircher_LDLR_F9.vcf"
GENOME = VCF.with_suffix(".fa")
PIECES = GENOMES / "hg38.pieces.fa.gz"
PRETRAINING = ("--max-steps", "400", "--lr", "2e-3", "--rc-augment")
ORDER = 5
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)
BATCH_TOKENS = 16_384
EXPERIMENTS = ("F9", "LDLR", "LDLR.2")
_TRANSITIONS = {b"AG", b"GA", b"CT", b"TC"}

Floats = npt.NDArray[np.float64]
Scores = Mapping[str, Floats]
"""The value (A,) of every score by its name."""
Statistic = Callable[[Floats, Floats], float]


@dataclass(frozen=True)
class Measured:
    """The alleles of one kind that one experiment measured.

    Attributes:
        name: of the experiment, a contig of the genome.
        alleles: as in the file.
        effects_A: log2 of the expression, ALT over REF.
    """

    name: str
    alleles: list[Variant]
    effects_A: Floats


def read_measured(path: Path, *, substitutions: bool) -> list[Measured]:
    """The experiments of a VCF with INFO/COEF: their substitutions, or their deletions of one base."""
    found: dict[str, list[tuple[Variant, float]]] = {name: [] for name in EXPERIMENTS}
    with open_variants(path) as variants:
        for record in variants:
            effect = re.search(rb"[\t;]COEF=([^;\t]+)", record.text)
            if effect and (len(record.ref) == 1) == substitutions:
                allele = Variant(record.contig, record.position, record.ref, record.alts[0])
                found[record.contig].append((allele, float(effect[1])))
    return [
        Measured(name, [allele for allele, _ in pairs], np.array([effect for _, effect in pairs]))
        for name, pairs in found.items()
    ]


def each_once(
    scores_of: Callable[[Sequence[Variant]], Scores], measured: Sequence[Measured], genome: Genome
) -> list[Scores]:
    """The scores of each experiment's alleles; those of contigs with the same bases are computed once."""
    first: dict[bytes, str] = {}
    twin = {n: first.setdefault(genome.fetch(n, 0, length), n) for n, length in genome.lengths.items()}
    moved = [[replace(allele, contig=twin[allele.contig]) for allele in m.alleles] for m in measured]
    place = {allele: i for i, allele in enumerate(dict.fromkeys(a for some in moved for a in some))}
    values = scores_of(list(place))
    return [{name: v_A[[place[a] for a in some]] for name, v_A in values.items()} for some in moved]


def model_scores(model: HyenaDNA, genome: Genome, alleles: Sequence[Variant]) -> Scores:
    """Every score as `hyena score-variants` computes it by default, and the size of the first."""
    context = model.config.context
    recipe = ScoringOptions(WindowRule(context, context // 8), tuple(SCORES))
    scorer = VariantScorer(model, genome, recipe, batch_tokens=BATCH_TOKENS, precision=nullcontext())
    answers = list(scorer.score(alleles))
    values = {name: np.array([answer.values[name] for answer in answers]) for name in SCORES}
    return {**values, "abs(llr)": np.abs(values["llr"])}


def baselines(models: MarkovModels, genome: Genome, alleles: Sequence[Variant]) -> Scores:
    """What needs no model: the llr of a Markov model of order ORDER, and two facts about the allele."""
    rule = WindowRule(1024, 128)

    def llr(strand: Strand, allele: Variant) -> float:
        found = build_haplotypes(strand, strand.variant(allele), rule)
        site = found.start + found.offset
        before = strand.bases(site - ORDER - 1, site)
        ref, alt = (_nats(models, tokens(before + bases)) for bases in (found.ref, found.alt))
        return ref - alt

    both_A2 = [
        [llr(Strand(genome, allele.contig, reverse=reverse), allele) for reverse in (False, True)]
        for allele in alleles
    ]
    transitions = [float(allele.ref + allele.alt in _TRANSITIONS) for allele in alleles]
    from_middle = [abs(a.position - (genome.lengths[a.contig] - 1) / 2) for a in alleles]
    return {
        "Markov llr": np.mean(both_A2, axis=1),
        "transition": np.array(transitions),
        "from middle": np.array(from_middle),
    }


def _nats(models: MarkovModels, window_W: Tokens) -> float:
    """Sum of -log p over the bases of a window, N left out; N stand at its ends only."""
    real_W = window_W[(window_W >= A) & (window_W <= T)]
    return models.cross_entropy(real_W[None])[ORDER] * (len(real_W) - 1)


def fitted_markov() -> MarkovModels:
    """Markov models of both strands of the human pieces."""
    (pieces,) = open_genomes([PIECES])
    return MarkovModels((contig.tokens(0, len(contig)) for contig in pieces.contigs), both_strands=True)


def pearson(first_A: Floats, second_A: Floats) -> float:
    """Correlation."""
    return float(np.corrcoef(first_A, second_A)[0, 1])


def spearman(first_A: Floats, second_A: Floats) -> float:
    """Correlation of the ranks."""
    return pearson(ranks(first_A), ranks(second_A))


def ranks(values_A: Floats) -> Floats:
    """Ranks from 0; equal values share the mean of theirs.

    >>> ranks(np.array([3.0, 1.0, 3.0, 9.0])).tolist()
    [1.5, 0.0, 1.5, 3.0]
    """
    _, which_A, counts = np.unique(values_A, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[which_A])


def cell(statistic: Statistic, values_A: Floats, measured: Measured) -> str:
    """A correlation with the measured effects and its bootstrap interval.

    Positions are drawn, with all their alleles: the three substitutions of a base are no independent facts.
    """
    if np.ptp(values_A) == 0:
        return "-"
    rng = np.random.default_rng(0)
    positions_A = np.array([allele.position for allele in measured.alleles])
    groups = [np.flatnonzero(positions_A == position) for position in np.unique(positions_A)]
    found = []
    for _ in range(RESAMPLES):
        drawn_A = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        found.append(statistic(values_A[drawn_A], measured.effects_A[drawn_A]))
    low, high = np.percentile(found, INTERVAL)
    return f"{statistic(values_A, measured.effects_A):+.2f} ({low:+.2f} to {high:+.2f})"


def rows(
    predictors: Mapping[str, Sequence[Scores]], measured: Sequence[Measured], statistic: Statistic
) -> list[list[str]]:
    """A line of the table for every score of every predictor; a score that is constant has no value."""
    lines = []
    for who, scores in predictors.items():
        for name in scores[0]:
            cells = [cell(statistic, s[name], m) for s, m in zip(scores, measured, strict=True)]
            lines.append([who, name, *cells])
    return lines


def repeat_row(measured: Sequence[Measured], statistic: Statistic) -> list[str]:
    """The line of the measurement itself: LDLR beside the second experiment on the same promoter."""
    _, first, second = measured
    known = {(a.position, a.ref, a.alt): e for a, e in zip(second.alleles, second.effects_A, strict=True)}
    both = [(a, e) for a, e in zip(first.alleles, first.effects_A, strict=True) if _key(a) in known]
    shared = Measured("LDLR", [a for a, _ in both], np.array([e for _, e in both]))
    other_A = np.array([known[_key(allele)] for allele in shared.alleles])
    return ["second experiment", "measured effect", "-", cell(statistic, other_A, shared), "-"]


def _key(allele: Variant) -> tuple[int, bytes, bytes]:
    return allele.position, allele.ref, allele.alt


def pretrained(folder: str) -> HyenaDNA:
    """tiny-1k after one epoch of the human pieces, as "Human pieces" in RESULTS.md has it."""
    run = Path(folder, "run")
    line = [sys.executable, "-m", "hyenacli", "pretrain", str(PIECES), "-o", str(run), *PRETRAINING]
    subprocess.run(line, check=True)
    return load_model(run)


def section(
    model: HyenaDNA,
    predictors: Mapping[str, Sequence[Scores]],
    substitutions: Sequence[Measured],
    deletions: Sequence[Measured],
) -> str:
    """The text of RESULTS.md."""
    config, n = model.config, len(substitutions)
    about = (
        "Saturation mutagenesis of two human promoters (reporter assay, log2 of ALT over REF; LDLR measured "
        "twice): correlation of the measured effect with each score as `hyena score-variants` computes it by "
        f"default (window {config.context:,}, both strands). The file has the promoters alone, about 300 "
        f"bases each, so the rest of every window is N. *model*: width {config.d_model}, {config.n_layer} "
        "layers. *untrained*: the same architecture with fresh weights, seed 0. *Markov*: order "
        f"{ORDER}, fitted to both strands of the human pieces; *transition*: 1 for A to G, C to T and back, "
        "else 0; *from middle*: bases to the promoter's middle. In brackets 95 % bootstrap intervals "
        f"({RESAMPLES:,} draws of positions with all their alleles). If unlikely alleles lowered the "
        "expression, llr and site would be positive."
    )
    header = ("by", "score", *(f"{m.name} ({len(m.alleles)})" for m in substitutions))
    parts = ["## Scores beside measured effects (`python -m benchmarks.measured_effects -m MODEL`)"]
    parts.append(textwrap.fill(about, 110))
    for title, statistic in (("Pearson", pearson), ("Spearman", spearman)):
        lines = rows({w: s[:n] for w, s in predictors.items()}, substitutions, statistic)
        lines.append(repeat_row(substitutions, statistic))
        parts += [f"{title}, substitutions:", table(header, lines)]
    header = ("by", "score", *(f"{m.name} ({len(m.alleles)})" for m in deletions))
    lines = rows({w: s[n:] for w, s in predictors.items()}, deletions, spearman)
    parts += ["Spearman, deletions of one base:", table(header, lines)]
    return "\n\n".join(parts)


def main() -> None:
    """Score, compare, print and write RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", help="default: pretrain one on the human pieces")
    chosen = parser.parse_args().model
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(chosen) if chosen else pretrained(folder)
    torch.manual_seed(0)
    models = {"model": model.eval(), "untrained": HyenaDNA(model.config).eval()}
    substitutions, deletions = (read_measured(VCF, substitutions=kind) for kind in (True, False))
    with Genome(GENOME) as genome:
        every = [*substitutions, *deletions]
        predictors = {
            name: each_once(partial(model_scores, one, genome), every, genome) for name, one in models.items()
        }
        predictors["baseline"] = each_once(partial(baselines, fitted_markov(), genome), every, genome)
    write_section("measured_effects", section(model, predictors, substitutions, deletions))


if __name__ == "__main__":
    main()
