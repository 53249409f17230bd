"""The label set: what YAML and flags say, and what they must not."""

import gzip
from pathlib import Path
from textwrap import dedent

import pytest

from hyenacli.errors import UsageError, UserError
from hyenacli.species.genomes import Species, open_species, read_species
from tests.builders import random_dna, write_fasta


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a.fa, b.fa and c.fa."""
    for seed, name in enumerate("abc"):
        write_fasta(tmp_path / f"{name}.fa", [("1", random_dna(40, seed)), ("gap", "NNNN")])
    return tmp_path


def yaml(folder: Path, text: str) -> Path:
    path = folder / "species.yaml"
    path.write_text(text)
    return path


BELOW = "species:\n  human: a.fa\n  mouse:\n    fasta: [b.fa, c.fa]\n    valid: [1, X]\n    test: NO\n"


@pytest.mark.parametrize("text", [BELOW, dedent(BELOW.removeprefix("species:\n"))])
def test_yaml_with_and_without_the_top_key(folder: Path, text: str) -> None:
    """Paths begin at the YAML's folder; contigs keep the spelling that YAML would read as 1 and False."""
    assert read_species(yaml(folder, text), []) == [
        Species("human", (folder / "a.fa",)),
        Species("mouse", (folder / "b.fa", folder / "c.fa"), ("1", "X"), ("NO",)),
    ]


def test_flags(folder: Path) -> None:
    flags = [f"human={folder}/a.fa", f"mouse={folder}/b.fa,{folder}/c.fa"]
    assert read_species(None, flags) == [
        Species("human", (folder / "a.fa",)),
        Species("mouse", (folder / "b.fa", folder / "c.fa")),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("human: a.fa\n", "species.yaml: species 'human' is the only one; give another"),
        ("human: a.fa\n\nhuman: b.fa\n", "line 3: 'human' is there twice, first in line 1"),
        (
            "human: a.fa\nmouse: ./a.fa\n",
            "species.yaml: species 'mouse' has .*a.fa, which 'human' has already",
        ),
        ("human: [a.fa, a.fa]\nmouse: b.fa\n", "species.yaml: species 'human' has .*a.fa, which 'human' has"),
        (
            "human: a.fa\nmouse: {fata: b.fa}\n",
            "species.yaml: unknown key 'fata' of species 'mouse'; .*'fasta'",
        ),
        ("species:\n  human: a.fa\nseed: 1\n", "species.yaml: unknown key 'seed' beside 'species'"),
        ("human: a.fa\nmouse: d.fa\n", "species.yaml: species 'mouse' has a file that is not there: .*/d.fa"),
        ("human: a.fa\nmouse:\n", "species.yaml: species 'mouse' has no FASTA"),
        ("human: a.fa\nmouse: {valid: [x]}\n", "species.yaml: species 'mouse' has no FASTA"),
        (
            "human: a.fa\nmouse: [[b.fa]]\n",
            "species.yaml: species 'mouse' has a list or mapping where a name belongs",
        ),
        (
            "human: a.fa\nm: {fasta: b.fa, valid: x, test: [x]}\n",
            "species.yaml: species 'm' has x in valid and",
        ),
        ("human: a.fa\nunknown: b.fa\n", "species.yaml: species 'unknown' is what predictions call"),
        ('human: a.fa\n"a\\tb": b.fa\n', "species.yaml: species .* has no printable name"),
        ("- a.fa\n- b.fa\n", "not a mapping of species"),
        ("", "not a mapping of species"),
        ("species: {}\n", "species.yaml: no species"),
        ("human: [a.fa\n", "species.yaml, line 2: not valid YAML"),
    ],
)
def test_yaml_that_is_no_label_set(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_species(yaml(folder, text), [])
    assert "species.yaml" in str(error.value)
    assert not isinstance(error.value, UsageError)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["human", "mouse=b.fa"], "'human' has no '='; write NAME=FASTA"),
        (["human=a.fa"], "species 'human' is the only one"),
        (["human=a.fa", "human=b.fa"], "species 'human' is there twice; give all its files at once"),
        (["human=a.fa", "mouse="], "species 'mouse' has no FASTA"),
        (["human=a.fa", "=b.fa"], "has no printable name"),
        (["human=a.fa", "E:coli=b.fa"], "has a comma or a colon in its name"),
        (["human=a.fa", "mouse=link.fa"], "has link.fa, which 'human' has already"),
        ([], "no species; give a YAML"),
    ],
)
def test_flags_that_are_no_label_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    Path("link.fa").symlink_to("a.fa")
    with pytest.raises(UsageError, match=message) as error:
        read_species(None, flags)
    assert not flags or str(error.value).startswith("--species: ")


def test_one_of_yaml_and_flags(folder: Path) -> None:
    with pytest.raises(UsageError, match="give one of the two"):
        read_species(yaml(folder, BELOW), ["human=a.fa"])
    with pytest.raises(UserError, match=r"none.yaml: cannot be read: No such file"):
        read_species(folder / "none.yaml", [])


def test_genomes_of_species(folder: Path) -> None:
    genomes = open_species(read_species(yaml(folder, BELOW), []))
    assert [[genome.path.name for genome in mine] for mine in genomes.genomes] == [["a.fa"], ["b.fa", "c.fa"]]
    assert [(c.name, c.source.name) for c in genomes.contigs(1)] == [("1", "b.fa"), ("1", "c.fa")]


def test_a_copy_is_the_same_file(folder: Path) -> None:
    (folder / "copy.fa").write_bytes((folder / "a.fa").read_bytes())
    flags = [f"human={folder}/a.fa", f"mouse={folder}/copy.fa"]
    with pytest.raises(UserError, match=r"copy.fa: has the same contents as .*a.fa; give it once"):
        open_species(read_species(None, flags))


def test_compressed_files_are_read(folder: Path) -> None:
    (folder / "b.fa.gz").write_bytes(gzip.compress((folder / "b.fa").read_bytes()))
    genomes = open_species(read_species(None, [f"x={folder}/a.fa", f"y={folder}/b.fa.gz"]))
    assert [len(c) for c in genomes.contigs(1)] == [40]
