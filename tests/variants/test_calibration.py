"""Calibrated scores: the mean of the same substitution in its five-base context, computed by hand."""

import csv
import math
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.genome.dna import reverse_complement
from hyenadna import save_model
from tests.builders import random_dna, write_fasta
from tests.toys import tiny_model

Run = Callable[[str], Any]
BASES = random_dna(300, 3)
NEUTRAL = "--all-snvs -r chr1:21-280 --write-calibration cal.tsv -o neutral.tsv --score llr,jsd"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration")
    save_model(tiny_model(), path / "model")
    write_fasta(path / "g.fa", [("chr1", BASES)])
    return path


def invoke(words: str) -> Any:
    line = ["score-variants", "-m", "model", "-f", "g.fa", "--window", "32"]
    return CliRunner().invoke(app, [*line, *words.split()])


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    return invoke


@pytest.fixture(scope="module")
def calibration(folder: Path) -> str:
    """The table of NEUTRAL."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert invoke(NEUTRAL).exit_code == 0
        return Path("cal.tsv").read_text()


def rows(name: str) -> list[dict[str, str]]:
    lines = [line for line in Path(name).read_text().splitlines() if line[0] != "#"]
    return list(csv.DictReader(lines, delimiter="\t"))


def complement(bases: str) -> str:
    return reverse_complement(bases.encode()).decode()


@pytest.mark.parametrize("rc", ["mean", "none"])
def test_the_table_has_the_means_of_all_cells(run: Run, rc: str) -> None:
    result = run(f"{NEUTRAL} --rc {rc}")
    assert result.exit_code == 0, result.stderr
    assert "wrote cal.tsv: 3,072 cells from 780 substitutions" in result.stderr
    by_cell: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows("neutral.tsv"):
        position, scores = int(row["pos"]) - 1, (float(row["HYENA_LLR"]), float(row["HYENA_JSD"]))
        context = BASES[position - 2 : position + 3]
        by_cell[context, row["alt"]].append(scores)
        if rc == "mean":
            by_cell[complement(context), complement(row["alt"])].append(scores)
    table = rows("cal.tsv")
    contexts = ["".join(letters) for letters in product("ACGT", repeat=5)]
    cells = [(context, alt) for context in contexts for alt in "ACGT" if alt != context[2]]
    assert [(row["context"], row["alt"]) for row in table] == cells
    for row in table:
        scores = by_cell[row["context"], row["alt"]]
        assert int(row["n"]) == len(scores)
        for name, values in zip(("llr", "jsd"), zip(*scores, strict=True), strict=False):
            assert float(row[name]) == pytest.approx(sum(values) / len(values), rel=1e-5, abs=1e-9)
        assert scores or row["llr"] == ""


def test_scores_lose_the_mean_of_their_cell(run: Run) -> None:
    assert run(NEUTRAL).exit_code == 0
    result = run("--all-snvs -r chr1:1-300 -o all.tsv --calibrate cal.tsv")
    assert result.exit_code == 0, result.stderr
    assert "cal.tsv: 780 neutral substitutions; of a cell median" in result.stderr
    means = {(row["context"], row["alt"]): float(row["llr"] or "nan") for row in rows("cal.tsv")}
    calibrated = 0
    for row in rows("all.tsv"):
        position = int(row["pos"]) - 1
        mean = means.get((BASES[max(0, position - 2) : position + 3], row["alt"]), math.nan)
        if math.isnan(mean):
            assert row["HYENA_LLR_CALIBRATED"] == ""
            continue
        calibrated += 1
        assert float(row["HYENA_LLR_CALIBRATED"]) == pytest.approx(float(row["HYENA_LLR"]) - mean, abs=1e-6)
    assert calibrated >= 780
    others = f"chr1:50:{BASES[49:51]}>{BASES[49]} chr1:60:{BASES[59]}>{BASES[59]}A chr9:1:A>C"
    line = [
        "score-variants",
        "-m",
        "model",
        "-f",
        "g.fa",
        "--window",
        "32",
        "--calibrate",
        "cal.tsv",
        "-o",
        "others.tsv",
    ]
    assert CliRunner().invoke(app, [*line, others]).exit_code == 0
    assert [row["HYENA_LLR_CALIBRATED"] for row in rows("others.tsv")] == [""] * 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--calibrate cal.tsv --grid 1", "was made with another grid (8, not 1)"),
        ("--calibrate cal.tsv --rc none", "was made with another number of strands (2, not 1)"),
        ("--calibrate cal.tsv --score l2", "has no l2; make it with --score l2"),
        ("--calibrate g.fa", "is no table of --write-calibration"),
        ("--calibrate cut.tsv", "is no table of --write-calibration"),
        ("--calibrate wrong.tsv", "is no table of --write-calibration"),
        ("--calibrate broken.tsv -m none", "is no table of --write-calibration"),
        ("--calibrate uncounted.tsv -m none", "is no table of --write-calibration"),
        ("--write-calibration g.fa", "is an input of this very command"),
        ("--write-calibration x.tsv --shard 1/2", "needs every allele in one process"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    run: Run, folder: Path, calibration: str, words: str, message: str
) -> None:
    text = calibration
    Path("cal.tsv").write_text(text)
    Path("cut.tsv").write_text(text[:-400])
    Path("wrong.tsv").write_text(text.replace("AAAAA\tC\t", "AAAAA\tC\tmany"))
    Path("broken.tsv").write_text(text.replace("{", "{broken", 1))
    Path("uncounted.tsv").write_text(text.replace('"n": ', '"m": ', 1))
    result = run(f"--all-snvs -r chr1:50-60 -o x.vcf {words}")
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert not (folder / "x.vcf").exists()


def test_a_table_needs_substitutions(run: Run) -> None:
    result = run(f"chr1:50:{BASES[49]}>{BASES[49]}A --write-calibration none.tsv -o x.tsv")
    assert result.exit_code == 1
    assert "no substitution was scored" in result.stderr
