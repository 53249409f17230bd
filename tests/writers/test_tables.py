import csv
import gzip
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hyenacli.errors import UsageError
from hyenacli.writers.columnar import open_parquet
from hyenacli.writers.columns import Column
from hyenacli.writers.tables import open_table, table_type

COLUMNS = [Column("id", str), Column("start", int), Column("embedding", float, 3)]
VECTORS = np.array([[0.1, -2.5e-30, 3.0], [np.nan] * 3, [1 / 3, 16777216.0, -1e38]], dtype=np.float32)
BATCHES = [
    {"id": ["a"], "start": [5], "embedding": VECTORS[:1]},
    {"id": ["b", "a"], "start": np.array([7, 2**40]), "embedding": VECTORS[1:]},
]
PROVENANCE = {"model": "tiny", "layers": [-1]}


def write(target: Path, kind: str | None = None, batches: list[dict] = BATCHES) -> None:
    with open_table(target, kind, COLUMNS, PROVENANCE) as table:
        for batch in batches:
            table.write(batch)


def read_tsv(text: str) -> tuple[list[str], list[list[str]]]:
    assert text.endswith("\n")
    header, *rows = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
    return header, rows


def test_parquet_holds_types_values_and_provenance(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    assert str(table.schema.field("embedding").type).startswith("fixed_size_list<")
    assert table["id"].to_pylist() == ["a", "b", "a"]
    assert table["start"].to_pylist() == [5, 7, 2**40]
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), VECTORS)
    assert json.loads(table.schema.metadata[b"hyena"]) == PROVENANCE


def test_parquet_writes_row_groups_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with open_parquet(path, COLUMNS, PROVENANCE, row_group_bytes=100, rows_at_once=1) as table:
        for batch in BATCHES * 20:
            table.write(batch)
    file = pq.ParquetFile(tmp_path / "x.parquet")
    assert file.metadata.num_rows == 60
    assert 10 < file.metadata.num_row_groups < 40
    assert file.read()["id"].to_pylist() == ["a", "b", "a"] * 20


@pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz"])
def test_tsv_gives_the_same_float32_back(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"x{suffix}")
    raw = (tmp_path / f"x{suffix}").read_bytes()
    header, rows = read_tsv((gzip.decompress(raw) if suffix.endswith("gz") else raw).decode())
    assert header == ["id", "start", "e0", "e1", "e2"]
    assert [row[:2] for row in rows] == [["a", "5"], ["b", "7"], ["a", str(2**40)]]
    assert rows[1][2:] == ["", "", ""]
    numbers = np.array([[float(cell or math.nan) for cell in row[2:]] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(numbers, VECTORS)


def test_npz_needs_no_pickle(tmp_path: Path) -> None:
    write(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert arrays["embedding"].dtype == np.float32
        np.testing.assert_array_equal(arrays["embedding"], VECTORS)
        assert arrays["id"].tolist() == ["a", "b", "a"]
        assert arrays["start"].tolist() == [5, 7, 2**40]
        assert json.loads(str(arrays["hyena"])) == PROVENANCE


@pytest.mark.parametrize("kind", ["parquet", "tsv", "tsv.gz", "npz"])
def test_no_rows_is_a_table_too(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "any", kind, batches=[])
    assert (tmp_path / "any").stat().st_size > 0
    if kind == "parquet":
        assert pq.read_table(tmp_path / "any").num_rows == 0
    if kind == "npz":
        with np.load(tmp_path / "any") as arrays:
            assert arrays["embedding"].shape == (0, 3)


@pytest.mark.parametrize("kind", ["parquet", "tsv", "tsv.gz", "npz"])
def test_equal_tables_are_equal_files(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "one", kind)
    write(tmp_path / "two", kind)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("kind", ["parquet", "tsv", "tsv.gz", "npz"])
def test_an_error_leaves_nothing(tmp_path: Path, kind: str) -> None:
    with pytest.raises(KeyError, match="embedding"):
        write(tmp_path / "x", kind, [BATCHES[0], {"id": ["b"], "start": [1]}])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["tsv", "tsv.gz"])
def test_a_shard_says_what_it_is_before_the_header(tmp_path: Path, kind: str) -> None:
    path, about = tmp_path / f"x.{kind}", {"shard": {"number": 1}}
    with open_table(path, None, COLUMNS, about):
        pass
    raw = path.read_bytes()
    text = gzip.decompress(raw) if kind == "tsv.gz" else raw
    first, header, end = text.decode().splitlines()
    assert json.loads(first.removeprefix("# hyena shard ")) == about
    assert header.startswith("id\tstart\t")
    above = hashlib.sha256(text[: text.rindex(b"#")]).hexdigest()
    assert end == f"# end of hyena shard, sha256 {above}"


def test_cells_of_a_csv_are_quoted_where_they_must_be(tmp_path: Path) -> None:
    names = ["plain", "a,b", 'say "no"', "tab\there", "two\nlines", ""]
    columns = [Column("id", str), Column("a, b", int), Column("gc", float), Column("embedding", float, 2)]
    with open_table(tmp_path / "x.csv", None, columns, {}) as table:
        vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
        gc = [0.5, np.nan, 1.0, 0.0, 2.0, 3.0]
        table.write({"id": names, "a, b": list(range(6)), "gc": gc, "embedding": vectors})
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "a, b", "gc", "e0", "e1"]
    assert [row[0] for row in rows[1:]] == [name.replace("\t", " ").replace("\n", " ") for name in names]
    assert rows[2][1:] == ["1", "", "2", "3"]


def test_stdout_is_tsv(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("-"))
    assert read_tsv(capsys.readouterr().out)[0] == ["id", "start", "e0", "e1", "e2"]


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        (
            "x.txt",
            None,
            r"use one of \.parquet, \.tsv, \.tsv\.gz, \.csv, \.jsonl, \.jsonl\.gz, \.npz, \.h5ad, \.h5",
        ),
        ("parquet", None, "no table type"),
        ("x.tsv", "parqet", "unknown output type 'parqet'; did you mean 'parquet'"),
        ("x", "xls", "unknown output type 'xls'"),
        ("-", "npz", "npz does not go to stdout"),
    ],
)
def test_unknown_types(name: str, kind: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        table_type(Path(name), kind)
