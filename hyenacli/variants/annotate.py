"""The variants of a file scored in blocks: alike in a whole run, in shards, and after an interruption."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

from hyenacli.genome.contigs import ContigMap
from hyenacli.genome.dna import first_invalid, normalise
from hyenacli.genome.variant import Variant
from hyenacli.readers.variant_record import VariantRecord
from hyenacli.variants.haplotypes import NO_CONTIG, REF_MISMATCH, SYMBOLIC, Sequences, status_of
from hyenacli.variants.journal import Journal
from hyenacli.variants.scorer import AlleleScore, VariantScorer

# Records scored together. Batches never reach across blocks, and shards consist of whole ones, so that a
# score does not depend, to the last digit, on where a run begins and ends.
BLOCK = 1024


class AlleleReader:
    """Makes of a record what is to be scored: its alleles on the genome, or why there is nothing to score.

    Args:
        genome: the reference.
        contigs: the file's contigs in the genome's spelling.
        max_allele: most bases of an allele without what REF and ALT share.
    """

    def __init__(self, genome: Sequences, contigs: ContigMap, max_allele: int):
        self._genome, self._max_allele = genome, max_allele
        self._resolve = cache(contigs.resolve)

    def alleles(self, record: VariantRecord) -> list[Variant | str]:
        """One per ALT: the variant, its REF as the genome has it, or a status.

        Raises:
            UserError: the contig could be any of several of the genome's.
        """
        contig = self._resolve(record.contig)
        if first_invalid(record.ref) >= 0:
            return [status_of(self._genome, contig, -1, b"", alt, max_allele=1) for alt in record.alts]
        ref, found = normalise(record.ref), list[Variant | str]()
        for alt in record.alts:
            status = status_of(self._genome, contig, record.position, ref, alt, max_allele=self._max_allele)
            if contig is None or status != "OK":
                found.append(status)
            else:
                bases = self._genome.fetch(contig, record.position, record.end)
                found.append(Variant(contig, record.position, bases, normalise(alt)))
        return found


@dataclass
class RefCheck:
    """Counts of records whose REF could be compared with the genome, and of those that differ."""

    checked: int = 0
    differing: int = 0

    def add(self, scores: Sequence[AlleleScore]) -> bool:
        """Count a record; whether its REF differs."""
        statuses = {score.status for score in scores}
        differs = REF_MISMATCH in statuses
        self.checked += bool(statuses - {NO_CONTIG, SYMBOLIC})
        self.differing += differs
        return differs


def score_records(
    records: Iterable[VariantRecord],
    alleles: Callable[[VariantRecord], list[Variant | str]],
    scorer: VariantScorer,
    journal: Journal,
) -> Iterator[tuple[VariantRecord, Sequence[AlleleScore]]]:
    """Score records in blocks; each with one score per ALT, in order.

    Args:
        records: in memory a block at a time.
        alleles: what is to be scored of a record.
        scorer: the model.
        journal: has the answers of the blocks that an interrupted run has scored, and gets those of the rest.

    Raises:
        UserError: the records are not those that the interrupted run read.
    """
    for block in blocks(records):
        digest = digest_of(block)
        answers = journal.take(digest)
        if answers is None:
            answers = list(scorer.score([allele for record in block for allele in alleles(record)]))
            journal.add(digest, answers)
        rest = iter(answers)
        for record in block:
            yield record, list(islice(rest, len(record.alts)))


def blocks(records: Iterable[VariantRecord]) -> Iterator[list[VariantRecord]]:
    """The records, `BLOCK` at a time."""
    rest = iter(records)
    while block := list(islice(rest, BLOCK)):
        yield block


def digest_of(block: Iterable[VariantRecord]) -> str:
    """sha256 of the lines of records."""
    return hashlib.sha256(b"\n".join(record.text for record in block)).hexdigest()


def survey(records: Iterable[VariantRecord]) -> tuple[int, str]:
    """How many records there are, and their sha256."""
    count, digest = 0, hashlib.sha256()
    for block in blocks(records):
        count += len(block)
        digest.update(digest_of(block).encode())
    return count, digest.hexdigest()
