"""Several processes on this machine from one command: torch's own elastic launcher, and its end told plainly."""

import signal
import sys
import uuid
from dataclasses import fields
from typing import Any

from hyenacli.errors import UserError

# A step may be long: what is asked to stop gets the time to finish it and to save.
_SECONDS_TO_SAVE = 3600


def launch(processes: int) -> int:
    """Run this very command line in `processes` processes and wait for them.

    A process that dies takes the others with it. SIGTERM and Ctrl-C are passed on to all.

    Returns:
        The exit code: of the first process to fail, or 128 + signal.

    Raises:
        UserError: a process was killed.
    """
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
        rank, failure = failed.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        raise UserError(
            f"process {rank} was killed by {name} and the others were stopped",
            remedy="SIGKILL often means that memory ran out; --resume goes on from the last checkpoint",
        ) from failed
    return 0
