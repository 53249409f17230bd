"""Networks that the k-mer model joins: as measured, as predicted, and left alone."""

import csv
from pathlib import Path

import pytest

from hyenacli import api
from hyenacli.errors import UsageError, UserError
from hyenacli.finetune import predict_command
from hyenacli.finetune.command import finetune
from hyenacli.finetune.settings import PredictSettings
from hyenacli.inference.experts import load_experts
from tests.finetunes import base_model, metrics, predictions, settings, two_classes, write_table

pytestmark = pytest.mark.usefixtures("without_figures")


def test_a_joined_run_predicts_as_it_was_measured(tmp_path: Path) -> None:
    data, base = two_classes(tmp_path / "table.csv"), base_model(tmp_path / "base")
    run = tmp_path / "run"
    finetune(settings(data, base, run, epochs=1, no_baseline=False, experts="kmers", method="lora"))
    said = metrics(run)
    assert said["experts"]["joined"]
    assert said["network"]["test"]["metrics"].keys() == said["splits"]["test"]["metrics"].keys()
    assert "k-mers" in said["verdict"]["sentence"]
    assert said["verdict"]["sentence"][1:] in (run / "report.html").read_text()
    rows = {row["id"]: row for row in predictions(run)}
    assert {"network_p_poor", "kmers_p_rich"} <= set(next(iter(rows.values())))
    out = tmp_path / "out.tsv"
    predict_command.run(PredictSettings(input=data, model=str(run), output=out, device="cpu"))
    with out.open() as stream:
        again = list(csv.DictReader(stream, delimiter="\t"))
    for row in again:
        assert float(row["p_rich"]) == pytest.approx(float(rows[row["id"]]["p_rich"]), abs=1e-5)
    sequences = [row["sequence"] for row in csv.DictReader(data.read_text().splitlines())]
    joined = api.predict(sequences, run)
    assert joined["p_rich"] == pytest.approx([float(row["p_rich"]) for row in again], abs=1e-5)
    best = run / "checkpoints" / "best"
    for name in ("experts.json", "experts.safetensors"):
        undamaged = (best / name).read_bytes()
        for position in range(3, len(undamaged), len(undamaged) // 12):
            damaged = bytearray(undamaged)
            damaged[position] ^= 1
            (best / name).write_bytes(damaged)
            with pytest.raises(UserError):
                load_experts(best)
        (best / name).unlink()
        with pytest.raises(UserError, match=f"{name}|cannot be read"):
            load_experts(best)
        (best / name).write_bytes(undamaged)
    assert load_experts(best) is not None


def test_many_classes_can_be_joined_and_saved(tmp_path: Path) -> None:
    rows = [(bases, name) for name in ("A", "C", "G", "T") for bases in (name * 9 + "ACGT", name * 12) * 12]
    data, base = write_table(tmp_path / "table.csv", rows), base_model(tmp_path / "base")
    finetune(settings(data, base, tmp_path / "run", epochs=1, no_baseline=False, experts="kmers"))
    experts = load_experts(tmp_path / "run" / "checkpoints" / "best")
    assert experts is not None
    assert [len(model.model.bias_T) for model in experts.models] == [4]


def test_the_network_stays_alone_where_it_is_told_to(tmp_path: Path) -> None:
    data, base = two_classes(tmp_path / "table.csv"), base_model(tmp_path / "base")
    finetune(settings(data, base, tmp_path / "run", epochs=1, no_baseline=False, experts="none"))
    said = metrics(tmp_path / "run")
    assert said["experts"] is None
    assert said["network"] is None
    assert not (tmp_path / "run" / "checkpoints" / "best" / "experts.json").exists()
    with pytest.raises(UsageError, match="no-baseline"):
        finetune(settings(data, base, tmp_path / "other", experts="kmers"))
