"""How far `score-variants` is, what became of the alleles, and what is done where REF is not the genome's."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from hyenacli import console
from hyenacli.console import log
from hyenacli.errors import UserError
from hyenacli.readers.vcf import VariantRecord
from hyenacli.variants.haplotypes import EDGE, NO_CONTIG, OK, REF_MISMATCH, SYMBOLIC
from hyenacli.variants.input import VariantInput
from hyenacli.variants.journal import Journal
from hyenacli.variants.scorer import AlleleScore, ScoredRecord
from hyenacli.writers.output_shards import OutputShard

# A larger share of REF that differ means another genome build; so many records rule out chance.
_WRONG_BUILD_SHARE, _ENOUGH_RECORDS = 0.01, 200
# Contigs that have a warning of their own.
_WARNED_CONTIGS = 5
# Records between two updates of the progress bar.
_UPDATE_EVERY = 64


class ScoringProgress:
    """Counts records and alleles, shows them, and applies --check-ref.

    Args:
        check_ref: w, x or e.
        source: the input.
    """

    def __init__(self, check_ref: str, source: VariantInput) -> None:
        self._check_ref, self._source = check_ref, source
        self._statuses: Counter[str] = Counter()
        self._records = self._alleles = self._replayed = self._without_alt = 0
        self._refs_checked, self._refs_differing = Counter[str](), Counter[str]()
        self._warned, self._in_block = set[str](), 0.0
        self._show: Callable[[float, str], None] = lambda *_: None
        self._start = time.monotonic()

    def watch(self, scored: Iterable[ScoredRecord], journal: Journal) -> Iterator[ScoredRecord]:
        """Pass records on, except those that --check-ref leaves out.

        Raises:
            UserError: a REF is not the genome's, and --check-ref is e.
        """
        with console.Progress("scoring", self._source.total, "records") as bar:
            self._show = bar.update
            for record, scores in scored:
                if journal.replaying:  # the speed is that of scoring
                    self._start, self._replayed = time.monotonic(), self._alleles
                differs = self._compare_ref(record.contig, scores)
                if differs and self._refs_checked[record.contig] >= _ENOUGH_RECORDS:
                    self._warn_of_build(record.contig, so_far=" so far")
                if differs and self._check_ref == "e":
                    raise self._ref_error(record)
                if not (differs and self._check_ref == "x"):
                    yield record, scores
                self._records += 1
                self._alleles += len(scores)
                self._without_alt += not scores
                self._in_block = max(0.0, self._in_block - len(scores))
                self._statuses.update(score.status for score in scores)
                if self._records % _UPDATE_EVERY == 0:
                    self._update()
            self._update()
        for contig, _ in self._refs_differing.most_common():
            self._warn_of_build(contig)
        if len(self._warned) > _WARNED_CONTIGS:
            log.warning("REF differs too often on %d more contigs", len(self._warned) - _WARNED_CONTIGS)

    def add_alleles(self, alleles: float) -> None:
        """Count alleles that have been scored of the current block, of which no record has come out yet."""
        self._in_block += alleles
        self._update()

    def report(self, shard: OutputShard) -> None:
        """Log what was done and what could not be."""
        statuses = dict(self._statuses)
        done = sum(statuses.pop(status, 0) for status in (OK, EDGE))
        failed = "".join(f", {count:,} {status}" for status, count in sorted(statuses.items()))
        failed += f", {self._without_alt:,} without ALT" if self._without_alt else ""
        left_out = self._refs_differing.total() if self._check_ref == "x" else 0
        alleles, records = console.counted(done, "allele"), console.counted(self._records, "record")
        counts = f"{alleles}{failed} of {records}" + (f" ({left_out:,} left out)" if left_out else "")
        seconds = time.monotonic() - self._start
        speed = f"{self._speed():,.0f} variants/s"
        log.info("scored %s in %.1f s (%s), %s", counts, seconds, speed, shard.describe())
        console.event(
            "score-variants",
            records=self._records,
            statuses=dict(self._statuses),
            ref_checked=self._refs_checked.total(),
            ref_differing=self._refs_differing.total(),
            seconds=round(seconds, 3),
        )

    def _compare_ref(self, contig: str, scores: Sequence[AlleleScore]) -> bool:
        """Count a record whose REF could be compared with the genome; return whether it differs."""
        statuses = {score.status for score in scores}
        differs = REF_MISMATCH in statuses
        self._refs_checked[contig] += bool(statuses - {NO_CONTIG, SYMBOLIC})
        self._refs_differing[contig] += differs
        return differs

    def _update(self) -> None:
        # each base of a region is a record with three ALT
        in_block = self._in_block / (3 if self._source.regions else 1)
        self._show(self._records + in_block, f"{self._speed():,.0f} variants/s")

    def _speed(self) -> float:
        """Return the alleles scored in a second."""
        scored = self._alleles + self._in_block - self._replayed
        return scored / max(1e-9, time.monotonic() - self._start)

    def _ref_error(self, record: VariantRecord) -> UserError:
        contig, position = record.contig, record.position + 1
        return UserError(
            f"REF of {contig}:{position} differs from {self._source.genome.path}",
            at=self._source.name,
            line=record.line or None,
            remedy="use the genome that the variants were called on, or --check-ref w or x",
        )

    def _warn_of_build(self, contig: str, so_far: str = "") -> None:
        """Ask, once for a contig, whether this is its genome build; in capitals where chance is ruled out."""
        checked, differing = self._refs_checked[contig], self._refs_differing[contig]
        if contig in self._warned or differing <= _WRONG_BUILD_SHARE * checked:
            return
        self._warned.add(contig)
        if len(self._warned) > _WARNED_CONTIGS:
            return
        question = "is this the genome build of"
        log.warning(
            "REF differs from %s in %s of %s records of contig %s%s (%.1f %%): %s %s?",
            self._source.genome.path,
            f"{differing:,}",
            f"{checked:,}",
            contig,
            so_far,
            100 * differing / checked,
            question.upper() if checked >= _ENOUGH_RECORDS else question,
            self._source.name,
        )
