"""Two agents of torchrun, each on an address of its own as on two nodes: one is lost, and one goes on."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hyenadna import load_model
from tests.runs import command, rows, weights
from tests.warm import run_job

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="other systems have 127.0.0.1 only"),
]
STEPS = ("--max-steps=150", "--eval-every=150", "--save-every=10")


def start_node(number: int, port: int, log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start the agent of a node as docs/cluster.md does; the first has the rendezvous."""
    address, hyena = f"127.0.0.{2 + number}", Path(sys.executable).with_name("hyena")
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    agent += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.2:{port}", "--local-addr", address]
    agent += ["--rdzv-conf", f"is_host={number == 0}", "--no-python", str(hyena), *arguments]
    with log.open("w") as stream:
        return subprocess.Popen(agent, stderr=stream, start_new_session=True)


def wait_for_steps(run: Path, steps: int, node: "subprocess.Popen[bytes]") -> None:
    while not (run / "metrics.csv").exists() or len(rows(run)) <= steps:
        assert node.poll() is None
        time.sleep(0.02)


def workers(agent: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]


def test_a_lost_node(genome: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    logs = [tmp_path / "node0", tmp_path / "node1"]
    nodes = [start_node(number, port, logs[number], *command(genome, two, *STEPS)) for number in (0, 1)]
    wait_for_steps(two, 45, nodes[0])
    for process in (*workers(nodes[1].pid), nodes[1].pid):
        os.kill(process, signal.SIGKILL)
    assert nodes[0].wait(timeout=120) == 1
    nodes[1].wait()
    said = logs[0].read_text()
    assert "the connection to another process of this job was lost" in said
    saved = int((two / "checkpoints" / "last").resolve().name.removeprefix("step-"))
    assert 40 <= saved < 150, said
    load_model(two)
    assert run_job("", *command(genome, one, *STEPS), ranks=1).exit_codes == [0]
    assert run_job("", *command(genome, two, *STEPS), "--resume", ranks=1).exit_codes == [0]
    assert [row["step"] for row in rows(two)] == [row["step"] for row in rows(one)]
    for row, other in zip(rows(one)[1:], rows(two)[1:], strict=True):
        assert float(other["loss"]) == pytest.approx(float(row["loss"]), rel=1e-3)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(two)[name], tensor, rtol=1e-2, atol=1e-3)
