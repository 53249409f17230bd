"""The species to tell apart: their names, the genomes of each, and the contigs named for its splits."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from hyenacli import console
from hyenacli.errors import UsageError, UserError, abbreviate, nearest
from hyenacli.genome.contigs import match_contigs
from hyenacli.inference.intervals import SPLITS
from hyenacli.readers.genome import Contig, Genome, open_genomes
from hyenacli.settings_file import load_yaml
from hyenacli.species.settings import SpeciesTrainSettings

_FLAG = "--species"
_KEYS = ["fasta", "valid", "test"]
_REMEDY = "write `name: FASTA` lines"
# Predictions, and the files of --split-fasta, have these names where they name no species.
_RESERVED = ("unknown", "unclassified")
# The column `top` separates species, and species from their probabilities, with these.
_SEPARATORS = ",:"


@dataclass(frozen=True)
class Species:
    """One label.

    Attributes:
        valid: names of contigs to validate on; empty to have them chosen.
        test: names of contigs to test on; empty to have them chosen.
        train: names of contigs to train on, where not all others are; only the published splits name them.
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
        species: the labels; a class is an index into them.
        genomes: of each species.
    """

    species: tuple[Species, ...]
    genomes: tuple[tuple[Genome, ...], ...]

    def contigs(self, label: int) -> list[Contig]:
        """Return the contigs of a species, files in order, without those that have no A, C, G or T."""
        return [contig for genome in self.genomes[label] for contig in genome.contigs if contig.n_bases]

    def fingerprints(self) -> list[dict[str, str | int]]:
        """Return what run.json says of the files of all species."""
        return [genome.fingerprint() for files in self.genomes for genome in files]


def open_run_genomes(settings: SpeciesTrainSettings) -> SpeciesGenomes:
    """Open the genomes of a run.

    Raises:
        UsageError, UserError: as `read_species`, `open_species` and `use_published_splits`.
    """
    genomes = open_species(read_species(settings.species_file, settings.species or ()))
    return use_published_splits(genomes) if settings.published_splits else genomes


def read_species(source: Path | None, flags: Sequence[str]) -> list[Species]:
    """Read the species of a YAML file, or of `name=FASTA[,FASTA...]` flags.

    An entry of the YAML is `name: FASTA`, `name: [FASTA, ...]` or
    `name: {fasta: ..., valid: [CONTIG, ...], test: [CONTIG, ...]}`; all entries may stand below one key
    `species`. Relative paths begin at the YAML's folder.

    Args:
        source: the YAML.
        flags: the flags.

    Raises:
        UsageError: both or neither are given, or a flag is not `name=FASTA`.
        UserError: the YAML cannot be read or has unknown keys; fewer than two species; a name or a file
            twice; a species without a file; a file that is missing.
    """
    if source and flags:
        raise UsageError(f"species from {source} and from flags", at=_FLAG, remedy="give one of the two")
    if not source and not flags:
        raise UsageError("no species", remedy=f"give a YAML of species, or {_FLAG} NAME=FASTA twice or more")
    species = _from_yaml(source) if source else [_from_flag(text) for text in flags]
    _check(species, source)
    return species


def open_species(species: Sequence[Species]) -> SpeciesGenomes:
    """Open the genomes of species; each file is read when it is opened for the first time.

    Raises:
        UserError: a file is not a FASTA of DNA, has no bases, or has the contents of another.
    """
    genomes = iter(open_genomes([path for entry in species for path in entry.fasta]))
    return SpeciesGenomes(
        tuple(species), tuple(tuple(next(genomes) for _ in entry.fasta) for entry in species)
    )


def _from_flag(text: str) -> Species:
    name, equals, files = text.partition("=")
    if not equals:
        raise UsageError(f"'{text}' has no '='", at=_FLAG, remedy="write NAME=FASTA[,FASTA...]")
    return Species(name.strip(), tuple(_path(file) for file in files.split(",") if file.strip()))


def _from_yaml(source: Path) -> list[Species]:
    entries = load_yaml(source, _REMEDY, as_text=True)
    if not isinstance(entries, dict):
        raise UserError("not a mapping of species", at=source, remedy=_REMEDY)
    if isinstance(entries.get("species"), dict):
        if others := [key for key in entries if key != "species"]:
            what = f"unknown key '{others[0]}' beside 'species'"
            raise UserError(what, at=source, remedy="name every species below 'species'")
        entries = entries["species"]
    return [_entry(name, value, source) for name, value in entries.items()]


def _entry(name: str, value: Any, source: Path) -> Species:
    """Return the species of one entry of a YAML."""
    fields = {}
    for key, names in (value if isinstance(value, dict) else {"fasta": value}).items():
        if key not in _KEYS:
            raise UserError(f"unknown key '{key}' of species '{name}'", at=source, remedy=nearest(key, _KEYS))
        texts = names if isinstance(names, list) else [names]
        if not all(isinstance(text, str) for text in texts):
            what = f"species '{name}' has a list or mapping where a name belongs"
            raise UserError(what, at=source, remedy="write a name")
        fields[key] = tuple(text.strip() for text in texts if text.strip())
    paths = tuple(source.parent / _path(text) for text in fields.get("fasta", ()))
    return Species(name.strip(), paths, fields.get("valid", ()), fields.get("test", ()))


def _path(text: str) -> Path:
    # unlike Path.expanduser this keeps the name of an unknown user as it is
    return Path(os.path.expanduser(text.strip()))  # noqa: PTH111


def _check(entries: Sequence[Species], source: Path | None) -> None:
    """Raise UserError where species cannot be told apart, or have no file."""

    def refuse(name: str, what: str, remedy: str) -> NoReturn:
        error = UserError if source else UsageError
        raise error(f"species '{name}' {what}", at=source or _FLAG, remedy=remedy)

    if not entries:
        raise UserError("no species", at=source or _FLAG, remedy=_REMEDY)
    names: set[str] = set()
    owners: dict[Path, str] = {}
    for species in entries:
        name = species.name
        if not name or not name.isprintable():
            refuse(name, "has no printable name", "name it")
        if set(name) & set(_SEPARATORS):
            refuse(name, "has a comma or a colon in its name, which separate species in tables", "rename it")
        if name in _RESERVED:
            refuse(name, "is what predictions call a contig of no species", "give it another name")
        if name in names:
            refuse(name, "is there twice", "give all its files at once")
        names.add(name)
        if both := set(species.valid) & set(species.test):
            refuse(name, f"has {', '.join(sorted(both))} in valid and in test", "hold it out for one")
        _check_files(species, owners, refuse)
    if len(entries) == 1:
        refuse(entries[0].name, "is the only one", "give another to tell it from")


def _check_files(
    species: Species, owners: dict[Path, str], refuse: Callable[[str, str, str], NoReturn]
) -> None:
    """Refuse a species without a file, or with one that is missing or in `owners`; add its files to these."""
    if not species.fasta:
        refuse(species.name, "has no FASTA", "give its file")
    for path in species.fasta:
        if not path.exists():
            refuse(species.name, f"has a file that is not there: {path}", "check its path")
        if owner := owners.get(path.resolve()):
            refuse(species.name, f"has {path}, which '{owner}' has already", "give every file once")
        owners[path.resolve()] = species.name


@dataclass(frozen=True)
class PublishedSplits:
    """Chromosomes of a species by split; chromosomes of no split are left out."""

    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]


def _published(second: str, last: int, sexes: str) -> PublishedSplits:
    train = (*second.split(), "4", "6", "8", *map(str, range(14, last + 1)), *sexes)
    return PublishedSplits(train, ("1", "3", "12", "13"), ("5", "7", "9", "10", "11"))


# The tables of HyenaDNA's species task: all hold out chromosomes of the same numbers.
_PUBLISHED = {
    "human": _published("2", 22, "XY"),
    "lemur": _published("2", 27, "XY"),
    "mouse": _published("2", 19, "X"),
    "pig": _published("2", 18, "XY"),
    "hippo": _published("2", 17, "X"),
    "goat": _published("2", 29, "XY"),
    "sheep": _published("2", 26, "XY"),
    "gorilla": _published("2A 2B", 22, "XY"),
    "orangutan": _published("2A 2B", 22, "XY"),
    "chimpanzee": _published("2A 2B", 22, "XY"),
}


def published_splits(name: str) -> PublishedSplits:
    """Return the splits of a species in the HyenaDNA paper's task, by chromosome.

    Raises:
        UserError: the paper has no such species.

    >>> published_splits("hippo").train
    ('2', '4', '6', '8', '14', '15', '16', '17', 'X')
    """
    if name not in _PUBLISHED:
        remedy = f"{nearest(name, list(_PUBLISHED))}; or name its valid and test contigs in the YAML"
        raise UserError(f"there are no published splits of '{name}'", remedy=remedy)
    return _PUBLISHED[name]


def use_published_splits(genomes: SpeciesGenomes) -> SpeciesGenomes:
    """Name the contigs of the published splits for all species that name none themselves.

    chr1 and 1 are taken for each other. A chromosome that a genome lacks is left out with a warning.

    Raises:
        UserError: there are no published splits of a species, or its genome has no chromosome of one of them.
    """
    species = [
        entry if entry.valid or entry.test else _with_published_splits(entry, genomes.contigs(label))
        for label, entry in enumerate(genomes.species)
    ]
    return replace(genomes, species=tuple(species))


def _with_published_splits(species: Species, contigs: Sequence[Contig]) -> Species:
    published = published_splits(species.name)
    names = list(dict.fromkeys(contig.name for contig in contigs))
    fasta = ", ".join(map(str, species.fasta))
    spellings = match_contigs(
        (), names, style="auto", aliases={}, input_name="the published splits", genome_name=fasta
    )
    chosen: dict[str, tuple[str, ...]] = {}
    missing: list[str] = []
    for split in SPLITS:
        chromosomes = getattr(published, split)
        resolved = {name: spellings.resolve(name) for name in chromosomes}
        missing += [name for name, contig in resolved.items() if contig is None]
        chosen[split] = tuple(contig for contig in resolved.values() if contig is not None)
        if not chosen[split]:
            raise UserError(
                f"species '{species.name}' has none of the published {split} chromosomes "
                f"{abbreviate(chromosomes)}; its contigs are {abbreviate(names)}",
                at=fasta,
                remedy="name its contigs chr1 or 1, or name valid and test contigs in the YAML",
            )
    if missing:
        console.log.warning("%s: %s of the published splits are missing", species.name, abbreviate(missing))
    return replace(species, train=chosen["train"], valid=chosen["valid"], test=chosen["test"])
