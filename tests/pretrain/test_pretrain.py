"""Pretraining from end to end on genomes small enough for a test."""

import dataclasses
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hyenacli import settings_file
from hyenacli.errors import UsageError, UserError
from hyenacli.pretrain.command import describe_result, pretrain
from hyenacli.pretrain.language_model import NextNucleotide, build_model
from hyenacli.pretrain.settings import PretrainSettings
from hyenacli.training import loop
from hyenacli.training.checkpoints import Progress
from hyenadna import DemonstrationsConfig, ModelError, load_model, save_model
from hyenadna.adapters import LoraConfig, SoftPromptConfig, add_lora, add_soft_prompt, merge
from tests.runs import command, continuing, losses, rows, settings, small_model, weights
from tests.warm import run_job

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.mark.usefixtures("figures")
def test_a_run_directory_is_complete(genome: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = pretrain(settings(genome, run, valid_contigs="two"))
    assert result.exit_code == 0
    assert result.progress.step == 6
    assert result.progress.tokens == 6 * 4 * 32
    assert [row["step"] for row in rows(run)] == [str(s) for s in range(7)]
    assert [row["step"] for row in rows(run) if row["valid_loss"]] == ["0", "3", "6"]
    assert len(result.markov) == 9
    facts = json.loads((run / "run.json").read_text())
    assert facts["inputs"][0]["bytes"] == genome.stat().st_size
    assert facts["result"]["valid_loss"] == pytest.approx(float(rows(run)[-1]["valid_loss"]), rel=1e-8)
    assert facts["result"]["markov_loss"] == result.markov
    report = (run / "report.html").read_text()
    assert "Markov, order 8" in report
    assert "<script" not in report
    assert report.count("<svg") == 5
    assert "bits per base" in re.findall(r'<p class="verdict">(.*?)</p>', report)[0]
    assert {"metrics.csv", "run.json"} <= set(re.findall(r'<a href="([^"]+)"', report))
    assert all((run / name).exists() for name in re.findall(r'<a href="([^"]+)"', report))
    assert {"training", "held out", "Markov order 0"} <= set(re.findall(r">([^<>]+)</text>", report))
    events = [json.loads(line)["event"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert events.count("step") == 7
    assert (run / "checkpoints" / "last" / "README.md").exists()
    assert load_model(run).config.l_max == 34


def test_fresh_weights_are_called_so(genome: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hyena")
    whole = {"d_model": None, "n_layer": None, "max_length": None, "preset": "hyenadna-tiny-1k-seqlen"}
    pretrain(settings(genome, tmp_path / "whole", max_steps=1, **whole))
    pretrain(settings(genome, tmp_path / "changed", max_steps=1))
    pretrain(continuing(genome, tmp_path / "changed", tmp_path / "continued", max_steps=1))
    models = [text.splitlines()[0] for text in caplog.messages if text.startswith("model: ")]
    assert "seqlen with fresh weights (--init-from hyenadna-tiny-1k starts from" in models[0]
    assert "tiny-1k, changed, with fresh weights: width 8" in models[1]
    assert "with fresh weights" not in models[2]


def test_a_loss_worse_than_guessing_is_remarked_on(
    genome: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sentence = r"held out: a loss of \d\.\d+ nats per base is worse than guessing"
    for name, changes, remarks in (("poor", {"lr": 0.0}, 1), ("good", {"max_steps": 40, "lr": 2e-2}, 0)):
        caplog.clear()
        pretrain(settings(genome, tmp_path / name, eval_every=40, save_every=40, **changes))
        assert len(re.findall(sentence, caplog.text)) == remarks
        report = (tmp_path / name / "report.html").read_text()
        assert report.count("more than the 2 of guessing") == remarks


def test_it_learns(genome: Path, tmp_path: Path) -> None:
    result = pretrain(
        settings(genome, tmp_path / "run", max_steps=60, eval_every=60, lr=2e-2, valid_contigs="two")
    )
    uniform, order0 = np.log(4), result.markov[0]
    assert order0 < 1.25
    assert result.progress.last < (uniform + order0) / 2


def test_config_yaml_runs_it_again(genome: Path, tmp_path: Path) -> None:
    first = settings(genome, tmp_path / "first", rc_augment=True)
    pretrain(first)
    known = [field.name for field in dataclasses.fields(PretrainSettings)]
    values = settings_file.read_yaml(tmp_path / "first" / "config.yaml", known)
    again = PretrainSettings(**values | {"fasta": [genome], "output": tmp_path / "again"})
    pretrain(again)
    assert losses(tmp_path / "first") == losses(tmp_path / "again")


@pytest.mark.parametrize("lost_step", [2, 5])
def test_resuming_is_bit_identical(
    genome: Path, tmp_path: Path, lost_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(settings(genome, whole))
    with monkeypatch.context() as patch:
        original = loop.cosine_rate

        def crash(step: int, **rates: Any) -> float:
            if step == lost_step:
                raise RuntimeError("power cut")
            return original(step, **rates)

        patch.setattr(loop, "cosine_rate", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            pretrain(settings(genome, parts))
    assert (parts / "checkpoints" / "last").resolve().name in {f"step-{n}" for n in range(1, lost_step + 1)}
    pretrain(settings(genome, parts, resume=True))
    assert losses(whole) == losses(parts)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(parts)[name]), name


def test_accumulation_changes_only_the_rounding(
    genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hyenacli.pretrain import command as module

    def without_dropout(values: PretrainSettings) -> Any:
        model = build_model(values)
        model.backbone.dropout.p = 0.0
        return model

    monkeypatch.setattr(module, "build_model", without_dropout)
    for size in (1, 3, 4):
        pretrain(settings(genome, tmp_path / str(size), micro_batch_size=size))
    for size in ("1", "3"):
        for name, tensor in weights(tmp_path / size).items():
            torch.testing.assert_close(tensor, weights(tmp_path / "4")[name], rtol=1e-4, atol=1e-6)


def test_checkpoints_are_pruned_but_never_the_best(genome: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = pretrain(settings(genome, run, max_steps=8, eval_every=4, save_every=1, keep=2, lr=0.0))
    folder = run / "checkpoints"
    assert result.progress.best_step == 0 or (folder / "best").exists()
    assert (folder / "last").resolve().name == "step-8"
    assert {p.name for p in folder.glob("step-*")} >= {"step-7", "step-8"}
    assert len(list(folder.glob("step-*"))) <= 3


def test_init_from_continues_with_another_models_weights(genome: Path, tmp_path: Path) -> None:
    pretrain(settings(genome, tmp_path / "first"))
    changes = {
        "init_from": str(tmp_path / "first"),
        "d_model": None,
        "n_layer": None,
        "lr": 0.0,
        "weight_decay": 0.0,
    }
    pretrain(settings(genome, tmp_path / "second", max_steps=1, **changes))
    best = load_model(tmp_path / "first").state_dict()
    for name, tensor in weights(tmp_path / "second").items():
        assert torch.equal(tensor, best[name]), name


def test_lora_becomes_part_of_what_is_trained(genome: Path, tmp_path: Path) -> None:
    model = small_model()
    save_model(model, tmp_path / "base")
    add_lora(model, LoraConfig(rank=2), base=str(tmp_path / "base"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    save_model(model, tmp_path / "adapted")
    merge(model)
    pretrain(continuing(genome, tmp_path / "adapted", tmp_path / "run"))
    trained = load_model(tmp_path / "run" / "checkpoints" / "last")
    assert trained.adapter is None
    for name, tensor in trained.named_parameters():
        before = model.get_parameter(name)
        assert not torch.equal(tensor, before), name
        torch.testing.assert_close(tensor, before, rtol=0, atol=0.05)


def test_a_soft_prompt_is_refused(genome: Path, tmp_path: Path) -> None:
    model, run = small_model(), tmp_path / "run"
    save_model(model, tmp_path / "base")
    add_soft_prompt(model, SoftPromptConfig(4), base=str(tmp_path / "base"))
    save_model(model, tmp_path / "prompted")
    pretrain(settings(genome, run))
    before = losses(run)
    with pytest.raises(UserError, match=r"prompted: the model has a soft prompt already; .* its base, .*"):
        pretrain(continuing(genome, tmp_path / "prompted", run, force=True))
    assert losses(run) == before


def test_what_another_task_added_is_no_part_of_it(genome: Path, tmp_path: Path) -> None:
    model, run = small_model(), tmp_path / "run"
    save_model(model, tmp_path / "headed")
    shots = (("AC", "a"), ("GT", "b"))
    model.set_demonstrations(DemonstrationsConfig("binary", ("a", "b"), "AC", shots, max_length=8))
    save_model(model, tmp_path / "shown")
    for name in ("headed", "shown"):
        pretrain(continuing(genome, tmp_path / name, run, force=True))
        config = load_model(run).config
        assert (config.head, config.demonstrations) == (None, None)
        before = losses(run)
        pretrain(continuing(genome, tmp_path / name, run, resume=True))
        assert losses(run) == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"valid_contigs": "chr1"}, UserError, "no contig 'chr1' to hold out; known: one, two, three"),
        ({"valid_contigs": "one,two,three"}, UserError, "no bases are left to train on"),
        ({"preset": "tiny-2k"}, Exception, "tiny-2k"),
        ({"init_from": "m"}, UsageError, "--init-from fixes the architecture"),
        (
            {"intervals": Path("x.bed"), "valid_contigs": "one"},
            UsageError,
            "several ways to hold sequence out",
        ),
        ({"fasta": [Path("absent.fa")]}, UserError, "absent"),
        ({"device": "tpu"}, UsageError, "tpu"),
        ({"dtype": "float16"}, UsageError, "float16"),
        ({"lr": 1.0, "min_lr": 2.0}, UsageError, "0 <= --min-lr <= --lr"),
        ({"lr": float("inf")}, UsageError, "0 <= --min-lr <= --lr"),
        ({"fasta": [Path("-")]}, UsageError, "not from a pipe"),
        ({"valid_contigs": " ,"}, UsageError, "--valid-contigs: names no contig"),
        ({"context_parallel": 2}, UsageError, r"1 process\(es\) cannot form groups of 2; start a"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_written(
    genome: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    run = tmp_path / "run"
    with pytest.raises(error, match=message):
        pretrain(dataclasses.replace(settings(genome, run), **changes))
    assert not run.exists()


def test_a_full_directory_is_left_alone(genome: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(genome, run, max_steps=1))
    before = losses(run)
    with pytest.raises(UserError, match="--resume or --force"):
        pretrain(settings(genome, run, max_steps=2))
    assert losses(run) == before
    with pytest.raises(UserError, match=r"lr was 0\.003, is 0\.1"):
        pretrain(settings(genome, run, max_steps=1, lr=0.1, resume=True))
    genome.write_text(genome.read_text().replace("A", "C"))
    with pytest.raises(UserError, match=r"genome\.fa has other contents"):
        pretrain(settings(genome, run, max_steps=1, resume=True))
    assert losses(run) == before
    pretrain(settings(genome, run, max_steps=2, force=True))
    assert len(rows(run)) == 3


def test_a_run_without_a_checkpoint_resumes_at_its_start(genome: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(genome, run))
    before = losses(run)
    shutil.rmtree(run / "checkpoints")
    pretrain(settings(genome, run, resume=True))
    assert losses(run) == before


@pytest.mark.parametrize("name", ["trainer.safetensors", "trainer.json", "model.safetensors"])
def test_a_damaged_checkpoint_is_said(genome: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    pretrain(settings(genome, run))
    path = run / "checkpoints" / "last" / name
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises((UserError, ModelError), match="damaged") as error:
        pretrain(settings(genome, run, resume=True))
    assert "--init-from" not in str(error.value)  # which other verbs that resume do not have


def test_a_loss_that_explodes_is_explained(genome: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lower --lr"):
        pretrain(settings(genome, tmp_path / "run", lr=1e30, max_steps=50, eval_every=50))


def test_two_ranks_take_the_same_steps_as_one(genome: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    pretrain(settings(genome, one))
    assert run_job("", *command(genome, two)).exit_codes == [0, 0]
    for row, other in zip(rows(one), rows(two), strict=True):
        for column in ("loss", "valid_loss", "grad_norm"):
            if row[column]:
                assert float(other[column]) == pytest.approx(float(row[column]), rel=1e-4), (
                    row["step"],
                    column,
                )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_a_checkpoint(
    genome: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, original = tmp_path / "run", loop.cosine_rate

    def send(step: int, **rates: Any) -> float:
        if step == 3:
            os.kill(os.getpid(), number)
        return original(step, **rates)

    monkeypatch.setattr(loop, "cosine_rate", send)
    assert pretrain(settings(genome, run, eval_every=6, save_every=6)).exit_code == 128 + number
    assert (run / "checkpoints" / "last").resolve().name == "step-4"
    result = json.loads((run / "run.json").read_text())["result"]
    assert result["steps"] == 4
    assert result["markov_loss"] == []  # fitting them may take longer than a batch system waits


def test_what_is_not_finite_is_null(genome: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(genome, run, max_steps=2, valid_fraction=0.0))
    for file in (run / "checkpoints" / "last" / "config.json", run / "log.jsonl"):
        assert "null" in file.read_text()
        assert "NaN" not in file.read_text()


def test_tensorboard_gets_every_number(genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    pretrain(settings(genome, run, tensorboard=True))
    written = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [scalar.step for scalar in written.Scalars("loss")] == list(range(1, 7))
    expected = [float(row["valid_loss"]) for row in rows(run) if row["valid_loss"]]
    assert [scalar.value for scalar in written.Scalars("valid_loss")] == pytest.approx(expected)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install tensorboard"):
        pretrain(settings(genome, tmp_path / "other", tensorboard=True))
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("figures")
def test_length_warmup_goes_through_its_stages(genome: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = pretrain(settings(genome, run, length_warmup="8:2,16:2"))
    assert [row["length"] for row in rows(run)] == ["", "8", "8", "16", "16", "32", "32"]
    assert result.progress.tokens == 6 * 4 * 32
    report = (run / "report.html").read_text()
    assert "<h2>Stages</h2>" in report
    assert report.count(">16 </text>") == report.count("<svg") - 1 == 4
    assert "6 x" not in json.loads((run / "run.json").read_text())["plan"]["stages"]


@pytest.mark.parametrize(
    ("loss", "said"),
    [(1.2, "better than the best"), (1.3001, "as good as the best"), (1.31, "no better than the best")],
)
def test_the_verdict_is_of_the_digits_shown(loss: float, said: str) -> None:
    sentence = describe_result(Progress(last=loss, last_step=7), [1.38, 1.3])
    assert f"; {said} Markov model (1.876, order 1)" in sentence


def test_waiting_for_windows_is_measured(
    genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = NextNucleotide.read

    def slowly(self: NextNucleotide, windows: range, length: int) -> Any:
        time.sleep(0.3)
        return read(self, windows, length)

    monkeypatch.setattr(NextNucleotide, "read", slowly)
    pretrain(settings(genome, tmp_path / "slow", max_steps=3))
    assert all(0.5 < float(row["wait_fraction"]) <= 1 for row in rows(tmp_path / "slow")[1:])


def test_soft_masked_bases_count_as_asked(tmp_path: Path) -> None:
    """Lower case is A only, upper case C only: with weight 0 the model never learns of A."""
    path = tmp_path / "genome.fa"
    path.write_text(">one\n" + ("a" * 40 + "C" * 40) * 50 + "\n")
    common = {"valid_fraction": 0.0, "max_steps": 40, "eval_every": 40, "lr": 2e-2, "threads": 1}
    losses_of = {}
    for weight in (0.0, 1.0):
        run = tmp_path / str(weight)
        pretrain(settings(path, run, soft_mask_weight=weight, **common))
        model = load_model(run / "checkpoints" / "last").eval()
        with torch.no_grad():
            log_p = model(torch.tensor([[7, 8, 7]])).logits[0, :, 7:9].log_softmax(-1)
        losses_of[weight] = float(log_p[:, 0].mean())
    assert losses_of[0.0] < -2.5 < losses_of[1.0]


def test_bfloat16_trains(genome: Path, tmp_path: Path) -> None:
    exact = pretrain(settings(genome, tmp_path / "exact"))
    rounded = pretrain(settings(genome, tmp_path / "rounded", dtype="bfloat16"))
    assert rounded.progress.last == pytest.approx(exact.progress.last, rel=0.02)
    assert rounded.progress.last != exact.progress.last
    assert all(t.dtype != torch.bfloat16 for t in weights(tmp_path / "rounded").values())


@pytest.mark.parametrize(
    ("text", "changes", "error", "message"),
    [
        (
            ">a\nACGTACGTA\n",
            {},
            UserError,
            r"longest training stretch has 9 bases, a window 33; use --max-length 8 or less",
        ),
        (">a\nACGTACGT\n", {}, UserError, "has 8 bases, a window 33; add sequence"),
        (">a\n" + "N" * 99 + "\n", {}, UserError, "no A, C, G or T in any record"),
        (
            ">a\n" + "N" * 99 + "\n>b\n" + "ACGT" * 30 + "\n" + "N" * 200 + "\n",
            {"intervals": "b\t120\t300\ttrain\n"},
            UserError,
            "the training stretches are nothing but N",
        ),
        (
            ">b\n" + "ACGT" * 30 + "\n",
            {"intervals": "b\t0\t130\ttrain\n"},
            UserError,
            "1 interval without bases, or past the contig's end",
        ),
        (
            ">b\n" + "ACGT" * 30 + "\n",
            {"intervals": "b\t0\t100\ttrain\nb\t90\t120\tvalid\n"},
            UserError,
            "overlaps the train interval of line 1",
        ),
        (">b\n" + "acgt" * 30 + "\n", {"soft_mask_weight": 0.0}, UserError, "every base is in lower case"),
        (">b\n" + "ACGT" * 30 + "\n", {"genome_weights": "1,2"}, UsageError, "2 weights for 1 files"),
        (">b\n" + "ACGT" * 30 + "\n", {"genome_weights": "x"}, UsageError, "cannot read 'x'"),
        (">b\n" + "ACGT" * 30 + "\n", {"genome_weights": "0"}, UsageError, "weights must be positive"),
        (">b\n" + "ACGT" * 30 + "\n", {"micro_batch_size": "0"}, UsageError, "--micro-batch-size"),
        (">b\n" + "ACGT" * 30 + "\n", {"length_warmup": "64:1"}, UsageError, "lengths must grow"),
    ],
)
def test_genomes_and_splits_that_make_no_sense(
    tmp_path: Path, text: str, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    path, bed = tmp_path / "genome.fa", tmp_path / "splits.bed"
    path.write_text(text)
    if "intervals" in changes:
        bed.write_text(changes["intervals"])
        changes = changes | {"intervals": bed}
    with pytest.raises(error, match=message):
        pretrain(settings(path, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()
