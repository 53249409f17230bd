"""The label set of species classification: which species there are, and the genomes of each."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from hyenacli.errors import UsageError, UserError, nearest
from hyenacli.readers.token_store import Contig, Genome, open_genomes

_FLAG = "--species"
_KEYS = ["fasta", "valid", "test"]
# What predictions and their files are called where there is no species.
_RESERVED = ("unknown", "unclassified")
# What is between species, and between them and their probabilities, in the column `top`.
_SEPARATORS = ",:"
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class Species:
    """One label.

    Attributes:
        name: of the species.
        fasta: its files.
        valid: contigs to validate on, by name; empty to have them chosen.
        test: contigs to test on, likewise.
        train: contigs to train on where not all others are; only the published splits name them.
    """

    name: str
    fasta: tuple[Path, ...]
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    train: tuple[str, ...] = ()


@dataclass(frozen=True)
class SpeciesGenomes:
    """The genomes of all species.

    Attributes:
        species: the labels; a class is a place in them.
        genomes: of each species.
    """

    species: tuple[Species, ...]
    genomes: tuple[tuple[Genome, ...], ...]

    def contigs(self, label: int) -> list[Contig]:
        """Contigs of a species, files in order, those without any A, C, G or T left out."""
        return [contig for genome in self.genomes[label] for contig in genome.contigs if contig.n_bases]


@dataclass(frozen=True)
class _Entry:
    """A species and the place it is given at."""

    species: Species
    at: object
    line: int | None

    def error(self, what: str, remedy: str) -> UserError:
        """An error about this species, of the class that belongs to where it was given."""
        kind = UsageError if self.line is None else UserError
        return kind(f"species '{self.species.name}' {what}", at=self.at, line=self.line, remedy=remedy)


def read_species(source: Path | None, flags: Sequence[str]) -> list[Species]:
    """The species of a YAML file, or of `name=FASTA[,FASTA...]` flags.

    A line of the YAML is `name: FASTA`, `name: [FASTA, ...]` or
    `name: {fasta: ..., valid: [CONTIG, ...], test: [CONTIG, ...]}`; all of it may stand below one key
    `species`. Its relative paths begin at the YAML's folder.

    Args:
        source: the YAML.
        flags: the flags.

    Raises:
        UsageError: both or neither are given, or a flag is no `name=FASTA`.
        UserError: the YAML cannot be read or has unknown keys; fewer than two species; a name or a file
            twice; a species without a file; a file that is missing.
    """
    if source and flags:
        raise UsageError(f"species from {source} and from flags", at=_FLAG, remedy="give one of the two")
    if not source and not flags:
        raise UsageError("no species", remedy=f"give a YAML of species, or {_FLAG} NAME=FASTA twice or more")
    entries = list(_from_yaml(source) if source else map(_from_flag, flags))
    _check(entries, source or _FLAG)
    return [entry.species for entry in entries]


def open_species(species: Sequence[Species]) -> SpeciesGenomes:
    """The genomes of species, each file read when it is seen for the first time.

    Raises:
        UserError: a file is no FASTA of DNA, has no bases, or has the contents of another.
    """
    genomes = iter(open_genomes([path for one in species for path in one.fasta]))
    return SpeciesGenomes(tuple(species), tuple(tuple(next(genomes) for _ in one.fasta) for one in species))


def absolute_flag(text: str) -> str:
    """A `name=FASTA[,FASTA...]` flag as it means the same in any folder.

    Raises:
        UsageError: it is none.
    """
    species = _from_flag(text).species
    return f"{species.name}={','.join(str(path.absolute()) for path in species.fasta)}"


def _from_flag(text: str) -> _Entry:
    name, found, files = text.partition("=")
    if not found:
        raise UsageError(f"'{text}' has no '='", at=_FLAG, remedy="write NAME=FASTA[,FASTA...]")
    paths = tuple(_path(one) for one in files.split(",") if one.strip())
    return _Entry(Species(name.strip(), paths), _FLAG, None)


def _from_yaml(source: Path) -> Iterator[_Entry]:
    for name, line, value in _species_items(source):
        if isinstance(value, MappingNode):
            fields = {}
            for key, at, names in _items(value, source):
                if key not in _KEYS:
                    what = f"unknown key '{key}' of species '{name}'"
                    raise UserError(what, at=source, line=at, remedy=nearest(key, _KEYS))
                fields[key] = _names(names, source)
        else:
            fields = {"fasta": _names(value, source)}
        paths = tuple(source.parent / _path(one) for one in fields.get("fasta", ()))
        yield _Entry(Species(name, paths, fields.get("valid", ()), fields.get("test", ())), source, line)


def _species_items(source: Path) -> list[tuple[str, int, Node]]:
    """What is written of each species, below the key `species` or without it."""
    remedy = "write `name: FASTA` lines"
    try:
        root = yaml.compose(source.read_text(), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", at=source) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        raise UserError("not valid YAML", at=source, line=line, remedy=remedy) from error
    if not isinstance(root, MappingNode):
        raise UserError("not a mapping of species", at=source, remedy=remedy)
    items = _items(root, source)
    below = [node for name, _, node in items if name == "species" and isinstance(node, MappingNode)]
    if not below:
        return items
    for name, line, _ in items:
        if name != "species":
            what = f"unknown key '{name}' beside 'species'"
            raise UserError(what, at=source, line=line, remedy="name every species below 'species'")
    return _items(below[0], source)


def _items(mapping: MappingNode, source: Path) -> list[tuple[str, int, Node]]:
    """Keys of a mapping with their 1-based lines and values.

    Nodes rather than values: they know their lines, keep contigs such as 1 and NO as they are written, and
    show a key that is there twice.
    """
    items: dict[str, tuple[str, int, Node]] = {}
    for key, value in mapping.value:
        line = key.start_mark.line + 1
        text = _text(key, source)
        if text in items:
            what = f"'{text}' is there twice, first in line {items[text][1]}"
            raise UserError(what, at=source, line=line, remedy="rename one, or join the two")
        items[text] = (text, line, value)
    return list(items.values())


def _names(node: Node, source: Path) -> tuple[str, ...]:
    """A name or a list of them; none where nothing is written."""
    nodes = node.value if isinstance(node, SequenceNode) else [node]
    return tuple(text for one in nodes if one.tag != _NULL and (text := _text(one, source)))


def _text(node: Node, source: Path) -> str:
    if not isinstance(node, ScalarNode):
        line = node.start_mark.line + 1
        raise UserError("a list or mapping where a name belongs", at=source, line=line, remedy="write a name")
    return str(node.value).strip()


def _path(text: str) -> Path:
    # unlike Path.expanduser this leaves the name of a user who is not there as it is
    return Path(os.path.expanduser(text.strip()))  # noqa: PTH111


def _check(entries: Sequence[_Entry], at: object) -> None:
    """Raise UserError where species cannot be told apart, or have no file."""
    if not entries:
        raise UserError("no species", at=at, remedy="write `name: FASTA` lines")
    owners: dict[Path, str] = {}
    names: set[str] = set()
    for entry in entries:
        one = entry.species
        if not one.name or not one.name.isprintable():
            raise entry.error("has no printable name", "name it")
        if set(one.name) & set(_SEPARATORS):
            raise entry.error(
                "has a comma or a colon in its name, which separate species in tables", "rename it"
            )
        if one.name in _RESERVED:
            raise entry.error("is what predictions call a contig of no species", "name it otherwise")
        if one.name in names:
            raise entry.error("is there twice", "give all its files at once")
        names.add(one.name)
        if both := set(one.valid) & set(one.test):
            raise entry.error(f"has {', '.join(sorted(both))} in valid and in test", "hold it out for one")
        _check_files(entry, owners)
    if len(entries) == 1:
        raise entries[0].error("is the only one", "give another to tell it from")


def _check_files(entry: _Entry, owners: dict[Path, str]) -> None:
    """Raise UserError where a species has no file, or one that is missing or in `owners`; add its files."""
    if not entry.species.fasta:
        raise entry.error("has no FASTA", "give its file")
    for path in entry.species.fasta:
        if not path.exists():
            raise entry.error(f"has a file that is not there: {path}", "check its path")
        if owner := owners.get(path.resolve()):
            raise entry.error(f"has {path}, which '{owner}' has already", "give every file once")
        owners[path.resolve()] = entry.species.name
