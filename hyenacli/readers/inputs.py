"""Inputs of verbs that read sequences of any kind: FASTA, tables, folders, or regions of a genome."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hyenacli.errors import UsageError
from hyenacli.genome.contigs import ContigStyle
from hyenacli.options import FeatureOptions
from hyenacli.readers.annotation import FLAT, is_annotation, sniff_regions
from hyenacli.readers.features import FeatureChoice
from hyenacli.readers.labelled import open_labelled
from hyenacli.readers.records import Input, check_input, open_regions, open_rows, require_regions
from hyenacli.readers.regions import open_reference
from hyenacli.readers.shards import Shard
from hyenacli.readers.tables import Columns
from hyenacli.readers.text import file_format, open_binary

_DEFAULT = Columns()
# Options of verbs that are fields of `SequenceInput`, where a verb has them.
_OPTIONS = ("fasta", "contig_style", "contig_aliases", "circular", "flank", "sequence_column", "id_column")


def check_flank(fasta: Path | None, *, given: bool) -> None:
    """Check that a flank is given only with a genome; UsageError if not."""
    if given and fasta is None:
        remedy = "leave it out, or give regions as BED, with their genome as -f"
        raise UsageError("sequences are read whole", at="--flank", remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class SequenceInput:
    """Sequences, or regions of a genome, as a command line names them.

    Attributes:
        verb: for messages, as "score".
        source: file or folder, `-` for stdin; None for regions.
        regions: 1-based texts that stand instead of a source.
        fasta: the genome of the regions.
        contig_style: how contig names match, with `contig_aliases` and `circular`, as the options say.
        flank: bases of the genome read on each side of a region.
        sequence_column: of a table.
        id_column: of a table; None for `id` if it has one.
        track: suffix of the track that the records' numbers go into: regions have no base in common, and
            sequences have coordinates.
        in_order: the track needs regions in the order of contigs' names and positions.
        choice: of the features of an annotation.
        keep_columns: keep the columns of a BED after the strand.
        column: a further one to keep: of a table, an attribute of features, or the `label` of a folder.
    """

    verb: str
    source: Path | None
    regions: list[str] | None = None
    fasta: Path | None = None
    contig_style: ContigStyle = "auto"
    contig_aliases: Path | None = None
    circular: str | None = None
    flank: int = 0
    sequence_column: str = _DEFAULT.sequence
    id_column: str | None = None
    track: str | None = None
    in_order: bool = False
    choice: FeatureChoice | None = None
    keep_columns: bool = False
    column: str | None = None

    @classmethod
    def of(cls, options: Any, verb: str, **more: Any) -> Self:
        """Return the input that the settings of a verb name; `more` are further fields, or other values.

        Raises:
            UsageError: as `FeatureChoice.of`, or flanks of sequences.
        """
        default = getattr(type(options), "flank", None)
        check_flank(options.fasta, given=getattr(options, "flank", default) != default)
        fields = {name: getattr(options, name) for name in _OPTIONS if hasattr(options, name)}
        choice = FeatureChoice.of(options, fields["fasta"]) if isinstance(options, FeatureOptions) else None
        fields |= {"source": options.input, "regions": options.region, "choice": choice} | more
        return cls(verb=verb, **fields)

    def open(self, stack: ExitStack, shard: Shard | None, *, several_processes: bool = False) -> Input:
        """Open the records, checked as far as they can be without a model.

        Args:
            stack: closes the files.
            shard: the part to take.
            several_processes: each reads a part, so that the input cannot be stdin.

        Raises:
            UsageError: options that do not fit the input.
            UserError: the input, or the genome, cannot be read.
        """
        if self.source is None:
            regions, fasta = require_regions(self.regions, self.fasta, self.verb)
            if self.choice not in (None, FeatureChoice()):
                remedy = "leave out --feature, --attributes and the like, or give an annotation"
                raise UsageError("names regions, not features", at="-r", remedy=remedy)
            reference = stack.enter_context(open_reference(fasta, *self._naming))
            return open_regions(regions, reference, shard=shard, **self._reading)
        check_input(self.source, self.regions, several_processes=several_processes)
        if self.fasta is None:
            return self._open_sequences(self.source, stack, shard)
        stream = stack.enter_context(open_binary(self.source, allow_empty=True))
        choice = self.choice or FeatureChoice()
        if (kind := sniff_regions(stream, choice, otherwise="bed")) != "bed":
            name = file_format(stream) or f"a {kind.upper()}"
            problem = f"is {name}, and -f gives the genome of a BED"
            remedy = "leave out -f, or give regions as BED" if kind == "fasta" else "give regions as BED"
            if name in FLAT:
                remedy = "choose features with --feature, or leave out -f"
            raise UsageError(problem, at=stream.name, remedy=remedy)
        self._refuse_columns(stream.name)
        if self.column is not None and is_annotation(stream, choice):
            choice = choice.including(Columns(labels=(self.column,)), labelled=True)
        reference = stack.enter_context(open_reference(self.fasta, *self._naming))
        return open_regions(
            stream, reference, shard=shard, choice=choice, keep_columns=self.keep_columns, **self._reading
        )

    @property
    def _reading(self) -> dict[str, Any]:
        return {"flank": self.flank, "apart": self.track is not None, "in_order": self.in_order}

    @property
    def _naming(self) -> tuple[ContigStyle, Path | None, str | None]:
        return self.contig_style, self.contig_aliases, self.circular

    def _open_sequences(self, source: Path, stack: ExitStack, shard: Shard | None) -> Input:
        labels = () if self.column is None else (self.column,)
        columns = Columns(self.sequence_column, labels=labels, id=self.id_column, split="")
        rows = stack.enter_context(open_labelled([source], columns, labelled=False))
        if rows.kinds[0] in ("fasta", "folder"):
            self._refuse_columns(rows.names[0])
        if self.track is not None and (self.in_order or rows.kinds[0] != "fasta"):
            also = "" if self.in_order else "a FASTA or "
            raise UsageError(
                f"its sequences have no coordinates, which a {self.track} needs",
                at=rows.names[0],
                remedy=f"leave out the {self.track}, or give {also}regions as BED, with their genome as -f",
            )
        return open_rows(rows, source, columns, shard=shard, apart=self.track is not None)

    def _refuse_columns(self, name: str) -> None:
        if self.sequence_column != _DEFAULT.sequence or self.id_column is not None:
            raise UsageError(
                "has no such columns", at=name, remedy="--sequence-column and --id-column are for tables"
            )
