"""What a run does when memory, numbers or the disk give out."""

import errno
import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hyenacli.distributed import Ranks
from hyenacli.errors import UserError
from hyenacli.pretrain import command
from hyenacli.pretrain.command import pretrain
from hyenacli.pretrain.language_model import NextNucleotide
from hyenacli.training import checkpoints, loop, training_run
from hyenacli.training.checkpoints import Progress
from hyenacli.training.loop import MAX_SKIPPED_IN_A_ROW, LoopSettings
from hyenacli.training.training_run import BatchShape, MemoryPlanner, training_bytes
from hyenadna import HyenaConfig, HyenaDNA, ModelError, load_model
from tests.runs import TINY, losses, rows, settings, small_model, weights

pytestmark = pytest.mark.usefixtures("without_figures")


class Scarce:
    """Stands in for `NextNucleotide.loss` on a device that bears `windows` windows, from call `after` on."""

    def __init__(self, windows: int, after: int = 0):
        self.windows, self.after, self.calls = windows, after, 0
        self.sizes: list[int] = []
        self._loss = NextNucleotide.loss

    def __call__(self, task: NextNucleotide, model: nn.Module, batch: Any) -> Tensor:
        if model.training:
            self.calls += 1
            if self.calls > self.after and len(batch.inputs) > self.windows:
                raise RuntimeError("CUDA out of memory.")
            self.sizes.append(len(batch.inputs))
        return self._loss(task, model, batch)

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def loss(task: NextNucleotide, model: nn.Module, batch: Any) -> Tensor:
            return self(task, model, batch)

        monkeypatch.setattr(NextNucleotide, "loss", loss)


def test_micro_batches_are_halved_until_they_fit(
    genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(settings(genome, tmp_path / "expected", micro_batch_size=1))
    with monkeypatch.context() as patch:
        scarce = Scarce(1)
        scarce.patch(patch)
        pretrain(settings(genome, tmp_path / "run", micro_batch_size=4))
    assert set(scarce.sizes) == {1}
    assert losses(tmp_path / "run") == losses(tmp_path / "expected")


def test_memory_that_gives_out_later_loses_no_step(
    genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that did not fit is made again, whole; what was left of it does not count twice."""
    with monkeypatch.context() as patch:
        scarce = Scarce(2, after=4)
        scarce.patch(patch)
        result = pretrain(settings(genome, tmp_path / "run", micro_batch_size=4))
    assert scarce.sizes == [4] * 4 + [2] * 6
    assert result.progress.tokens == 6 * 4 * 32
    state = json.loads((tmp_path / "run" / "checkpoints" / "last" / "trainer.json").read_text())
    assert state["micro_tokens"] == 2 * 32


def test_a_single_window_that_does_not_fit_is_said(
    genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scarce(0, after=3).patch(monkeypatch)
    with pytest.raises(UserError, match="memory ran out with a single window of 32 tokens; use --activation"):
        pretrain(settings(genome, tmp_path / "run", micro_batch_size=1))


def test_ranks_that_share_windows_do_not_try_again_alone(
    genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait within the pass, for a part that would never come."""
    original = command.loop_settings

    def sharing(*arguments: Any) -> LoopSettings:
        return replace(original(*arguments), context_parallel=2)

    with monkeypatch.context() as patch:
        Scarce(1, after=3).patch(patch)
        patch.setattr(command, "loop_settings", sharing)
        patch.setattr(loop, "current_ranks", lambda: Ranks(0, 2))
        with pytest.raises(
            UserError, match=r"windows of 32 tokens shared by 2 processes; .*larger --context-par"
        ):
            pretrain(settings(genome, tmp_path / "run", micro_batch_size=4))
    task = Fits(lambda windows, again: windows <= 4)
    with pytest.raises(UserError, match="windows of 100 tokens shared by 2 processes"):
        planner(task).plan(BatchShape(100, 16, context_parallel=2), 8, "auto")
    assert len(task.tried) == 1


class Fits:
    """A task whose loss fits as `bears` says: (windows, blocks computed again) to bool."""

    evaluation_columns = ()
    monitor = ""
    higher_is_better = False
    tie_breaker = ""

    def __init__(self, bears: Any):
        self.bears = bears
        self.tried: list[tuple[int, bool]] = []

    def read(self, windows: range, length: int) -> int:
        assert length == 100
        return len(windows)

    def batch(self, host: int) -> int:
        return host

    def loss(self, model: HyenaDNA, batch: int) -> Tensor:
        self.tried.append((batch, model.backbone.activation_checkpointing))
        if not self.bears(*self.tried[-1]):
            raise RuntimeError("CUDA out of memory.")
        return next(model.parameters()).sum()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        raise NotImplementedError


def planner(task: Fits, model: HyenaDNA | None = None) -> MemoryPlanner:
    model = model or HyenaDNA(HyenaConfig(8, 1, 32, 102))
    return MemoryPlanner(model, task, nullcontext, torch.device("cpu"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bears", "checkpointing", "expected"),
    [
        (lambda windows, again: windows <= 16, "auto", (16, False)),
        (lambda windows, again: windows <= 5, "auto", (4, False)),
        (lambda windows, again: again, "auto", (1, True)),
        (lambda windows, again: windows <= 9, "block", (8, True)),
        (lambda windows, again: windows <= 1, "none", (1, False)),
    ],
)
def test_the_plan_is_what_fits(bears: Any, checkpointing: str, expected: tuple[int, bool]) -> None:
    task, model = Fits(bears), HyenaDNA(HyenaConfig(8, 1, 32, 102))
    plan = planner(task, model).plan(BatchShape(100, 16), None, checkpointing)
    assert (plan.windows, plan.checkpointing) == expected
    assert task.tried[-1] == expected
    assert model.backbone.activation_checkpointing == expected[1]


def test_nothing_fits() -> None:
    planning = planner(Fits(lambda windows, again: False))
    with pytest.raises(UserError, match="a single window of 100 tokens does not fit into cpu"):
        planning.plan(BatchShape(100, 16), 8, "auto")


def test_scarce_memory_has_blocks_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_run, "free_memory", lambda device: 1 << 20)
    planning = planner(Fits(lambda windows, again: True))
    assert planning.plan(BatchShape(100, 4), 2, "auto").checkpointing
    assert not planning.plan(BatchShape(100, 4), 2, "none").checkpointing


def test_the_estimate_grows_with_tokens_and_shrinks_with_checkpointing() -> None:
    config = HyenaConfig(256, 8, 1_024, 131_074)
    kept, again = (training_bytes(config, 6_600_000, 131_072, checkpointing=c) for c in (False, True))
    assert 1.8 * 2**30 < again < 2.6 * 2**30 < kept
    assert training_bytes(config, 6_600_000, 65_536, checkpointing=True) < again


def overflowing(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Have the losses of these training calls (from 1, the trial before them left out) overflow."""
    original, calls = NextNucleotide.loss, [-1]

    def loss(task: NextNucleotide, model: nn.Module, batch: Any) -> Tensor:
        value = original(task, model, batch)
        if model.training:
            calls[0] += 1
            if calls[0] in steps:
                return value * float("inf")
        return value

    monkeypatch.setattr(NextNucleotide, "loss", loss)


def test_a_step_that_overflows_is_left_out_and_counted(
    genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    overflowing(monkeypatch, {2, 3})
    result = pretrain(settings(genome, run, micro_batch_size=4))
    assert result.progress.skipped == 2
    assert [row["skipped"] for row in rows(run)] == ["0", "0", "1", "2", "2", "2", "2"]
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())
    assert json.loads((run / "run.json").read_text())["result"]["skipped_steps"] == 2


def test_several_in_a_row_end_the_run_and_spare_the_checkpoint(
    genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    overflowing(monkeypatch, set(range(4, 99)))
    with pytest.raises(UserError, match=r"at step 8, the 5th step in a row .* lower --lr"):
        pretrain(settings(genome, run, micro_batch_size=4, max_steps=20, save_every=1, eval_every=20))
    assert (run / "checkpoints" / "last").resolve().name == "step-3"
    assert len(rows(run)) == 3 + MAX_SKIPPED_IN_A_ROW


def test_a_full_disk_leaves_the_checkpoint_before(
    genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, saved = tmp_path / "run", checkpoints.write_tensors

    def full(tensors: Any, path: Path) -> None:
        if "step-4" in str(path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        saved(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_tensors", full)
        message = (
            r"step-4: cannot be written: no space left on device; free some space or choose another disk$"
        )
        with pytest.raises(UserError, match=message):
            pretrain(settings(genome, run))
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert "step-2" in names
    assert not any(name.startswith(".draft") or name == "step-4" for name in names)
    pretrain(settings(genome, tmp_path / "whole"))
    pretrain(settings(genome, run, resume=True))
    assert losses(run) == losses(tmp_path / "whole")
    assert TINY["max_steps"] == len(losses(run)) - 1


def test_a_limit_of_file_size_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise ModelError("cannot be written", remedy="free some space") from OSError(errno.EFBIG, "large")

    monkeypatch.setattr(checkpoints, "save_model", refused)
    model = small_model()
    with pytest.raises(UserError, match=r"step-0: cannot be written: file too large; .* a limit that allows"):
        checkpoints.Checkpoints(tmp_path, 1, {}).save(
            model, torch.optim.AdamW(model.parameters()), Progress()
        )


def test_the_state_of_what_had_no_gradient_is_not_missed(tmp_path: Path) -> None:
    model, folder = small_model(), checkpoints.Checkpoints(tmp_path, 1, {})
    optimizer = torch.optim.AdamW(model.parameters())
    model.hidden(torch.full((1, 4), 7)).sum().backward()
    optimizer.step()
    folder.save(model, optimizer, Progress(step=1))
    assert folder.restore(model, torch.optim.AdamW(model.parameters())).step == 1
    path = tmp_path / "checkpoints" / "last" / "trainer.safetensors"
    tensors = load_file(path)
    del tensors["step/backbone.ln_f.weight"]
    save_file(tensors, path)
    with pytest.raises(UserError, match="damaged"):
        folder.restore(model, torch.optim.AdamW(model.parameters()))


def test_going_on_from_an_older_checkpoint_replaces_the_newer(genome: Path, tmp_path: Path) -> None:
    """Its advice where `last` is damaged; else the damaged one would be `last` again."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    for path in (whole, run):
        pretrain(settings(genome, path, save_every=1, keep=9))
    folder = run / "checkpoints"
    for step in (3, 6):
        (folder / f"step-{step}" / "model.safetensors").write_bytes(b"")
    (folder / "last").unlink()
    (folder / "last").symlink_to("step-2")
    pretrain(settings(genome, run, save_every=1, keep=9, resume=True))
    assert losses(run) == losses(whole)
    for name in ("step-3", "last", "best"):
        one, two = (load_model(path / "checkpoints" / name).state_dict() for path in (whole, run))
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items()), name


def test_the_best_is_one_of_the_course_that_is_gone_on_with(tmp_path: Path) -> None:
    model, folder = small_model(), checkpoints.Checkpoints(tmp_path, 1, {})
    optimizer = torch.optim.AdamW(model.parameters())
    for progress in (
        Progress(step=1, best=1.3, best_step=1),
        Progress(step=2, best=1.3, best_step=1),
        Progress(step=3, best=1.2, best_step=3),
    ):
        folder.save(model, optimizer, progress)
        if progress.step == 2:  # the user keeps it
            (tmp_path / "checkpoints" / "step-2").rename(tmp_path / "kept")
    (tmp_path / "kept").rename(tmp_path / "checkpoints" / "step-2")
    (tmp_path / "checkpoints" / "last").unlink()
    (tmp_path / "checkpoints" / "last").symlink_to("step-2")
    resumed = checkpoints.Checkpoints(tmp_path, 1, {})
    progress = resumed.restore(model, optimizer)
    assert (progress.step, progress.best_step, progress.best) == (2, -1, math.inf)
    resumed.save(model, optimizer, progress)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"last", "step-2"}


def test_a_last_that_leads_nowhere_does_not_start_anew(genome: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(settings(genome, run))
    shutil.rmtree(run / "checkpoints" / "step-6")
    with pytest.raises(UserError, match="is a broken link; point it at a step-N"):
        pretrain(settings(genome, run, resume=True))
    assert (run / "checkpoints" / "step-4").exists()


def test_a_held_out_loss_that_is_lost_ends_the_run(genome: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match="valid_loss is not finite after step 2; lower --lr"):
        pretrain(settings(genome, run, lr=1e30, max_steps=50, eval_every=2, save_every=50, lr_warmup_steps=0))
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-0"]


@pytest.mark.parametrize(
    ("judged", "better"),
    [
        ((0.6, 9.0), True),
        ((0.5, 0.2), True),
        ((0.5, 0.3), False),
        ((0.4, 0.0), False),
        ((math.nan, 0.0), False),
    ],
)
def test_equally_good_models_are_told_apart_by_the_tie_breaker(
    judged: tuple[float, float], better: bool
) -> None:
    """While every record gets one class, a correlation is 0, and says nothing of what was learnt."""
    best = Progress(best=0.5, best_step=3, best_tie=0.3)
    assert best.is_best(*judged, higher_is_better=True) is better
    assert Progress().is_best(*judged, higher_is_better=True) is math.isfinite(judged[0])
