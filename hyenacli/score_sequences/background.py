"""Scores to compare with: of random windows of a genome about as long as a sequence, or of whole records."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from hyenacli.errors import UserError
from hyenacli.inference.intervals import Interval
from hyenacli.inference.likelihood import SequenceLikelihood
from hyenacli.inference.sampling import WindowSampler
from hyenacli.readers.genome import Genome, plain_tokens
from hyenacli.readers.records import OK, SequenceRecord
from hyenacli.readers.sequences import read_fasta
from hyenadna.tokenizer import PAD

SHORTEST, LONGEST = 64, 8192
"""Limits of the length of a random window: powers of two."""
# The base of each token.
_BASES = np.frombuffer(b"NNNNNNNACGTN", np.uint8)
Score = Callable[[Iterable[SequenceRecord]], Iterable[SequenceLikelihood]]


class Background:
    """Bits per base of a background's sequences.

    Args:
        fasta: of the background.
        windows: how many random windows; 0 for the records of the FASTA.
        seed: of the windows.
        score: computes the likelihood of sequences.

    Raises:
        UserError: the file cannot be read.
    """

    def __init__(self, fasta: Path, windows: int, seed: int, score: Score) -> None:
        self._fasta, self._windows, self._score = fasta, windows, score
        self._bits: dict[int, list[float]] = {}
        if windows:
            with Genome(fasta, codes_required=True) as genome:
                contigs = genome.contigs
            intervals = [Interval(number, 0, len(contig)) for number, contig in enumerate(contigs)]
            intervals = [interval for interval in intervals if len(interval) > 1]
            if not intervals:
                raise UserError("no contig has two bases", at=fasta, remedy="give another --background")
            self._sampler = WindowSampler(contigs, intervals, seed, rc_augment=False)

    def quantile(self, scored: SequenceLikelihood) -> float:
        """Return the share of the background with fewer bits per base, equals counting half; NaN for none.

        The windows of a length are scored when the first sequence of about that length comes.
        """
        if scored.record.status != OK:
            return math.nan
        length = window_length(len(scored.record)) if self._windows else 0
        if length not in self._bits:
            self._bits[length] = self._scores(length)
        bits = self._bits[length]
        below = bisect_left(bits, scored.bits_per_base) + bisect_right(bits, scored.bits_per_base)
        return below / (2 * len(bits))

    def _scores(self, length: int) -> list[float]:
        records = self._random_windows(length) if length else _records(self._fasta)
        bits = sorted(s.bits_per_base for s in self._score(records) if s.record.status == OK)
        if not bits:
            raise UserError("no sequence of it can be scored", at=self._fasta, remedy="give another FASTA")
        return bits

    def _random_windows(self, length: int) -> Iterator[SequenceRecord]:
        for number in range(self._windows):
            tokens_W = plain_tokens(self._sampler.rows([number], length)[0])
            bases = _BASES[tokens_W[tokens_W != PAD]].tobytes()
            yield SequenceRecord.of_sequence(f"background window {number}", bases)


def _records(fasta: Path) -> Iterator[SequenceRecord]:
    for record in read_fasta(fasta):
        yield SequenceRecord.of_sequence(record.name, record.sequence, record.status, record.line)


def window_length(length: int) -> int:
    """Return the power of two nearest to a length, from `SHORTEST` to `LONGEST`.

    >>> window_length(10), window_length(1000), window_length(1_000_000)
    (64, 1024, 8192)
    """
    return int(min(LONGEST, max(SHORTEST, 2 ** round(math.log2(length)))))
