"""`hyena generate` as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pysam
import pytest
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.genome.dna import reverse_complement
from hyenacli.readers.sequences import read_fasta
from hyenadna import save_model
from tests.builders import random_dna, write_bed, write_fasta
from tests.toys import tiny_model

Run = Callable[..., Any]
CHR1 = random_dna(60, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generate")
    save_model(tiny_model(), path / "model")
    write_fasta(path / "g.fa", [("chr1", CHR1)])
    write_fasta(path / "p.fa", [("a", "ACGTN"), ("none", ""), ("b", random_dna(20, 2)), ("long", CHR1)])
    write_bed(path / "r.bed", [("chr1", 10, 20, "x", 0, "-"), ("chr9", 0, 5)])
    return path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    return lambda line, **how: CliRunner().invoke(app, ["generate", *line.split()], **how)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_row_for_every_sample_in_input_order(run: Run, folder: Path) -> None:
    result = run("p.fa -m model -n 2 --length 10 -o out.jsonl")
    assert result.exit_code == 0, result.stderr
    table = rows(folder / "out.jsonl")
    assert [(row["id"], row["sample"], row["status"]) for row in table] == [
        *(("a", n, "LENGTH") for n in (1, 2)),
        *(("none", n, "EMPTY") for n in (1, 2)),
        *(("b", n, "LENGTH") for n in (1, 2)),
        *(("long", n, "TOO_LONG") for n in (1, 2)),
    ]
    assert table[0]["n_prompt"] == 5
    assert len(table[0]["sequence"]) == table[0]["n_bases"] == 10
    assert table[0]["logp_mean"] == pytest.approx(table[0]["logp_sum"] / 10)
    assert table[2]["sequence"] == ""
    assert table[2]["logp_sum"] is None
    assert "generated 4 sequences, 2 EMPTY, 2 TOO_LONG: 40 bases" in result.stderr
    assert "use --slide, --prompt-length or a smaller --length" in result.stderr
    assert run("p.fa -m model -n 2 --length 10 -o out.parquet").exit_code == 0
    got = pq.read_table(folder / "out.parquet")["sequence"].to_pylist()
    assert got == [row["sequence"] for row in table]


def test_fasta_goes_to_stdout_and_files(run: Run, folder: Path) -> None:
    result = run("--prompt ACGTAC -m model -n 2 --length 90 --slide --with-prompt -o - -q")
    assert result.exit_code == 0, result.stderr
    header, *lines = result.stdout.splitlines()
    assert header.startswith(">prompt/1 logp=-")
    assert header.endswith("status=LENGTH")
    assert list(map(len, lines[:2])) == [80, 16]
    assert lines[0].startswith("ACGTAC")
    assert run("p.fa -m model --length 10 -o out.fa.gz").exit_code == 0
    assert [record.name for record in read_fasta(folder / "out.fa.gz")] == ["a/1", "b/1"]
    pysam.faidx(str(folder / "out.fa.gz"))


def test_shards_join_into_the_file_of_one_process(run: Run, folder: Path) -> None:
    for suffix in ("fa", "fasta", "fa.gz", "jsonl"):
        line = "p.fa -m model -n 2 --length 10 --seed 7"
        assert run(f"{line} -o whole.{suffix}").exit_code == 0
        for i in (1, 2, 3):
            assert run(f"{line} -o part{i}.{suffix} --shard {i}/3 -b 1").exit_code == 0
        parts = [f"part{i}.{suffix}" for i in (3, 1, 2)]
        merged = CliRunner().invoke(app, ["merge", *parts, "-o", f"joined.{suffix}"])
        assert merged.exit_code == 0, merged.stderr
        if not suffix.endswith("gz"):
            one, other = ((folder / f"{n}.{suffix}").read_text().splitlines() for n in ("whole", "joined"))
            if suffix == "jsonl":
                one, other = ([json.loads(line)["sequence"] for line in text] for text in (one, other))
            assert one == other


def test_regions_are_read_up_to_their_end_on_their_strand(run: Run, folder: Path) -> None:
    assert run("r.bed -f g.fa -m model --length 5 --stranded --with-prompt -o r.jsonl").exit_code == 0
    table = rows(folder / "r.jsonl")
    assert [row["status"] for row in table] == ["LENGTH", "NO_CONTIG"]
    assert table[0]["sequence"][:10] == reverse_complement(CHR1[10:20].encode()).decode()
    line = "r.bed -f g.fa -m model --length 5 --with-prompt -o r.jsonl --prompt-length"
    assert run(f"{line} 15").exit_code == 0
    assert rows(folder / "r.jsonl")[0]["sequence"][:15] == CHR1[5:20]
    assert run(f"{line} 4").exit_code == 0
    assert rows(folder / "r.jsonl")[0]["sequence"][:4] == CHR1[16:20]


def test_the_template_gives_the_length(run: Run, folder: Path) -> None:
    assert run("--prompt ACG -m model --template NNGATTACANN -o t.jsonl").exit_code == 0
    (row,) = rows(folder / "t.jsonl")
    assert row["sequence"][2:9] == "GATTACA"
    assert row["n_bases"] == 11


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-m model", "nothing to generate from"),
        ("p.fa --prompt ACG -m model", "stands instead of other prompts"),
        ("--prompt ACX -m model", "'X' (letter 3 of the sequence) is not a nucleotide code"),
        ("--prompt ACG -m nowhere --template GAATTC --forbid GAATTC", "no sequence meets the constraints"),
        ("--prompt ACG -m model --template NNN --length 2", "has 3 letters for 2 new bases"),
        ("--prompt ACG -m model --gc 70-60", "no range of percent"),
        ("--prompt ACG -m model --top-p 0", "no probability above 0"),
        ("--prompt ACG -m model --stop AC,,", "a sequence is empty"),
    ],
)
def test_mistakes_end_in_one_line(run: Run, line: str, message: str) -> None:
    result = run(f"{line} -o x.tsv")
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert result.stderr.count("hyena: error") == 1
