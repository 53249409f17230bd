"""Fine-tuning from a table to a run directory."""

import csv
import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from hyenacli.adaptation.evaluation import EvaluationConfig, SplitEvaluator, describe_guess, evaluate_split
from hyenacli.adaptation.examples import Criterion
from hyenacli.adaptation.labels import LabelScheme
from hyenacli.errors import UserError
from hyenacli.evaluation.calibration import probabilities
from hyenacli.finetune.command import finetune
from hyenacli.genome.dna import reverse_complement
from hyenacli.readers.records import SequenceRecord
from hyenadna import HyenaConfig, HyenaDNA, ModelError, describe, load_model, save_model
from tests.builders import random_dna, write_bed, write_fasta
from tests.finetunes import (
    base_model,
    metrics,
    predictions,
    sequences,
    settings,
    two_classes,
    value,
    write_table,
)
from tests.toys import predict_with
from tests.warm import run_job

pytestmark = pytest.mark.usefixtures("without_figures")
METHODS = ("full", "head", "lora", "soft-prompt")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_classes(tmp_path_factory.mktemp("data") / "table.csv")


def stretch(bases: str) -> SequenceRecord:
    return SequenceRecord("x", "x", 0, len(bases), bases=bases.encode())


def said(model: HyenaDNA, bases: list[str], *, rc: bool = False) -> Any:
    answers = predict_with(model, map(stretch, bases), rc=rc)
    return np.array([answer.logits for answer in answers])


@pytest.fixture(scope="module")
def run(base: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the method full."""
    folder = tmp_path_factory.mktemp("full") / "run"
    assert finetune(settings(table, base, folder, no_baseline=False)).exit_code == 0
    return folder


def test_it_learns_and_leaves_everything(run: Path) -> None:
    assert value(run, "test", "accuracy") > 0.9
    found = metrics(run)
    assert found["labels"] == ["poor", "rich"]
    assert [found["splits"][name]["records"] for name in ("train", "valid", "test")] == [72, 24, 24]
    for split in found["splits"].values():
        for metric in split["metrics"].values():
            assert metric["low"] <= metric["value"] <= metric["high"]
    assert found["kmers_baseline"]["splits"]["test"]["metrics"]["accuracy"]["value"] > 0.9
    names = {path.name for path in run.iterdir()}
    files = ("config.yaml", "run.json", "metrics.csv", "log.jsonl", "report.html", "predictions.tsv")
    assert names >= {*files, "checkpoints"}


def test_the_best_of_the_validation_split_is_kept(run: Path) -> None:
    with (run / "metrics.csv").open() as stream:
        judged = {
            int(row["step"]): float(row["valid_mcc"]) for row in csv.DictReader(stream) if row["valid_mcc"]
        }
    best = metrics(run)["best_step"]
    assert judged[best] == max(judged.values())
    assert judged[best] == pytest.approx(value(run, "valid", "mcc"))
    assert (run / "checkpoints" / "best").resolve().name == f"step-{best}"
    card = (run / "checkpoints" / "best" / "README.md").read_text()
    assert re.search(r"valid_mcc\W+([\d.]+)", card)[1] == str(judged[best])
    assert "held_out_loss" not in card


def test_a_model_that_only_guesses_is_remarked_on_once(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header, rows = ("sequence", "label", "split"), []
    for i, (bases, _) in enumerate(sequences(60)):
        rows.append((bases, "a", "valid") if i % 3 == 0 else (bases, "ab"[i % 2], "train"))
    data, run = write_table(tmp_path / "data.csv", rows, header), tmp_path / "run"
    finetune(settings(data, base, run, epochs=1, valid_fraction=None, test_fraction=None))
    (warning,) = [text for text in caplog.messages if "guessing" in text or "not improved" in text]
    assert "the validation split is predicted no better than by guessing (mcc 0.000)" in warning
    assert any("no better than by guessing" in text for text in metrics(run)["warnings"])
    assert "no better than by guessing" in (run / "report.html").read_text()


@pytest.mark.parametrize(("logit", "worse"), [(0.5, False), (40.0, True)])
def test_probabilities_worse_than_class_frequencies_are_remarked_on(logit: float, worse: bool) -> None:
    scheme, truth = LabelScheme("binary", "sequence", ("no", "yes")), np.array([0, 0, 0, 1, 1, 1])
    outputs = [np.array([-shown, shown]) for shown in logit * np.array([-1, -1, 1, 1, 1, 1])]
    evaluator = SplitEvaluator(scheme, list(truth))
    result = evaluate_split(evaluator, outputs, EvaluationConfig(Criterion(scheme), seed=0))
    sentence = describe_guess(result) or ""
    assert result.metrics["mcc"] > 0
    assert ("worse than the frequencies of its classes do" in sentence) == worse


def test_predictions_are_those_of_the_saved_model(run: Path, table: Path) -> None:
    rows = predictions(run)
    assert len(rows) == 120
    with table.open() as stream:
        known = list(csv.DictReader(stream))
    model = load_model(run)
    bases = [known[int(row["id"]) - 1]["sequence"] for row in rows]
    assert [known[int(row["id"]) - 1]["label"] for row in rows] == [row["label"] for row in rows]
    expected = probabilities("binary", said(model, bases))[:, 1]
    np.testing.assert_allclose([float(row["p_rich"]) for row in rows], expected, atol=1e-6)
    correct = [row["prediction"] == row["label"] for row in rows if row["split"] == "test"]
    assert np.mean(correct) == pytest.approx(value(run, "test", "accuracy"))


def test_the_report_shows_the_task(run: Path) -> None:
    html = (run / "report.html").read_text()
    for word in ("k-mers", "area under the ROC curve", "predicted class", "valid mcc", "observed frequency"):
        assert word in html


@pytest.mark.parametrize("method", METHODS[1:])
def test_only_what_the_method_trains_changes(method: str, base: Path, table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    own = {"prompt_tokens": 3} if method == "soft-prompt" else {}
    finetune(settings(table, base, run, method=method, lr=3e-2, epochs=8, patience=8, **own))
    assert value(run, "test", "accuracy") > 0.8
    model, before = load_model(run), load_model(base).state_dict()
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert (model.adapter is not None) == (method != "head")
    rows = predictions(run)
    with table.open() as stream:
        known = list(csv.DictReader(stream))
    expected = probabilities("binary", said(model, [known[int(row["id"]) - 1]["sequence"] for row in rows]))
    np.testing.assert_allclose([float(row["p_rich"]) for row in rows], expected[:, 1], atol=1e-5)


def test_an_adapter_is_small_and_knows_its_base(base: Path, table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetune(settings(table, base, run, method="soft-prompt", prompt_tokens=2, epochs=1))
    best = run / "checkpoints" / "best"
    assert (best / "adapter_model.safetensors").stat().st_size < 2_000
    assert (best / "adapter_model.safetensors").stat().st_mode & 0o044
    assert describe(run).adapter == {"kind": "soft prompt", "tokens": 2, "dropout": 0.1, "base": str(base)}
    other = base_model(tmp_path / "other", l_max=70)
    config = best / "adapter_config.json"
    edited = json.loads(config.read_text().replace(str(base), str(other)))
    config.write_text(json.dumps({key: value for key, value in edited.items() if key != "sha256"}))
    with pytest.raises(Exception, match="base"):
        load_model(run)


def test_the_quick_head_is_as_good(base: Path, table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetune(settings(table, base, run, method="head", solver="sklearn"))
    assert value(run, "test", "accuracy") > 0.9
    rows = predictions(run)
    with table.open() as stream:
        known = list(csv.DictReader(stream))
    expected = probabilities(
        "binary", said(load_model(run), [known[int(r["id"]) - 1]["sequence"] for r in rows])
    )
    np.testing.assert_allclose([float(row["p_rich"]) for row in rows], expected[:, 1], atol=1e-5)


def test_the_validation_split_chooses_the_strands_of_a_quick_head(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw = random.Random(4)
    shares = [(9, 1, 1, 1), (1, 1, 1, 9)]  # the classes are each other's reverse complements
    rows = [["".join(draw.choices("ACGT", shares[i % 2], k=40)), i % 2] for i in range(120)]
    table = write_table(tmp_path / "t.csv", rows)
    run = tmp_path / "run"
    with caplog.at_level("INFO", "hyena"):
        finetune(settings(table, base, run, method="head", solver="sklearn"))
    tried = dict(
        re.findall(r"a head on (one strand|both strands), mean of the bases: valid mcc (\S+)", caplog.text)
    )
    assert float(tried["one strand"]) > 0.9
    assert float(tried["both strands"]) < 0.5
    assert load_model(run).config.head.rc is False
    assert value(run, "test", "mcc") > 0.9


def test_the_validation_split_chooses_the_pool_of_a_quick_head(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw = random.Random(5)
    # all of the label is in the last base
    rows = [["".join(draw.choices("ACGT", k=39)) + "AC"[i % 2], i % 2] for i in range(160)]
    table, run = write_table(tmp_path / "t.csv", rows), tmp_path / "run"
    with caplog.at_level("INFO", "hyena"):
        finetune(settings(table, base, run, method="head", solver="sklearn", pool="auto", rc="none"))
    tried = re.findall(r"a head on one strand, (\w+) of the bases: valid mcc (\S+)", caplog.text)
    assert {pool for pool, _ in tried} == {"mean", "max", "last"}
    model = load_model(run)
    assert model.config.head.pool == max(tried, key=lambda way: float(way[1]))[0] == "last"
    shown = predictions(run)
    expected = probabilities("binary", said(model, [rows[int(row["id"]) - 1][0] for row in shown]))
    np.testing.assert_allclose([float(row["p_1"]) for row in shown], expected[:, 1], atol=1e-5)


def deeper(base: Path, folder: Path) -> Path:
    """A model of two layers."""
    path = folder / "deeper"
    save_model(HyenaDNA(replace(load_model(base).config, n_layer=2)), path)
    return path


def test_the_validation_split_chooses_the_layers_of_a_quick_head(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = deeper(base, tmp_path)
    rows = [(text, "rich" if share > 0.5 else "poor") for text, share in sequences(120)]
    table, run = write_table(tmp_path / "t.csv", rows), tmp_path / "run"
    chosen = settings(table, base, run, method="head", solver="sklearn", layers="auto", rc="none")
    with caplog.at_level("INFO", "hyena"):
        finetune(chosen)
    tried = re.findall(r"mean of the bases(?:, (\d) of 2 layers)?: valid mcc (\S+)", caplog.text)
    assert [count for count, _ in tried] == ["", "1"]
    model = load_model(run)
    best = max(tried, key=lambda way: float(way[1]))[0]
    assert model.config.n_layer == len(model.backbone.layers) == int(best or 2)
    shown = predictions(run)
    expected = probabilities("binary", said(model, [rows[int(row["id"]) - 1][0] for row in shown]))
    np.testing.assert_allclose([float(row["p_rich"]) for row in shown], expected[:, 1], atol=1e-5)
    (run / "metrics.json").unlink()  # as if the evaluation had been cut short
    finetune(replace(chosen, resume=True))
    assert load_model(run).config.n_layer == model.config.n_layer
    assert predictions(run) == shown


def test_a_model_of_fewer_layers_is_trained_saved_and_read(base: Path, tmp_path: Path) -> None:
    base = deeper(base, tmp_path)
    rows = [(text, "rich" if share > 0.5 else "poor") for text, share in sequences(60)]
    table, run = write_table(tmp_path / "t.csv", rows), tmp_path / "run"
    finetune(settings(table, base, run, layers="1", epochs=1))
    model, whole = load_model(run), load_model(base)
    assert (model.config.n_layer, len(model.backbone.layers)) == (1, 1)
    assert whole.config.n_layer == 2
    shown = predictions(run)
    expected = probabilities("binary", said(model, [rows[int(row["id"]) - 1][0] for row in shown]))
    np.testing.assert_allclose([float(row["p_rich"]) for row in shown], expected[:, 1], atol=1e-5)
    with pytest.raises(ModelError, match="3 layers cannot be kept of a model with 2; give 1 to 2"):
        finetune(settings(table, base, tmp_path / "other", layers="3", epochs=1))


def test_test_records_unlike_training_are_measured_too(base: Path, tmp_path: Path) -> None:
    bases = [(text, "rich" if share > 0.5 else "poor") for text, share in sequences(80)]
    rows = [(*row, ("train", "train", "valid", "test")[i % 4]) for i, row in enumerate(bases)]
    rows += [(reverse_complement(text.encode()).decode(), label, "test") for text, label in bases[:20:4]]
    table = write_table(tmp_path / "t.csv", rows, ("sequence", "label", "split"))
    run = tmp_path / "run"
    changes: dict[str, Any] = {"valid_fraction": None, "test_fraction": None}
    finetune(settings(table, base, run, method="head", solver="sklearn", **changes))
    result = metrics(run)
    assert (result["splits"]["test"]["records"], result["clean_test"]["records"]) == (25, 20)
    assert "clean test (20)" in (run / "report.html").read_text()


def regression(path: Path) -> Path:
    rows = [(bases, 1000 + 50 * share, -share) for bases, share in sequences(120)]
    return write_table(path, rows, ("sequence", "up", "down"))


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize("solver", ["adamw", "sklearn"])
def test_regression_speaks_in_the_unit_of_the_labels(base: Path, tmp_path: Path, solver: str) -> None:
    run = tmp_path / "run"
    method = "head" if solver == "sklearn" else "full"
    changes: dict[str, Any] = {
        "label_column": ["up", "down"],
        **({} if solver == "sklearn" else {"epochs": 12, "patience": 12}),
        "method": method,
        "solver": solver,
    }
    finetune(settings(regression(tmp_path / "t.csv"), base, run, **changes))
    assert value(run, "test", "r2") > 0.7
    row = predictions(run)[0]
    assert abs(float(row["prediction_up"]) - float(row["label_up"])) < 20
    assert abs(float(row["prediction_down"]) - float(row["label_down"])) < 0.4


def test_a_head_in_bfloat16_is_judged_as_it_predicts(base: Path, tmp_path: Path) -> None:
    rows = [(bases, 1000 + 50 * share) for bases, share in sequences(60)]
    run, table = tmp_path / "run", write_table(tmp_path / "t.csv", rows)
    finetune(settings(table, base, run, method="head", epochs=2, dtype="bfloat16"))
    shown = predictions(run)
    stretches = [stretch(rows[int(row["id"]) - 1][0]) for row in shown]
    precision = torch.autocast("cpu", torch.bfloat16)
    answers = predict_with(load_model(run), stretches, rc=False, precision=precision)
    expected = np.concatenate([answer.logits for answer in answers if answer.logits is not None])
    np.testing.assert_allclose([float(row["prediction"]) for row in shown], expected, atol=2e-3)


@pytest.mark.usefixtures("figures")
def test_several_labels(base: Path, tmp_path: Path) -> None:
    rows = [
        (bases, int(share > 0.5), int(share < 0.5), "" if i % 7 == 0 else int(share > 0.6))
        for i, (bases, share) in enumerate(sequences(120))
    ]
    table = write_table(tmp_path / "t.csv", rows, ("sequence", "a", "b", "c"))
    run = tmp_path / "run"
    finetune(settings(table, base, run, label_column=["a", "b", "c"], no_baseline=False))
    assert metrics(run)["task"] == "multilabel"
    assert value(run, "test", "auroc") > 0.95
    assert {"p_a", "p_b", "p_c", "label_a"} <= set(predictions(run)[0])


@pytest.mark.usefixtures("figures")
def test_three_classes(base: Path, tmp_path: Path) -> None:
    kinds = ("low", "middle", "high")
    rows = [(bases, kinds[int(share * 2.999)]) for bases, share in sequences(150)]
    run = tmp_path / "run"
    finetune(settings(write_table(tmp_path / "t.csv", rows), base, run, class_weights="balanced"))
    assert metrics(run)["labels"] == sorted(kinds)
    assert value(run, "valid", "mcc") > 0.5


def one_class_apart(path: Path) -> Path:
    """A table of three classes and eight groups; one class is in the last group only."""
    rows = [
        (bases, "strange" if i >= 70 and i % 3 == 0 else "rich" if share > 0.5 else "poor", f"g{i // 10}")
        for i, (bases, share) in enumerate(sequences(80))
    ]
    return write_table(path, rows, ("sequence", "label", "family"))


@pytest.mark.usefixtures("figures")
def test_a_class_may_be_in_the_test_split_only(base: Path, tmp_path: Path) -> None:
    run, table = tmp_path / "run", one_class_apart(tmp_path / "t.csv")
    finetune(settings(table, base, run, group_column="family", test_groups="g7", epochs=1, no_baseline=False))
    assert metrics(run)["labels"] == ["poor", "rich", "strange"]
    assert metrics(run)["kmers_baseline"]["splits"]["test"]["metrics"]["accuracy"]["value"] > 0.5


def test_the_quick_head_finds_a_class_without_training_records_improbable(base: Path, tmp_path: Path) -> None:
    run, table = tmp_path / "run", one_class_apart(tmp_path / "t.csv")
    changes: dict[str, Any] = {"method": "head", "solver": "sklearn", "rc": "mean"}
    finetune(settings(table, base, run, group_column="family", test_groups="g7", **changes))
    assert metrics(run)["labels"] == ["poor", "rich", "strange"]
    assert all(float(row["p_strange"]) < 0.2 for row in predictions(run))


@pytest.mark.usefixtures("figures")
def test_bases_have_labels_of_their_own(base: Path, tmp_path: Path) -> None:
    rows = [
        (bases, "".join("1" if base in "GC" else "0" for base in bases))
        for bases, _ in sequences(60, length=(50, 150))
    ]
    table, run = write_table(tmp_path / "t.csv", rows), tmp_path / "run"
    changes: dict[str, Any] = {"rc_augment": True, "rc": "mean", "no_baseline": False}
    finetune(settings(table, base, run, level="nucleotide", epochs=6, **changes))
    assert value(run, "test", "accuracy") > 0.95
    kmers = metrics(run)["kmers_baseline"]["splits"]
    assert set(kmers) == {"valid", "test"}
    assert kmers["test"]["metrics"]["accuracy"]["value"] == 1.0
    shown = [row for row in predictions(run) if row["id"] == predictions(run)[0]["id"]]
    assert all((float(row["kmers_p_1"]) > 0.5) == (row["label"] == "1") for row in shown)
    assert len(shown) == int(shown[-1]["end"])
    assert {row["split"] for row in predictions(run)} == {"test"}


def test_rows_of_bases_go_along_the_plus_strand(base: Path, tmp_path: Path) -> None:
    genome = random_dna(1_200, seed=4)
    strong = "".join("1" if letter in "GC" else "0" for letter in genome)
    spans = [(start, start + 30, "+-"[start // 30 % 2]) for start in range(0, 1_200, 30)]
    rows = [
        ("chr1", start, end, strong[start:end][:: 1 if strand == "+" else -1], 0, strand)
        for start, end, strand in spans
    ]
    bed, run = write_bed(tmp_path / "r.bed", rows), tmp_path / "run"
    fasta = write_fasta(tmp_path / "g.fa", [("chr1", genome)])
    changes: dict[str, Any] = {"level": "nucleotide", "no_baseline": False}
    finetune(settings(bed, base, run, fasta=fasta, label_column=["name"], **changes))
    shown = predictions(run)
    right = [(float(row["kmers_p_1"]) > 0.5) == (row["label"] == "1") for row in shown]
    measured = metrics(run)["kmers_baseline"]["splits"]["test"]["metrics"]["accuracy"]["value"]
    assert np.mean(right) == pytest.approx(measured)
    assert measured > 0.8
    assert {row["strand"] for row in shown} == {"+", "-"}
    assert all(row["label"] == strong[int(row["start"])] for row in shown)
    first = [row for row in shown if row["id"] == next(row["id"] for row in shown if row["strand"] == "-")]
    own = reverse_complement(genome[int(first[0]["start"]) : int(first[-1]["end"])].encode()).decode()
    expected = probabilities("binary", said(load_model(run), [own])[0])[::-1, 1]
    np.testing.assert_allclose([float(row["p_1"]) for row in first], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("strand", "method", "expected"), [(".", "full", True), ("+", "full", False), ("+", "head", False)]
)
def test_regions_without_a_strand_are_read_on_both(
    strand: str, method: str, expected: bool, base: Path, tmp_path: Path
) -> None:
    (tmp_path / "genome.fa").write_text(">chr1\n" + "".join(bases for bases, _ in sequences(60)) + "\n")
    lines = [f"chr1\t{i * 20}\t{i * 20 + 20}\t{'ab'[i % 2]}\t0\t{strand}" for i in range(60)]
    (tmp_path / "regions.bed").write_text("\n".join(lines) + "\n")
    regions: dict[str, Any] = {"fasta": tmp_path / "genome.fa", "label_column": ["name"], "rc": "auto"}
    regions |= {"epochs": 1} if method == "full" else {"solver": "sklearn"}
    finetune(settings(tmp_path / "regions.bed", base, tmp_path / "run", method=method, **regions))
    head = load_model(tmp_path / "run").config.head
    assert head is not None
    assert head.rc == expected
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["rc_augment"] == expected


def test_both_strands_get_one_answer(base: Path, table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetune(settings(table, base, run, rc="mean", rc_augment=True, epochs=1))
    model = load_model(run)
    assert model.config.head is not None
    assert model.config.head.rc
    with table.open() as stream:
        bases = [row["sequence"] for row in csv.DictReader(stream)][:5]
    turned = [reverse_complement(b.encode()).decode() for b in bases]
    np.testing.assert_allclose(said(model, bases, rc=True), said(model, turned, rc=True), atol=1e-5)
    first = {row["id"]: row for row in predictions(run)}["1"]
    expected = probabilities("binary", said(model, bases[:1], rc=True))[0, 1]
    assert float(first["p_rich"]) == pytest.approx(expected, abs=1e-6)


def test_calibration_is_in_the_model(base: Path, table: Path, tmp_path: Path) -> None:
    plain, scaled = tmp_path / "plain", tmp_path / "scaled"
    finetune(settings(table, base, plain))
    finetune(settings(table, base, scaled, calibrate=True))
    found = metrics(scaled)["calibration"]
    assert found["valid_loss"][1] <= found["valid_loss"][0]
    assert metrics(scaled)["splits"]["valid"]["loss"] == pytest.approx(found["valid_loss"][1], rel=1e-2)
    ratio = said(load_model(plain), ["ACGTACGTAGC"]) / said(load_model(scaled), ["ACGTACGTAGC"])
    np.testing.assert_allclose(ratio, found["temperature"], rtol=1e-4)


def test_patience_ends_a_run(base: Path, table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetune(settings(table, base, run, lr=0.0, patience=2, epochs=30))
    found = metrics(run)
    assert (found["best_step"], found["steps"]) == (0, 2 * 5)
    assert (run / "checkpoints" / "best").resolve().name == "step-0"


def test_a_run_stopped_before_its_first_step_resumes(base: Path, table: Path, tmp_path: Path) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    finetune(settings(table, base, run, keep=9))
    resumed_from(run, again, 0)
    finetune(settings(table, base, again, keep=9, resume=True))
    assert metrics(run)["splits"] == metrics(again)["splits"]


def resumed_from(run: Path, copy: Path, step: int) -> None:
    """A copy of a run as it was after a step."""
    shutil.copytree(run, copy, symlinks=True)
    (copy / "metrics.json").unlink()
    folder = copy / "checkpoints"
    best = json.loads((folder / f"step-{step}" / "trainer.json").read_text())["best_step"]
    for name, target in (("last", step), ("best", best)):
        (folder / name).unlink()
        (folder / name).symlink_to(f"step-{target}")


@pytest.mark.parametrize("method", ["full", "lora", "head"])
def test_a_resumed_run_is_bit_identical(method: str, base: Path, table: Path, tmp_path: Path) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    changes: dict[str, Any] = {
        "method": method,
        "keep": 9,
        "rc_augment": True,
        "eval_every": 3,
        "patience": 99,
    }
    finetune(settings(table, base, run, **changes))
    resumed_from(run, again, 9)
    finetune(settings(table, base, again, resume=True, **changes))
    for name in ("last", "best"):
        one, two = (load_model(folder / "checkpoints" / name).state_dict() for folder in (run, again))
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())
    assert (run / "predictions.tsv").read_bytes() == (again / "predictions.tsv").read_bytes()
    assert metrics(run)["splits"] == metrics(again)["splits"]


def test_another_run_is_not_resumed(run: Path, base: Path, tmp_path: Path) -> None:
    other = two_classes(tmp_path / "other.csv", 100)
    with pytest.raises(UserError, match=r"cannot resume: other\.csv has other contents than table\.csv"):
        finetune(settings(other, base, run, no_baseline=False, resume=True))


def test_micro_batches_change_nothing(base: Path, table: Path, tmp_path: Path) -> None:
    found = []
    for size in (16, 3):
        run = tmp_path / str(size)
        finetune(settings(table, base, run, micro_batch_size=str(size), embed_dropout=0.0))
        found.append([float(row["p_rich"]) for row in predictions(run)])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_two_ranks_are_one(base: Path, table: Path, tmp_path: Path) -> None:
    found = []
    for ranks in (1, 2):
        run = tmp_path / str(ranks)
        flags = "--epochs 2 -b 16 --lr 1e-2 --embed-dropout 0 --no-baseline --device cpu"
        job = run_job(f"finetune {flags}", table, "-m", base, "-o", run, ranks=ranks)
        assert job.exit_codes == [0] * ranks, job.stderr
        found.append([float(row["p_rich"]) for row in predictions(run)])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_folds_test_every_record_once(base: Path, table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    changes: dict[str, Any] = {"folds": 3, "epochs": 2}
    finetune(settings(table, base, run, **changes))
    names = [f"fold-{i}" for i in (1, 2, 3)]
    tested = [
        row["id"] for name in names for row in predictions(run / "trials" / name) if row["split"] == "test"
    ]
    assert sorted(tested, key=int) == [str(i) for i in range(1, 121)]
    found = metrics(run)
    accuracies = [value(run / "trials" / name, "test", "accuracy") for name in names]
    assert found["summary"]["test"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    pooled = predictions(run)
    assert [row["id"] for row in pooled] == [str(i) for i in range(1, 121)]
    second = [row for row in predictions(run / "trials" / "fold-2") if row["split"] == "test"]
    by_id = {row["id"]: row["p_rich"] for row in pooled}
    assert [row["p_rich"] for row in second] == [by_id[row["id"]] for row in second]
    right = np.mean([row["prediction"] == row["label"] for row in pooled])
    assert found["pooled"]["metrics"]["accuracy"]["value"] == pytest.approx(right)
    assert "fold-2/report.html" in (run / "report.html").read_text()
    assert found["summary"]["test"]["accuracy"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert load_model(run).config.head is not None
    before = (run / "trials" / "fold-1" / "run.json").stat().st_mtime_ns
    shutil.rmtree(run / "trials" / "fold-3")
    finetune(settings(table, base, run, resume=True, **changes))
    assert metrics(run)["summary"] == found["summary"]
    assert (run / "trials" / "fold-1" / "run.json").stat().st_mtime_ns == before


def test_the_validation_split_chooses_of_a_sweep(base: Path, table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetune(settings(table, base, run, sweep=["lr=0,1e-2", "embed-dropout=0.0"], seeds=2, seed=5, epochs=2))
    names = sorted(path.name for path in (run / "trials").iterdir())
    assert names == ["lr=0,embed-dropout=0", "lr=0.01,embed-dropout=0", "seed-6"]
    found = metrics(run)
    assert found["summed_up"] == ["lr=0.01,embed-dropout=0", "seed-6"]
    # what was not chosen is not judged on the test split
    assert set(found["trials"]["lr=0,embed-dropout=0"]) == {"train", "valid"}
    assert set(found["trials"]["lr=0.01,embed-dropout=0"]) == {"train", "valid", "test"}
    assert (run / "checkpoints").resolve().parent.name == found["model_of"]


def test_a_sweep_of_one_value_is_that_value(base: Path, table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetune(settings(table, base, run, sweep=["lr=0", "embed-dropout=0"], epochs=1))
    assert not (run / "trials").exists()
    (before, after) = (load_model(path).state_dict() for path in (base, run))
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_every_fold_has_a_sweep_of_its_own(base: Path, table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetune(settings(table, base, run, folds=3, sweep=["lr=0,1e-2"], epochs=2))
    found = metrics(run)
    names = {fold: [f"fold-{fold},lr={lr}" for lr in ("0", "0.01")] for fold in (1, 2, 3)}
    assert set(found["trials"]) == {name for both in names.values() for name in both}
    assert found["summed_up"] == [
        max(both, key=lambda name: value(run / "trials" / name, "valid", "mcc")) for both in names.values()
    ]
    for name, splits in found["trials"].items():
        assert ("test" in splits) == (name in found["summed_up"])
    # all folds together are the winners of each
    tested = {row["id"]: row["p_rich"] for row in predictions(run)}
    for name in found["summed_up"]:
        own = [row for row in predictions(run / "trials" / name) if row["split"] == "test"]
        assert [tested.pop(row["id"]) for row in own] == [row["p_rich"] for row in own]
    assert not tested


def test_undefined_metrics_of_small_folds_are_left_out(base: Path, tmp_path: Path) -> None:
    rows = [(bases, "rich" if share > 0.5 else "poor") for bases, share in sequences(12)]
    run = tmp_path / "run"
    finetune(settings(write_table(tmp_path / "t.csv", rows), base, run, folds=12, epochs=1))
    summary = metrics(run)["summary"]["test"]
    assert "auroc" not in summary
    assert 0 <= summary["accuracy"]["mean"] <= 1


def test_what_splits_share_is_said(
    base: Path, table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    with caplog.at_level("WARNING", logger="hyena"):
        finetune(
            settings(table, base, run, valid=[str(table)], test=[str(table)], valid_fraction=None, epochs=1)
        )
    assert "120 of 120 test records (100.0%) have a sequence" in caplog.text
    assert len(metrics(run)["warnings"]) == 3
    assert "120 of 120 test records" in (run / "report.html").read_text()


def test_long_sequences_are_learnt_from_in_windows_and_read_whole_in_prediction(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(bases, "rich" if share > 0.5 else "poor") for bases, share in sequences(60, length=(60, 200))]
    run = tmp_path / "run"
    with caplog.at_level("WARNING", logger="hyena"):
        finetune(settings(write_table(tmp_path / "t.csv", rows), base, run, max_length=30, epochs=2))
    assert (
        "36 training sequences are longer than 30 bases: read in windows, another one in each epoch"
        in caplog.text
    )
    row = predictions(run)[0]
    bases = rows[int(row["id"]) - 1][0]
    assert int(row["n_bases"]) == len(bases)
    # predictions read windows of the length that was trained on, also those of the verb
    model = load_model(run)
    windows = predict_with(model, [stretch(bases)], rc=False, window=30)
    assert next(windows).logits == pytest.approx(said(model, [bases])[0])
    whole = next(predict_with(model, [stretch(bases)], rc=False, window=66)).logits
    assert whole != pytest.approx(said(model, [bases])[0])


def test_a_head_is_trained_on_the_windows_it_predicts_from(base: Path, tmp_path: Path) -> None:
    rows = [(bases, "rich" if share > 0.5 else "poor") for bases, share in sequences(40, length=(40, 60))]
    run = tmp_path / "run"
    table = write_table(tmp_path / "t.csv", rows)
    finetune(settings(table, base, run, max_length=25, method="head", pool="max", epochs=2))
    shown = predictions(run)
    expected = probabilities("binary", said(load_model(run), [rows[int(row["id"]) - 1][0] for row in shown]))
    np.testing.assert_allclose([float(row["p_rich"]) for row in shown], expected[:, 1], atol=1e-6)


def test_a_preset_starts_from_fresh_weights(table: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="--method lora: a frozen model of fresh weights has nothing to adapt"
    ):
        finetune(settings(table, "tiny-1k", tmp_path / "run", method="lora"))
    assert not (tmp_path / "run").exists()


def test_a_head_for_the_same_labels_is_trained_on(run: Path, table: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    finetune(settings(table, run, again, lr=0.0, epochs=1))
    assert value(again, "test", "mcc") == pytest.approx(value(run, "test", "mcc"))
    assert torch.equal(*(load_model(r).state_dict()["head.output_transform.weight"] for r in (run, again)))


def test_a_head_trains_no_weights_of_the_next_nucleotide(table: Path, tmp_path: Path) -> None:
    """They have no gradient, and so no state of AdamW, and no weight decay either."""
    config = HyenaConfig(d_model=8, n_layer=1, d_inner=16, l_max=66, tied_head=False)
    save_model(HyenaDNA(config), tmp_path / "base")
    run = tmp_path / "run"
    finetune(settings(table, tmp_path / "base", run, epochs=1))
    lm_head = [load_model(path).state_dict()["lm_head.weight"] for path in (tmp_path / "base", run)]
    assert torch.equal(*lm_head)
    moments = load_file(run / "checkpoints" / "last" / "trainer.safetensors")
    assert "exp_avg/head.output_transform.weight" in moments
    before = predictions(run)
    finetune(settings(table, tmp_path / "base", run, epochs=1, resume=True))
    assert predictions(run) == before


def test_lora_of_an_earlier_run_becomes_part_of_the_weights(base: Path, table: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    finetune(settings(table, base, first, method="lora", epochs=1))
    finetune(settings(table, first, second, lr=0.0, epochs=1))
    assert load_model(second).adapter is None
    bases = ["ACGTGGTAC"]
    np.testing.assert_allclose(said(load_model(first), bases), said(load_model(second), bases), atol=1e-5)
    with pytest.raises(UserError, match="the model has LoRA already; start from its base"):
        finetune(settings(table, first, tmp_path / "third", method="lora"))
