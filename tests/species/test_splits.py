"""Splits of species: as named, else whole contigs, else blocks; never a base in two of them."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from hyenacli.errors import UserError
from hyenacli.inference.intervals import SPLITS
from hyenacli.readers.genome import Contig
from hyenacli.species.genomes import Species, SpeciesGenomes, published_splits, use_published_splits
from hyenacli.species.splits import SpeciesSplits, split_species
from hyenadna.tokenizer import N


class InMemory(NamedTuple):
    """A genome whose contigs are in memory."""

    path: Path
    contigs: tuple[Contig, ...]


def genome(file: str, **lengths: int) -> InMemory:
    contigs = [Contig(name, Path(file), np.full(n, 7, np.uint8), n) for name, n in lengths.items()]
    return InMemory(Path(file), tuple(contigs))


def labelled(*species: tuple[Species, dict[str, int]]) -> SpeciesGenomes:
    genomes = tuple((genome(f"{one.name}.fa", **lengths),) for one, lengths in species)
    return SpeciesGenomes(tuple(one for one, _ in species), genomes)


def one(lengths: dict[str, int], valid: tuple[str, ...] = (), test: tuple[str, ...] = ()) -> SpeciesGenomes:
    return labelled((Species("x", (Path("x.fa"),), valid, test), lengths))


def split(
    genomes: SpeciesGenomes, valid: float = 0.1, test: float = 0.1, window: int = 10, seed: int = 0
) -> SpeciesSplits:
    return split_species(genomes, valid=valid, test=test, window=window, seed=seed)


def names(splits: SpeciesSplits, role: str, label: int = 0) -> set[str]:
    return {splits.contigs[i.contig].name for i in splits.intervals(role)[label]}


def bases(splits: SpeciesSplits, role: str, label: int = 0) -> set[tuple[int, int]]:
    return {(i.contig, p) for i in splits.intervals(role)[label] for p in range(i.start, i.end)}


MANY = {f"c{i}": 100 + 17 * i for i in range(30)}


def test_named_contigs_are_held_out() -> None:
    splits = split(one({"chr1": 50, "chr2": 30, "chrM": 20, "chr3": 400}, ("1",), ("chr2", "MT")))
    assert [names(splits, role) for role in SPLITS] == [{"chr3"}, {"chr1"}, {"chr2", "chrM"}]
    assert splits.notes == (
        "x: valid 1 by name, test chr2, MT by name; train 80.0%, valid 10.0%, test 10.0% of 500 bases",
    )


@pytest.mark.parametrize("seed", range(5))
def test_whole_contigs_come_near_the_shares(seed: int) -> None:
    splits = split(one(MANY), valid=0.1, test=0.2, seed=seed)
    total = sum(MANY.values())
    counts = splits.splits[0].bases()
    assert counts["valid"] / total == pytest.approx(0.1, rel=0.1)
    assert counts["test"] / total == pytest.approx(0.2, rel=0.1)
    assert sum(counts.values()) == total
    assert not names(splits, "train") & (names(splits, "valid") | names(splits, "test"))
    assert "as whole contigs" in splits.notes[0]
    assert splits.splits == split(one(MANY), valid=0.1, test=0.2, seed=seed).splits
    assert splits.splits != split(one(MANY), valid=0.1, test=0.2, seed=seed + 100).splits


def test_one_more_species_changes_nothing_for_the_others() -> None:
    first, second = (Species(name, (Path(f"{name}.fa"),)) for name in "xy")
    alone, both = (
        split(labelled((second, MANY))),
        split(labelled((first, {"a": 900, "b": 9}), (second, MANY))),
    )
    assert both.labels == [0, 0] + [1] * len(MANY)
    for role in SPLITS:
        assert names(both, role, 1) == names(alone, role)
        assert {c for c, _ in bases(both, role, 1)} == {c + 2 for c, _ in bases(alone, role)}


def test_contigs_of_one_name_stay_together() -> None:
    files = tuple(genome(f"{name}.fa", **MANY) for name in "ab")
    splits = split(SpeciesGenomes((Species("x", (Path("a.fa"), Path("b.fa"))),), (files,)))
    for role in SPLITS:
        mine = [splits.contigs[i.contig].name for i in splits.intervals(role)[0]]
        assert sorted(mine) == sorted([*set(mine)] * 2)


@pytest.mark.parametrize(
    ("lengths", "why"),
    [
        ({"a": 9_000}, "one contig, so valid and test in blocks of 90 bases or more"),
        (
            {"a": 9_000, "b": 50, "c": 60, "d": 70},
            "no whole contigs near the shares, so valid and test in blocks",
        ),
    ],
)
def test_blocks_where_whole_contigs_are_too_few(lengths: dict[str, int], why: str) -> None:
    splits = split(one(lengths))
    parts = [bases(splits, role) for role in SPLITS]
    total = sum(lengths.values())
    assert sum(map(len, parts)) == len(set.union(*parts)) == total
    assert [len(part) / total for part in parts[1:]] == pytest.approx([0.1, 0.1], rel=0.1)
    assert len(splits.intervals("valid")[0]) > 3
    assert why in splits.notes[0]


def test_neighbouring_blocks_are_one_stretch() -> None:
    """So that a window may lie anywhere in it."""
    splits = split(one({"a": 9_000}))
    edges = [i.start for role in SPLITS for i in splits.intervals(role)[0]]
    assert len(edges) < 40
    assert len(bases(splits, "train")) > 7_000


def test_a_split_of_which_nothing_is_named_is_chosen_among_the_other_contigs() -> None:
    splits = split(one(MANY, valid=("c29", "c28")))
    assert names(splits, "valid") == {"c28", "c29"}
    rest = sum(MANY.values()) - MANY["c28"] - MANY["c29"]
    assert len(bases(splits, "test")) / rest == pytest.approx(0.1, rel=0.1)
    in_blocks = split(one({"a": 100, "b": 9_000}, valid=("a",)))
    assert names(in_blocks, "valid") == {"a"}
    assert names(in_blocks, "test") == {"b"} == names(in_blocks, "train")
    assert in_blocks.notes[0].startswith("x: valid a by name, one contig, so test in blocks of 90 bases")


def test_no_share_no_split() -> None:
    splits = split(one(MANY), test=0)
    assert splits.intervals("test") == [[]]
    assert len(bases(splits, "train") | bases(splits, "valid")) == sum(MANY.values())
    assert split(one({"a": 90}), valid=0, test=0).notes == (
        "x: nothing is held out; train 100.0% of 90 bases",
    )


@pytest.mark.parametrize(
    ("genomes", "message"),
    [
        (
            one({"a": 29}),
            "x.fa: species 'x' has no valid window of 10 bases .* valid stretch has 0 of 29 bases",
        ),
        (one({"a": 9}), "no train window of 10 bases .*longest train stretch has 9 of 9 bases; use shorter"),
        (one({"a": 90, "b": 9}, valid=("b",)), "no valid window of 10 bases .* has 9 of 99 bases"),
        (one({"a": 90, "b": 50}, ("a",), ("b",)), "no train window of 10 bases .* has 0 of 140"),
        (one({"a": 90}, valid=("b",)), "no contig 'b' to hold out of species 'x'"),
        (one({"a": 90, "chr1": 9}, ("1",), ("chr1",)), "both for validation and test: chr1"),
    ],
)
def test_splits_that_cannot_be(genomes: SpeciesGenomes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split(genomes)


def test_as_little_as_a_window_for_each_split_is_enough() -> None:
    splits = split(one({"a": 30}))
    assert [len(bases(splits, role)) for role in SPLITS] == [10, 10, 10]


def test_short_contigs_do_not_make_a_split() -> None:
    """By bases the many short ones would do, but no window lies in them."""
    lengths = {f"s{i}": 9 for i in range(40)} | {f"l{i}": 100 for i in range(4)}
    splits = split(one(lengths))
    for role in SPLITS:
        assert max(map(len, splits.intervals(role)[0])) >= 10


def test_contigs_of_nothing_but_n_do_not_make_a_split() -> None:
    genomes = one({"a": 90, "b": 90, "c": 90, "gap": 90})
    genomes.genomes[0][0].contigs[3].codes[4:] = N
    for seed in range(10):
        assert "gap" in names(split(genomes, valid=0.25, test=0.25, seed=seed), "train")


def test_a_split_of_nothing_but_n_is_refused() -> None:
    genomes = one({"a": 90, "b": 90}, valid=("b",))
    genomes.genomes[0][0].contigs[1].codes[4:] = N
    with pytest.raises(UserError, match="no valid window of 10 bases that is not mostly N"):
        split(genomes, test=0)


def test_published_splits_share_their_chromosomes() -> None:
    species = (
        "human",
        "lemur",
        "mouse",
        "pig",
        "hippo",
        "goat",
        "sheep",
        "gorilla",
        "orangutan",
        "chimpanzee",
    )
    for name in species:
        found = published_splits(name)
        assert found.valid == ("1", "3", "12", "13")
        assert found.test == ("5", "7", "9", "10", "11")
        assert not set(found.train) & {*found.valid, *found.test}
    assert " ".join(published_splits("human").train) == "2 4 6 8 14 15 16 17 18 19 20 21 22 X Y"
    assert " ".join(published_splits("mouse").train) == "2 4 6 8 14 15 16 17 18 19 X"
    assert published_splits("lemur").train[-3:] == ("27", "X", "Y")
    assert published_splits("pig").train[-3:] == ("18", "X", "Y")
    assert published_splits("gorilla").train[:3] == ("2A", "2B", "4")
    with pytest.raises(UserError, match="no published splits of 'humon'; did you mean 'human'"):
        published_splits("humon")


CHROMOSOMES = [*map(str, range(1, 23)), "X", "Y", "MT", "KI270302.1"]


@pytest.mark.parametrize("prefix", ["", "chr"])
def test_published_splits_by_the_names_of_the_genome(prefix: str) -> None:
    human = labelled((Species("human", (Path("h.fa"),)), {f"{prefix}{name}": 20 for name in CHROMOSOMES}))
    splits = split(use_published_splits(human))
    for role in SPLITS:
        assert names(splits, role) == {f"{prefix}{name}" for name in getattr(published_splits("human"), role)}


def test_published_splits_of_part_of_a_genome(caplog: pytest.LogCaptureFixture) -> None:
    human = Species("human", (Path("h.fa"),))
    mine = Species("mine", (Path("m.fa"),), valid=("b",), test=("c",))
    genomes = labelled(
        (human, {"chr1": 50, "chr2": 50, "chr5": 50, "chrM": 9}), (mine, {"a": 20, "b": 20, "c": 20})
    )
    logger = logging.getLogger("hyena")
    logger.addHandler(caplog.handler)
    try:
        splits = split(use_published_splits(genomes))
    finally:
        logger.removeHandler(caplog.handler)
    assert [names(splits, role) for role in SPLITS] == [{"chr2"}, {"chr1"}, {"chr5"}]
    assert [names(splits, role, 1) for role in SPLITS] == [{"a"}, {"b"}, {"c"}]
    assert "human: 4, 6, 8, 14, 15, ... (21 in all) of the published splits are missing" in caplog.text
    assert "9 bases of contigs that the published splits lack left out" in splits.notes[0]


def test_a_genome_without_chromosomes_has_no_published_splits() -> None:
    lemur = labelled((Species("lemur", (Path("l.fa"),)), {"CM036470.1": 50, "chr2": 50}))
    with pytest.raises(
        UserError, match=r"l.fa: species 'lemur' has none of the published valid chromosomes 1, 3"
    ):
        use_published_splits(lemur)


def test_training_bases_are_read_in_pieces_that_lose_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = split(one({"a": 250, "b": 90, "c": 95, "d": 12}))
    monkeypatch.setattr("hyenacli.species.splits._PIECE", 50)
    overlap = 4
    words = sum(max(0, len(interval) - overlap) for interval in splits.intervals("train")[0])
    pieces = list(splits.training_bases(0, overlap))
    assert sum(max(0, len(piece) - overlap) for piece in pieces) == words
    assert max(map(len, pieces)) == 50 + overlap
