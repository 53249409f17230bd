"""The scripts of docs/cluster.md under Slurm (Debian: slurm-wlm), whose daemons the test starts."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pysam
import pytest

from hyenadna import load_model, save_model
from tests.builders import random_dna, write_fasta
from tests.runs import TINY, rows
from tests.toys import tiny_model

DAEMONS = ("munged", "slurmctld", "slurmd")
ABSENT = [name for name in DAEMONS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(ABSENT), reason=f"{', '.join(ABSENT)}: not installed (Debian: slurm-wlm)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd starts jobs as root only"),
]
PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
ARRAY, TRAINING = re.findall(r"^```text\n(#!/bin/bash\n#SBATCH.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=2
KillWait=60
NodeName={host} CPUs=2 RealMemory=2000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
"""


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


def wait(ready: Callable[[], object], what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def say(*words: object, check: bool = True) -> str:
    done = subprocess.run([str(word) for word in words], check=check, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A controller and a node of two cores."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, patch = Path(name), stack.enter_context(pytest.MonkeyPatch.context())
        folder.chmod(0o755)  # munged wants its socket within reach of everybody
        for part in ("munge", "state", "spool"):
            (folder / part).mkdir(mode=0o755)
        munge, key = folder / "munge", folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        host = socket.gethostname().partition(".")[0]
        text = CONFIGURATION.format(host=host, folder=folder, ports=free_ports(2))
        (folder / "slurm.conf").write_text(text)
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin")
        files = {"key": key, **{part: munge / part for part in ("socket", "pid", "log", "seed")}}
        names = {"key": "--key-file", "pid": "--pid-file", "log": "--log-file", "seed": "--seed-file"}
        munged = [f"{names.get(part, '--socket')}={path}" for part, path in files.items()]
        log = stack.enter_context((folder / "log").open("w"))
        for command in (["munged", "--foreground", *munged], ["slurmctld", "-D"], ["slurmd", "-D"]):
            daemon = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
            if command[0] == "munged":
                wait((munge / "socket").exists, "munged has no socket")
        wait(lambda: " idle " in say("sinfo", check=False), "no node", 60)
        yield
        subprocess.run(["scancel", "--user=root"], check=True)
        wait(lambda: not say("squeue", "--noheader"), "jobs that do not end")


def submit(script: str, *changes: str) -> str:
    """Submit a script of the page, with flags in place of those that want a larger machine."""
    Path("job.sh").write_text(script)
    return say("sbatch", "--parsable", *changes, "job.sh")


def requeue(job: str) -> None:
    """Send a running job back, and have it start at once rather than in two minutes."""
    say("scontrol", "requeue", job)
    wait(
        lambda: "PENDING" in say("squeue", "--noheader", "--format=%T", f"--jobs={job}"), f"{job} still runs"
    )
    say("scontrol", "update", f"jobid={job}", "StartTime=now")


def finish(job: str) -> None:
    wait(lambda: not say("squeue", "--noheader", f"--jobs={job}"), f"{job} does not end")


@pytest.mark.usefixtures("cluster")
def test_an_array_with_a_task_that_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bases = random_dna(60_000)
    write_fasta(Path("genome.fa"), [("chr1", bases)])
    with pysam.BGZFile("calls.vcf.gz", "w", index=None) as vcf:
        vcf.write(b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for position in range(0, len(bases), 3):
            alternate = "ACGT"["ACGT".index(bases[position]) - 1]
            vcf.write(f"chr1\t{position + 1}\t.\t{bases[position]}\t{alternate}\t.\t.\t.\n".encode())
    save_model(tiny_model(context=1024), "run")
    Path("logs").mkdir()
    Path("parts").mkdir()
    job = submit(ARRAY, "--array=1-2", "--cpus-per-task=1", "--mem=900M")
    kept = Path("parts/2.vcf.gz.unfinished")
    wait(lambda: kept.exists() and kept.read_bytes().count(b"\n") >= 3, "no block was scored")
    requeue(f"{job}_2")
    blocks = kept.read_bytes()
    wait(lambda: kept.exists() and len(kept.read_bytes()) > len(blocks), "the task did not go on")
    assert kept.read_bytes().startswith(blocks)
    finish(job)
    log = Path(f"logs/{job}_2.log").read_text()
    assert "keeps what was scored" in log
    assert log.count("matched 1/1 contigs") == 2, log
    hyena = Path(sys.executable).with_name("hyena")
    say(hyena, "merge", "parts/1.vcf.gz", "parts/2.vcf.gz", "-o", "scored.vcf.gz")
    say(
        hyena, "score-variants", "calls.vcf.gz", "-f", "genome.fa", "-m", "run", "-o", "alone.vcf.gz", "-@", 1
    )
    with pysam.BGZFile("scored.vcf.gz") as joined, pysam.BGZFile("alone.vcf.gz") as alone:
        lines, expected = list(joined), list(alone)
    assert [line for line in lines if line[:1] != b"#"] == [line for line in expected if line[:1] != b"#"]
    assert len(lines) > 20_000


@pytest.mark.usefixtures("cluster")
def test_a_training_on_two_tasks_that_comes_back(genome: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(genome.parent)
    changed = {**TINY, "max_steps": 400, "eval_every": 400, "save_every": 400, "valid_fraction": 0.1}
    flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in changed.items())
    assert "--preset small-32k" in TRAINING
    script = TRAINING.replace("--preset small-32k", flags)
    script = script.replace("--nnodes $SLURM_NNODES --nproc-per-node 4", "--nnodes 2 --nproc-per-node 1")
    script = script.replace("29500", str(free_ports(1)[0]))
    small = ["--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1", "--mem=1800M"]
    job = submit(script, *small, "--open-mode=append", "--output=log")
    run = Path("run")
    wait(lambda: (run / "metrics.csv").exists() and len(rows(run)) > 50, "no step was made")
    requeue(job)
    stopped = int((run / "checkpoints" / "last").resolve().name.removeprefix("step-"))
    assert 50 <= stopped < 400
    finish(job)
    log = Path("log").read_text()
    assert [int(row["step"]) for row in rows(run)[1:]] == list(range(1, 401)), log
    assert f"step {stopped}" in log
    load_model(run)
