"""`hyena embed --shard` and `hyena merge` as they are typed: the shards of a run are that run."""

import gzip
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hyenacli.app import app
from hyenadna import save_model
from tests.toys import tiny_model
from tests.warm import run_job

Run = Callable[[str], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a genome, a BED, a FASTA and a model."""
    path = tmp_path_factory.mktemp("shards")
    rng = random.Random(0)
    save_model(tiny_model(), path / "model")
    genome = "".join(rng.choices("ACGTN", k=400))
    (path / "g.fa").write_text(f">1\n{genome}\n>2\n{genome[:200]}\n")
    lines = []
    for i in range(11):
        start = rng.randrange(100)
        lines.append(f"chr{rng.choice('12U')}\t{start}\t{start + rng.randint(1, 90)}\tp{i % 4}\t0\t-\n")
    (path / "r.bed").write_text("".join(lines))
    records = [f">s{i % 3} text\n{genome[i : 9 * i]}\n" for i in range(10)]
    (path / "s.fa.gz").write_bytes(gzip.compress("".join(records).encode()))
    return path


@pytest.fixture
def hyena(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    return lambda line: CliRunner().invoke(app, line.split())


def embed_shards(hyena: Run, line: str, kind: str, of: int) -> list[str]:
    names = [f"part{number}.{kind}" for number in range(1, of + 1)]
    for number, name in enumerate(names, 1):
        result = hyena(f"embed {line} -m model -b 1 -q --shard {number}/{of} -o {name}")
        assert (result.exit_code, result.stdout) == (0, ""), result.output
    return names


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["r.bed -f g.fa --rc mean", "s.fa.gz --layer all", "-r 1:3-90 -r 2 -f g.fa --pool none"]),
    st.sampled_from(["tsv", "tsv.gz"]),
    st.integers(1, 13),
    st.randoms(),
)
def test_joined_shards_are_byte_for_byte_the_single_run(
    hyena: Run, line: str, kind: str, of: int, rng: random.Random
) -> None:
    names = embed_shards(hyena, line, kind, of)
    rng.shuffle(names)
    assert hyena(f"embed {line} -m model -b 1 -q -o one.{kind}").exit_code == 0
    result = hyena(f"merge {' '.join(names)} -o whole.{kind}")
    assert result.exit_code == 0, result.output
    assert Path(f"whole.{kind}").read_bytes() == Path(f"one.{kind}").read_bytes()


def test_a_parquet_of_shards_says_what_one_process_says(hyena: Run) -> None:
    names = embed_shards(hyena, "r.bed -f g.fa", "parquet", 3)
    assert json.loads(pq.read_schema(names[1]).metadata[b"hyena"])["shard"]["number"] == 2
    hyena("embed r.bed -f g.fa -m model -b 1 -q -o whole.parquet")
    one = pq.read_table("whole.parquet")
    result = hyena(f"merge {' '.join(names[::-1])} -o whole.parquet")
    assert result.stderr == "joined 3 shards of 11 records, to whole.parquet\n"
    other = pq.read_table("whole.parquet")
    assert other.schema.equals(one.schema, check_metadata=True)
    assert str(other.to_pylist()) == str(one.to_pylist())


def test_vectors_per_base_in_shards(hyena: Run) -> None:
    h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    line = "r.bed -f g.fa --pool none --rc concat"
    names = embed_shards(hyena, line, "h5", 4)
    assert hyena(f"merge {' '.join(names)} -o whole.h5").exit_code == 0
    assert hyena(f"embed {line} -m model -b 1 -q -o one.npz").exit_code == 0
    with h5py.File("whole.h5") as file, np.load("one.npz") as table:
        records = [text.split("\t") for text in Path("r.bed").read_text().splitlines()]
        lengths = [0 if chrom == "chrU" else int(end) - int(start) for chrom, start, end, *_ in records]
        assert file["records/n_bases"][:].tolist() == lengths
        assert file["records/offset"][:].tolist() == np.cumsum([0, *lengths[:-1]]).tolist()
        assert file["records/start"][:].tolist() == [int(record[1]) for record in records]
        vectors = table["embedding"][table["status"] == "OK"]
        np.testing.assert_array_equal(file["embedding"][:], vectors.astype(np.float16))


def test_an_anndata_of_regions(hyena: Run) -> None:
    anndata = pytest.importorskip("anndata", reason="the extra h5ad is not installed")
    line = "r.bed -f g.fa --layer all"
    names = embed_shards(hyena, line, "h5ad", 2)
    assert hyena(f"merge {' '.join(names)} -o whole.h5ad").exit_code == 0
    assert hyena(f"embed {line} -m model -b 1 -q -o one.npz").exit_code == 0
    data = anndata.read_h5ad("whole.h5ad")
    assert data.obs_names[:5].tolist() == ["p0", "p1", "p2", "p3", "p0-1"]
    with np.load("one.npz") as table:
        np.testing.assert_array_equal(data.X, table["embedding"])
        np.testing.assert_array_equal(data.obsm["embedding_2"], table["embedding_2"])
        assert data.obs["status"].tolist() == table["status"].tolist()
    assert json.loads(data.uns["hyena"])["settings"]["output"] == "whole.h5ad"


BAD = [
    ("embed s.fa.gz -m model -o o.tsv --shard 0/2", 2, "--shard: unknown shard '0/2'; use i/n"),
    ("embed - -m model -o o.tsv --shard 1/2", 2, "standard input: a stream cannot be read twice"),
    ("embed r.bed -f g.fa -m model -o o.h5", 2, "o.h5: .h5 holds a vector per base; add --pool none"),
    ("merge part1.tsv part2.tsv -o o.npz", 2, "o.npz: the shards are tsv; give it the suffix .tsv"),
    ("merge part1.tsv part2.tsv -o no/o.tsv", 1, "no/o.tsv: cannot be written"),
    ("merge part1.tsv part2.tsv -o o.tsv", 1, "shards are missing of 3: 3"),
    ("merge part1.tsv part2.tsv other.tsv -o o.tsv", 1, "other.tsv: pool: last here, mean in part1.tsv"),
    ("merge r.bed -o o.tsv", 1, "r.bed: is not a shard"),
    ("merge -o o.tsv", 2, "Missing argument 'SHARD'"),
]


@pytest.mark.parametrize(("line", "code", "said"), BAD)
def test_errors_are_one_line_and_nothing_is_written(hyena: Run, line: str, code: int, said: str) -> None:
    embed_shards(hyena, "r.bed -f g.fa", "tsv", 3)
    hyena("embed r.bed -f g.fa -m model -q --shard 3/3 -o other.tsv --pool last")
    result = CliRunner().invoke(app, line.split(), input=b">a\nAC\n")
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(Path().glob("**/o.*"))


@pytest.mark.parametrize(("kind", "package"), [("h5", "h5py"), ("h5ad", "anndata")])
def test_a_missing_package_is_told_by_its_name(
    hyena: Run, monkeypatch: pytest.MonkeyPatch, kind: str, package: str
) -> None:
    for missing in ("h5py", "anndata"):
        monkeypatch.setitem(sys.modules, missing, None)
    result = hyena(f"embed r.bed -f g.fa -m model --pool none -o o.{kind}")
    assert result.exit_code == 1
    assert f"pip install {package}\n" in result.stderr


def test_a_large_file_is_announced(hyena: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyenacli.embed.command._LARGE", 200 * 16 * 4 - 1)
    said = "warning: big.npz will take about 0.0 GiB: a vector for each of 200 bases"
    assert said in hyena("embed -r 2 -f g.fa -m model --pool none -o big.npz").stderr
    assert "warning" not in hyena("embed -r 2:2-200 -f g.fa -m model --pool none -o big.npz").stderr
    assert "warning" not in hyena("embed -r 2 -f g.fa -m model -o big.npz").stderr


def test_processes_of_torchrun_write_one_file(hyena: Run, folder: Path) -> None:
    hyena("embed r.bed -f g.fa -m model -b 1 -@ 1 -q -o one.tsv.gz --multiqc")
    job = run_job("embed r.bed -f g.fa -m model -b 1 -@ 1 -o many.tsv.gz --multiqc", folder=folder)
    assert job.exit_codes == [0, 0], job.stderr
    assert job.stdout == ""
    assert "many.shard-1-of-2.tsv.gz; the process that ends last joins all shards into" in job.stderr
    report = folder / "many.tsv.gz.hyena_mqc.json"
    assert sorted(folder.glob("*many*")) == [folder / "many.tsv.gz", report]
    single = (folder / "one.tsv.gz.hyena_mqc.json").read_text()
    assert json.loads(report.read_text()) == json.loads(single.replace('"one"', '"many"'))
    assert (folder / "many.tsv.gz").read_bytes() == (folder / "one.tsv.gz").read_bytes()


def test_processes_of_torchrun_share_no_stream(hyena: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for line, said in (
        ("- -f g.fa -m model -o o.tsv", "several processes cannot share standard input"),
        ("r.bed -f g.fa -m model -o -", "several processes cannot share stdout"),
        ("r.bed -f g.fa -m model -o o.tsv --shard 1/2", "each process of torchrun takes its own shard"),
    ):
        result = hyena(f"embed {line}")
        assert result.exit_code == 2
        assert said in result.stderr
