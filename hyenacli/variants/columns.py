"""What is written of each allele: its scores, its status, and what is derived from them."""

from collections.abc import Mapping, Sequence
from typing import Any

from hyenacli.readers.vcf import VariantRecord
from hyenacli.variants.background import ScoreBackground
from hyenacli.variants.calibration import Calibration
from hyenacli.variants.haplotypes import AlleleReader
from hyenacli.variants.scorer import AlleleScore, ScoringOptions, info_fields, info_values


class AlleleColumns:
    """The INFO fields, or columns, of a run.

    Args:
        options: how the alleles are scored.
        reader: of the alleles.
        background: gives quantiles, if there is one.
        calibration: gives calibrated scores, if there is one.

    Attributes:
        fields: in order; that of the first score comes first.
    """

    def __init__(
        self,
        options: ScoringOptions,
        reader: AlleleReader,
        background: ScoreBackground | None,
        calibration: Calibration | None,
    ) -> None:
        self._options, self._reader = options, reader
        self._background, self._calibration = background, calibration
        self.fields = info_fields(options)
        for source in (background, calibration):
            self.fields += source.fields(options.scores) if source else []

    def values(self, record: VariantRecord, scores: Sequence[AlleleScore]) -> Mapping[str, list[Any]]:
        """Return the values of a record's alleles by the IDs of the fields; None where there is none."""
        names, values = self._options.scores, info_values(self._options, scores)
        if self._background is not None:
            values |= self._background.values(names, scores)
        if self._calibration is not None:
            values |= self._calibration.values(names, self._reader.read(record), scores)
        return values
