"""Run directories: one writer at a time, resumed, replaced, and nothing of other people touched."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hyenacli.errors import UsageError, UserError
from hyenacli.pretrain.command import pretrain
from hyenacli.pretrain.settings import PretrainSettings
from hyenacli.readers.genome import open_genomes
from hyenacli.training.checkpoints import Checkpoints
from hyenacli.training.run_directory import check_resumable, reserve_run
from hyenadna import HyenaDNA, load_model
from hyenadna.errors import ModelError
from tests.builders import random_dna, write_fasta
from tests.runs import losses, settings

pytestmark = pytest.mark.usefixtures("without_figures")

STATE = ("run.json", "config.yaml", "metrics.csv", "last/trainer.json", "last/trainer.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> PretrainSettings:
    """A finished run that tests copy."""
    folder = tmp_path_factory.mktemp("finished")
    genome = write_fasta(folder / "genome.fa", [("one", random_dna(3_000))])
    values = settings(genome, folder / "run", max_steps=4)
    pretrain(values)
    return values


@pytest.fixture
def copied(finished: PretrainSettings, tmp_path: Path) -> PretrainSettings:
    """A copy of the run, to be resumed."""
    shutil.copytree(finished.output, tmp_path / "run", symlinks=True)
    return replace(finished, output=tmp_path / "run", resume=True)


def enter(values: PretrainSettings, **changes: Any) -> None:
    with reserve_run(replace(values, **changes)):
        pass


def test_a_run_is_kept_unless_the_user_says_otherwise(copied: PretrainSettings) -> None:
    before = sorted(path.name for path in copied.output.iterdir())
    with pytest.raises(UserError, match=r"holds config.yaml, .* of an earlier run; add --resume or --force"):
        enter(copied, resume=False)
    enter(copied)
    assert sorted(path.name for path in copied.output.iterdir()) == before


def test_the_first_try_may_say_resume(copied: PretrainSettings, finished: PretrainSettings) -> None:
    """A killed start leaves nothing, or run.json alone."""
    first = replace(copied, output=copied.output.with_name("new"))
    first.output.mkdir()
    shutil.copy(finished.output / "run.json", first.output)
    pretrain(first)
    assert losses(first.output) == losses(finished.output)
    pretrain(first)
    assert losses(first.output) == losses(finished.output)


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"force": True}])
def test_other_files_neither_hinder_nor_vanish(copied: PretrainSettings, how: dict[str, bool]) -> None:
    run = copied.output.with_name("new")
    (run / "notes").mkdir(parents=True)
    for name in ("train.log", "slurm-17.out", "log.jsonl", "notes/thesis.tex"):
        (run / name).write_text("mine\n")
    values = replace(copied, output=run, resume=False)
    pretrain(replace(values, **how))
    pretrain(replace(values, force=True))
    for name in ("train.log", "slurm-17.out", "notes/thesis.tex"):
        assert (run / name).read_text() == "mine\n"
    assert len(losses(run)) == 5


def test_force_removes_all_that_a_run_wrote(copied: PretrainSettings) -> None:
    with pytest.raises(UserError, match="train on"):
        pretrain(replace(copied, resume=False, force=True, valid_contigs="one"))
    assert (copied.output / "run.json").exists()  # not before the inputs are known to be right
    names = {path.name for path in copied.output.iterdir()}
    pretrain(replace(copied, resume=False, force=True, max_steps=1))
    assert {path.name for path in copied.output.iterdir()} == names
    assert len(losses(copied.output)) == 2
    assert not (copied.output / "checkpoints" / "step-4").exists()


@pytest.mark.parametrize("how", [{"resume": True}, {"force": True}, {}])
def test_files_of_these_names_that_no_run_wrote_are_spared(tmp_path: Path, how: dict[str, bool]) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "epoch=1.ckpt").write_text("of another tool")
    with pytest.raises(UserError, match=r"holds checkpoints, but no run of this tool.*remove it yourself"):
        enter(settings(tmp_path / "g.fa", tmp_path, **how))
    assert (tmp_path / "checkpoints" / "epoch=1.ckpt").exists()


def test_a_run_without_its_settings_is_not_resumed_over(copied: PretrainSettings) -> None:
    (copied.output / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"but no config.yaml to resume with; restore it, or start anew with"):
        enter(copied)


def test_impossible_run_directories(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    values = settings(tmp_path / "g.fa", tmp_path / "file")
    with pytest.raises(UserError, match="is a file"):
        enter(values)
    with pytest.raises(UserError, match="cannot be written: not a directory"):
        enter(values, output=tmp_path / "file" / "run")
    with pytest.raises(UsageError, match="give one of them"):
        enter(values, resume=True, force=True)


@pytest.fixture
def holder(copied: PretrainSettings) -> Iterator["subprocess.Popen[str]"]:
    """A process that writes into the run directory, with a child that outlives it."""
    code = (
        "import os, pathlib, sys, time; from hyenacli.state_files import sole_writer\n"
        f"with sole_writer(pathlib.Path({str(copied.output / '.lock')!r}), pathlib.Path('run')):\n"
        # the child lets go of the lock before it says so
        "    if os.fork() == 0: print('locked', flush=True); sys.stdin.read(); os._exit(0)\n"
        "    time.sleep(600)"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


@pytest.mark.parametrize("how", [{"resume": True}, {"force": True}, {}])
def test_a_second_process_is_refused_until_the_first_is_gone(
    copied: PretrainSettings, how: dict[str, bool], holder: "subprocess.Popen[str]"
) -> None:
    values, host = replace(copied, resume=False), os.uname().nodename
    with pytest.raises(UserError, match=rf"run: process {holder.pid} on {host} is writing it"):
        pretrain(replace(values, **how))
    assert len(losses(copied.output)) == 5
    holder.kill()
    holder.wait()
    pretrain(copied)
    assert not (copied.output / ".lock").exists()


def test_what_killed_processes_of_earlier_versions_left_is_removed(copied: PretrainSettings) -> None:
    with subprocess.Popen(["true"]) as dead:
        pass
    (copied.output.parent / f".run.{dead.pid}.removed" / "checkpoints").mkdir(parents=True)
    (copied.output / f".run.json.{dead.pid}.tmp").touch()
    pretrain(replace(copied, resume=False, force=True))
    assert not list(copied.output.parent.rglob(".*"))


def damaged(content: bytes, flips: int, cuts: int) -> Iterator[bytes]:
    """Contents with one bit changed, or cut short."""
    draw = random.Random(0)
    for _ in range(flips):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        yield bytes(changed)
    for _ in range(cuts):
        yield content[: draw.randrange(len(content))]


@pytest.fixture(scope="module")
def restore(finished: PretrainSettings) -> Callable[[PretrainSettings], Any]:
    """Read all that --resume reads, without the training: equal results for equal states."""
    inputs = [genome.fingerprint() for genome in open_genomes(finished.fasta)]
    model = load_model(finished.output)

    def read(values: PretrainSettings) -> Any:
        check_resumable(values.output, values, inputs)
        optimizer = torch.optim.AdamW(model.parameters())
        progress = Checkpoints(values.output, 1, {}).restore(model, optimizer)
        states = [tensor for state in optimizer.state_dict()["state"].values() for tensor in state.values()]
        return progress, states

    return read


@pytest.mark.parametrize("name", STATE)
@pytest.mark.parametrize(("flips", "cuts"), [(25, 10), pytest.param(200, 50, marks=pytest.mark.slow)])
def test_damage_is_noticed_and_changes_nothing_silently(
    copied: PretrainSettings, restore: Callable[[PretrainSettings], Any], name: str, flips: int, cuts: int
) -> None:
    path = copied.output / name.replace("last", "checkpoints/last")
    content = path.read_bytes()
    expected, messages = restore(copied), list[str]()
    for changed in damaged(content, flips, cuts):
        path.write_bytes(changed)
        try:
            progress, states = restore(copied)
        except (UserError, ModelError) as error:
            messages.append(str(error))
        else:
            assert progress == expected[0]
            assert all(map(torch.equal, states, expected[1]))
    assert len(messages) > 0.7 * (flips + cuts)
    for message in messages:
        assert message.startswith(str(copied.output))
        assert "; " in message  # a remedy
        assert "\n" not in message


def test_metrics_that_are_damaged_or_lost_cost_only_the_curve(
    copied: PretrainSettings, caplog: pytest.LogCaptureFixture
) -> None:
    (copied.output / "metrics.csv").unlink()
    pretrain(copied)
    assert losses(copied.output) == []
    assert "metrics.csv is missing: it begins anew after step 4" in caplog.text


def test_damaged_records_are_said_in_a_line(copied: PretrainSettings) -> None:
    path = copied.output / "run.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(UserError, match=r"run.json: is damaged: .*; start anew with --force"):
        pretrain(copied)


def test_a_cut_config_is_said_in_a_short_line(copied: PretrainSettings) -> None:
    path = copied.output / "config.yaml"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"config.yaml: is damaged, or was edited: .*; restore it from a"):
        pretrain(copied)


def test_models_are_read_from_a_run_that_is_being_written(copied: PretrainSettings) -> None:
    with reserve_run(copied):
        assert isinstance(load_model(copied.output), HyenaDNA)
