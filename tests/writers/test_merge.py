"""Joined shards are the file that one process writes, and what does not fit together is refused by name."""

import errno
import gzip
import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyenacli.errors import UsageError, UserError
from hyenacli.readers.shards import Shard
from hyenacli.readers.text import BGZF_END
from hyenacli.tools.merge import run as merge
from hyenacli.tools.settings import MergeSettings
from hyenacli.writers.arrays import open_arrays
from hyenacli.writers.columnar import open_parquet
from hyenacli.writers.columns import Column
from hyenacli.writers.output_shards import Merged, merge_shards, sniff
from hyenacli.writers.tables import TABLES, open_table
from hyenacli.writers.vcf import shard_line
from hyenacli.writers.vcf_files import VCFS

COLUMNS = [
    *(Column("id", str), Column("start", int), Column("gc", float)),
    *(Column("embedding_1", float, 2, prefix="l1_e"), Column("embedding", float, 3)),
]
SETTINGS = {
    "model": "m",
    "input": "a.bed",
    "layer": "all",
    "batch_size": "auto",
    "shard": None,
    "threads": None,
}
Rows = list[tuple[str, int, float]]


def installed(kind: str) -> Any:
    package = {"h5ad": "anndata", "h5": "h5py", "bw": "pybigtools"}.get(kind, "json")
    missing = pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")
    return pytest.param(kind, marks=missing)


KINDS = [installed(kind) for kind in TABLES]


def write(target: Path, rows: Rows, part: dict[str, Any] | None = None, **about: Any) -> Path:
    """A table as a run with `about` among its settings writes it, or one shard of it."""
    chosen = SETTINGS | {"output": str(target)} | about
    version, model = about.get("version", "1.0"), about.get("model", "m") * 64
    provenance = {"hyena_version": version, "model_sha256": model, "settings": chosen}
    if part:
        provenance |= {"shard": part}
    with open_table(target, about.get("output_type"), COLUMNS, provenance) as table:
        for name, start, number in rows:
            vectors = np.full((1, 5), number, np.float32) / np.arange(1, 6, dtype=np.float32)
            batch = {"id": [name], "start": [start], "gc": [number]}
            table.write(batch | {"embedding_1": vectors[:, :2], "embedding": vectors[:, 2:]})
    return target


def write_shard(target: Path, rows: Rows, number: int, of: int, **about: Any) -> Path:
    own = Shard(number, of).part(len(rows))
    (part,) = Shard(number, of).describe(len(rows), about.pop("input_sha256", "5ha")).values()
    return write(target, rows[own.start : own.stop], part, **about)


def content(path: Path) -> Any:
    """What a file holds, where two files of the same content may differ in their bytes."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return table.schema.metadata, [str(table.to_pylist())]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return [(name, array.dtype, array.tobytes()) for name, array in arrays.items()]
    if path.suffix == ".h5ad":
        import anndata

        data = anndata.read_h5ad(path)
        vectors = [data.X.tobytes(), data.obsm["embedding_1"].tobytes(), list(data.var_names)]
        return data.uns["hyena"], data.obs.to_csv(), vectors
    if path.suffix == ".h5":
        import h5py

        found = []
        with closing(h5py.File(path)) as file:
            file.visititems(
                lambda name, at: found.append(
                    (name, getattr(at, "dtype", 0), str(at[()] if hasattr(at, "shape") else 0))
                )
            )
            return file.attrs["hyena"], found
    return path.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_number_of_shards_in_any_order_is_the_single_run(
    tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    row = st.tuples(
        st.text("ab\r\x0b\u2028é", min_size=1, max_size=3),
        st.integers(0, 2**40),
        st.floats(-3, 3, width=32) | st.just(np.nan),
    )
    rows = data.draw(st.lists(row, max_size=12))
    of = data.draw(st.integers(1, 15))
    order = data.draw(st.permutations(range(1, of + 1)))
    paths = [write_shard(tmp_path / f"{number}.{kind}", rows, number, of) for number in order]
    whole = write(tmp_path / f"o.{kind}", rows)
    wanted = content(whole)
    assert merge_shards(paths, whole) == Merged(of, len(rows))
    assert content(whole) == wanted


def test_parquet_row_groups_grow_to_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_little = partial(open_parquet, row_group_bytes=200, rows_at_once=2)
    monkeypatch.setitem(TABLES, "parquet", replace(TABLES["parquet"], write=write_little))
    rows: Rows = [(str(i), i, i / 7) for i in range(40)]
    paths = [write_shard(tmp_path / f"{i}.parquet", rows, i, 3) for i in (1, 2, 3)]
    merge_shards(paths, tmp_path / "o.parquet")
    file = pq.ParquetFile(tmp_path / "o.parquet")
    assert file.metadata.num_row_groups > 3
    assert file.read()["start"].to_pylist() == list(range(40))


def test_stdout_takes_tsv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: Rows = [("a", 1, 0.5), ("b", 2, 0.25)]
    paths = [write_shard(tmp_path / f"{i}.tsv", rows, i, 2) for i in (2, 1)]
    merge_shards(paths, Path("-"))
    assert capsys.readouterr().out == write(tmp_path / "o.tsv", rows).read_text()
    binary = write_shard(tmp_path / "1.npz", rows, 1, 1)
    with pytest.raises(UsageError, match="npz does not go to stdout"):
        merge_shards([binary], Path("-"))


def test_a_full_disk_is_no_damaged_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [tmp_path / f"{number}.npz" for number in (1, 2)]
    for number, path in enumerate(shards, 1):
        shard = {"number": number, "of": 2, "records": 2, "input_sha256": "x"}
        with open_arrays(path, {"axes": {}, "shard": shard}) as arrays:
            arrays.write(f"map_{number - 1}", np.eye(3) * number)
            arrays.write("id", np.array([f"r{number}"]))
    target = tmp_path / "peaks.arrays.npz"  # the name of no type
    merge(MergeSettings(shards=shards, output=target))
    with np.load(target) as joined:
        assert (joined["id"].tolist(), joined["map_1"].sum()) == (["r1", "r2"], 6)
    target.unlink()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(np.lib.format, "write_array", Mock(side_effect=full))
    with pytest.raises(UserError, match=r"peaks\.arrays\.npz: cannot be written: no space left"):
        merge_shards(shards, target)
    assert not target.exists()


def test_what_changes_no_answer_may_differ(tmp_path: Path) -> None:
    rows: Rows = [("a", 1, 0.5), ("b", 2, 0.25)]
    one = write_shard(tmp_path / "1.npz", rows, 1, 2, batch_size="4", threads=2, shard="1/2")
    two = write_shard(tmp_path / "2.npz", rows, 2, 2, device="cuda", input="/mnt/a.bed", shard="2/2")
    merge_shards([two, one], tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz") as arrays:
        about = json.loads(str(arrays["hyena"]))["settings"]
    assert (about["shard"], about["output"], about["batch_size"]) == (None, str(tmp_path / "o.npz"), "4")


ROWS: Rows = [("a", 1, 0.5), ("b", 2, 0.25), ("c", 3, 0.125)]
Make = Callable[[Path], list[Path]]
BAD: list[tuple[Make, str]] = [
    (
        lambda at: [write_shard(at / "1.tsv", ROWS, 1, 4), write_shard(at / "3.tsv", ROWS, 3, 4)],
        r"shards are missing of 4: 2, 4; name all of them",
    ),
    (
        lambda at: [write_shard(at / "1.tsv", ROWS, 1, 2), write_shard(at / "again.tsv", ROWS, 1, 2)],
        r"again\.tsv: is shard 1, and so is .*/1\.tsv",
    ),
    (
        lambda at: [write_shard(at / "1.npz", ROWS, 1, 2), write_shard(at / "2.npz", ROWS, 2, 3)],
        r"2\.npz: shards: 3 here, 2 in .*/1\.npz; make all shards in the same way",
    ),
    (
        lambda at: [write_shard(at / "1.tsv", ROWS, 1, 2), write_shard(at / "2.tsv", ROWS[:2], 2, 2)],
        r"2\.tsv: records: 2 here, 3 in",
    ),
    (
        lambda at: [
            write_shard(at / "1.tsv", ROWS, 1, 2),
            write_shard(at / "2.tsv", ROWS, 2, 2, input_sha256="0ther"),
        ],
        r"2\.tsv: input: 0ther here, 5ha in .*, from the same input",
    ),
    (
        lambda at: [
            write_shard(at / "1.parquet", ROWS, 1, 2),
            write_shard(at / "2.parquet", ROWS, 2, 2, model="x"),
        ],
        r"2\.parquet: model_sha256: xxxxxxxx\.\.\. here, mmmmmmmm\.\.\. in",
    ),
    (
        lambda at: [
            write_shard(at / "1.parquet", ROWS, 1, 2),
            write_shard(at / "2.parquet", ROWS, 2, 2, version="1.1"),
        ],
        r"2\.parquet: hyena_version: 1\.1 here, 1\.0 in .*; make all shards in the same way",
    ),
    (
        lambda at: [write_shard(at / "1.npz", ROWS, 1, 2), write_shard(at / "2.npz", ROWS, 2, 2, layer="-1")],
        r"2\.npz: layer: -1 here, all in",
    ),
    (
        lambda at: [write_shard(at / "1.npz", ROWS, 1, 2), write_shard(at / "2.tsv", ROWS, 2, 2)],
        r"2\.tsv: type: tsv here, npz in",
    ),
    (lambda at: [write(at / "o.parquet", ROWS)], r"o\.parquet: is not a shard; name files"),
    (lambda at: [write(at / "o.tsv.gz", ROWS)], r"o\.tsv\.gz: is not a shard"),
    (lambda at: [at / "none.tsv"], r"none\.tsv: no such file"),
]


@pytest.mark.parametrize(("make", "said"), BAD, ids=[said for _, said in BAD])
def test_what_does_not_fit_together_is_named(tmp_path: Path, make: Make, said: str) -> None:
    paths = make(tmp_path)
    before = set(tmp_path.iterdir())
    with pytest.raises(UserError, match=said):
        merge_shards(paths, tmp_path / "whole")
    assert set(tmp_path.iterdir()) == before


def test_other_tools_files_and_damaged_ones_are_no_shards(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [[1, 2]]}), tmp_path / "a.parquet")
    np.savez(tmp_path / "b.npz", x=np.arange(3))
    (tmp_path / "c.vcf").write_text("##fileformat=VCFv4.2\n")
    for name in ("a.parquet", "b.npz", "c.vcf"):
        with pytest.raises(UserError, match=f"{name}: is not a shard"):
            merge_shards([tmp_path / name], tmp_path / "o")
    for kind in ("parquet", "npz"):
        path = write_shard(tmp_path / f"1.{kind}", ROWS, 1, 1)
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(UserError, match=rf"1\.{kind}: cannot be read as {kind}; make this shard again"):
            merge_shards([path], tmp_path / "o")


@pytest.mark.parametrize("kind", ["tsv", "tsv.gz"])
@pytest.mark.parametrize("less", [-1, -2])
def test_a_text_that_is_cut_short_is_not_joined(tmp_path: Path, kind: str, less: int) -> None:
    paths = [write_shard(tmp_path / f"{number}.{kind}", ROWS, number, 2) for number in (1, 2)]
    packed = kind.endswith("gz")
    lines = (gzip.decompress if packed else bytes)(paths[0].read_bytes()).splitlines(keepends=True)
    cut = b"".join(lines[:less])
    paths[0].write_bytes(gzip.compress(cut) if packed else cut)
    with pytest.raises(UserError, match=rf"1\.{kind}: is cut short; make this shard again"):
        merge_shards(paths, tmp_path / f"o.{kind}")
    assert not (tmp_path / f"o.{kind}").exists()


def test_the_target_is_none_of_the_shards(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "1.tsv", ROWS, 1, 1)
    with pytest.raises(UsageError, match="is one of the shards; write to another file"):
        merge_shards([path], tmp_path / "x" / ".." / "1.tsv")


@pytest.mark.parametrize("kind", KINDS)
def test_types_are_told_apart_by_content(tmp_path: Path, kind: str) -> None:
    assert sniff(write_shard(tmp_path / "x", ROWS, 1, 1, output_type=kind)) == kind


def test_a_missing_number_stays_missing(tmp_path: Path) -> None:
    columns = [Column("id", str), Column("score", float)]
    for number, score in ((1, 0.5), (2, None)):
        about = {"shard": {"number": number, "of": 2, "records": 2, "input_sha256": "x"}}
        with open_table(tmp_path / f"{number}.parquet", None, columns, about) as table:
            table.write({"id": [str(number)], "score": [score]})
    merge_shards([tmp_path / "2.parquet", tmp_path / "1.parquet"], tmp_path / "o.parquet")
    assert pq.read_table(tmp_path / "o.parquet")["score"].to_pylist() == [0.5, None]


def test_blocks_of_bgzip_are_copied(tmp_path: Path) -> None:
    lines = [b"chr1\t%d\t.\tA\tC\t.\t.\t.\n" % position for position in range(1, 5001)]
    columns = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    top = [b"##fileformat=VCFv4.2\n", b"##contig=<ID=chr1>\n"]
    shards, shares = [], ((0, 4000), (4000, 4000), (4000, 5000))
    for number, (start, end) in enumerate(shares, 1):
        mark = {"number": number, "of": 3, "records": 5000, "input_sha256": "0", "every_record": True}
        shards.append(tmp_path / f"{number}.vcf.gz")
        head = [*top, shard_line(mark).encode() + b"\n", columns]
        with VCFS["vcf.gz"].open_lines(shards[-1], head) as write:
            write(b"".join(lines[start:end]))
    merge_shards(shards, tmp_path / "copied.vcf.gz")
    copied = (tmp_path / "copied.vcf.gz").read_bytes()
    assert all(
        shard.read_bytes()[1000:] in copied for shard in shards[2:]
    )  # the last brings the mark of the end
    assert copied.count(BGZF_END) == 1
    # packed again by another program, records begin in the block of the header
    again = tmp_path / "again.vcf.gz"
    with pysam.BGZFile(str(again), "w") as out:
        out.write(gzip.decompress(shards[0].read_bytes()))
    merge_shards([again, *shards[1:]], tmp_path / "packed.vcf.gz")
    for name in ("copied", "packed"):
        joined = tmp_path / f"{name}.vcf.gz"
        assert gzip.decompress(joined.read_bytes()) == b"".join([*top, columns, *lines])
        with pysam.TabixFile(str(joined)) as index:
            assert [row.split("\t")[1] for row in index.fetch("chr1", 3998, 4002)] == [
                "3999",
                "4000",
                "4001",
                "4002",
            ]
    blocks = shards[2].read_bytes()
    shards[2].write_bytes(blocks[:-60] + bytes([blocks[-60] ^ 1]) + blocks[-59:])
    with pytest.raises(UserError, match=r"3\.vcf\.gz"):
        merge_shards(shards, tmp_path / "o.vcf.gz")
    assert not (tmp_path / "o.vcf.gz").exists()
