"""kill -9 or a closed terminal at any moment: the checkpoint is whole, and the run goes on as if unbroken."""

import os
import random
import shutil
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from hyenacli.pretrain import command
from hyenadna import load_model
from tests.runs import losses, rows, settings, weights
from tests.warm import forked

# Dropout, clipping and stages of length are all in it; a checkpoint at every step, so that kills hit them.
RUN: dict[str, Any] = {
    "max_steps": 60,
    "eval_every": 10,
    "save_every": 1,
    "length_warmup": "8:15,16:15",
    "threads": 1,
    "resume": True,
}


def train(genome: Path, run: Path) -> None:
    command.line_chart = lambda *_, **__: ""  # type: ignore[assignment]  (drawing takes longer than training)
    sys.exit(command.run(settings(genome, run, **RUN)))


def started(genome: Path, run: Path) -> BaseProcess:
    return forked(train, genome, run)


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
        process.join(draw.uniform(0.05, 0.6))
        if process.exitcode is None:
            number = (signal.SIGKILL, signal.SIGHUP)[made % 2]
            os.kill(process.pid, number)
            process.join()
            # a signal can also come before the training begins, or after its end
            assert process.exitcode in {signal.SIGKILL: (-9,), signal.SIGHUP: (-1, 0, 129)}[number]
            made += 1
            if (run / "checkpoints" / "last").exists():
                load_model(run / "checkpoints" / "last")
            if process.exitcode == 128 + signal.SIGHUP:
                last = (run / "checkpoints" / "last").resolve().name
                assert last == f"step-{rows(run)[-1]['step']}"
                assert not list(tmp_path.rglob("*.tmp"))
        else:  # too fast for so many kills: once more from the start
            assert process.exitcode == 0
            shutil.rmtree(run)
    process = started(genome, run)
    process.join()
    assert process.exitcode == 0
    assert losses(run) == losses(whole)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(run)[name]), name
    assert not list(run.glob(".*"))
