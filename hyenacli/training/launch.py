"""Several processes on this machine from one command: torch's own elastic launcher, its end told plainly."""

import logging
import signal
import sys
import uuid
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from hyenacli.errors import UserError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

# A step may be long: what is asked to stop gets the time to finish it and to save.
_SECONDS_TO_SAVE = 3600


def launch(processes: int) -> int:
    """Run this very command line in `processes` processes and wait for them.

    A process that dies takes the others with it. SIGTERM and Ctrl-C are passed on to all.

    Returns:
        The exit code: of the first process to fail, or 128 + signal.

    Raises:
        UserError: a process was killed, or another than the first had an error that it alone can know.
    """
    logging.disable(logging.CRITICAL)  # the launcher's account of it; the processes log as ever
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    known = {field.name for field in fields(LaunchConfig)}
    patience: dict[str, Any] = {"shutdown_timeout": _SECONDS_TO_SAVE} if "shutdown_timeout" in known else {}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        **patience,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "hyenacli", *sys.argv[1:])
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        return _exit_code(failed.failures)
    return 0


def _exit_code(failures: "dict[int, ProcessFailure]") -> int:
    """The exit code, where the first process has said what is wrong; else an error that says it."""
    for rank, failure in failures.items():
        if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM:
            raise UserError(
                f"process {rank} was killed by {signal.Signals(-failure.exitcode).name}, and so all ended",
                remedy="SIGKILL often means that memory ran out; --resume goes on from the last checkpoint",
            )
    rank = min(failures)
    if rank > 0 and failures[rank].message:
        raise UserError(f"process {rank}: {failures[rank].message}")
    return max(1, failures[rank].exitcode)
