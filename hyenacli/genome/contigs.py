"""Contig names of an input matched with those of a genome."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from hyenacli.errors import UsageError, UserError, abbreviate, nearest
from hyenacli.genome.region import Region

ContigStyle = Literal["auto", "exact"]

_MITOCHONDRION = frozenset({"m", "mt", "mito", "mitochondrion"})
_logger = logging.getLogger("hyena")


def check_naming(
    style: ContigStyle, aliases: Path | None, genome: Path | None, circular: str | None = None
) -> None:
    """Refuse options that match names with a genome's if there is no genome.

    Raises:
        UsageError: naming the flag.
    """
    given = {
        "--contig-style": style != "auto",
        "--contig-aliases": aliases is not None,
        "--circular": circular is not None,
    }
    for flag in (flag for flag in given if given[flag] and genome is None):
        raise UsageError("matches names with a genome's", at=flag, remedy="leave it out, or give -f/--fasta")


@dataclass(frozen=True)
class ContigMap:
    """An input's contig names in the genome's spelling; built by `match_contigs`.

    Attributes:
        names: the input's contigs, in their order, with the number of their records (0 if not counted).
        genome: the genome's contigs, with their lengths (0 if not known).
        style: 'exact' for equal names only, 'auto' also for chr1 <-> 1 and the names of the mitochondrion.
        aliases: input name -> the name to look up instead.
        input_name: name of the input in messages.
        genome_name: name of the genome in messages.
        declared: lengths of the input's contigs, where its header has them.
    """

    names: Mapping[str, int]
    genome: Mapping[str, int]
    style: ContigStyle
    aliases: Mapping[str, str]
    input_name: str
    genome_name: str
    declared: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def _by_key(self) -> Mapping[str, list[str]]:
        contigs: dict[str, list[str]] = {}
        for contig in self.genome:
            contigs.setdefault(_key(contig), []).append(contig)
        return contigs

    def candidates(self, name: str) -> list[str]:
        """Return the contigs of the genome that a name may mean.

        An alias goes first, then the equal name, then (style 'auto') the same contig in another style.
        """
        target = self.aliases.get(name, name)
        if target in self.genome:
            return [target]
        return self._by_key.get(_key(target), []) if self.style == "auto" else []

    def resolve(self, name: str) -> str | None:
        """Return the genome's spelling of a contig, None where the genome has no such contig.

        Another spelling is refused where several contigs have it, and where the lengths differ: chrM of hg19
        is not MT of GRCh37.
        """
        candidates = self.candidates(name)
        if len(candidates) != 1:
            return None
        [contig] = candidates
        explicit = contig in (name, self.aliases.get(name))
        return contig if explicit or not self._is_unequal(name, contig) else None

    def _is_unequal(self, name: str, contig: str) -> bool:
        declared, length = self.declared.get(name, 0), self.genome[contig]
        return bool(declared and length and declared != length)

    @property
    def missing(self) -> tuple[str, ...]:
        """The input's contigs that the genome lacks."""
        return tuple(name for name in self.names if self.resolve(name) is None)

    def summary(self) -> str:
        """Return a line for the log, such as `matched 24/25 contigs, MT read as chrM`."""
        matched = {name: target for name in self.names if (target := self.resolve(name)) is not None}
        changed = [n for n, target in matched.items() if target not in (n, self.aliases.get(n))]
        changed.sort(key=lambda name: _key(name) != "MT")
        spelt = abbreviate(f"{name} read as {matched[name]}" for name in changed)
        return f"matched {len(matched)}/{len(self.names)} contigs" + (f", {spelt}" if spelt else "")

    def warnings(self) -> list[str]:
        """Return what a user has to know before anything is computed.

        These are the contigs that the genome lacks, with the number of their records, and those with another
        length in the input's header than in the genome.
        """
        lines = []
        if self.missing:
            what = f"{len(self.missing)} of {len(self.names)} contigs are not in {self.genome_name}"
            lines.append(f"{what}: {abbreviate(map(self._counted, self.missing))}")
        unequal = {
            name: contigs[0]
            for name in self.names
            if len(contigs := self.candidates(name)) == 1 and self._is_unequal(name, contigs[0])
        }
        if unequal:
            lengths = abbreviate(
                f"{name} of {self.declared[name]:,} bases and {contig} of {self.genome[contig]:,}"
                for name, contig in unequal.items()
            )
            what = f"contigs differ in length from those of {self.genome_name}, another build of the genome?"
            refused = any(self.resolve(name) is None for name in unequal)
            tail = "; other spellings are matched only by --contig-aliases FILE" if refused else ""
            lines.append(f"{what} {lengths}{tail}")
        return lines

    def _counted(self, name: str) -> str:
        count = self.names[name]
        return f"{name} ({count:,} record{'s' * (count > 1)})" if count else name

    def report(self) -> None:
        """Log the summary and the warnings."""
        _logger.info("%s: %s", self.input_name, self.summary())
        for line in self.warnings():
            _logger.warning("%s: %s", self.input_name, line)


def match_contigs(
    names: Iterable[str] | Mapping[str, int],
    genome: Iterable[str] | Mapping[str, int],
    *,
    style: ContigStyle,
    aliases: Mapping[str, str],
    input_name: str,
    genome_name: str,
    declared: Mapping[str, int] | None = None,
) -> ContigMap:
    """Match an input's contigs with a genome's before anything expensive begins.

    Args:
        names: contigs of the input with the number of their records; or the contigs, one or several times.
        genome: the genome's contigs, with their lengths.
        style: 'auto' if chr1 and 1 are the same.
        aliases: name in the input -> name in the genome.
        input_name: name of the input in messages.
        genome_name: name of the genome in messages.
        declared: lengths of the input's contigs, where its header has them.

    Raises:
        UserError: no contig matches, a name could mean several contigs of the genome, or two names of the
            input mean the same contig without an alias that says so.

    >>> contigs = match_contigs(
    ...     {"chr1": 9, "chrM": 2, "chrUn": 1},
    ...     ["1", "2", "MT"],
    ...     style="auto",
    ...     aliases={},
    ...     input_name="a.bed",
    ...     genome_name="g.fa",
    ... )
    >>> contigs.resolve("chr1"), contigs.summary()
    ('1', 'matched 2/3 contigs, chrM read as MT, chr1 read as 1')
    >>> contigs.warnings()
    ['1 of 3 contigs are not in g.fa: chrUn (1 record)']
    """
    contigs = ContigMap(
        names if isinstance(names, Mapping) else Counter(names),
        genome if isinstance(genome, Mapping) else dict.fromkeys(genome, 0),
        style,
        aliases,
        input_name,
        genome_name,
        declared or {},
    )
    _check_one_to_one(contigs)
    if contigs.names and len(contigs.missing) == len(contigs.names):
        raise _nothing_matches(contigs)
    return contigs


def parse_circular(text: str | None, contigs: ContigMap) -> frozenset[str]:
    """Return the contigs of --circular in the genome's spelling, none for None.

    Raises:
        UsageError: the genome has no such contig.

    >>> genome = match_contigs([], ["1", "MT"], style="auto", aliases={}, input_name="", genome_name="g.fa")
    >>> parse_circular("chrM", genome)
    frozenset({'MT'})
    """
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if contigs.resolve(name) is None:
            what = f"no contig '{name}' in {contigs.genome_name}"
            raise UsageError(what, at="--circular", remedy=nearest(name, list(contigs.genome)))
    return frozenset(target for name in names if (target := contigs.resolve(name)) is not None)


def _nothing_matches(contigs: ContigMap) -> UserError:
    queries = abbreviate(contigs.names)
    if contigs.aliases and not set(contigs.aliases) & set(contigs.names):
        what = f"the aliases begin with no contig of this input, which has {queries}"
        remedy = "put the input's names into the first column, the genome's into the second"
    elif any(map(contigs.candidates, contigs.names)):
        what, remedy = contigs.warnings()[-1].split("; ")
    else:
        what = f"no contig of this input is in {contigs.genome_name}: the input has {queries}, "
        what += f"the genome {abbreviate(contigs.genome)}"
        style = "--contig-style auto or " if contigs.style == "exact" else ""
        remedy = (
            f"use the genome the coordinates are from, or map the names with {style}--contig-aliases FILE"
        )
    return UserError(what, at=contigs.input_name, remedy=remedy)


def _key(name: str) -> str:
    """Return the same key for all spellings of a contig: no `chr`, and `MT` for the mitochondrion.

    >>> {_key(name) for name in ("chrM", "MT", "M", "Mito", "chrMito")}
    {'MT'}
    """
    bare = name[3:] if name[:3].lower() == "chr" else name
    return "MT" if bare.lower() in _MITOCHONDRION else bare


def _check_one_to_one(contigs: ContigMap) -> None:
    """Refuse a name with several meanings, and two names that mean the same, unless an alias says so."""
    remedy = "say which with --contig-aliases FILE"
    by_target: dict[str, str] = {}
    for name in contigs.names:
        if len(candidates := contigs.candidates(name)) > 1:
            what = f"contig '{name}' could be any of {abbreviate(candidates)} in {contigs.genome_name}"
            raise UserError(what, at=contigs.input_name, remedy=remedy)
        target = contigs.resolve(name)
        if target is None or name in contigs.aliases:
            continue
        other = by_target.setdefault(target, name)
        if other != name:
            what = f"'{other}' and '{name}' would both be '{target}' of {contigs.genome_name}"
            raise UserError(what, at=contigs.input_name, remedy=f"use --contig-style exact, or {remedy}")


def named_region(text: str, contigs: ContigMap) -> tuple[Region, Region]:
    """Parse a 1-based region, and return it as it is named and in the genome's spelling.

    Args:
        text: as of `Region.parse`; the contig may be spelled as in the genome, or as an input may spell it.
        contigs: the genome's, with their lengths.

    Raises:
        UserError: as `Region.parse`.

    >>> genome = match_contigs([], {"1": 20}, style="auto", aliases={}, input_name="-r", genome_name="g.fa")
    >>> [str(region) for region in named_region("chr1:5-9", genome)]
    ['chr1:5-9', '1:5-9']
    """
    names = text, text.rpartition(":")[0], text[1:].partition("}")[0]
    targets = {name: target for name in names if (target := contigs.resolve(name)) is not None}
    if not targets:
        Region.parse(text, contigs.genome)  # whose message lists the genome's own names
    named = Region.parse(text, {name: contigs.genome[target] for name, target in targets.items()})
    return named, replace(named, contig=targets[named.contig])


def natural_key(text: str) -> list[tuple[int, float, str]]:
    """Return a key that sorts numbers in a text by value, the rest by letters.

    >>> sorted(["c10", "c9", "-1", "1", "0"], key=natural_key)
    ['-1', '0', '1', 'c9', 'c10']
    """
    try:
        return [(0, float(text), "")]
    except ValueError:
        parts = re.split(r"(\d+)", text)
    return [(1, float(part), "") if part.isdecimal() else (2, 0.0, part) for part in parts if part]
