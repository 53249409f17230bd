"""From the flags of a verb to labelled records and their splits."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from hyenacli.errors import UsageError, UserError
from hyenacli.finetune.dataset import find_gaps, open_set, split_sizes
from hyenacli.finetune.leakage import LeakFinder
from hyenacli.genome.dna import reverse_complement
from tests.builders import random_dna, write_bed, write_fasta
from tests.finetunes import sequences, settings, two_classes, write_table


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return two_classes(tmp_path / "table.csv", 100)


def sizes(data: Any, tmp_path: Path, **changes: Any) -> str:
    plain = {"valid_fraction": None, "test_fraction": None}
    return split_sizes(open_set(settings(data, "model", tmp_path / "run", **(plain | changes))).splits[0])


def test_splits_are_made_where_none_are_named(table: Path, tmp_path: Path) -> None:
    assert sizes(table, tmp_path) == "80 train, 10 valid, 10 test"
    assert sizes(table, tmp_path, test_fraction=0.0) == "90 train, 10 valid, 0 test"
    data = open_set(settings(table, "model", tmp_path / "run"))
    for places in (data.splits[0].valid, data.splits[0].test):
        assert sum(int(data.targets[i]) for i in places.tolist()) == len(places) / 2


def test_files_are_splits(table: Path, tmp_path: Path) -> None:
    other = two_classes(tmp_path / "other.csv", 30)
    assert sizes(table, tmp_path, test=[str(other)]) == "90 train, 10 valid, 30 test"
    assert sizes(table, tmp_path, valid=[str(other)]) == "100 train, 30 valid, 0 test"
    assert sizes(table, tmp_path, valid=[str(other)], test=[str(table)]) == "100 train, 30 valid, 100 test"
    assert sizes(table, tmp_path, valid=[str(other)], test_fraction=0.2) == "80 train, 30 valid, 20 test"


def test_a_column_is_splits(tmp_path: Path) -> None:
    names = ["train"] * 8 + ["test"] * 2
    rows = [(bases, int(share > 0.5), names[i % 10]) for i, (bases, share) in enumerate(sequences(100))]
    table = write_table(tmp_path / "t.csv", rows, ("sequence", "label", "split"))
    assert sizes(table, tmp_path) == "72 train, 8 valid, 20 test"
    with pytest.raises(UsageError, match="--test-fraction: the test split is given already; leave it out"):
        sizes(table, tmp_path, test_fraction=0.2)
    with pytest.raises(UserError, match="--folds: the splits are named already"):
        sizes(table, tmp_path, folds=3)


@pytest.mark.parametrize(("flag", "word"), [("test", "train"), ("test", "valid"), ("valid", "train")])
def test_a_column_does_not_speak_against_a_flag(table: Path, tmp_path: Path, flag: str, word: str) -> None:
    header = ("sequence", "label", "split")
    rows = [("ACGTTA", "rich", flag), ("ACGGTA", "poor", "")]
    agreeing = write_table(tmp_path / "yes.csv", rows, header)
    assert f"2 {flag}" in sizes(table, tmp_path, **{flag: [str(agreeing)]})
    other = write_table(tmp_path / "no.csv", [*rows, ("ACGGTT", "poor", word)], header)
    message = rf"no\.csv, line 4: its own split is '{word}', but it is given with --{flag}; correct"
    with pytest.raises(UserError, match=message):
        sizes(table, tmp_path, **{flag: [str(other)]})


def test_groups_stay_together(tmp_path: Path) -> None:
    rows = [(bases, int(share > 0.5), f"g{i // 4}") for i, (bases, share) in enumerate(sequences(80))]
    table = write_table(tmp_path / "t.csv", rows, ("sequence", "label", "family"))
    data = open_set(settings(table, "model", tmp_path / "run", group_column="family"))
    splits = data.splits[0]
    groups = [
        {data.records[i].group for i in part.tolist()} for part in (splits.train, splits.valid, splits.test)
    ]
    assert all(groups)
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    named = {"group_column": "family", "valid_groups": "g1,g2", "test_groups": "g3"}
    assert sizes(table, tmp_path, **named) == "68 train, 8 valid, 4 test"


def test_a_fingerprint_is_of_all_that_decides_splits(tmp_path: Path) -> None:
    header, flags = ("sequence", "label", "family"), {"group_column": "family"}
    rows = [(bases, int(share > 0.5), f"g{i // 4}") for i, (bases, share) in enumerate(sequences(40))]

    def sha256(path: Path, **changes: Any) -> object:
        return open_set(settings(path, "model", tmp_path / "run", **changes)).inputs["sha256"]

    one = write_table(tmp_path / "one.csv", rows, header)
    other = write_table(
        tmp_path / "other.csv", [(*row[:2], f"h{i // 5}") for i, row in enumerate(rows)], header
    )
    assert sha256(one) == sha256(other)
    assert sha256(one, **flags) != sha256(other, **flags)
    genome = write_fasta(tmp_path / "g.fa", [(f"chr{i}", random_dna(800, 1)) for i in (1, 2)])
    beds = [
        write_bed(
            tmp_path / f"chr{c}.bed",
            [(f"chr{c}", s, s + 30, f"r{s}", s // 40 % 2) for s in range(0, 760, 40)],
        )
        for c in (1, 2)
    ]
    first, second = (sha256(bed, fasta=genome, label_column=["score"]) for bed in beds)
    assert first != second


def test_contigs_of_a_bed_are_groups(tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "g.fa", [(f"chr{i}", random_dna(400, i)) for i in (1, 2, 3)])
    rows = [(f"chr{c}", s, s + 30, f"r{s}", s // 40 % 2, "+") for c in (1, 2, 3) for s in range(0, 360, 40)]
    bed = write_bed(tmp_path / "r.bed", rows)
    flags: dict[str, Any] = {
        "fasta": genome,
        "label_column": ["score"],
        "valid_groups": "2",
        "test_groups": "chr3",
    }
    assert sizes(bed, tmp_path, **flags) == "9 train, 9 valid, 9 test"


def test_folds_use_every_record(table: Path, tmp_path: Path) -> None:
    data = open_set(settings(table, "model", tmp_path / "run", folds=5))
    assert [splits.counts() for splits in data.splits] == [{"train": 64, "valid": 16, "test": 20}] * 5
    assert sorted(i for splits in data.splits for i in splits.test.tolist()) == list(range(100))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_share_is_refused_where_it_means_nothing(table: Path, tmp_path: Path, split: str) -> None:
    for changes in ({split: [str(table)]}, {"valid": [str(table)], "test": [str(table)]}):
        with pytest.raises(UsageError, match=f"--{split}-fraction: the {split} split is given already"):
            sizes(table, tmp_path, **{f"{split}_fraction": 0.2}, **changes)


def test_shares_leave_something_to_train_on(table: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--valid-fraction, --test-fraction: 0\.6 .* leave nothing to train"
    ):
        sizes(table, tmp_path, valid_fraction=0.6, test_fraction=0.4)


def test_what_has_no_bases_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(bases, int(share > 0.5)) for bases, share in sequences(40)]
    path = write_table(tmp_path / "n.csv", [*rows, *(("nNNn", i % 2) for i in range(20))])
    with caplog.at_level("WARNING", logger="hyena"):
        data = open_set(settings(path, "model", tmp_path / "run"))
    assert [record.sequence.decode() for record in data.records] == [bases for bases, _ in rows]
    assert "n.csv: left out, as nothing but N: " in caplog.text
    assert "(20 in all)" in caplog.text


def test_classes_that_differ_in_case_only_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bases = [random_dna(30, seed=i) for i in range(40)]
    labels = ["TRUE", "true", "FALSE", "FALSE"] * 10
    rows = "".join(f"{b},{label}\n" for b, label in zip(bases, labels, strict=True))
    (tmp_path / "t.csv").write_text("sequence,label\n" + rows)
    with caplog.at_level("WARNING", logger="hyena"):
        open_set(settings(tmp_path / "t.csv", "model", tmp_path / "run"))
    assert caplog.text.count("differ in case only: 'TRUE' and 'true'; write them alike") == 1


def test_folds_test_on_shares_of_their_own(table: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--test-fraction: every fold tests on its own part of the data"):
        sizes(table, tmp_path, test_fraction=0.2, folds=3)


def test_a_genome_is_refused_where_nothing_lies_on_one(table: Path, tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "g.fa", [("chr1", random_dna(60))])
    with pytest.raises(UsageError, match="--fasta: a genome is for BED, and no input is one; leave it out"):
        sizes(table, tmp_path, fasta=genome)


def test_one_fasta_per_class(tmp_path: Path) -> None:
    files = []
    for name in ("yes", "no"):
        records = [(f"{name}{i}", random_dna(20, i)) for i in range(20)]
        files.append(f"{name}={write_fasta(tmp_path / f'{name}.fa', records)}")
    data = open_set(settings(files, "model", tmp_path / "run"))
    assert data.scheme.names == ("no", "yes")
    assert len(data.records) == 40


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "sequence,class\nACGT,a\n", "no column 'label'; the columns are sequence, class: name one"),
    ({}, "sequence,label\nACGT,a\nACGT,a\nAC,a\n", "one class|nothing to learn|all labels"),
    ({}, "sequence,label\nAC4T,a\nACGT,b\n", "line 2: '4'"),
    ({}, "sequence,label\nACGT,1\nACGT,b\nACG,2\n", "1"),
    ({}, "sequence,label\nACGT,\nACGT,b\n", "line 2: the label is missing"),
    ({"task": "regression"}, "sequence,label\nACGT,nan\nACGT,1.5\n", "line 2: the label is missing"),
    ({"task": "binery"}, "sequence,label\nACGT,a\n", "did you mean 'binary'"),
    ({"level": "base"}, "sequence,label\nACGT,a\n", "--level: unknown word 'base'"),
    ({"valid_fraction": 0.0}, "sequence,label\nACGT,a\nACGG,b\n", "nothing to choose the model by"),
    ({}, "sequence,label\nACGT,a\nACGG,b\n", "split of 2 records would be empty"),
    ({"valid_groups": "x"}, "sequence,label\nACGT,a\nACGG,b\n", "lies on no contig"),
]


@pytest.mark.parametrize(("flags", "text", "message"), BAD)
def test_bad_data_is_told_in_one_line(flags: dict[str, Any], text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        open_set(settings(path, "model", tmp_path / "run", **flags))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("task", ["auto", "regression"])
def test_decimal_commas_are_no_classes(tmp_path: Path, task: str) -> None:
    rows = [(bases, f"{share:.2f}".replace(".", ",")) for bases, share in sequences(90)]
    data, run = write_table(tmp_path / "t.csv", rows), tmp_path / "run"
    with pytest.raises(UserError, match=r"line 2: label '0,\d+' is a number with a comma; write numbers"):
        open_set(settings(data, "model", run, task=task))
    several = write_table(tmp_path / "s.csv", [(*row, "1") for row in rows], ("sequence", "a", "b"))
    with pytest.raises(UserError, match="is a number with a comma"):
        open_set(settings(several, "model", run, label_column=["a", "b"]))
    kinds = write_table(tmp_path / "k.csv", [(bases, f"{i % 3},5") for i, (bases, _) in enumerate(rows)])
    assert len(open_set(settings(kinds, "model", run, task="multiclass")).scheme.names) == 3
    text = write_table(
        tmp_path / "x.csv", [(bases, ("a", "1,5")[i % 2]) for i, (bases, _) in enumerate(rows)]
    )
    assert open_set(settings(text, "model", run)).scheme.names == ("1,5", "a")


def test_all_labels_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    rows = [(bases, "" if i % 10 == 3 else "ab"[i % 2]) for i, (bases, _) in enumerate(sequences(100))]
    data = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(UserError) as caught:
        open_set(settings(data, "model", tmp_path / "run"))
    first = "t.csv, line 5: the label is missing; remove such records, or fill the labels in; "
    assert first + "9 more cannot be read, in lines 15, 25, 35, 45, 55, ... (9 in all)" in str(caught.value)
    header = ("sequence", "a", "b")
    several = write_table(tmp_path / "s.csv", [(bases, "1", label) for bases, label in rows], header)
    with pytest.raises(UserError, match="89 more cannot be read"):
        open_set(settings(several, "model", tmp_path / "run", label_column=["a", "b"]))


def test_a_column_may_be_read_twice(tmp_path: Path) -> None:
    rows = [(bases, "ab"[i % 2]) for i, (bases, _) in enumerate(sequences(40))]
    columns = {"sequence": [row[0] for row in rows], "label": [row[1] for row in rows]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    for column in ("label", "sequence"):
        data = open_set(settings(tmp_path / "t.parquet", "model", tmp_path / "run", id_column=column))
        assert [record.id for record in data.records] == columns[column]


def test_a_label_that_training_does_not_have(table: Path, tmp_path: Path) -> None:
    other = write_table(tmp_path / "new.csv", [("ACGT", "strange")])
    with pytest.raises(UserError, match=r"new\.csv, line 2: label 'strange' is not in the training data"):
        sizes(table, tmp_path, test=[str(other)])


def test_files_of_other_columns(table: Path, tmp_path: Path) -> None:
    one = write_table(tmp_path / "one.csv", [("ACGT", 1, 0)], ("sequence", "a", "b"))
    two = write_table(tmp_path / "two.csv", [("ACGT", 1)], ("sequence", "a"))
    with pytest.raises(UserError, match=r"two\.csv: has label columns a, DATA has a, b"):
        sizes(one, tmp_path, label_column=["[ab]"], test=[str(two)])


def test_one_sequence_stays_on_one_side(tmp_path: Path) -> None:
    rows = [(bases, int(share > 0.5)) for bases, share in sequences(40)]
    turned = [(reverse_complement(bases.encode()).decode(), label) for bases, label in rows]
    table = write_table(tmp_path / "t.csv", rows + turned)
    for changes in ({}, {"folds": 4}):
        data = open_set(settings(table, "model", tmp_path / "run", **changes))
        for splits in data.splits:
            assert not LeakFinder(data.records).find(splits)
            assert min(splits.counts().values()) >= 8


def test_splits_that_say_little_are_named(table: Path, tmp_path: Path) -> None:
    one = write_table(tmp_path / "one.csv", [("ACGTACG", "rich")])
    data = open_set(settings(table, "model", tmp_path / "run", test=[str(one)]))
    assert find_gaps(data, data.splits[0]) == [
        "the test split has only 1 record: its metrics say little",
        "the test split has no record of poor",
    ]


@pytest.mark.parametrize("options", [{}, {"attributes": "biotype,ID"}])
def test_an_attribute_of_features_is_the_label(tmp_path: Path, options: dict[str, str]) -> None:
    bases = random_dna(4000)
    genome = write_fasta(tmp_path / "g.fa", [("c1", bases)])
    lines = []
    for i in range(40):
        kind, strand = ("coding" if i % 2 else "silent"), "+-"[i % 3 == 0]
        where = f"{100 * i + 1}\t{100 * i + 50}\t.\t{strand}\t."
        lines.append(f"c1\tx\tgene\t{where}\tID=g{i};biotype={kind};family=f{i // 4}\n")
        lines.append(f"c1\tx\texon\t{where}\tParent=g{i}\n")
    (tmp_path / "a.gff").write_text("".join(lines))
    chosen = {"fasta": genome, "feature": "gene", "label_column": ["biotype"], "group_column": "family"}
    data = open_set(settings(tmp_path / "a.gff", "model", tmp_path / "run", **chosen, **options))
    assert [(record.id, record.group, record.label) for record in data.records[:2]] == [
        ("g0", "f0", "silent"),
        ("g1", "f0", "coding"),
    ]
    first = bases[:50].encode()
    assert [record.sequence for record in data.records[:2]] == [
        reverse_complement(first),
        bases[100:150].encode(),
    ]
    assert list(map(int, data.targets)) == [1, 0] * 20
    with pytest.raises(UserError, match="no chosen feature has the attribute 'kind'; they have ID, biotype"):
        open_set(
            settings(tmp_path / "a.gff", "model", tmp_path / "run", **(chosen | {"label_column": ["kind"]}))
        )
