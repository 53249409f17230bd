"""Checkpoints of a run: native model directories with the trainer's state beside the weights.

`checkpoints/step-N/` is written under another name and renamed; `last` and `best` are links to one of them,
replaced in one operation. A crash at any moment leaves the previous `last` intact.
"""

import hashlib
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from hyenacli import console
from hyenacli.distributed import barrier, current_ranks
from hyenacli.errors import UserError
from hyenacli.state_files import file_sha256, read_sealed, seal, sync
from hyenacli.writers.atomic import unwritable_error
from hyenadna import HyenaDNA, ModelError, load_model, save_model
from hyenadna.formats.files import write_tensors

_TENSORS, _STATE = "trainer.safetensors", "trainer.json"
# AdamW's state of a parameter.
_KEYS = ("exp_avg", "exp_avg_sq", "step")
_REMEDY = "point `last` at an older step-N, or start anew with --force"


@dataclass
class Progress:
    """Progress of a run, saved with every checkpoint.

    Attributes:
        step: optimizer steps made.
        tokens: tokens read in them, over all ranks.
        seconds: duration of them.
        last: monitored value of the last evaluation, which followed `last_step`.
        best: best monitored value so far, after `best_step`; -1 if there is none.
        best_tie: tie breaker of the best; `least_tie` the smallest tie breaker so far.
        improved_step: last step after which the monitored value or the tie breaker was the best so far.
        micro_tokens: most tokens in one forward pass; 0 until it is decided. Dropout depends on it.
        skipped: steps skipped because their numbers were not finite, `skipped_in_a_row` the latest of them.
        metrics_bytes: size of metrics.csv up to this step, and `metrics_sha256` its hash.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    last: float = math.nan
    last_step: int = 0
    best: float = math.inf
    best_step: int = -1
    best_tie: float = math.inf
    least_tie: float = math.inf
    improved_step: int = 0
    micro_tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    metrics_bytes: int = 0
    metrics_sha256: str = ""

    def is_best(self, value: float, tie: float, *, higher_is_better: bool) -> bool:
        """Return True if an evaluation beats the best so far; for equal values a smaller tie breaker does."""
        if not math.isfinite(value):
            return False
        sign = -1 if higher_is_better else 1
        return self.best_step < 0 or (sign * value, tie) < (sign * self.best, self.best_tie)


class Checkpoints:
    """Checkpoints of one run directory.

    Args:
        run: the run directory.
        keep: number of the newest checkpoints to keep, besides the best.
        provenance: origin of the model, for every checkpoint's config.json and model card.
        monitor: name of the monitored value in them.
    """

    def __init__(self, run: Path, keep: int, provenance: Mapping[str, Any], monitor: str = "held_out_loss"):
        self.folder, self._metrics = run / "checkpoints", run / "metrics.csv"
        self._keep = keep
        self._provenance, self._monitor = provenance, monitor
        self._saved = -1  # the step whose directory holds the state after it

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Write the state after `progress.step` on the first rank; point `last` at it, `best` at the best."""
        if current_ranks().first:
            final, best = (self.folder / f"step-{step}" for step in (progress.step, progress.best_step))
            if progress.step != self._saved:
                if self._metrics.exists():
                    progress.metrics_bytes = self._metrics.stat().st_size
                    progress.metrics_sha256 = file_sha256(self._metrics)
                self._write(final, model, optimizer, progress)
                self._saved = progress.step
            self._link("last", final)
            # even if `best` is the calibrated model of a finished run: it would be calibrated again
            if best.exists():
                self._link("best", best)
            else:
                (self.folder / "best").unlink(missing_ok=True)
            self._prune(progress.step, keep=(final, best))
            console.event("checkpoint", step=progress.step, path=str(final))
        barrier()

    def replace_best(self, name: str, model: HyenaDNA) -> None:
        """Write a model that was changed after training, and point `best` at it."""
        final = self.folder / name
        save_model(model, final, provenance=self._provenance)
        self._link("best", final)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Load model and optimizer from `last` and return its progress; without a checkpoint, that of step 0.

        Raises:
            UserError: the trainer's files or metrics.csv are damaged, or `last` is a broken link.
            ModelError: the weights are damaged.
        """
        last = self.folder / "last"
        if last.is_symlink() and not last.exists():
            raise UserError("is a broken link", at=last, remedy="point it at a step-N, or start anew")
        if not last.exists():
            console.log.info("no checkpoint yet in %s: starting from the first step", self.folder)
            return Progress()
        record = read_sealed(last / _STATE, _REMEDY)
        expected = record.pop("tensors_sha256")
        if not (last / _TENSORS).is_file() or file_sha256(last / _TENSORS) != expected:
            what = "is missing, or damaged: its contents do not fit their hash"
            raise UserError(what, at=last / _TENSORS, remedy=_REMEDY)
        progress = Progress(**record)
        if current_ranks().first:
            self._check_metrics(progress)
        model.load_state_dict(load_model(last).state_dict())
        tensors = load_file(last / _TENSORS)
        for name, parameter in _named(model, optimizer).items():
            # an optimizer has no state of a parameter without a gradient so far
            if f"step/{name}" in tensors:
                for key in _KEYS:
                    value = tensors[f"{key}/{name}"]
                    optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
        self._saved = progress.step
        if not (self.folder / f"step-{progress.best_step}").exists():
            # removed for a better checkpoint of the steps that are now made again
            progress.best, progress.best_step, progress.best_tie = math.inf, -1, math.inf
        console.log.info("resuming after step %d", progress.step)
        return progress

    def _check_metrics(self, progress: Progress) -> None:
        """Check that metrics.csv, up to the checkpoint's step, is as it was."""
        path = self._metrics
        if not path.exists():
            console.log.warning("%s is missing: it begins anew after step %d", path, progress.step)
            progress.metrics_bytes = 0
        elif (
            hashlib.sha256(path.read_bytes()[: progress.metrics_bytes]).hexdigest() != progress.metrics_sha256
        ):
            what = f"is damaged: its rows up to step {progress.step} do not fit their hash"
            raise UserError(what, at=path, remedy="remove it, and the run goes on without these rows")

    def _write(
        self, final: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> None:
        assert isinstance(model, HyenaDNA)  # noqa: S101  (internal invariant)
        # Drafted under its final name in another folder, because the model card's title is that name.
        draft = self.folder / ".draft" / final.name
        shutil.rmtree(draft.parent, ignore_errors=True)
        try:
            self._fill(draft, model, optimizer, progress)
        except (ModelError, OSError) as error:
            shutil.rmtree(draft.parent, ignore_errors=True)  # a full disk needs the space
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError):
                raise
            raise unwritable_error(cause, final) from error
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        draft.parent.rmdir()

    def _fill(
        self, draft: Path, model: HyenaDNA, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> None:
        facts = {"steps": progress.step, "tokens": progress.tokens, self._monitor: progress.last}
        save_model(model, draft, provenance={**self._provenance, **console.finite(facts)})
        tensors = {
            f"{key}/{name}": value.contiguous()
            for name, parameter in _named(model, optimizer).items()
            for key, value in optimizer.state[parameter].items()
        }
        write_tensors(tensors, draft / _TENSORS)
        record = asdict(progress) | {"tensors_sha256": file_sha256(draft / _TENSORS)}
        (draft / _STATE).write_text(seal(record) + "\n")
        for path in (*draft.iterdir(), draft):  # on the disk before a rename makes them the checkpoint
            sync(path)

    def _link(self, name: str, target: Path) -> None:
        draft = self.folder / f".{name}.tmp"
        draft.unlink(missing_ok=True)
        draft.symlink_to(target.name, target_is_directory=True)
        draft.replace(self.folder / name)

    def _prune(self, step: int, keep: Sequence[Path]) -> None:
        """Remove old checkpoints, and newer ones of a run that was resumed from an earlier step."""
        numbers = sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))
        kept = [number for number in numbers if number <= step][-self._keep :]
        for number in numbers:
            path = self.folder / f"step-{number}"
            if number not in kept and path not in keep:
                shutil.rmtree(path)


def _named(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """Return the optimizer's parameters by the model's names."""
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name: p for name, p in model.named_parameters() if id(p) in trained}
