"""What splits share is found, on either strand and under any name; what they do not share is not."""

from pathlib import Path

import pytest

from hyenacli.genome.dna import reverse_complement
from hyenacli.inference.intervals import Interval, Splits
from hyenacli.readers.genome import Contig
from hyenacli.species.genomes import open_species, read_species
from hyenacli.species.leakage import KmerContainment, LeakageReport, find_leakage
from hyenacli.species.splits import SpeciesSplits, split_species
from hyenadna import Tokenizer
from tests.builders import random_dna

LENGTH = 600


def build(*species: dict[str, list[tuple[str, str]]]) -> SpeciesSplits:
    """Species a, b, ... from (name, sequence) pairs by split; all contigs whole."""
    contigs: list[Contig] = []
    labels, splits = [], []
    for label, mine in enumerate(species):
        found = Splits()
        for split, records in mine.items():
            for name, sequence in records:
                getattr(found, split).append(Interval(len(contigs), 0, len(sequence)))
                tokens = Tokenizer().encode_array(sequence)
                contigs.append(Contig(name, Path(f"{'ab'[label]}.fa"), tokens, len(sequence)))
                labels.append(label)
        splits.append(found)
    return SpeciesSplits(("a", "b")[: len(species)], contigs, labels, tuple(splits), ("", ""))


def dna(seed: int, length: int = LENGTH) -> str:
    return random_dna(length, seed)


def turned(sequence: str) -> str:
    return reverse_complement(sequence.encode()).decode()


def test_nothing_is_found_where_nothing_is_shared() -> None:
    """chr1 of two genomes has one name only because both count from 1."""
    a = {"train": [("chr1", dna(0))], "valid": [("chr2", dna(1))], "test": [("chr3", dna(2))]}
    b = {"train": [("chr1", dna(3))], "valid": [("chr2", dna(4))]}
    shared = find_leakage(build(a, b))
    assert shared.duplicates == ()
    assert [(c.held_out, c.training) for c in shared.containments] == [
        ("a valid", "a train"),
        ("a valid", "b train"),
        ("b valid", "a train"),
        ("b valid", "b train"),
        ("a test", "a train"),
        ("a test", "b train"),
    ]
    assert all((c.count, c.total) == (0, LENGTH - 30) for c in shared.containments)
    assert shared.sentences() == []


def test_part_of_a_test_split_in_another_species() -> None:
    """The last 230 of 600 bases, turned round: 200 of 570 31-mers."""
    test = dna(1)
    a = {"train": [("x", dna(0))], "test": [("y", test)]}
    b = {"train": [("z", dna(2) + turned(test[-230:]))]}
    shared = find_leakage(build(a, b))
    assert shared.sentences() == ["a test: 35.1% of its 31-mers occur in b train"]
    assert shared.sentences(above=0.36) == []


@pytest.mark.parametrize("other", [dna(1), turned(dna(1)), dna(1).replace("T", "t").lower()])
def test_the_same_contig_in_two_species(other: str) -> None:
    shared = find_leakage(build({"train": [("x", dna(1))]}, {"train": [("q", dna(2)), ("y", other)]}))
    assert shared.sentences() == [
        "a train and b train have a contig with the same bases, such as x (a.fa) and y (b.fa)"
    ]


def test_the_same_contigs_in_two_splits() -> None:
    twice = {"train": [("x", dna(1)), ("y", dna(2))], "test": [("v", dna(2)), ("w", dna(1))]}
    duplicates, containment = find_leakage(build(twice)).sentences()
    assert (
        duplicates == "a train and a test have 2 contigs with the same bases, such as x (a.fa) and w (a.fa)"
    )
    assert containment == "a test: 100.0% of its 31-mers occur in a train"


def test_copies_inside_one_split_are_no_leak() -> None:
    assert find_leakage(build({"train": [("x", dna(1)), ("y", dna(1))]})).sentences() == []


def test_copies_cut_into_the_same_splits_are_one() -> None:
    """Two copies, both in blocks: what is trained on of one may be tested on in the other."""
    copies = build({"train": [("x", dna(1)), ("y", dna(1))]})
    for number in range(2):
        copies.splits[0].train[number] = Interval(number, 0, 300)
        copies.splits[0].test.append(Interval(number, 300, 600))
    assert (
        find_leakage(copies).duplicates[0].sentence.startswith("a train/test and a train/test have a contig")
    )


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("NC_000913.3", "NC_000913.2"),
        ("gi|9626243|ref|NC_001416.1|", "NC_001416.1"),
        ("chrUn_KI270302v1", "KI270302.1"),
        ("chrUn_AADN03025952_0_5569", "AADN03025952.1:5569-9000"),
        ("NZ_CP012345.1", "CP012345.1"),
    ],
)
def test_one_accession_with_other_bases(name: str, other: str) -> None:
    shared = find_leakage(build({"train": [(name, dna(1))]}, {"train": [(other, dna(2))]}))
    assert shared.sentences() == [
        f"a train and b train have a contig of one accession, such as {name} (a.fa) and {other} (b.fa)"
    ]


@pytest.mark.parametrize(
    ("name", "other"),
    [("chr1", "chr1"), ("NODE_1_length_123456", "NODE_1_length_123456"), ("CP012345", "CP012346")],
)
def test_names_that_are_no_accession_say_nothing(name: str, other: str) -> None:
    assert not find_leakage(build({"train": [(name, dna(1))]}, {"train": [(other, dna(2))]})).duplicates


def test_what_is_in_no_split_is_not_looked_at() -> None:
    splits = build({"train": [("x", dna(1))]}, {"train": [("y", dna(1)), ("z", dna(2))]})
    splits.splits[1].train.pop(0)
    assert find_leakage(splits) == LeakageReport((), ())


def test_too_short_to_tell() -> None:
    shared = find_leakage(build({"train": [("x", dna(1))], "valid": [("y", dna(2, 129))]}))
    assert shared.sentences() == ["a valid: too few 31-mers to tell whether a train has them"]
    assert KmerContainment("", "", 0, 100).share == 0


@pytest.mark.slow
def test_lambda_is_in_part_in_the_prophages_of_e_coli(shared: Path) -> None:
    """The sample agrees with all 31-mers counted; Salmonella is a relative, yeast has nothing of either."""
    folder = shared / "data" / "genomes"
    names = {"lambda": "lambda.fa", "ecoli": "ecoli_MG1655.fna.gz", "salmonella": "salmonella_LT2.fna.gz"}
    files = {**names, "yeast": "yeast_R64.fa.gz"}
    genomes = open_species(read_species(None, [f"{name}={folder / file}" for name, file in files.items()]))
    splits = split_species(genomes, valid=0.1, test=0.1, window=512, seed=0)
    found = {(c.held_out, c.training): c.share or 0.0 for c in find_leakage(splits).containments}

    def kmers(species: int, split: str) -> set[bytes]:
        texts = (
            Tokenizer().decode(splits.contigs[i.contig].tokens(i.start, i.end)).encode()
            for i in splits.intervals(split)[species]
        )
        return {text[i : i + 31] for text in texts for i in range(len(text) - 30)}

    seen = kmers(1, "train")
    for split in ("valid", "test"):
        held = kmers(0, split)
        exact = sum(kmer in seen or reverse_complement(kmer) in seen for kmer in held) / len(held)
        assert 0.1 < exact < 0.3
        assert found[f"lambda {split}", "ecoli train"] == pytest.approx(exact, abs=0.03)
    assert 0.002 < found["salmonella test", "ecoli train"] < 0.1
    assert all(share == 0 for (a, b), share in found.items() if ("yeast" in a) != ("yeast" in b))
