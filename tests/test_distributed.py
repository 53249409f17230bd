"""Several processes from one command: the same steps, and an end that is told."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hyenacli.distributed import stop_on_signals
from hyenadna import HyenaConfig, HyenaDNA, load_model, save_model
from tests import warm
from tests.runs import command, rows

LONG = ("--max-steps=100000", "--eval-every=100000", "--save-every=20")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
# A launcher whose processes need not import torch.
QUICK = "import sys; sys.executable = sys.argv.pop(1); from hyenacli.__main__ import main; main()"


def launched(*arguments: object, folder: Path | None = None) -> "subprocess.Popen[str]":
    line = [sys.executable, *map(str, arguments), "--nproc-per-node=2"]
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=folder)


def wait_for_steps(run: Path, steps: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (run / "metrics.csv").exists() and len((run / "metrics.csv").read_text().splitlines()) > steps:
            return
        time.sleep(0.05)
    raise TimeoutError(run)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if not listed.exists():
        pytest.skip("children are listed only in Linux' /proc")
    return [int(text) for text in listed.read_text().split()]


@pytest.mark.timeout(300)  # real processes, which import torch
def test_what_two_processes_leave_one_goes_on_from(genome: Path, tmp_path: Path) -> None:
    """SIGTERM to the command reaches both; all steps together are those of an uninterrupted run."""
    one, two = tmp_path / "one", tmp_path / "two"
    steps = ("--max-steps=200", "--eval-every=200", "--save-every=200")
    # a models.py in the working directory is not taken for ours
    (tmp_path / "models.py").write_text("raise SystemExit('the wrong module')\n")
    with launched("-m", "hyenacli", *command(genome, two, *steps), folder=tmp_path) as process:
        wait_for_steps(two, 25)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert "Traceback" not in stderr
    made = len(rows(two)) - 1
    assert 24 <= made < 200  # the first of 25 lines names the columns
    assert (two / "checkpoints" / "last").resolve().name == f"step-{made}"
    for run, extra in ((two, ["--resume"]), (one, [])):
        assert warm.run_job("", *command(genome, run, *steps), *extra, ranks=1).exit_codes == [0]
    for row, other in zip(rows(one)[1:], rows(two)[1:], strict=True):
        assert float(other["loss"]) == pytest.approx(float(row["loss"]), rel=1e-3)


def test_a_process_that_dies_ends_the_job_with_a_message(genome: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with launched("-c", QUICK, warm.command().with_name("python"), *command(genome, run, *LONG)) as process:
        wait_for_steps(run, 25)
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in stderr
    assert "process 1 was killed by SIGKILL" in stderr
    load_model(run)


def test_bad_input_is_said_once(genome: Path, tmp_path: Path) -> None:
    line = command(genome, tmp_path / "run", "--valid-contigs=chr1", "--nproc-per-node=2")
    job = warm.run_job("", *line, ranks=1)
    assert job.exit_codes == [1]
    (error,) = [line for line in job.stderr.splitlines() if not line.startswith("reading ")]
    # either process can be the first to fail, and only that one prints
    message = "no contig 'chr1' to hold out; known: one, two, three"
    assert error in (f"hyena: error: {message}", f"hyena: error: process 1: {message}")


def test_processes_that_share_windows_take_the_same_steps(genome: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    # embedding dropout is drawn by each process for its part: only without it are the steps the same
    frozen = tmp_path / "frozen"
    save_model(HyenaDNA(HyenaConfig(8, 1, 32, 34, embed_dropout=0.0)), frozen)
    shape = ("--d-model=8", "--n-layer=1")
    common = [argument for argument in command(genome, two)[4:] if argument not in shape]
    start = [str(genome), *common, f"--init-from={frozen}"]
    job = warm.run_job("pretrain", *start, "-o", two, "--context-parallel=2")
    assert job.exit_codes == [0, 0], job.stderr
    assert "each window over 2" in job.stderr
    assert warm.run_job("pretrain", *start, "-o", one, ranks=1).exit_codes == [0]
    for row, other in zip(rows(one), rows(two), strict=True):
        for column in ("loss", "grad_norm", "valid_loss"):
            if row[column]:
                assert float(other[column]) == pytest.approx(float(row[column]), rel=1e-4)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_signals_are_collected(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.exit_code == code
    assert signal.getsignal(number) is before


def test_what_nohup_has_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_interrupt_does_not_wait() -> None:
    with stop_on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
