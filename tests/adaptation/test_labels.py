"""Labels: the task that they pose, and the numbers that they become."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyenacli.adaptation.labels import IGNORED, LabelScheme, RequestedTask, class_weights
from hyenacli.errors import UsageError, UserError
from hyenacli.finetune.task import infer_task
from hyenacli.readers.labelled import open_labelled
from hyenacli.readers.tables import Columns, Label, LabelledRecord
from hyenadna.config import HeadConfig, Level

NAN = np.nan


def rows(labels: Sequence[Label], sequence: bytes = b"ACGT") -> list[LabelledRecord]:
    return [
        LabelledRecord(str(i), sequence, label, file="a.csv", line=i + 2) for i, label in enumerate(labels)
    ]


def infer(labels: Sequence[Label], asked: RequestedTask = "auto", level: Level = "sequence") -> LabelScheme:
    first = labels[0]
    names = [f"y{i}" for i in range(len(first))] if isinstance(first, tuple) else ["label"]
    return infer_task(rows(labels), names, asked, level)


@pytest.mark.parametrize(
    ("labels", "task", "names"),
    [
        (["positive", "negative", "positive"], "binary", ("negative", "positive")),
        (["1", "0", "0"], "binary", ("0", "1")),
        (["1", "-1", "1"], "binary", ("-1", "1")),
        (["0.0", "1", "1.0"], "binary", ("0", "1")),
        (["c10", "c9", "c1", "c1"], "multiclass", ("c1", "c9", "c10")),
        (["2", "0", "1"], "multiclass", ("0", "1", "2")),
        ([str(i) for i in range(1, 12)], "multiclass", tuple(str(i) for i in range(1, 12))),
        (["0.5", "1", "2"], "regression", ("label",)),
        (["0.5", "1.5"], "regression", ("label",)),
        (["3", "7", "12"], "regression", ("label",)),
        ([str(i) for i in range(101)], "regression", ("label",)),
        (["-1e3", "5", "0"], "regression", ("label",)),
        ([("0", "1"), ("1", ""), ("0", "0")], "multilabel", ("y0", "y1")),
        ([("0", "1"), ("1", "2"), ("0", "0")], "regression", ("y0", "y1")),
        ([("0.5", "1"), ("1", "")], "regression", ("y0", "y1")),
    ],
)
def test_the_task_is_inferred(labels: list[Label], task: str, names: tuple[str, ...]) -> None:
    scheme = infer(labels)
    assert (scheme.task, scheme.level, scheme.names, scheme.n_outputs) == (
        task,
        "sequence",
        names,
        len(names),
    )
    HeadConfig(scheme.task, scheme.n_outputs, scheme.names, level=scheme.level)


@pytest.mark.parametrize(
    ("labels", "asked", "names"),
    [
        (["1", "2", "X", "1"], "multiclass", ("1", "2", "X")),
        (["3", "7", "12"], "multiclass", ("3", "7", "12")),
        (["0", "1"], "multiclass", ("0", "1")),
        (["0", "1"], "regression", ("label",)),
        (["0.5", "1.5"], "binary", ("0.5", "1.5")),
        ([("0", "1"), ("1", "1")], "regression", ("y0", "y1")),
    ],
)
def test_the_task_is_as_asked(labels: list[Label], asked: RequestedTask, names: tuple[str, ...]) -> None:
    scheme = infer(labels, asked)
    assert (scheme.task, scheme.names) == (asked, names)
    assert f"task {asked} (as asked)" in scheme.sentence


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["b", "a", "b"], "task binary (inferred): 2 classes in column 'label' of 3 sequences: a (1), b (2)"),
        (["1", "0.5"], "task regression (inferred): numbers from 0.5 to 1 in column 'label' of 2 sequences"),
        (
            [("0", "1", "0"), ("1", "", "0")],
            (
                "task multilabel (inferred): 3 columns of 0 and 1 for 2 sequences "
                "(labels missing: 1, columns without any difference: 2)"
            ),
        ),
    ],
)
def test_a_sentence_says_what_was_found(labels: list[Label], sentence: str) -> None:
    assert infer(labels).sentence == sentence


@pytest.mark.parametrize(
    ("labels", "asked", "message"),
    [
        (
            ["x", "0", "1"],
            "auto",
            "a.csv, line 2: label 'x' is a text, but '0' (line 3) is a number; correct",
        ),
        (
            ["x", "x"],
            "auto",
            "a.csv: all labels are 'x', so that there is nothing to learn; give records of at",
        ),
        (["1", "1.0"], "auto", "all labels are '1'"),
        (["0.5", "0.5"], "auto", "all labels are '0.5'"),
        (["2", "2.0"], "regression", "all labels are '2'"),
        (["x", "", "y"], "auto", "a.csv, line 3: the label is missing; remove such records"),
        (["0", "nan", "1"], "auto", "a.csv, line 3: the label is missing"),
        (["0", None, "1"], "auto", "a.csv, line 3: the label is missing"),
        ([("", "NA"), ("0", "1")], "auto", "a.csv, line 2: the label is missing"),
        (
            ["a", "b", "c"],
            "binary",
            "a binary task has two classes, the labels have 3: a, b, c; give --task multi",
        ),
        (["a", "b"], "regression", "line 2: label 'a' is not a number; a regression needs numbers"),
        (["0", "1"], "multilabel", "multilabel needs several label columns, and 'label' is one"),
        (
            [("0", "1"), ("1", "1")],
            "binary",
            "binary has one label column, and there are 2: y0, y1; name one",
        ),
        ([("0", "1"), ("1", "0.5")], "multilabel", "a.csv, line 3: label 0.5 is neither 0 nor 1"),
        ([("0", "1"), ("1", "x")], "auto", "a.csv, line 3: label 'x' is not a number"),
        ([("0", "1e39"), ("1", "1")], "auto", "a.csv, line 2: a label is infinite, or too large"),
        ([np.float32([0, 1])], "auto", "a list of labels where one is expected; give --level nucleotide"),
        ([("0", "1"), ("0", "1")], "auto", "all labels are equal in every one of 2 columns"),
        (["seq1", "seq2", "seq3"], "auto", "no two labels in column 'label' are alike"),
        (["0.5", "inf"], "auto", "line 3: label 'inf' is a text, but '0.5' (line 2) is a number"),
        (
            [np.float32([0, 1, 2, 1])],
            "auto",
            "a list of labels where one is expected; give --level nucleotide",
        ),
    ],
)
def test_labels_that_cannot_be_learnt(labels: list[Label], asked: RequestedTask, message: str) -> None:
    with pytest.raises(UserError) as error:
        infer(labels, asked)
    assert message in str(error.value)


def test_nothing_to_learn_from() -> None:
    with pytest.raises(UserError, match="there are no training records"):
        infer_task([], ["label"])
    with pytest.raises(UserError, match=r"a\.csv: there are no labels; name their column"):
        infer_task(rows([None]), [])


def test_classes_become_numbers() -> None:
    scheme = infer(["b", "a", "c10", "c9"] * 2)
    targets = scheme.targets(rows(["c10", "a", None, "b"]))
    assert targets.dtype == np.int64
    assert targets.tolist() == [3, 0, IGNORED, 1]
    message = (
        "a.csv, line 3: label 'z' is not in the training data, which have a, b, c9, c10; train on records"
    )
    with pytest.raises(UserError, match=message):
        scheme.targets(rows(["a", "z"]))
    with pytest.raises(UserError, match="line 2: the label is missing"):
        scheme.targets(rows([""]))
    assert infer(["0", "1"]).targets(rows(["1.0"])).tolist() == [1]


def test_numbers_stay_numbers() -> None:
    one = infer(["0.5", "2"])
    assert one.targets(rows(["-1e3", "7"])).tolist() == [[-1000], [7]]
    with pytest.raises(UserError, match="line 2: label 'x' is not a number"):
        one.targets(rows(["x"]))
    with pytest.raises(UserError, match="line 2: the label is missing"):
        one.targets(rows(["NaN"]))
    many = infer([("0", "1"), ("1", "0")])
    targets = many.targets([*rows([("1", ""), ("0", "1")]), *rows([None])])
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, np.float32([[1, NAN], [0, 1], [NAN, NAN]]))
    with pytest.raises(UserError, match="line 2: label 2 is neither 0 nor 1"):
        many.targets(rows([("1", "2")]))
    with pytest.raises(UserError, match="line 2: label columns: 3 here, 2 in the training data"):
        many.targets(rows([("1", "0", "1")]))


@pytest.mark.parametrize(
    ("labels", "task", "names", "target"),
    [
        (["0112", "0000"], "multiclass", ("0", "1", "2"), [0, 1, 1, 2]),
        (["E.II", "EEEE"], "binary", ("E", "I"), [0, IGNORED, 1, 1]),
        (["[0, 1, 1, 0]", "1 0 0 0"], "binary", ("0", "1"), [0, 1, 1, 0]),
        (["ex,in,,in", "ex;ex;ex;ex"], "binary", ("ex", "in"), [0, 1, IGNORED, 1]),
        (["0,0.5,nan,1", "0,0,0,0"], "regression", ("label",), [[0], [0.5], [NAN], [1]]),
        ([np.float32([0.5, 1, NAN, 1])] * 2, "regression", ("label",), [[0.5], [1], [NAN], [1]]),
        ([np.float32([2, 1, NAN, 0])] * 2, "multiclass", ("0", "1", "2"), [2, 1, IGNORED, 0]),
        ([("0011", "1,0,1,0")] * 2, "multilabel", ("y0", "y1"), [[0, 1], [0, 0], [1, 1], [1, 0]]),
        ([("00.5", "1,0,1,0")] * 2, "regression", ("y0", "y1"), [[0, 1], [0, 0], [NAN, 1], [5, 0]]),
    ],
)
def test_labels_of_bases(labels: list[Label], task: str, names: tuple[str, ...], target: list[Any]) -> None:
    scheme = infer(labels, level="nucleotide")
    assert (scheme.task, scheme.level, scheme.names) == (task, "nucleotide", names)
    encoded = scheme.encode(rows(labels)[0])
    assert encoded.dtype == (np.int64 if scheme.has_classes else np.float32)
    np.testing.assert_array_equal(encoded, np.array(target, dtype=encoded.dtype))
    nothing = scheme.encode(rows([None])[0])
    assert nothing.shape == encoded.shape
    assert (nothing == IGNORED).all() if scheme.has_classes else np.isnan(nothing).all()


def test_digits_of_bases_are_numbers_where_asked() -> None:
    scheme = infer(["0.12", "0000"], "regression", "nucleotide")
    np.testing.assert_array_equal(scheme.encode(rows(["0.12"])[0]), np.float32([[0], [NAN], [1], [2]]))
    assert "7 bases of 2 sequences (1 more have no label and are left out)" in scheme.sentence


@pytest.mark.parametrize(
    ("labels", "asked", "message"),
    [
        (
            ["01", "0101"],
            "auto",
            "a.csv, line 2: 2 labels for 4 bases; write one label per base",
        ),
        (["0101", "0,1,0"], "auto", "a.csv, line 3: 3 labels for 4 bases"),
        (["0101", ""], "auto", "a.csv, line 3: the label is missing"),
        (["0000", "0000"], "auto", "all labels are '0'"),
        (["....", "...."], "auto", "no base has a label"),
        ([np.float32([0.5] * 4)], "auto", "all labels are '0.5'"),
        (["01EE", "0101"], "auto", "label 'E' is a text, but '0' (line 2) is a number"),
        (["EEII", "EEEE"], "regression", "label 'E' is not a number"),
        ([("0011", "EIEI")], "auto", "need numbers"),
        ([("0011", "0,1e39,0,0")], "auto", "line 2: a label is infinite, or too large for single precision"),
    ],
)
def test_labels_of_bases_that_cannot_be_learnt(
    labels: list[Label], asked: RequestedTask, message: str
) -> None:
    with pytest.raises(UserError) as error:
        infer(labels, asked, "nucleotide")
    assert message in str(error.value)


def test_labels_of_bases_are_told_from_those_of_sequences() -> None:
    records = rows(["00110011", "01010101"], b"ACGTACGT")
    with pytest.raises(
        UserError, match="line 2: the label has one letter for every base; give --level nucleotide"
    ):
        infer_task(records, ["label"])
    assert infer_task(records, ["label"], level="nucleotide").task == "binary"


@pytest.mark.parametrize("level", ["sequence", "nucleotide"])
def test_other_columns_than_those_of_the_training_data(level: Level) -> None:
    one, two = (
        infer(["0101", "1110"], "regression", level),
        infer([("0101", "0000"), ("0001", "0010")], "regression", level),
    )
    with pytest.raises(UserError, match="label columns: 2 here, 1 in the training data"):
        one.encode(rows([("0000", "0000")])[0])
    with pytest.raises(UserError, match="label columns: 1 here, 2 in the training data"):
        two.encode(rows(["0000"])[0])
    with pytest.raises(UserError, match="line 2: the label is missing"):
        infer_task(rows([None]), ["a", "b"], level=level)


def test_class_weights() -> None:
    scheme = infer(["a", "b", "c"] * 2)
    weights = class_weights(scheme, np.array([0, 0, 0, 1, 1, 2, IGNORED]))
    np.testing.assert_allclose(weights, [6 / 9, 1, 2], rtol=1e-6)
    assert weights.dtype == np.float32
    many = infer([("0", "1"), ("1", "0")])
    targets = np.float32([[0, 1], [0, NAN], [1, 1], [0, 1]])
    np.testing.assert_allclose(class_weights(many, targets), [3, 1])
    with pytest.raises(UsageError, match="a regression has no classes to weigh"):
        class_weights(infer(["0.5", "1"]), np.float32([[1]]))


@pytest.mark.parametrize(
    ("name", "columns", "task", "n_outputs"),
    [
        ("gb_human_enhancers_cohn_testsplit.csv.gz", Columns(labels=("target",)), "binary", 2),
        ("gb_human_enhancers_cohn_testsplit.csv.gz", Columns(labels=("numeric_label",)), "binary", 2),
        ("gue_splice_dev.csv.gz", Columns(), "multiclass", 3),
        ("yeast_terminators_expression.txt.gz", Columns(), "regression", 1),
    ],
)
def test_tasks_of_real_data(shared: Path, name: str, columns: Columns, task: str, n_outputs: int) -> None:
    with open_labelled([shared / "data" / "labelled" / name], columns) as opened:
        records = opened.load()
        scheme = infer_task(records, opened.label_names)
    assert (scheme.task, scheme.n_outputs) == (task, n_outputs)
    targets = scheme.targets(records)
    assert len(targets) == len(records)
    assert np.isfinite(targets).all()
