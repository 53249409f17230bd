"""Scores less the mean of the same substitution among the same neighbours, over neutral sites.

A cell is a substitution in its context of five bases: 4^5 contexts with three other bases each. Where a score
is the mean of both strands, a cell and its reverse complement are one.

C context, V new base.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hyenacli.console import log
from hyenacli.errors import UserError
from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.variant import Variant
from hyenacli.readers.genome import Sequences
from hyenacli.readers.text import open_binary
from hyenacli.variants.haplotypes import AlleleReader
from hyenacli.variants.scorer import AlleleScore, ScoredRecord, ScoringOptions
from hyenacli.writers.text import TSV
from hyenacli.writers.vcf import InfoField

_BASES = b"ACGT"
_FLANK = 2
_MARK = "# hyena calibration "
_CONTEXTS = tuple(bytes(letters).decode() for letters in product(_BASES, repeat=2 * _FLANK + 1))
CELLS = tuple((context, alt) for context in _CONTEXTS for alt in _BASES.decode() if alt != context[_FLANK])
"""Context and new base of each cell, in the order of a table."""
_INDICES = {cell: index for index, cell in enumerate(CELLS)}
_MIRRORED = np.array(
    [
        _INDICES[reverse_complement(context.encode()).decode(), reverse_complement(alt.encode()).decode()]
        for context, alt in CELLS
    ]
)
# Sites of a cell from which on its mean is steady.
_ENOUGH = 100


def cell_index(genome: Sequences, variant: Variant | str) -> int | None:
    """Return the index in `CELLS` of an allele; None if it is not a base replaced between four others."""
    core = variant if isinstance(variant, str) else variant.trimmed()
    if isinstance(core, str) or len(core.ref) != 1 or len(core.alt) != 1:
        return None
    start, end = core.position - _FLANK, core.position + _FLANK + 1
    if core.contig not in genome.circular and not 0 <= start < end <= genome.lengths[core.contig]:
        return None
    return _INDICES.get((genome.fetch(core.contig, start, end).decode(), core.alt.decode()))


class CalibrationSums:
    """Sums of scores by cell, from which a table is made.

    Args:
        path: of the table.
        genome: the reference.
        reader: of the alleles.
        options: how the alleles are scored.
        model: sha256 of the model.
    """

    def __init__(
        self, path: Path, genome: Sequences, reader: AlleleReader, options: ScoringOptions, model: str
    ) -> None:
        self._path, self._genome, self._reader = path, genome, reader
        self._options, self._model = options, model
        self._counts = np.zeros(len(CELLS), np.int64)
        self._sums = {name: np.zeros(len(CELLS)) for name in options.scores}

    def watch(self, scored: Iterable[ScoredRecord]) -> Iterator[ScoredRecord]:
        """Pass records on, and add the scores of their substitutions."""
        for record, scores in scored:
            for allele, score in zip(self._reader.read(record), scores, strict=True):
                index = cell_index(self._genome, allele)
                # a substitution that is scored has all scores
                if index is not None and score.values:
                    self._counts[index] += 1
                    for name, sums in self._sums.items():
                        sums[index] += score.values[name]
            yield record, scores

    def finish(self) -> None:
        """Write the table: context, alt, n, and the mean of each score.

        Raises:
            UserError: no substitution was scored, or the file cannot be written.
        """
        path, counts, sums = self._path, self._counts, self._sums
        if self._options.both_strands:
            counts = counts + counts[_MIRRORED]
            sums = {name: values + values[_MIRRORED] for name, values in sums.items()}
        if not counts.any():
            raise UserError("no substitution was scored", at=path, remedy="score regions with --all-snvs")
        facts = {**_facts(self._options, self._model), "n": int(self._counts.sum())}
        with TSV.open_lines(path) as write:
            write(f"{_MARK}{json.dumps(facts)}\n".encode())
            write("\t".join(("context", "alt", "n", *sums)).encode() + b"\n")
            for index, (cell, n) in enumerate(zip(CELLS, counts.tolist(), strict=True)):
                means = [f"{values[index] / n:.9g}" if n else "" for values in sums.values()]
                write("\t".join((*cell, str(n), *means)).encode() + b"\n")
        log.info(
            "wrote %s: %s cells from %s substitutions; of a cell median %s, fewest %s; %s",
            *(path, f"{len(CELLS):,}", f"{facts['n']:,}", f"{np.median(counts):,.0f}", f"{counts.min():,}"),
            f"{np.count_nonzero(counts < _ENOUGH):,} have fewer than {_ENOUGH}",
        )


@dataclass(frozen=True)
class Calibration:
    """The means of neutral substitutions.

    Attributes:
        path: of the table.
        genome: the reference.
        counts: neutral substitutions of each cell.
        means: of each cell by the names of the scores; NaN for a cell without any.
    """

    path: Path
    genome: Sequences
    counts: NDArray[np.int64]
    means: Mapping[str, NDArray[np.float64]]

    @classmethod
    def read(cls, path: Path, genome: Sequences, options: ScoringOptions, model: str) -> Self:
        """Read a table.

        Raises:
            UserError: it is no such table, lacks a score, or was made with another model or other settings.
        """
        facts, lines = read_lines(path)
        expected = _facts(options, model)
        for name, value in expected.items():
            if facts.get(name) != value:
                what = f"was made with another {name} ({facts.get(name)}, not {value})"
                raise UserError(what, at=path, remedy="make it with the settings of this run")
        titles, *rows = (line.split("\t") for line in lines)
        if missing := [name for name in options.scores if name not in titles]:
            raise UserError(
                f"has no {missing[0]}", at=path, remedy=f"make it with --score {','.join(options.scores)}"
            )
        if [tuple(row[:2]) for row in rows] != list(CELLS) or {len(row) for row in rows} != {len(titles)}:
            raise _no_table(path)
        columns = dict(zip(titles, zip(*rows, strict=True), strict=True))
        try:
            means = {
                name: np.array([float(text) if text else math.nan for text in columns[name]])
                for name in options.scores
            }
            counts = np.array([int(text) for text in columns["n"]])
        except (KeyError, ValueError) as error:
            raise _no_table(path) from error
        log.info(
            "%s: %s neutral substitutions; of a cell median %s, fewest %s",
            *(path, f"{facts['n']:,}", f"{np.median(counts):,.0f}", f"{counts.min():,}"),
        )
        return cls(path, genome, counts, means)

    def fields(self, names: Sequence[str]) -> list[InfoField]:
        """Return the INFO fields, or columns, of the calibrated scores."""
        described = "less the mean of the same substitution between the same two bases on each side, of"
        return [
            InfoField(_field_id(name), "A", "Float", f"HYENA_{name.upper()} {described} {self.path}")
            for name in names
        ]

    def values(
        self, names: Sequence[str], alleles: Sequence[Variant | str], scores: Sequence[AlleleScore]
    ) -> dict[str, list[Any]]:
        """Return the calibrated scores of a record's alleles by the IDs of `fields`; None for none.

        Args:
            names: of the scores.
            alleles: as `AlleleReader` reads them.
            scores: of each.
        """
        indices = [cell_index(self.genome, allele) for allele in alleles]
        values = {}
        for name in names:
            column = [
                score.values.get(name, math.nan) - (math.nan if index is None else self.means[name][index])
                for index, score in zip(indices, scores, strict=True)
            ]
            values[_field_id(name)] = [None if math.isnan(value) else float(value) for value in column]
        return values


def read_lines(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return what a table of calibration says of its making, and the lines below.

    Raises:
        UserError: the file cannot be read, or is another one.
    """
    with open_binary(path) as stream:
        lines = stream.read().decode(errors="replace").splitlines()
    if len(lines) != len(CELLS) + 2 or not lines[0].startswith(f"{_MARK}{{"):
        raise _no_table(path)
    try:
        facts = json.loads(lines[0].removeprefix(_MARK))
    except ValueError as error:
        raise _no_table(path) from error
    if not isinstance(facts.get("n"), int):
        raise _no_table(path)
    return facts, lines[1:]


def _no_table(path: Path) -> UserError:
    remedy = "make it again from neutral regions"
    return UserError("is no table of --write-calibration", at=path, remedy=remedy)


def _facts(options: ScoringOptions, model: str) -> dict[str, Any]:
    """Return what a table and the scores that it calibrates have in common."""
    rule = options.rule
    strands = 1 + options.both_strands
    return {
        "model": model,
        "window": rule.size,
        "grid": rule.grid,
        "downstream": rule.downstream,
        "number of strands": strands,
    }


def _field_id(name: str) -> str:
    return f"HYENA_{name.upper()}_CALIBRATED"
