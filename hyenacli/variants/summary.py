"""What the scores of a run look like together: their distribution, the extremes, kinds and statuses."""

import heapq
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hyenacli.console import log
from hyenacli.evaluation.line_plots import histogram_chart
from hyenacli.evaluation.metrics import describe_bits
from hyenacli.evaluation.report import facts_table, number_table, write_page
from hyenacli.genome.variant import Variant
from hyenacli.readers.vcf import VariantRecord, spell_allele
from hyenacli.variants.scorer import ScoredRecord
from hyenacli.writers.vcf import InfoField

_LOGGED, _LISTED = 3, 10
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MEANINGS = {
    "llr": "negative: the model finds ALT less likely than REF; not comparable between SNVs and indels",
    "site": "negative: the model finds the ALT base less likely after the bases before it",
    "jsd": "0: both alleles lead to the same predictions; larger: ALT changes them more",
    "cosine": "0: the same mean embedding; larger: ALT changes it more",
    "l2": "0: the same mean embedding; larger: ALT changes it more",
}
_STATUS_MEANINGS = {
    "OK": "scored",
    "EDGE": "scored; the window reaches past the contig's end, where it is N",
    "REF_MISMATCH": "REF is not what the genome has; where many are, VCF and genome are of two assemblies",
    "NO_CONTIG": "the genome has no contig of this name: see --contig-aliases",
    "SYMBOLIC": "ALT is not a sequence (`*`, `<DEL>`, a breakend)",
    "TOO_LONG": "longer than --max-allele",
    "N_WINDOW": "most of the window is N",
    "N_ALLELE": "REF or ALT has letters other than A, C, G, T and U",
}
_CAUTION = "Compare only scores of one model and the same settings; they are not pathogenicity."


class ScoreSummary:
    """Collects the first score of every allele; 8 bytes for each.

    Args:
        score: the name of the score.

    Attributes:
        statuses: alleles of each.
    """

    def __init__(self, score: str) -> None:
        self._score = score
        self._by_kind: dict[str, array[float]] = defaultdict(lambda: array("d"))
        self.statuses: Counter[str] = Counter()
        self._lowest: list[tuple[float, int, str]] = []
        self._highest: list[tuple[float, int, str]] = []
        self._alleles = 0

    def watch(self, scored: Iterable[ScoredRecord]) -> Iterator[ScoredRecord]:
        """Pass records on, and count their alleles."""
        for record, alleles in scored:
            for alt, allele in zip(record.alts, alleles, strict=True):
                self._alleles += 1
                self.statuses[allele.status] += 1
                value = allele.values.get(self._score, math.nan)
                if not math.isnan(value):
                    self._add(record, alt, value)
            yield record, alleles

    def _add(self, record: VariantRecord, alt: bytes, value: float) -> None:
        kind = Variant(record.contig, record.position, record.ref.upper(), alt.upper()).kind
        self._by_kind[kind].append(value)
        for heap, rank in ((self._highest, value), (self._lowest, -value)):
            if len(heap) < _LISTED or rank > heap[0][0]:
                # of equal values the first stay
                item = rank, -self._alleles, spell_allele(record, alt, longest=12)
                (heapq.heappush if len(heap) < _LISTED else heapq.heappushpop)(heap, item)

    @property
    def _values(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.concatenate([np.frombuffer(values) for values in self._by_kind.values()] or [np.empty(0)])

    def report(self) -> None:
        """Log distribution, extremes and how to read them."""
        values = self._values
        if not len(values):
            return
        log.info("%s: %s", self._score, _describe_spread(values))
        for name, extremes in (
            ("lowest", self._ranked(self._lowest)),
            ("highest", self._ranked(self._highest)),
        ):
            log.info("%s: %s", name, ", ".join(f"{text} {value:.3g}" for text, value in extremes[:_LOGGED]))
        log.info("%s; %s", _MEANINGS[self._score], _CAUTION[0].lower() + _CAUTION[1:-1])
        for status in sorted(self.statuses.keys() - {"OK", "EDGE"}):
            log.info("%s: %s", status, _STATUS_MEANINGS[status])

    def _ranked(self, heap: Sequence[tuple[float, int, str]]) -> list[tuple[str, float]]:
        """Return the alleles and values of a heap, the most extreme first."""
        sign = 1 if heap is self._highest else -1
        return [(text, sign * rank) for rank, _, text in sorted(heap, reverse=True)]

    def write(
        self, path: Path, field: InfoField, facts: Mapping[str, object], reference: float, table: Path
    ) -> None:
        """Write the report: one self-contained HTML file.

        Args:
            path: the file.
            field: of the score.
            facts: how the scores were made, by name.
            reference: loss of the model on the reference, in nats per base.
            table: the file of scores, or - for stdout.
        """
        name, values = field.id, self._values
        shares = [f"{share:.0%}" for share in _QUANTILES]
        kinds = {kind: np.frombuffer(kept) for kind, kept in self._by_kind.items()} | {"all": values}
        rows = [
            [kind, f"{len(kept):,}", *(f"{q:.3g}" for q in np.quantile(kept, _QUANTILES))]
            for kind, kept in kinds.items()
            if len(kept)
        ]
        extremes = [
            f"<h2>{title}</h2>"
            + number_table(["allele", name], [[text, f"{value:.4g}"] for text, value in self._ranked(heap)])
            for title, heap in (("Lowest", self._lowest), ("Highest", self._highest))
        ]
        statuses = [
            [f"{status}: {_STATUS_MEANINGS[status]}", f"{count:,}"]
            for status, count in self.statuses.most_common()
        ]
        meaning = _MEANINGS[self._score]
        sections = [
            facts_table(facts),
            f"<h2>What the numbers mean</h2>{facts_table({name: field.description})}",
            f"<p>{meaning[0].upper()}{meaning[1:]}. {_CAUTION}</p>",
            f"<h2>Distribution</h2>{histogram_chart(values, x_label=name, y_label='alleles')}",
            f"<h2>By kind</h2>{number_table(['kind', 'alleles', *shares], rows)}",
            *(extremes if len(values) else ()),
            f"<h2>Statuses</h2>{number_table(['status', 'alleles'], statuses)}",
        ]
        verdict = f"{len(values):,} of {self._alleles:,} alleles have a score"
        if len(values):
            verdict += f": {_describe_spread(values)}"
        if math.isfinite(reference):
            verdict += f"; the model predicts the reference at {describe_bits(reference)}"
        tables = [table] if str(table) != "-" else []
        title = f"{name} of {self._alleles:,} alleles"
        write_page(path, title, sections, verdict=verdict, tables=tables)
        log.info("wrote %s", path)


def _describe_spread(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    low, median, high = np.quantile(values, (0.05, 0.5, 0.95))
    return f"median {median:.3g}, 90 % from {low:.3g} to {high:.3g}"
