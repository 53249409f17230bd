"""The processes of a torchrun job, forked from one server that has imported torch and the verbs already.

A job of real processes through torchrun's own launcher costs three imports of torch;
`tests/training/test_launch.py` pays for that. What a verb computes on several ranks is tested with these.
"""

import contextlib
import multiprocessing
import os
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

# What the verbs import when they run: the server has it once, its children have it at no cost.
import hyenacli.evaluation.metrics
import hyenacli.training.loop
import hyenacli.writers.tables  # noqa: F401
from hyenacli.app import app


@dataclass(frozen=True)
class Job:
    """How a job ended: the exit code of every rank, and what all of them wrote to stderr and stdout."""

    exit_codes: list[int]
    stderr: str
    stdout: str


def run_job(line: str, *more: object, ranks: int = 2, folder: Path | None = None) -> Job:
    """Run `hyena LINE MORE...` in several processes as torchrun does; LINE is split at spaces."""
    arguments = [*line.split(), *map(str, more)]
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.ranks"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        outputs = Path(name)
        directory = str(folder or Path.cwd())
        processes = []
        for rank in range(ranks):
            variables = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": ranks,
                "LOCAL_WORLD_SIZE": ranks,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            environment = {key: str(value) for key, value in variables.items()} if ranks > 1 else {}
            # The server has the environment of the test that started it.
            environment["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME"]
            process = server.Process(
                target=_run, args=(arguments, environment, directory, str(outputs / str(rank)))
            )
            process.start()
            processes.append(process)
        for process in processes:
            process.join()
        texts = {
            kind: "".join((outputs / f"{rank}.{kind}").read_text() for rank in range(ranks))
            for kind in ("err", "out")
        }
    return Job([process.exitcode or 0 for process in processes], texts["err"], texts["out"])


def _run(arguments: list[str], environment: dict[str, str], directory: str, output: str) -> None:
    os.environ |= environment
    os.chdir(directory)
    with (
        Path(f"{output}.err").open("w") as stderr,
        Path(f"{output}.out").open("w") as stdout,
        contextlib.redirect_stderr(stderr),
        contextlib.redirect_stdout(stdout),
    ):
        try:
            app(arguments, prog_name="hyena")
        except SystemExit as end:
            code = end.code
    sys.exit(code)
