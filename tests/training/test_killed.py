"""kill -9 at any moment: the checkpoint is whole, and the run goes on as if nothing had been."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hyenacli.pretrain.command import pretrain
from hyenadna import load_model
from tests.runs import losses, settings, weights

# Dropout, clipping and stages of length are all in it; a checkpoint at every step, so that kills hit them.
RUN: dict[str, Any] = {
    "max_steps": 120,
    "eval_every": 10,
    "save_every": 1,
    "length_warmup": "8:20,16:20",
    "threads": 1,
}


def train(genome: Path, run: Path, **changes: Any) -> None:
    pretrain(settings(genome, run, **RUN, **changes))


def started(genome: Path, run: Path) -> Any:
    """The run in a process that need not import torch first."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.training.test_killed"])
    begun = (run / "config.yaml").exists()
    process = server.Process(target=train, args=(genome, run), kwargs={"resume": begun, "force": not begun})
    process.start()
    return process


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_killed_at_random_moments(genome: Path, tmp_path: Path, kills: int) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    started(genome, whole).join()
    made, draw = 0, random.Random(3)
    while made < kills:
        process = started(genome, run)
        before = time.monotonic()
        while not (run / "metrics.csv").exists() and time.monotonic() < before + 60:
            time.sleep(0.01)
        process.join(draw.uniform(0.2, 1.5))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            made += 1
            if (run / "checkpoints" / "last").exists():
                load_model(run / "checkpoints" / "last")
        else:  # too fast for so many kills: once more from the start
            assert process.exitcode == 0
            shutil.rmtree(run)
    process = started(genome, run)
    process.join()
    assert process.exitcode == 0
    assert losses(run) == losses(whole)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(run)[name]), name
