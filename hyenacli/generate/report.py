"""What generated sequences look like together, beside a genome and Markov samples of it.

N sequences, L bases, P words.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from hyenacli.console import log
from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.figures import BLUE, RED
from hyenacli.evaluation.line_plots import Series, histogram_chart, line_chart
from hyenacli.evaluation.markov import MarkovModels, count_words
from hyenacli.evaluation.report import facts_table, number_table, write_page
from hyenacli.evaluation.sketch import CHUNK, K, hash_kmers
from hyenacli.evaluation.words import reverse_complements
from hyenacli.readers.genome import Genome, Tokens
from hyenacli.writers.columns import Batch
from hyenadna import Tokenizer

LONGEST_WORD = 6
_QUANTILES = (0.05, 0.5, 0.95)
_TOKENIZER = Tokenizer()
_COLUMNS = {
    "n_bases": "new bases",
    "logp_mean": "mean log p of a base",
    "gc": "share of G and C",
    "max_homopolymer": "longest run of a base",
    "prompt_repeat": "longest word also in the prompt",
}
_EXPLANATION = (
    "Divergence is that of Jensen and Shannon, in bits: 0 where words of k bases are as frequent as in the "
    "reference, 1 where none is shared; both strands are counted. A sample of an order-k Markov model of the "
    "reference, of the same lengths, shows what chance alone gives: sequences well above it differ from "
    "the reference in their words; sequences near it are no proof of more than words."
)


class GenerationReport:
    """Collects what is written of every sequence; a byte a base.

    Args:
        reference: genome to compare with, if there is one.
        seed: of the Markov samples.
    """

    def __init__(self, reference: Path | None, seed: int) -> None:
        self._reference, self._seed = reference, seed
        self._statuses: Counter[str] = Counter()
        self._sequences: list[bytes] = []
        self._numbers: dict[str, list[float]] = {name: [] for name in _COLUMNS}

    def add(self, status: str, bases: bytes, row: Batch) -> None:
        """Count a sequence.

        Args:
            status: of it.
            bases: the new ones; none where there is no sequence.
            row: its cells.
        """
        self._statuses[status] += 1
        if bases:
            self._sequences.append(bases)
            for name, values in self._numbers.items():
                values.append(row[name][0])

    def write(self, path: Path, facts: Mapping[str, object], table: Path) -> None:
        """Write the page.

        Args:
            path: the file.
            facts: how the sequences were made, by name.
            table: the file of sequences, or - for stdout.
        """
        verdict = f"{len(self._sequences):,} of {self._statuses.total():,} sequences were generated"
        sections = [
            facts_table(facts),
            "<h2>Statuses</h2>",
            number_table(["status", "sequences"], [[s, f"{n:,}"] for s, n in self._statuses.most_common()]),
        ]
        if self._sequences:
            rows = [
                [title, *(f"{q:.4g}" for q in np.quantile(self._numbers[name], _QUANTILES))]
                for name, title in _COLUMNS.items()
            ]
            header = ["of a sequence", *(f"{share:.0%}" for share in _QUANTILES)]
            chart = histogram_chart(
                self._numbers["logp_mean"], x_label="mean log p of a base, nats", y_label="sequences"
            )
            beside, comparison = self._comparison()
            verdict += f", of {np.median(self._numbers['n_bases']):,.0f} bases (median){beside}"
            sections += ["<h2>Sequences</h2>", number_table(header, rows), chart, *comparison]
        tables = [table] if str(table) != "-" else []
        title = f"{len(self._sequences):,} generated sequences"
        write_page(path, title, sections, verdict=verdict, tables=tables)
        log.info("wrote %s", path)

    def _comparison(self) -> tuple[str, list[str]]:
        """Return the end of the verdict, and the sections that compare words."""
        new = [_TOKENIZER.encode_array(bases) for bases in self._sequences]
        if self._reference is None:
            return "", [f"<h2>Composition</h2>{_composition_table({'generated': _count_all(new)})}"]
        with Genome(self._reference, codes_required=True) as genome:
            return _beside(new, genome, np.random.default_rng(self._seed))


def _beside(new: Sequence[Tokens], genome: Genome, rng: np.random.Generator) -> tuple[str, list[str]]:
    """Return the end of the verdict, and sections on words beside those of a genome and Markov samples."""

    def stretches() -> Iterator[Tokens]:  # a contig at a time in memory
        return (contig.tokens(0, len(contig)) for contig in genome.contigs)

    models = MarkovModels(stretches(), order=LONGEST_WORD)
    orders, lengths = range(1, LONGEST_WORD + 1), list(map(len, new))
    samples = [models.draw(order, lengths, rng) for order in orders]
    generated, reference = _count_all(new), _count_all(stretches())
    composition = _composition_table({"generated": generated, "reference": reference})
    sections = [f"<h2>Composition</h2>{composition}"]
    drawn = [count_words(sample, k) for k, sample in zip(orders, samples, strict=True)]
    ours, theirs = (
        [
            jensen_shannon(*(words + reverse_complements(words, k) for words in pair))
            for k, *pair in zip(orders, counts, reference, strict=True)
        ]
        for counts in (generated, drawn)
    )
    columns = zip(orders, ours, theirs, strict=True)
    words = number_table(
        ["k", "generated", "Markov sample of order k"],
        [[str(k), f"{a:.5f}", f"{b:.5f}"] for k, a, b in columns],
    )
    lines = [("generated", BLUE, ours), ("Markov sample of order k", RED, theirs)]
    chart = line_chart(
        [Series(label, list(enumerate(ys, 1)), color, dots=True) for label, color, ys in lines],
        x_label="k, bases of a word",
        y_label="divergence, bits",
    )
    sections += [f"<h2>Words, beside {escape(str(genome.path))}</h2><p>{_EXPLANATION}</p>", words, chart]
    markov = f"Markov sample of order {LONGEST_WORD}"
    found = shared_words((new, samples[-1]), (contig.codes for contig in genome.contigs))
    rows = [
        [title, f"{shared:,}", f"{total:,}", f"{shared / max(1, total):.2%}"]
        for title, (shared, total) in zip(("generated", markov), found, strict=True)
    ]
    sections += [
        f"<h2>Words of {K} bases that the reference has too</h2>",
        "<p>Sequences copied out of the genome share them; by chance hardly any is shared.</p>",
        number_table(["", "shared", "of", "share"], rows),
    ]
    verdict = (
        f"; their words of {LONGEST_WORD} bases differ from those of the reference by {ours[-1]:.4f} bits, "
        f"those of a Markov sample by {theirs[-1]:.4f}; {rows[0][-1]} of their words of {K} bases are in the "
        "reference"
    )
    return verdict, sections


def _count_all(stretches: Iterable[Tokens]) -> list[Floats]:
    """Count the words of 1 to `LONGEST_WORD` bases, (4**k,) each, of stretches that are read once."""
    counts = [np.zeros(4**k) for k in range(1, LONGEST_WORD + 1)]
    for tokens_L in stretches:
        for k, count_P in enumerate(counts, 1):
            np.add(count_P, count_words([tokens_L], k), out=count_P)
    return counts


def _composition_table(groups: Mapping[str, Sequence[Floats]]) -> str:
    """Return a table of the bases and of CpG, observed and expected by its bases, of counts of words."""
    rows = []
    for title, (base_4, pair_P, *_) in groups.items():
        share_4 = base_4 / max(1.0, base_4.sum())
        pair_44 = pair_P.reshape(4, 4)
        expected = share_4[1] * share_4[2] * pair_44.sum()
        odds = f"{pair_44[1, 2] / expected:.3f}" if expected else "-"
        rows.append([title, f"{base_4.sum():,.0f}", *(f"{share:.2%}" for share in share_4), odds])
    return number_table(["", "bases", *"ACGT", "CpG o/e"], rows)


def jensen_shannon(first: Floats, second: Floats) -> float:
    """Return the divergence of two distributions given as counts, in bits; NaN where one is empty.

    >>> import numpy as np
    >>> jensen_shannon(np.array([1, 0]), np.array([0, 3])), jensen_shannon(np.array([1, 1]), np.array([2, 2]))
    (1.0, 0.0)
    """
    if not (first.sum() and second.sum()):
        return math.nan
    p, q = first / first.sum(), second / second.sum()
    middle, bits = (p + q) / 2, 0.0
    for part in (p, q):
        present = part > 0
        bits += float((part[present] * np.log2(part[present] / middle[present])).sum()) / 2
    return max(0.0, bits)


def shared_words(groups: Iterable[Iterable[Tokens]], reference: Iterable[Tokens]) -> list[tuple[int, int]]:
    """Count, of each group of sequences, the different words of `K` bases that a reference has too, and all.

    Words are those of either strand. The reference is read once.
    """
    found = []
    for sequences in groups:
        hashes = [hash_kmers(tokens_L)[0] for tokens_L in sequences]
        words_P = np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]))
        found.append((words_P, np.zeros(len(words_P), dtype=bool)))
    for codes in reference:
        for start in range(0, len(codes), CHUNK):
            others, _ = hash_kmers(codes[start : start + CHUNK + K - 1])
            for words_P, shared_P in found:
                if len(words_P):
                    indices = np.minimum(np.searchsorted(words_P, others), len(words_P) - 1)
                    shared_P[indices[words_P[indices] == others]] = True
    return [(int(shared_P.sum()), len(words_P)) for words_P, shared_P in found]
