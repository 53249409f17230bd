"""`hyena score-sequences` as it is typed."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.likelihood import score_sequences
from hyenacli.readers.records import SequenceRecord
from hyenacli.score_sequences.background import Background, window_length
from hyenadna import save_model
from tests.builders import random_dna, write_bed, write_fasta
from tests.toys import tiny_model

Run = Callable[..., Any]
CHR1 = random_dna(300, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("score")
    save_model(tiny_model(), path / "model")
    write_fasta(path / "g.fa", [("chr1", CHR1), ("chr2", random_dna(200, 2))])
    write_fasta(path / "s.fa", [("a", random_dna(70, 3)), ("none", ""), ("n", "NNN"), ("b", "ACGT" * 20)])
    write_bed(path / "r.bed", [("1", 10, 40, "first"), ("chr9", 0, 5), ("chr2", 0, 200)])
    (path / "t.csv").write_text(f"id,sequence\nx,{random_dna(70, 3)}\ny,AC-T\n")
    return path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    return lambda line, **how: CliRunner().invoke(app, ["score-sequences", *line.split()], **how)


def table(text: str) -> list[dict[str, str]]:
    header, *lines = (line.split("\t") for line in text.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, numbers as numbers."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.name.endswith("tsv"):
        numbers = {"bits_per_base", "log_likelihood", "quantile"}
        return [
            {key: float(value or "nan") if key in numbers else value for key, value in row.items()}
            for row in table(path.read_text())
        ]
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


def bits(bases: str) -> float:
    record = SequenceRecord.of_sequence("x", bases.encode())
    (scored,) = score_sequences(tiny_model(), [record], EmbeddingOptions(rc="mean"))
    return scored.bits_per_base


def test_a_fasta_becomes_a_table_in_input_order(run: Run) -> None:
    result = run("s.fa -m model -o -")
    assert result.exit_code == 0, result.stderr
    rows = table(result.stdout)
    assert [row["status"] for row in rows] == ["OK", "EMPTY", "ALL_N", "OK"]
    assert [row["n_bases"] for row in rows] == ["69", "0", "0", "79"]
    assert float(rows[0]["bits_per_base"]) == pytest.approx(bits(random_dna(70, 3)), abs=1e-5)
    assert rows[1]["bits_per_base"] == ""
    assert "scored 2 records" in result.stderr
    assert "1 EMPTY, 1 ALL_N" in result.stderr
    assert "bits per base" in result.stderr
    bits_69, bits_79 = (float(row["bits_per_base"]) for row in rows if row["status"] == "OK")
    worse = 69 * bits_69 + 79 * bits_79 > 2 * 148
    assert ("worse than guessing" in result.stderr) == worse
    assert "worse than guessing" not in run("s.fa -m model -o - --background g.fa").stderr


def test_regions_and_tables(run: Run, folder: Path) -> None:
    assert run("r.bed -f g.fa -m model -o r.jsonl").exit_code == 0
    rows = [json.loads(line) for line in (folder / "r.jsonl").read_text().splitlines()]
    assert [(row["id"], row["status"]) for row in rows] == [
        ("first", "OK"),
        ("chr9:1-5", "NO_CONTIG"),
        ("chr2:1-200", "OK"),
    ]
    assert rows[0]["bits_per_base"] == pytest.approx(bits(CHR1[10:40]), abs=1e-5)
    assert rows[1]["bits_per_base"] is None
    with_flank = table(run("-r chr1:11-40 -f g.fa -m model --flank 10 -o -").stdout)
    assert float(with_flank[0]["bits_per_base"]) != pytest.approx(rows[0]["bits_per_base"], abs=1e-4)
    assert run("t.csv -m model -o t.parquet").exit_code == 0
    assert pq.read_table(folder / "t.parquet")["status"].to_pylist() == ["OK", "BAD_LETTER"]


def test_shards_join_into_the_file_of_one_process(run: Run, folder: Path) -> None:
    for suffix in ("tsv", "jsonl", "jsonl.gz", "parquet"):
        line = "s.fa -m model --background g.fa --background-windows 5"
        assert run(f"{line} -o whole.{suffix}").exit_code == 0
        for i in (1, 2, 3):
            assert run(f"{line} -o part{i}.{suffix} --shard {i}/3 -b 1").exit_code == 0
        parts = [f"part{i}.{suffix}" for i in (3, 1, 2)]
        merged = CliRunner().invoke(app, ["merge", *parts, "-o", f"joined.{suffix}"])
        assert merged.exit_code == 0, merged.stderr
        whole, joined = (folder / f"{name}.{suffix}" for name in ("whole", "joined"))
        for one, other in zip(read(whole), read(joined), strict=True):
            assert list(one) == list(other)
            assert list(one.values()) == pytest.approx(list(other.values()), abs=1e-5, nan_ok=True)


def test_a_quantile_is_the_share_of_the_background_that_is_more_likely(run: Run, folder: Path) -> None:
    write_fasta(folder / "five.fa", [(f"b{i}", random_dna(60, 10 + i)) for i in range(4)] + [("e", "")])
    scores = sorted(bits(random_dna(60, 10 + i)) for i in range(4))
    rows = table(run("s.fa -m model --background five.fa --background-windows 0 -o -").stdout)
    for row in rows:
        if row["status"] == "OK":
            below = sum(score < float(row["bits_per_base"]) for score in scores)
            assert float(row["quantile"]) == below / 4
        else:
            assert row["quantile"] == ""
    same = table(run("five.fa -m model --background five.fa --background-windows 0 -o -").stdout)
    assert sorted(row["quantile"] for row in same) == ["", "0.125", "0.375", "0.625", "0.875"]


def test_random_windows_are_about_as_long_as_the_sequence(folder: Path) -> None:
    lengths: list[int] = []

    def score(records: Any) -> Any:
        for record in records:
            lengths.append(len(record))
            yield from score_sequences(tiny_model(), [record], EmbeddingOptions())

    background = Background(folder / "g.fa", 6, 0, score)
    for length in (10, 100, 130):
        record = SequenceRecord.of_sequence("x", random_dna(length).encode())
        (scored,) = score_sequences(tiny_model(), [record], EmbeddingOptions())
        assert 0 <= background.quantile(scored) <= 1
    assert lengths == [64] * 6 + [128] * 6
    assert window_length(1) == 64
    assert window_length(10**9) == 8192


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-m model -o x.tsv", "nothing to score"),
        ("s.fa -f g.fa -m model -o x.tsv", "-f gives the genome of a BED"),
        ("s.fa -m model -o x.h5ad", "names no table type"),
        ("s.fa -m model -o x.tsv --window 999", "takes at most"),
        ("s.fa -m model -o x.tsv --background none.fa", "none.fa"),
        ("s.fa -m model -o s.fa.tsv --circular chr1", "--circular: matches names"),
        ("s.fa -m model -o x.tsv --sequence-column seq", "no such columns"),
    ],
)
def test_mistakes_end_in_one_line(run: Run, line: str, message: str) -> None:
    result = run(line)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert result.stderr.count("hyena: error") == 1


def test_nothing_gives_an_empty_table(run: Run) -> None:
    result = run("- -m model -o -", input=b"")
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
