"""Variants to compare with: the share of them that a score exceeds."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.variant import Variant
from hyenacli.readers.genome import Sequences
from hyenacli.readers.variants import open_variants
from hyenacli.variants.haplotypes import AlleleReader
from hyenacli.variants.scorer import AlleleScore, VariantScorer
from hyenacli.writers.vcf import InfoField

# Draws for each random variant before a genome counts as nothing but N.
_MAX_DRAWS = 100


def random_snvs(genome: Sequences, count: int, seed: int) -> Iterator[Variant]:
    """Yield random substitutions, every base of the genome but N and every other base equally likely.

    Raises:
        UserError: almost all bases are N.
    """
    names, lengths = list(genome.lengths), list(genome.lengths.values())
    ends, draw, drawn = np.cumsum(lengths), np.random.default_rng(seed), 0
    for _ in range(_MAX_DRAWS * count if sum(lengths) else 0):
        at, other = int(draw.integers(ends[-1])), int(draw.integers(3))
        contig = int(np.searchsorted(ends, at, side="right"))
        position = at - int(ends[contig] - lengths[contig])
        ref = genome.fetch(names[contig], position, position + 1)
        if ref not in (b"A", b"C", b"G", b"T"):
            continue
        others = [base for base in (b"A", b"C", b"G", b"T") if base != ref]
        yield Variant(names[contig], position, ref, others[other])
        drawn += 1
        if drawn == count:
            return
    raise UserError("the genome has too few bases other than N to draw random variants from")


class ScoreBackground:
    """Sorted scores of variants, by the names of the scores.

    Args:
        source: a number of random substitutions of the genome, or a file of variants on it.
        seed: of the random ones.
        genome: the reference.
        reader: of the alleles of a file.
        scorer: with the settings of the scores that are compared.

    Raises:
        UserError: the file cannot be read, or none of its alleles can be scored.
    """

    def __init__(
        self, source: str, seed: int, genome: Sequences, reader: AlleleReader, scorer: VariantScorer
    ) -> None:
        count = parse_source(source)
        if count is None:
            with open_variants(Path(source)) as records:
                scored = list(scorer.score(allele for record in records for allele in reader.read(record)))
        else:
            scored = list(scorer.score(random_snvs(genome, count, seed)))
        names = dict.fromkeys(name for score in scored for name in score.values)
        if not names:
            raise UserError("none of its alleles can be scored", at=source, remedy="give other variants")
        self._what = f"{len(scored):,} random substitutions" if count else f"the alleles of {source}"
        self._sorted = {
            name: sorted(v for score in scored if not math.isnan(v := score.values.get(name, math.nan)))
            for name in names
        }

    def fields(self, names: Sequence[str]) -> list[InfoField]:
        """Return the INFO fields, or columns, of the quantiles of these scores."""
        return [
            InfoField(
                _field_id(name),
                "A",
                "Float",
                f"Share of {self._what} with a lower HYENA_{name.upper()}, equal ones counting half",
            )
            for name in names
        ]

    def values(self, names: Sequence[str], alleles: Sequence[AlleleScore]) -> dict[str, list[float | None]]:
        """Return the quantiles of a record's alleles by the IDs of `fields`; None where there is no score."""
        return {
            _field_id(name): [self._quantile(name, allele.values) for allele in alleles] for name in names
        }

    def _quantile(self, name: str, values: Mapping[str, float]) -> float | None:
        value, ranked = values.get(name, math.nan), self._sorted.get(name)
        if math.isnan(value) or not ranked:
            return None
        return (bisect_left(ranked, value) + bisect_right(ranked, value)) / (2 * len(ranked))


def parse_source(text: str) -> int | None:
    """Return the number of random variants, None where the text names a file.

    Raises:
        UsageError: neither a number above 0 nor a file.
    """
    if text.isdecimal() and int(text) > 0:
        return int(text)
    if Path(text).is_file():
        return None
    what = f"'{text}' is neither a number of variants nor a file"
    raise UsageError(what, at="--quantile", remedy="give a number such as 1000, or a VCF")


def _field_id(name: str) -> str:
    return f"HYENA_{name.upper()}_QUANTILE"
