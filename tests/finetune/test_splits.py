"""Splits of labelled records: exact, reproducible, and what they must not share."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from hyenacli.errors import UserError
from hyenacli.evaluation.sketch import K
from hyenacli.finetune.leakage import Leak, LeakFinder
from hyenacli.finetune.splits import (
    NO_RECORDS,
    LabelSplits,
    SplitMaker,
    contigs_of,
    fold_splits,
    given_splits,
    group_splits,
    named_splits,
    random_splits,
    strata_of,
)
from hyenacli.finetune.task import infer_task
from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.region import Region
from hyenacli.readers.genome import Genome
from hyenacli.readers.labelled import open_labelled
from hyenacli.readers.regions import Reference
from hyenacli.readers.tables import Columns, LabelledRecord
from tests.builders import random_dna


def record(
    i: int,
    split: str = "",
    *,
    bases: bytes | None = None,
    at: tuple[str, int, int] | None = None,
    group: str = "",
) -> LabelledRecord:
    sequence = random_dna(30, seed=i).encode() if bases is None else bases
    region = Region(*at) if at else None
    return LabelledRecord(f"r{i}", sequence, "x", group, split, region, "a.csv", i + 2)


def indices(*names: str) -> LabelSplits:
    found = np.array(names)
    return LabelSplits(*(np.flatnonzero(found == name) for name in ("train", "valid", "test")))


def parts(splits: LabelSplits) -> tuple[list[int], list[int], list[int]]:
    return splits.train.tolist(), splits.valid.tolist(), splits.test.tolist()


def whole(splits: LabelSplits, n: int) -> bool:
    return sorted(chain(*parts(splits))) == list(range(n))


def test_given_splits() -> None:
    names = ["test", "train", "valid", "train"]
    splits = given_splits([record(i, name) for i, name in enumerate(names)])
    assert splits is not None
    assert parts(splits) == ([1, 3], [2], [0])
    assert splits.counts() == {"train": 2, "valid": 1, "test": 1}
    assert given_splits([record(0), record(1)]) is None
    with pytest.raises(UserError, match=r"a\.csv, line 3: the split is missing, which other records have"):
        given_splits([record(0, "train"), record(1)])
    with pytest.raises(UserError, match=r"a\.csv: no record is for training"):
        given_splits([record(0, "test")])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.25, 0), (0, 0.3), (0.15, 0.2)])
def test_random_splits_are_exact_in_every_class(seed: int, shares: tuple[float, float]) -> None:
    sizes = [500, 301, 37]
    strata = np.random.default_rng(seed).permutation(np.repeat([0, 1, 2], sizes))
    splits = random_splits(strata, *shares, seed)
    assert whole(splits, 838)
    for part, share in ((splits.valid, shares[0]), (splits.test, shares[1])):
        assert len(part) == round(838 * share)
        for stratum, size in enumerate(sizes):
            assert abs((strata[part] == stratum).sum() - size * share) < 1


def test_random_splits_depend_on_seed_and_place_only() -> None:
    one = np.zeros(1000, np.int64)
    splits = random_splits(one, 0.1, 0.1, 7)
    assert parts(splits) == parts(random_splits(one, 0.1, 0.1, 7))
    assert parts(splits) != parts(random_splits(one, 0.1, 0.1, 8))
    # the test split stays when the validation split changes, and more rows move only rows at the edge
    assert parts(random_splits(one, 0.3, 0.1, 7))[2] == parts(splits)[2]
    longer = set(parts(random_splits(np.zeros(1050, np.int64), 0.1, 0.1, 7))[2])
    assert len(set(splits.test.tolist()) & longer) > 85


def test_a_class_stays_in_the_training_data() -> None:
    strata = np.array([0] * 20 + [1, 2, 2])
    for seed in range(20):
        splits = random_splits(strata, 0.3, 0.3, seed)
        assert set(strata[splits.train]) == {0, 1, 2}


@pytest.mark.parametrize(("valid", "test", "empty"), [(0.1, 0, "valid"), (0, 0.1, "test")])
def test_a_split_of_nothing(valid: float, test: float, empty: str) -> None:
    with pytest.raises(UserError, match=f"the {empty} split of 4 records would be empty"):
        random_splits(np.zeros(4, np.int64), valid, test, 0)


def test_strata() -> None:
    def strata(*labels: str | tuple[str, ...]) -> list[int]:
        records = [LabelledRecord("", b"A", label) for label in labels]
        scheme = infer_task(records, ["a", "b"] if isinstance(labels[0], tuple) else ["a"])
        return strata_of(scheme, scheme.targets(records)).tolist()

    assert strata("x", "y", "x") == [0, 1, 0]
    assert strata(*(str(i + 0.5) for i in reversed(range(20)))) == [i // 2 for i in reversed(range(20))]
    assert strata(("0", "1"), ("1", "0")) == [0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole(seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 60, 40)
    groups = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    splits = group_splits(groups, 0.1, 0.2, seed)
    assert whole(splits, len(groups))
    train, valid, test = ({groups[i] for i in part} for part in parts(splits))
    assert len(train | valid | test) == len(train) + len(valid) + len(test)
    assert abs(len(splits.valid) / len(groups) - 0.1) < 0.03
    assert abs(len(splits.test) / len(groups) - 0.2) < 0.03
    assert parts(splits) == parts(group_splits(groups, 0.1, 0.2, seed))
    backwards = group_splits(groups[::-1], 0.1, 0.2, seed)
    assert {groups[::-1][i] for i in backwards.test} == test


def test_few_large_groups() -> None:
    for seed in range(10):
        splits = group_splits(["a"] * 5 + ["b"] * 5 + ["c"] * 5, 0.1, 0.1, seed)
        assert splits.counts() == {"train": 5, "valid": 5, "test": 5}
    with pytest.raises(UserError, match="2 groups are too few for 3 splits"):
        group_splits(["a", "b"], 0.1, 0.1, 0)


def test_a_record_without_group_is_one_by_itself() -> None:
    splits = group_splits([""] * 100 + ["a"] * 3, 0.1, 0.0, 0)
    assert 9 <= len(splits.valid) <= 11


def test_groups_by_name() -> None:
    groups = ["chr1", "chr2", "chrM", "chr1"]
    assert parts(named_splits(groups, ["2"], ["MT"])) == ([0, 3], [1], [2])
    assert parts(named_splits(groups, [], ["chr1"])) == ([1, 2], [], [0, 3])
    with pytest.raises(UserError, match="no group 'chr3' to hold out; did you mean"):
        named_splits(groups, ["chr3"], [])
    with pytest.raises(UserError, match="'2' is both for validation and test"):
        named_splits(groups, ["chr2"], ["2"])
    with pytest.raises(UserError, match="the train split of 4 records would be empty"):
        named_splits(groups, ["chr1"], ["chr2", "chrM"])


def test_contigs_are_groups() -> None:
    assert contigs_of([record(0, at=("c", 1, 2)), record(1, at=("d", 1, 2))]) == ["c", "d"]
    with pytest.raises(UserError, match=r"a\.csv, line 3: lies on no contig; give a BED"):
        contigs_of([record(0, at=("c", 1, 2)), record(1)])


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_test_every_record_once(grouped: bool) -> None:
    strata = np.array([0] * 50 + [1] * 23 + [2] * 4)
    groups = [f"g{i % 13}" for i in range(77)] if grouped else None
    splits = fold_splits(5, 3, strata, groups)
    assert all(whole(one, 77) for one in splits)
    assert sorted(np.concatenate([one.test for one in splits])) == list(range(77))
    assert sorted(np.concatenate([one.valid for one in splits])) == list(range(77))
    assert max(len(one.test) for one in splits) - min(len(one.test) for one in splits) <= (
        6 if grouped else 1
    )
    for one in splits:
        if groups:
            assert not {groups[i] for i in one.test} & {groups[i] for i in [*one.train, *one.valid]}
        else:
            counts = np.bincount(strata[one.test], minlength=3)
            assert (abs(counts - np.array([10, 4.6, 0.8])) < 1).all()
    assert [parts(one) for one in splits] == [parts(one) for one in fold_splits(5, 3, strata, groups)]


def test_folds_that_cannot_be() -> None:
    with pytest.raises(UserError, match="2 folds are too few"):
        fold_splits(2, 0, np.zeros(9, np.int64))
    with pytest.raises(UserError, match="fewer records than 10 folds"):
        fold_splits(10, 0, np.zeros(9, np.int64))
    with pytest.raises(UserError, match="fewer groups than 3 folds"):
        fold_splits(3, 0, np.zeros(9, np.int64), ["a", "b", "b"] * 3)


def find_leaks(records: list[LabelledRecord], splits: LabelSplits) -> list[Leak]:
    return LeakFinder(records).find(splits)


def test_nothing_leaks() -> None:
    records = [record(0, at=("c", 0, 30)), record(1, at=("c", 30, 60)), record(2, at=("d", 10, 40))]
    assert find_leaks(records, indices("train", "test", "test")) == []


def test_shared_sequences_leak_on_both_strands() -> None:
    first = record(0)
    again, mirrored = (
        record(i, bases=one) for i, one in ((1, first.sequence), (2, reverse_complement(first.sequence)))
    )
    [leak] = find_leaks([first, record(9), again, mirrored], indices("train", "test", "test", "test"))
    assert (leak.kind, leak.earlier, leak.later, leak.count, leak.total) == (
        "sequence",
        "train",
        "test",
        2,
        3,
    )
    assert leak.sentence == (
        "2 of 3 test records (66.7%) have a sequence, or its reverse complement, that is also in train, "
        "such as r1 (a.csv, line 3), r2"
    )


def test_overlapping_regions_leak() -> None:
    spans = [("c", 0, 100), ("c", 10, 20), ("c", 99, 120), ("c", 100, 120), ("d", 0, 9), ("c", 300, 310)]
    records = [record(i, at=span) for i, span in enumerate(spans)]
    [leak] = find_leaks(records, indices("train", "train", "valid", "valid", "valid", "train"))
    assert (leak.kind, leak.later, leak.count, leak.examples[0].id) == ("region", "valid", 1, "r2")


def test_torn_groups_leak() -> None:
    records = [record(i, group=group) for i, group in enumerate(["a", "a", "b", "", ""])]
    [leak] = find_leaks(records, indices("valid", "test", "test", "train", "test"))
    assert (leak.kind, leak.earlier, leak.later, leak.count) == ("group", "valid", "test", 1)
    assert "1 of 3 test records (33.3%) belong to a group that is also in valid" in leak.sentence


def test_records_with_half_of_their_31_mers_in_training_records_leak() -> None:
    training = random_dna(300, 1), random_dna(300, 2)
    held_out = {
        "half": training[0][:115] + random_dna(85, 3),
        "less": training[1][:95] + random_dna(106, 4),
        "mirrored": reverse_complement(training[1][50:200].encode()).decode(),
        "patchwork": training[0][:60] + "N" * 40 + training[1][:60],
        "other": random_dna(200, 5),
        "short": training[0][: K - 1],
    }
    texts = [*training, *held_out.values(), training[0]]
    records = [record(i, bases=text.encode()) for i, text in enumerate(texts)]
    names = {records[2 + i].id: name for i, name in enumerate(held_out)}
    roles = ["train", "train", *["test"] * len(held_out), "valid"]
    same, one, leak = find_leaks(records, indices(*roles))
    assert (same.kind, one.kind, one.covered, one.later) == ("sequence", "similar", True, "valid")
    assert [names[r.id] for r in leak.examples] == ["half", "mirrored", "patchwork"]
    assert (leak.kind, leak.earlier, leak.count, leak.total, leak.covered) == (
        "similar",
        "train",
        3,
        6,
        False,
    )
    assert "3 of 6 test records (50.0%) have half of their 31-mers or more in train, such as" in leak.sentence
    assert leak.to_json()["share"] == 0.5


@pytest.mark.parametrize("tiles", [6, 40])
def test_records_that_share_31_mers_stay_in_one_split(tiles: int) -> None:
    rng, records, contigs = np.random.default_rng(7), [], []
    repeat = random_dna(40, seed=99)  # in all: 10 of a record's 150 31-mers, which join nobody
    for contig in range(12):
        dna = random_dna(60 * tiles + 80, seed=contig)
        for start in range(0, 60 * tiles, 60):  # each shares 50 31-mers with the next
            bases = (dna[start : start + 140] + repeat).encode()
            bases = reverse_complement(bases) if rng.random() < 0.5 else bases
            records.append(LabelledRecord(f"{contig}:{start}", bases, "x"))
            contigs.append(contig)
    order = rng.permutation(len(records)).tolist()
    records, contigs = [records[i] for i in order], [contigs[i] for i in order]
    finder = LeakFinder(records)
    components = finder.components()
    assert len(set(components)) == len(set(zip(components, contigs, strict=True))) == 12
    splits = SplitMaker(records, np.zeros(len(records), np.int64), components, 0).hold_out(
        LabelSplits(np.arange(len(records)), NO_RECORDS, NO_RECORDS), 0.2, 0.2
    )
    assert finder.find(splits) == []
    assert finder.clean(splits).tolist() == splits.test.tolist()
    torn = indices(*(("train", "test")[number % 2] for number in range(len(records))))
    assert len(finder.clean(torn)) < len(torn.test)


def test_many_31_mers_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyenacli.finetune.leakage.MAX_KMERS", 1_000)
    training = [random_dna(2_000, seed) for seed in range(3)]
    held_out = [training[0][:1_500], training[1][:400] + random_dna(1_600, 9), random_dna(2_000, 10)]
    records = [record(i, bases=text.encode()) for i, text in enumerate([*training, *held_out])]
    [leak] = find_leaks(records, indices(*["train"] * 3, *["test"] * 3))
    assert (leak.count, leak.examples[0].id) == (1, records[3].id)


def test_a_public_set_has_the_overlap_that_is_counted_by_hand(shared: Path) -> None:
    def kmers(record: LabelledRecord) -> list[bytes]:
        words = [record.sequence[i : i + K] for i in range(len(record.sequence) - K + 1)]
        return [min(word, reverse_complement(word)) for word in words]

    path = shared / "data" / "labelled" / "gue_prom_300_tata_test.csv.gz"
    with open_labelled([path], Columns()) as rows:
        records = rows.load()[:600]
    known = {kmer for r in records[:400] for kmer in kmers(r)}
    counted = sum(np.mean([kmer in known for kmer in kmers(r)]) >= 0.5 for r in records[400:])
    leaks = find_leaks(records, indices(*["train"] * 400, *["test"] * 200))
    assert [leak.count for leak in leaks if leak.kind == "similar"] == [counted]
    assert counted > 0


def test_the_yeast_windows_overlap_between_dev_and_test(shared: Path) -> None:
    data = shared / "data"
    reference = Reference(Genome(data / "genomes" / "yeast_R64.fa.gz"))
    bed = data / "annotation" / "yeast_emp_H3_H4_windows_R64.bed.gz"
    with open_labelled([bed], Columns(labels=("score",)), reference=reference) as rows:
        records = [r for r in rows if r.id.startswith("H3|")]
    splits = indices(*("valid" if "|dev|" in r.id else "test" for r in records))
    leaks = {leak.kind: leak for leak in find_leaks(records, splits)}
    assert 0.05 < leaks["region"].count / leaks["region"].total < 0.2
    by_contig = group_splits(contigs_of(records), 0.1, 0.2, 0)
    assert [leak for leak in find_leaks(records, by_contig) if leak.kind == "region"] == []
    assert abs(len(by_contig.test) / len(records) - 0.2) < 0.05
