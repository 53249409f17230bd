import json
from pathlib import Path

import numpy as np
import pytest

anndata = pytest.importorskip("anndata", reason="the extra h5ad is not installed")

from hyenacli.writers.columns import Batch, Column  # noqa: E402
from hyenacli.writers.tables import open_table  # noqa: E402

COLUMNS = [
    *(Column("id", str), Column("start", int), Column("gc", float)),
    *(Column("embedding_1", float, 2, prefix="l1_e"), Column("embedding", float, 2)),
]
NAN = [np.nan, np.nan]
BATCHES: list[Batch] = [
    {"id": ["a"], "start": [5], "gc": [0.5], "embedding_1": [[1, 2]], "embedding": [[1 / 3, -4]]},
    {
        "id": ["a-1", "a"],
        "start": [7, 2**40],
        "gc": [np.nan, 1],
        "embedding_1": [NAN, [3, 4]],
        "embedding": [NAN, [5, 6]],
    },
]


def write(path: Path, batches: list[Batch]) -> None:
    with open_table(path, None, COLUMNS, {"layers": [1, -1], "settings": {"rc": None}}) as table:
        for batch in batches:
            table.write(batch)


def test_what_scanpy_expects_is_where_it_expects_it(tmp_path: Path) -> None:
    write(tmp_path / "x.h5ad", BATCHES)
    data = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert data.obs_names.tolist() == ["a", "a-1", "a-2"]
    assert data.obs_names.is_unique
    assert data.obs["id"].tolist() == ["a", "a-1", "a"]
    assert data.obs["start"].tolist() == [5, 7, 2**40]
    np.testing.assert_array_equal(data.obs["gc"], [0.5, np.nan, 1])
    assert data.X.dtype == np.float32
    np.testing.assert_array_equal(data.X, np.array([[1 / 3, -4], NAN, [5, 6]], np.float32))
    np.testing.assert_array_equal(data.obsm["embedding_1"], [[1, 2], NAN, [3, 4]])
    assert data.var_names.tolist() == ["e0", "e1"]
    assert json.loads(data.uns["hyena"]) == {"layers": [1, -1], "settings": {"rc": None}}


def test_no_rows_and_no_vectors_are_files_too(tmp_path: Path) -> None:
    write(tmp_path / "x.h5ad", [])
    assert anndata.read_h5ad(tmp_path / "x.h5ad").shape == (0, 2)
    with open_table(tmp_path / "y.h5ad", None, COLUMNS[1:3], {}) as table:
        table.write({"start": [64, 256], "gc": [0.1, 0.2]})
    assert anndata.read_h5ad(tmp_path / "y.h5ad").obs["gc"].tolist() == [0.1, 0.2]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="gc"):
        write(tmp_path / "x.h5ad", [{"id": ["a"], "start": [1]}])
    assert list(tmp_path.iterdir()) == []
