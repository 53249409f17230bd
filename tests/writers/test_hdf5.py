import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")

from hyenacli.errors import UserError  # noqa: E402
from hyenacli.writers.columns import Batch, Column  # noqa: E402
from hyenacli.writers.hdf5 import open_hdf5  # noqa: E402
from hyenacli.writers.tables import open_table  # noqa: E402

COLUMNS = [
    Column("id", str),
    Column("n_bases", int),
    Column("embedding_1", float, 3),
    Column("embedding", float, 3),
]


def records(lengths: list[int]) -> list[Batch]:
    rng = np.random.default_rng(0)
    return [
        {
            "id": [f"r{i}é"],
            "n_bases": [n],
            "embedding_1": rng.standard_normal((n, 3), dtype=np.float32) * 9,
            "embedding": rng.standard_normal((n, 3), dtype=np.float32),
        }
        for i, n in enumerate(lengths)
    ]


def write(path: Path, batches: list[Batch]) -> None:
    with open_table(path, None, COLUMNS, {"layers": [1, -1]}) as table:
        for batch in batches:
            table.write(batch)


@pytest.mark.parametrize("chunk_bytes", [1, 24, 1 << 18])
@pytest.mark.parametrize("lengths", [[5, 0, 1, 33, 0], [0], [], [1] * 50])
def test_the_index_says_which_rows_are_whose(tmp_path: Path, lengths: list[int], chunk_bytes: int) -> None:
    batches = records(lengths)
    about = {"layers": [1, -1]}
    with open_hdf5(tmp_path / "x.h5", COLUMNS, about, chunk_bytes=chunk_bytes, index_chunk=4) as table:
        for batch in batches:
            table.write(batch)
    with h5py.File(tmp_path / "x.h5") as file:
        assert json.loads(file.attrs["hyena"]) == {"layers": [1, -1]}
        assert file["records/id"].asstr()[:].tolist() == [f"r{i}é" for i in range(len(lengths))]
        assert file["records/n_bases"][:].tolist() == lengths
        for name in ("embedding", "embedding_1"):
            assert (file[name].dtype, file[name].compression) == (np.float16, "lzf")
            assert file[name].shape == (sum(lengths), 3)
            bounds = [*file["records/offset"][:], sum(lengths)]
            for (first, end), batch in zip(pairwise(bounds), batches, strict=True):
                np.testing.assert_array_equal(file[name][first:end], batch[name].astype(np.float16))


def test_equal_records_are_equal_files(tmp_path: Path) -> None:
    for name in ("one.h5", "two.h5"):
        write(tmp_path / name, records([4, 7]))
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_a_number_beyond_float16_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (batch,) = records([4])
    batch["embedding_1"][2, 1] = 1e5
    with pytest.raises(UserError, match=r"embedding_1 is beyond float16.*; write \.parquet"):
        write(tmp_path / "x.h5", [*records([3]), batch])
    assert list(tmp_path.iterdir()) == []
