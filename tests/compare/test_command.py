"""Runs side by side: differences by hand, other records, and what is no run."""

import csv
from pathlib import Path

import numpy as np
import pytest

from hyenacli.compare.command import run
from hyenacli.compare.settings import CompareSettings
from hyenacli.errors import UserError
from hyenacli.evaluation.metrics import measure
from hyenacli.training.run_directory import write_json

TITLES = ["id", "split", "label", "n_bases", "p_no", "p_yes", "kmers_p_no", "kmers_p_yes"]
TRUTH = np.arange(200) % 2


def make_run(folder: Path, noise: float, *, seed: int = 0, n: int = 200) -> np.ndarray:
    """Write what a run leaves, and return its probabilities (N, 2)."""
    folder.mkdir()
    facts = {"task": "binary", "level": "sequence", "labels": ["no", "yes"]}
    write_json(folder / "metrics.json", facts)
    score = (2 * TRUTH - 1) + np.random.default_rng(seed).normal(0, noise, 200)
    p = 1 / (1 + np.exp(-score))
    order = np.random.default_rng(seed).permutation(n)
    with (folder / "predictions.tsv").open("w") as stream:
        rows = csv.writer(stream, delimiter="\t")
        rows.writerow(TITLES)
        rows.writerow(["valid", "valid", "no", 9, 0.5, 0.5, 0.5, 0.5])
        for i in order:
            label = ("no", "yes")[TRUTH[i]]
            rows.writerow([f"r{i}", "test", label, 9, 1 - p[i], p[i], 0.5, 0.5])
    return np.stack([1 - p, p], axis=1)


def compared(tmp_path: Path, *names: str, **more: object) -> list[dict[str, str]]:
    out = tmp_path / "out.tsv"
    run(CompareSettings(runs=[tmp_path / name for name in names], output=out, **more))  # type: ignore[arg-type]
    with out.open() as stream:
        return list(csv.DictReader((line for line in stream if line[0] != "#"), delimiter="\t"))


def test_runs_are_compared_record_by_record(tmp_path: Path) -> None:
    first, good = make_run(tmp_path / "first", 2.0), make_run(tmp_path / "good", 0.3, seed=1)
    make_run(tmp_path / "same", 2.0)
    rows = compared(tmp_path, "first", "good", "same", plot=tmp_path / "runs.svg")
    assert [row["verdict"] for row in rows] == ["", "better", "no different", "worse"]
    mcc = [measure("binary", TRUTH, outputs)["mcc"] for outputs in (first, good)]
    assert [float(row["value"]) for row in rows[:2]] == pytest.approx(mcc, abs=1e-3)
    assert float(rows[1]["difference"]) == pytest.approx(mcc[1] - mcc[0], abs=1e-3)
    assert float(rows[2]["difference_high"]) == 0
    assert rows[3]["run"] == "k-mers"
    assert "<svg" in (tmp_path / "runs.svg").read_text()
    assert compared(tmp_path, "first", metric="auroc")[0]["metric"] == "auroc"


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    make_run(tmp_path / "first", 2.0)
    make_run(tmp_path / "fewer", 2.0, n=150)
    with pytest.raises(UserError, match="150 and 200, 150 of them the same"):
        compared(tmp_path, "first", "fewer")
    with pytest.raises(UserError, match=r"no metrics\.json"):
        compared(tmp_path, "first", "nothing")
    (tmp_path / "fewer" / "predictions.tsv").write_text("\t".join(TITLES) + "\n")
    with pytest.raises(UserError, match="not tested"):
        compared(tmp_path, "fewer")
    with pytest.raises(UserError, match="no mse"):
        compared(tmp_path, "first", metric="mse")
