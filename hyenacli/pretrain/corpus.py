"""Corpus of a pretraining run: genomes, their splits, and windows of training and held-out stretches."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyenacli import console
from hyenacli.errors import UsageError, UserError
from hyenacli.evaluation.markov import MarkovModels
from hyenacli.inference.intervals import Splits, split_by_contigs, split_by_fraction, split_by_intervals
from hyenacli.inference.sampling import WindowSampler, fixed_windows
from hyenacli.pretrain.settings import PretrainSettings
from hyenacli.readers.genome import Contig, Genome, Tokens, count_bases, open_genomes, plain_tokens

# The Markov models are fitted to at most this many training bases, in pieces spread over the genome.
MARKOV_BASES = 200_000_000
_PIECE = 1_000_000
_FRACTION = 0.05
_CHECKED_WINDOWS = 8


@dataclass(frozen=True)
class Corpus:
    """Genomes and their splits.

    Attributes:
        genomes: in the order given.
        contigs: of all genomes, except those without any A, C, G or T; splits index them.
        splits: stretches to train on, hold out and test on.
        sampler: the training stream.
        valid_NW: the held-out windows; may be empty.
    """

    genomes: list[Genome]
    contigs: list[Contig]
    splits: Splits
    sampler: WindowSampler
    valid_NW: Tokens

    def markov(self, *, rc: bool) -> list[float]:
        """Compute the held-out loss of Markov models of order 0, 1, ... fitted to the training bases.

        Args:
            rc: fit them to both strands, as for a model that reads both.
        """
        if not len(self.valid_NW):
            return []
        return MarkovModels(self._stretches(), both_strands=rc).cross_entropy(self.valid_NW)

    def _stretches(self) -> Iterator[Tokens]:
        pieces = [
            (i.contig, start, min(start + _PIECE, i.end))
            for i in self.splits.train
            for start in range(i.start, i.end, _PIECE)
        ]
        bases = sum(end - start for _, start, end in pieces)
        for contig, start, end in pieces[:: max(1, math.ceil(bases / MARKOV_BASES))]:
            yield self.contigs[contig].tokens(start, end)

    def describe(self) -> str:
        """Describe the bases of each split, and how several files share the windows."""
        counts = self.splits.bases()
        text = ", ".join(f"{name} {count:,} bases" for name, count in counts.items() if count)
        shares = self.sampler.shares()
        soft_masked = sum(contig.n_soft_masked for contig in self.contigs)
        if soft_masked:
            text += f"; {soft_masked / sum(map(len, self.contigs)):.1%} soft-masked"
        if len(shares) > 1:
            text += "; windows: " + ", ".join(f"{path.name} {share:.1%}" for path, share in shares.items())
        return text


def open_corpus(settings: PretrainSettings, length: int) -> Corpus:
    """Open and split the genomes, and check that they have training windows with bases.

    Args:
        settings: of the run.
        length: bases a training window predicts; it holds one more.

    Raises:
        UserError: anything wrong with the genomes or the splits.
        UsageError: more than one way of splitting, or weights that do not match the genomes.
    """
    shares = _weights(settings)
    genomes = open_genomes(settings.fasta)
    all_contigs = [contig for genome in genomes for contig in genome.contigs]
    contigs = [contig for contig in all_contigs if contig.n_bases]
    if len(contigs) < len(all_contigs):
        console.log.info("%d contigs of nothing but N are left out", len(all_contigs) - len(contigs))
    _check_soft_masking(contigs, settings.soft_mask_weight)
    splits = split_genomes(contigs, settings, length + 1)
    sampler = WindowSampler(
        contigs, splits.train, settings.seed, rc_augment=settings.rc_augment, shares=shares
    )
    first = sampler.rows(range(_CHECKED_WINDOWS), length + 1)
    if not count_bases(plain_tokens(first)):
        raise UserError("the training stretches are nothing but N", remedy="hold other stretches out")
    return Corpus(
        genomes,
        contigs,
        splits,
        sampler,
        fixed_windows(contigs, splits.valid, length + 1, settings.eval_windows),
    )


def _check_soft_masking(contigs: list[Contig], weight: float) -> None:
    soft_masked = sum(contig.n_soft_masked for contig in contigs)
    if weight != 1 and not soft_masked:
        console.log.warning("--soft-mask-weight changes nothing: the genome has no lower-case bases")
    if weight == 0 and soft_masked == sum(map(len, contigs)):
        raise UserError(
            "every base is in lower case and has weight 0", remedy="raise --soft-mask-weight above 0"
        )


def split_genomes(contigs: list[Contig], settings: PretrainSettings, width: int) -> Splits:
    """Split genomes by intervals, by contigs, or by a fraction in blocks.

    Raises:
        UserError: nothing to train on, or no training stretch as long as a window.
        UsageError: more than one way of splitting at once.
    """
    valid = _names(settings.valid_contigs, "--valid-contigs")
    test = _names(settings.test_contigs, "--test-contigs")
    named = bool(valid or test)
    if sum((settings.intervals is not None, named, settings.valid_fraction is not None)) > 1:
        raise UsageError(
            "several ways to hold sequence out",
            remedy="give one of --intervals, --valid-contigs with --test-contigs, --valid-fraction",
        )
    if settings.intervals:
        splits = split_by_intervals(contigs, settings.intervals)
    elif named:
        splits = split_by_contigs(contigs, valid, test)
    else:
        fraction = _FRACTION if settings.valid_fraction is None else settings.valid_fraction
        splits = split_by_fraction(contigs, fraction, width, settings.seed)
    _check_lengths(contigs, splits, width, settings.fasta)
    return splits


def _check_lengths(contigs: list[Contig], splits: Splits, width: int, files: list[Path]) -> None:
    """Check that a training stretch fills a window; warn of genomes without one."""
    by_source = dict.fromkeys(files, 0)
    for interval in splits.train:
        source = contigs[interval.contig].source
        by_source[source] = max(by_source[source], len(interval))
    longest_interval = max(by_source.values())
    if longest_interval < 2:
        raise UserError(
            "no bases are left to train on",
            at=", ".join(map(str, files)),
            remedy="hold out less, or add sequence",
        )
    if longest_interval < width:
        raise UserError(
            f"the longest training stretch has {longest_interval:,} bases, a window {width:,}",
            at=", ".join(map(str, files)),
            remedy=f"use --max-length {longest_interval - 1} or less, or hold out less"
            if longest_interval > 8
            else "add sequence",
        )
    for source in (path for path, length in by_source.items() if length < width):
        console.log.warning("%s: no training stretch fills a window of %d bases", source, width)
    if not splits.valid:
        console.log.warning("nothing is held out: there will be no held-out loss, and no best checkpoint")
    elif max(map(len, splits.valid)) < width:
        console.log.warning("held out are only stretches shorter than a window of %d bases", width)


def _weights(settings: PretrainSettings) -> dict[Path, float] | None:
    if settings.genome_weights is None:
        return None
    at, remedy = "--genome-weights", "give a positive number for each FASTA, as 2,1"
    try:
        weights = [float(text) for text in str(settings.genome_weights).split(",")]
    except ValueError:
        raise UsageError(f"cannot read '{settings.genome_weights}'", at=at, remedy=remedy) from None
    if len(weights) != len(settings.fasta):
        raise UsageError(f"{len(weights)} weights for {len(settings.fasta)} files", at=at, remedy=remedy)
    if not all(0 < weight < math.inf for weight in weights):
        raise UsageError("weights must be positive", at=at, remedy=remedy)
    return dict(zip(settings.fasta, weights, strict=True))


def _names(text: str | None, flag: str) -> list[str]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise UsageError("names no contig", at=flag, remedy="leave it out, or name contigs")
    return names
