"""Contig names of an input matched with those of a genome."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hyenacli.errors import UsageError, UserError
from hyenacli.genome.names import abbreviate
from hyenacli.genome.region import Region
from hyenacli.readers.streams import open_binary

ContigStyle = Literal["auto", "exact"]

_MITOCHONDRION = frozenset({"m", "mt", "mito", "mitochondrion"})


def parse_style(text: str, flag: str = "--contig-style") -> ContigStyle:
    """A style by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if text not in ("auto", "exact"):
        raise UsageError(f"unknown style '{text}'", at=flag, remedy="use auto or exact")
    return "auto" if text == "auto" else "exact"


def check_naming(style: str, aliases: Path | None, genome: Path | None) -> None:
    """Refuse an unknown style, and ways to match names where there is no genome whose names they are.

    Raises:
        UsageError: naming the flag.
    """
    given = {"--contig-style": parse_style(style) != "auto", "--contig-aliases": aliases is not None}
    for flag in (flag for flag in given if given[flag] and genome is None):
        raise UsageError("matches names with a genome's", at=flag, remedy="leave it out, or give -f/--fasta")


@dataclass(frozen=True, slots=True)
class ContigMap:
    """How an input's contig names read in the genome's spelling; built by `match_contigs`.

    Attributes:
        names: the input's contigs, in their order.
        genome: the genome's contigs.
        by_key: the genome's contigs under what all their spellings share.
        style: 'exact' for equal names only, 'auto' also for chr1 <-> 1 and the names of the mitochondrion.
        aliases: input name -> the name to look up instead.
        input_name: what messages call the input.
        genome_name: what messages call the genome.
    """

    names: tuple[str, ...]
    genome: frozenset[str]
    by_key: Mapping[str, tuple[str, ...]]
    style: ContigStyle
    aliases: Mapping[str, str]
    input_name: str
    genome_name: str

    def resolve(self, name: str) -> str | None:
        """The genome's spelling of a contig, None where the genome has no such contig.

        An alias goes first, then the equal name, then (style 'auto') the same contig in another style.

        Raises:
            UserError: several contigs of the genome could be meant.
        """
        wanted = self.aliases.get(name, name)
        if wanted in self.genome:
            return wanted
        found = self.by_key.get(_key(wanted), ()) if self.style == "auto" else ()
        if len(found) > 1:
            raise UserError(
                f"contig '{name}' could be any of {abbreviate(found)} in {self.genome_name}",
                at=self.input_name,
                remedy="say which with --contig-aliases FILE",
            )
        return found[0] if found else None

    @property
    def missing(self) -> tuple[str, ...]:
        """The input's contigs that the genome lacks."""
        return tuple(name for name in self.names if self.resolve(name) is None)

    def summary(self) -> str:
        """One line for the log, such as `matched 24/25 contigs (missing: MT)`."""
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
    known = list(genome)
    by_key: dict[str, tuple[str, ...]] = {}
    for contig in known:
        by_key[_key(contig)] = (*by_key.get(_key(contig), ()), contig)
    queries = tuple(dict.fromkeys(names))
    contigs = ContigMap(queries, frozenset(known), by_key, style, aliases, input_name, genome_name)
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
            f"the genome {abbreviate(known)}",
            at=input_name,
            remedy="use the genome the coordinates are from, or map the names with "
            + ("--contig-style auto or " if style == "exact" else "")
            + "--contig-aliases FILE",
        )
    return contigs


def read_aliases(path: Path) -> dict[str, str]:
    """Two columns, the input's name and the genome's, as for `bcftools annotate --rename-chrs`.

    Raises:
        UserError: the file cannot be read, a line has not two columns, or a name is given two meanings.
    """
    aliases: dict[str, str] = {}
    with open_binary(path) as stream:
        for number, raw in enumerate(stream, 1):
            line = raw.decode(errors="replace")
            columns = line.split()
            if not columns or line.startswith("#"):
                continue
            if len(columns) != 2:
                remedy = "write the input's name and the genome's name"
                raise UserError(f"{len(columns)} columns instead of 2", at=path, line=number, remedy=remedy)
            name, target = columns
            if aliases.setdefault(name, target) != target:
                raise UserError(f"'{name}' is both '{aliases[name]}' and '{target}'", at=path, line=number)
    return aliases


def spellings(contig: str, style: ContigStyle, aliases: Mapping[str, str]) -> list[str]:
    """The names that an input may have for a contig of the genome, its own first.

    >>> spellings("chr2", "auto", {"NC_2": "chr2"}), spellings("MT", "auto", {})[:3]
    (['chr2', 'NC_2', '2', 'Chr2', 'CHR2'], ['MT', 'M', 'chrM'])
    """
    key = _key(contig)
    names = [contig, *aliases]
    if style == "auto":
        bare = [key]
        if key == "MT":
            words = ("M", "MT", "Mito", "mitochondrion")
            bare = [one for word in words for one in dict.fromkeys((word, word.lower(), word.title()))]
        names += [prefix + one for one in bare for prefix in ("", "chr", "Chr", "CHR")]
    meant = {name: aliases.get(name, name) for name in names}
    return [name for name, one in meant.items() if one == contig or (style == "auto" and _key(one) == key)]


def _key(name: str) -> str:
    """Equal for the spellings of one contig: without `chr`, and one name for the mitochondrion.

    >>> {_key(name) for name in ("chrM", "MT", "M", "Mito", "chrMito")}
    {'MT'}
    """
    bare = name[3:] if name[:3].lower() == "chr" else name
    return "MT" if bare.lower() in _MITOCHONDRION else bare


def _check_one_to_one(contigs: ContigMap) -> None:
    """Two input contigs that are one in the genome mix two assemblies up, unless an alias says so."""
    takers: dict[str, str] = {}
    for name in contigs.names:
        target = contigs.resolve(name)
        if target is None or name in contigs.aliases:
            continue
        other = takers.setdefault(target, name)
        if other != name:
            raise UserError(
                f"'{other}' and '{name}' would both be '{target}' of {contigs.genome_name}",
                at=contigs.input_name,
                remedy="use --contig-style exact, or say which with --contig-aliases FILE",
            )


def named_region(
    text: str, lengths: Mapping[str, int], style: ContigStyle, aliases: Mapping[str, str]
) -> tuple[Region, Region]:
    """A 1-based region, as it is named and in the genome's spelling.

    Args:
        text: as of `Region.parse`; the contig may be spelled as in the genome, or as an input may spell it.
        lengths: bases of the genome's contigs.
        style: whether chr1 and 1 are the same.
        aliases: names of the input, and what the genome calls them.

    Raises:
        UserError: as `Region.parse`.

    >>> [str(region) for region in named_region("chr1:5-9", {"1": 20}, "auto", {})]
    ['chr1:5-9', '1:5-9']
    """
    meant = {
        name: contig
        for contig in lengths
        for name in spellings(contig, style, aliases)
        if name not in lengths
    }
    meant |= {contig: contig for contig in lengths}
    if text.rpartition(":")[0] not in meant and text not in meant and not text.startswith("{"):
        Region.parse(text, lengths)  # whose message lists the genome's own names
    named = Region.parse(text, {name: lengths[contig] for name, contig in meant.items()})
    return named, replace(named, contig=meant[named.contig])
