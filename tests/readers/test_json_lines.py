"""JSON Lines as tables, beside the same rows as Parquet."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hyenacli.errors import UserError
from hyenacli.readers.labelled import open_labelled
from hyenacli.readers.tables import Columns, LabelledRecord
from tests.builders import Compression, write_bytes

ROWS: list[dict[str, Any]] = [
    {"id": "a", "sequence": "ACGT", "label": 1, "split": "train", "batch": "x"},
    {"id": "b", "sequence": "ggnu", "label": None, "split": "dev", "batch": "NA"},
    {"id": "c", "sequence": "", "label": True, "split": None, "batch": None},
    {"id": "d", "sequence": "AC-T", "label": 0.25, "split": "test", "batch": "y"},
    {"id": "7", "sequence": "TTTT", "label": "NaN", "split": "", "batch": "x,y"},
]


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(path: Path, columns: Columns | None = None, *, labelled: bool = True) -> list[LabelledRecord]:
    with open_labelled([path], columns, labelled=labelled) as rows:
        assert rows.kinds == ("table",) or path.suffix == ".parquet"
        return list(rows)


def plain(records: list[LabelledRecord]) -> list[tuple[object, ...]]:
    return [(r.id, r.sequence, r.label, r.group, r.split, r.status, r.problem) for r in records]


@pytest.mark.parametrize("compression", ["plain", "gzip", "bgzip"])
def test_rows_are_those_of_csv(tmp_path: Path, compression: Compression) -> None:
    columns = Columns(group="batch")
    path = write_bytes(tmp_path / "a.jsonl", lines(ROWS), compression)
    table = "id,sequence,label,split,batch\na,ACGT,1,train,x\nb,ggnu,,dev,NA\nc,,1,,\nd,AC-T,0.25,test,y\n"
    csv = write_bytes(tmp_path / "a.csv", (table + '7,TTTT,NaN,,"x,y"\n').encode())
    assert plain(read(path, columns)) == plain(read(csv, columns))
    assert [(r.line, r.unit) for r in read(path)] == [(number, "line") for number in range(1, 6)]


def test_rows_are_those_of_parquet(tmp_path: Path) -> None:
    rows = [{"sequence": "ACGT", "label": [0.5, None, 1, 2]}, {"sequence": "AC", "label": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    path = write_bytes(tmp_path / "a.ndjson", lines(rows))
    (a, b), (c, d) = read(path), read(tmp_path / "a.parquet")
    np.testing.assert_array_equal(np.asarray(a.label), np.asarray(c.label))
    assert (b.label, b.sequence, a.sequence) == (d.label, d.sequence, c.sequence)


def test_keys_in_any_order_blank_lines_and_keys_left_out(tmp_path: Path) -> None:
    text = b'\n{"Sequence": "ACGT"}\r\n\n{"label": ["x", "y"], "sequence": 5, "Sequence": "\\ud800"}'
    first, second = read(write_bytes(tmp_path / "a", text), Columns("Sequence"))
    assert (first.id, first.label, first.status, first.line) == ("1", "", "OK", 2)
    assert (second.id, second.label, second.status, second.line) == ("2", "x,y", "BAD_LETTER", 4)


@pytest.mark.parametrize(
    ("value", "status", "problem"),
    [
        (["A", "C"], "BAD_LETTER", "the sequence is a list, not a text"),
        ({"bases": "ACGT"}, "BAD_LETTER", "the sequence is an object, not a text"),
        (5, "BAD_LETTER", "'5' (letter 1 of the sequence) is not a nucleotide code"),
        (None, "EMPTY", "the sequence is empty"),
    ],
)
def test_a_value_that_is_no_sequence_is_a_status(
    tmp_path: Path, value: object, status: str, problem: str
) -> None:
    path = write_bytes(tmp_path / "a", lines([{"sequence": value, "label": 1}]))
    [record] = read(path)
    assert (record.status, record.problem, record.sequence) == (status, problem, b"")
    with open_labelled([path]) as rows, pytest.raises(UserError) as error:
        rows.load()
    assert str(error.value).startswith(f"{path}, line 1: {problem}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[1, 2]", "the line is no JSON object; write one object a line"),
        (b'"ACGT"', "the line is no JSON object; "),
        (b'{"sequence": "ACGT"', "the line is no JSON object: Expecting ',' delimiter"),
        (b'{"sequence": "A"} {"sequence": "C"}', "the line is no JSON object: Extra data"),
        (b"[" * 100_000, "the line is no JSON object: "),
        (b'{"sequence": "A", "label": {"a": 1}}', "the value of 'label' is an object; "),
        (b'{"sequence": "A", "label": 1, "split": "tset"}', "split 'tset' is none of train, valid and test"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = write_bytes(tmp_path / "a", lines(ROWS[:1]) + line + b"\n")
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}, line 2: {message}")


def test_one_object_over_several_lines_and_a_missing_column(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 1: the line is no JSON object"):
        read(write_bytes(tmp_path / "a", json.dumps(ROWS[0], indent=1).encode()))
    with pytest.raises(UserError, match="no column 'bases'; the columns are id, sequence, label"):
        read(write_bytes(tmp_path / "a", lines(ROWS)), Columns("bases"))


def test_labels_may_begin_late_and_inputs_to_predict_need_none(tmp_path: Path) -> None:
    rows = [{"sequence": "ACGT"}] * 999 + [{"sequence": "ACGT", "label": 1}] * 2
    path = write_bytes(tmp_path / "a", lines(rows))
    assert [r.label for r in read(path)] == [""] * 999 + ["1"] * 2
    assert read(write_bytes(path, lines(rows[:3])), labelled=False)[2].label is None


def test_a_number_out_of_range_is_one_line(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.jsonl", b'{"sequence": "AC", "label": [1, 1' + b"0" * 400 + b"]}\n")
    with pytest.raises(UserError, match="line 1: a number of 'label' is out of range"):
        read(path)
