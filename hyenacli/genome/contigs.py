"""Contig names of an input matched with those of a genome."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hyenacli.errors import UsageError, UserError, abbreviate
from hyenacli.genome.region import Region

ContigStyle = Literal["auto", "exact"]

_MITOCHONDRION = frozenset({"m", "mt", "mito", "mitochondrion"})


def check_naming(style: ContigStyle, aliases: Path | None, genome: Path | None) -> None:
    """Refuse options that match names with a genome's if there is no genome.

    Raises:
        UsageError: naming the flag.
    """
    given = {"--contig-style": style != "auto", "--contig-aliases": aliases is not None}
    for flag in (flag for flag in given if given[flag] and genome is None):
        raise UsageError("matches names with a genome's", at=flag, remedy="leave it out, or give -f/--fasta")


@dataclass(frozen=True, slots=True)
class ContigMap:
    """An input's contig names in the genome's spelling; built by `match_contigs`.

    Attributes:
        names: the input's contigs, in their order.
        genome: the genome's contigs.
        by_key: the genome's contigs, by the key that their spellings share.
        style: 'exact' for equal names only, 'auto' also for chr1 <-> 1 and the names of the mitochondrion.
        aliases: input name -> the name to look up instead.
        input_name: name of the input in messages.
        genome_name: name of the genome in messages.
    """

    names: tuple[str, ...]
    genome: frozenset[str]
    by_key: Mapping[str, tuple[str, ...]]
    style: ContigStyle
    aliases: Mapping[str, str]
    input_name: str
    genome_name: str

    def resolve(self, name: str) -> str | None:
        """Return the genome's spelling of a contig, None where the genome has no such contig.

        An alias goes first, then the equal name, then (style 'auto') the same contig in another style.

        Raises:
            UserError: several contigs of the genome could be meant.
        """
        target = self.aliases.get(name, name)
        if target in self.genome:
            return target
        matches = self.by_key.get(_key(target), ()) if self.style == "auto" else ()
        if len(matches) > 1:
            raise UserError(
                f"contig '{name}' could be any of {abbreviate(matches)} in {self.genome_name}",
                at=self.input_name,
                remedy="say which with --contig-aliases FILE",
            )
        return matches[0] if matches else None

    @property
    def missing(self) -> tuple[str, ...]:
        """The input's contigs that the genome lacks."""
        return tuple(name for name in self.names if self.resolve(name) is None)

    def summary(self) -> str:
        """Return a line for the log, such as `matched 24/25 contigs (missing: MT)`."""
        missing = self.missing
        tail = f" (missing: {abbreviate(missing)})" if missing else ""
        return f"matched {len(self.names) - len(missing)}/{len(self.names)} contigs{tail}"


def match_contigs(
    names: Iterable[str],
    genome: Iterable[str],
    *,
    style: ContigStyle,
    aliases: Mapping[str, str],
    input_name: str,
    genome_name: str,
) -> ContigMap:
    """Match an input's contigs with a genome's before anything expensive begins.

    Raises:
        UserError: no contig matches, a name could mean several contigs of the genome, or two names of the
            input mean the same contig without an alias that says so.

    >>> contigs = match_contigs(
    ...     ["chr1", "chrM", "chrUn"],
    ...     ["1", "2", "MT"],
    ...     style="auto",
    ...     aliases={},
    ...     input_name="a.bed",
    ...     genome_name="g.fa",
    ... )
    >>> contigs.resolve("chr1"), contigs.resolve("chrM"), contigs.summary()
    ('1', 'MT', 'matched 2/3 contigs (missing: chrUn)')
    """
    genome = list(genome)
    by_key: dict[str, tuple[str, ...]] = {}
    for contig in genome:
        by_key[_key(contig)] = (*by_key.get(_key(contig), ()), contig)
    queries = tuple(dict.fromkeys(names))
    contigs = ContigMap(queries, frozenset(genome), by_key, style, aliases, input_name, genome_name)
    _check_one_to_one(contigs)
    if queries and len(contigs.missing) == len(queries):
        if aliases and not set(aliases) & set(queries):
            raise UserError(
                f"the aliases begin with no contig of this input, which has {abbreviate(queries)}",
                at=input_name,
                remedy="put the input's names into the first column, the genome's into the second",
            )
        raise UserError(
            f"no contig of this input is in {genome_name}: the input has {abbreviate(queries)}, "
            f"the genome {abbreviate(genome)}",
            at=input_name,
            remedy="use the genome the coordinates are from, or map the names with "
            + ("--contig-style auto or " if style == "exact" else "")
            + "--contig-aliases FILE",
        )
    return contigs


def spellings(contig: str, style: ContigStyle, aliases: Mapping[str, str]) -> list[str]:
    """List the names that an input may have for a contig of the genome, the genome's name first.

    >>> spellings("chr2", "auto", {"NC_2": "chr2"}), spellings("MT", "auto", {})[:3]
    (['chr2', 'NC_2', '2', 'Chr2', 'CHR2'], ['MT', 'M', 'chrM'])
    """
    key = _key(contig)
    names = [contig, *aliases]
    if style == "auto":
        bare = [key]
        if key == "MT":
            words = ("M", "MT", "Mito", "mitochondrion")
            bare = [name for word in words for name in dict.fromkeys((word, word.lower(), word.title()))]
        names += [prefix + name for name in bare for prefix in ("", "chr", "Chr", "CHR")]
    targets = {name: aliases.get(name, name) for name in names}
    return [
        name
        for name, target in targets.items()
        if target == contig or (style == "auto" and _key(target) == key)
    ]


def _key(name: str) -> str:
    """Return the same key for all spellings of a contig: no `chr`, and `MT` for the mitochondrion.

    >>> {_key(name) for name in ("chrM", "MT", "M", "Mito", "chrMito")}
    {'MT'}
    """
    bare = name[3:] if name[:3].lower() == "chr" else name
    return "MT" if bare.lower() in _MITOCHONDRION else bare


def _check_one_to_one(contigs: ContigMap) -> None:
    """Refuse two input contigs that are the same in the genome, unless an alias says so."""
    by_target: dict[str, str] = {}
    for name in contigs.names:
        target = contigs.resolve(name)
        if target is None or name in contigs.aliases:
            continue
        other = by_target.setdefault(target, name)
        if other != name:
            raise UserError(
                f"'{other}' and '{name}' would both be '{target}' of {contigs.genome_name}",
                at=contigs.input_name,
                remedy="use --contig-style exact, or say which with --contig-aliases FILE",
            )


def named_region(
    text: str, lengths: Mapping[str, int], style: ContigStyle, aliases: Mapping[str, str]
) -> tuple[Region, Region]:
    """Parse a 1-based region, and return it as it is named and in the genome's spelling.

    Args:
        text: as of `Region.parse`; the contig may be spelled as in the genome, or as an input may spell it.
        lengths: bases of the genome's contigs.
        style: 'auto' if chr1 and 1 are the same.
        aliases: name in the input -> name in the genome.

    Raises:
        UserError: as `Region.parse`.

    >>> [str(region) for region in named_region("chr1:5-9", {"1": 20}, "auto", {})]
    ['chr1:5-9', '1:5-9']
    """
    contigs = {
        name: contig
        for contig in lengths
        for name in spellings(contig, style, aliases)
        if name not in lengths
    }
    contigs |= {contig: contig for contig in lengths}
    if text.rpartition(":")[0] not in contigs and text not in contigs and not text.startswith("{"):
        Region.parse(text, lengths)  # whose message lists the genome's own names
    named = Region.parse(text, {name: lengths[contig] for name, contig in contigs.items()})
    return named, replace(named, contig=contigs[named.contig])


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
