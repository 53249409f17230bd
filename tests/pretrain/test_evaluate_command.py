"""`hyena evaluate` as it is typed: what it writes, what it refuses and what it prints where."""

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from hyenacli.app import app
from hyenadna import HeadConfig, HyenaConfig, HyenaDNA, save_model
from tests.builders import random_dna, write_bed, write_fasta
from tests.toys import tiny_model
from tests.warm import command

COLUMNS = ["length", "windows", "bases", "loss", "bits_per_base", "perplexity"]
SVG = "{http://www.w3.org/2000/svg}"
Run = Callable[[str], Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model(context=256), path)
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> Run:
    """Run the command in a directory with two genomes, a BED and a model called `model`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(model)
    write_fasta(tmp_path / "drawn.svg", [("one", random_dna(700, 1))])
    write_fasta(tmp_path / "g.fa", [("one", random_dna(700, 1)), ("two", random_dna(700, 2))])
    write_fasta(tmp_path / "h.fa", [("other", random_dna(300, 3))])
    write_fasta(tmp_path / "short.fa", [("a", "ACGT")])
    write_bed(
        tmp_path / "s.bed", [("one", 0, 200, "train"), ("two", 100, 165, "valid"), ("two", 300, 365, "valid")]
    )
    return lambda line: CliRunner().invoke(app, ["evaluate", *line.split()])


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_the_table_goes_to_stdout(run: Run) -> None:
    done = run("g.fa -m model")
    assert done.exit_code == 0, done.output
    header, *found = rows(done.stdout)
    assert header == COLUMNS
    assert [row[:3] for row in found] == [["64", "16", "1024"], ["256", "4", "1024"]]
    for _, _, _, loss, bits, perplexity in found:
        assert float(bits) == pytest.approx(float(loss) / np.log(2), rel=1e-6)
        assert float(perplexity) == pytest.approx(np.exp(float(loss)), rel=1e-6)
    assert "context of 256 bases: " in done.stderr


def test_files_and_contigs_say_what_is_read(run: Run) -> None:
    assert [row[2] for row in rows(run("g.fa h.fa -m model -q").stdout)[1:]] == ["1280", "1280"]
    assert [row[2] for row in rows(run("g.fa h.fa -m model -q --contigs two,other").stdout)[1:]] == [
        "768",
        "768",
    ]
    assert [row[1] for row in rows(run("g.fa -m model -q --max-windows 1").stdout)[1:]] == ["4", "1"]


def test_intervals_say_what_is_read(run: Run) -> None:
    done = run("g.fa -m model --intervals s.bed --lengths 64,256")
    assert [row[:3] for row in rows(done.stdout)[1:]] == [["64", "2", "128"]]
    assert "warning: no stretch fills a window of 256 bases: left out" in done.stderr
    train = run("g.fa -m model --intervals s.bed --split train --lengths 64 -q")
    assert rows(train.stdout)[1][:3] == ["64", "3", "192"]


def test_parquet_holds_numbers_and_how_they_were_made(run: Run) -> None:
    done = run("g.fa -m model --lengths 32,16 -o t.parquet -q")
    assert (done.exit_code, done.stdout) == (0, "")
    (warning,) = done.stderr.splitlines()
    assert re.match(r"warning: context of \d+ bases: a loss of .* per base is worse than guessing", warning)
    table = pq.read_table("t.parquet")
    assert table.column_names == COLUMNS
    assert table.schema.field("loss").type == pa.float64()
    assert table["length"].to_pylist() == [16, 32]
    about = json.loads(table.schema.metadata[b"hyena"])
    assert len(about["model_sha256"]) == 64
    assert [Path(genome["path"]).name for genome in about["genomes"]] == ["g.fa"]
    assert about["settings"]["lengths"] == "32,16"


def test_the_plot_is_an_svg_of_its_own(run: Run, tmp_path: Path) -> None:
    done = run("g.fa -m model --lengths 16,64,230,256 --plot p.svg -q")
    assert done.exit_code == 0, done.output
    root = ET.parse("p.svg").getroot()
    assert root.tag == f"{SVG}svg"
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert {"16", "64", "256", "perplexity", "context (bases)", "model"} <= texts
    assert "230" not in texts  # would cover the 256
    (*across, _legend) = (
        float(dot.attrib["x"]) for dot in root.iter(f"{SVG}use") if "fill: #0072b2" in dot.attrib["style"]
    )
    assert len(across) == 4
    assert across[1] - across[0] == pytest.approx(across[3] - across[1], abs=0.2)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


def test_batches_and_precision_change_little(run: Run) -> None:
    losses = [
        [float(row[3]) for row in rows(run(f"g.fa -m model -q {flags}").stdout)[1:]]
        for flags in ("", "-b 1", "-b 3", "--dtype bfloat16")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[0] == pytest.approx(losses[2], abs=1e-5)
    assert losses[0] == pytest.approx(losses[3], abs=0.02)
    assert losses[0] != losses[3]


BAD = [
    ("g.fa -m model --intervals s.bed --lengths 64 -o s.bed -O tsv", 2, "s.bed: is an input of this very"),
    ("g.fa h.fa -m model -o h.fa -O tsv", 2, "h.fa: is an input of this very command; write to another file"),
    ("drawn.svg -m model --plot drawn.svg", 2, "drawn.svg: is an input of this very command"),
    ("g.fa -m model --lengths 64,x", 2, "--lengths: 'x' is not a length"),
    ("g.fa -m model --lengths 300", 2, "--lengths: 300 is beyond the model's context of 256 bases"),
    ("g.fa -m model --contigs tow", 1, "no contig 'tow' to evaluate on; did you mean 'two'?"),
    ("g.fa -m model --contigs one --intervals s.bed", 2, "--intervals already says what is read"),
    ("g.fa -m model --split test", 2, "--split chooses rows of a BED"),
    ("g.fa -m model --intervals s.bed --split test", 1, "s.bed: no interval is for test"),
    ("g.fa -m model -o t.doc", 2, "t.doc: the suffix names no table type"),
    ("g.fa -m model --plot p.png", 2, "p.png: the plot is an SVG; give it the suffix .svg"),
    ("g.fa -m model --plot no/p.svg", 1, "no/p.svg: cannot be written"),
    ("g.fa -m model -o no/t.tsv", 1, "no/t.tsv: cannot be written"),
    ("g.fa -m model -b 0", 2, "--batch-size: unknown batch size '0'"),
    ("g.fa -m model --max-windows 0", 2, "Invalid value for '--max-windows'"),
    ("short.fa -m model", 1, "short.fa: the longest stretch has 4 bases, a window of the shortest length 65"),
    ("g.fa -m nowhere/model", 1, "nowhere/model"),
    ("no.fa -m model", 1, "no.fa"),
]


@pytest.mark.parametrize(("line", "code", "said"), BAD)
def test_bad_input_is_one_line_and_nothing_is_written(
    run: Run, tmp_path: Path, line: str, code: int, said: str
) -> None:
    if "classifier" in line:
        config = HyenaConfig(8, 1, 16, 66, head=HeadConfig("binary", 2))
        save_model(HyenaDNA(config), tmp_path / "classifier")
    before = {path.name for path in tmp_path.iterdir()}
    done = run(line)
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert said in done.stderr
    assert len([text for text in done.stderr.splitlines() if text.startswith("hyena: error: ")]) == 1
    assert {path.name for path in tmp_path.iterdir()} == before


def start(**how: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([command(), "evaluate", "g.fa", "-m", "model"], **how)


def test_head_ends_it_silently(run: Run) -> None:
    with start(stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 128 + signal.SIGPIPE
    assert b"error" not in said.lower()
    assert b"Traceback" not in said


def test_a_progress_bar_keeps_out_of_the_table(run: Run) -> None:
    terminal, theirs = pty.openpty()
    with start(stdout=subprocess.PIPE, stderr=theirs) as process:
        assert process.stdout is not None
        os.close(theirs)
        said = b""
        while block := _read(terminal):
            said += block
        table = process.stdout.read().decode()
    os.close(terminal)
    assert process.returncode == 0
    assert [row[0] for row in rows(table)] == ["length", "64", "256"]
    assert b"evaluating" in said


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's end of file of a terminal whose other side is closed
        return b""
