"""Processes of one job: ranks, starting several processes, reductions, and the end by a signal.

Only this module reads what torchrun sets. torch is imported inside the functions, so that help stays fast.
"""

import datetime as dt
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from hyenacli.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

T = TypeVar("T")
_TIMEOUT = dt.timedelta(minutes=30)
# Time for a process that is told to stop to finish its step, which may be long, and to save.
_SECONDS_TO_SAVE = 3600
# Signals by which a batch system, or a closed terminal, ends a job.
_ENDING = (signal.SIGTERM, signal.SIGHUP)
# Time for the process that failed first to print its error; only one process prints.
_SECONDS_TO_PRINT = 1


@dataclass(frozen=True)
class Ranks:
    """Position of this process in a torchrun job; a plain process is rank 0 of 1."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """True for the process that writes files and logs."""
        return self.rank == 0


def current_ranks() -> Ranks:
    """Return the ranks in torchrun's RANK, WORLD_SIZE and LOCAL_RANK."""
    rank, world_size, local_rank = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    )
    return Ranks(rank, world_size, local_rank)


def launched() -> bool:
    """Return True if torchrun, or a launcher like it, has started this process."""
    return "RANK" in os.environ


def launch(processes: int) -> int:
    """Run this command line in `processes` processes on this machine, by torch's elastic launcher, and wait.

    If a process dies, the others are stopped. SIGTERM, SIGHUP and Ctrl-C are passed on to all.

    Returns:
        The exit code: that of the first process to fail, or 128 + signal.

    Raises:
        UserError: a process was killed.
    """
    logging.disable(logging.CRITICAL)  # silences the launcher; the processes log as usual
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # by nohup, which the launcher would undo
        os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGQUIT")
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    options = {field.name for field in fields(LaunchConfig)}
    timeout: dict[str, Any] = {"shutdown_timeout": _SECONDS_TO_SAVE} if "shutdown_timeout" in options else {}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        **timeout,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "hyenacli", *sys.argv[1:])
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        return _exit_code(failed.failures)
    return 0


def _exit_code(failures: "dict[int, ProcessFailure]") -> int:
    """Return the exit code of the process that failed; raise an error for one that was killed."""
    for rank, failure in failures.items():
        if failure.exitcode < 0 and -failure.exitcode not in _ENDING:
            raise UserError(
                f"process {rank} was killed by {signal.Signals(-failure.exitcode).name}, and so all ended",
                remedy="SIGKILL often means that memory ran out; --resume goes on from the last checkpoint",
            )
    # A process that failed by itself says more than those that were then stopped because of it.
    stopped = [code for number in _ENDING for code in (-number, 128 + number)]
    failed = [rank for rank, failure in failures.items() if failure.exitcode not in stopped]
    return max(1, failures[min(failed or failures)].exitcode)


class Stop:
    """Signal that asks a run to save and end, if one came."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        """Return True once a signal has come."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 + signal, as shells report it; 0 if none came."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Collect SIGTERM, SIGINT and SIGHUP while the context lasts; a second Ctrl-C interrupts at once."""
    stop = Stop()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number

    with handle_signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), handle):
        yield stop


@contextmanager
def handle_signals(
    numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle signals while the context lasts; one that was ignored stays so, as `nohup` wants of SIGHUP.

    Outside the main thread, which alone gets signals, nothing changes.
    """
    previous = {number: signal.getsignal(number) for number in numbers}
    if threading.current_thread() is not threading.main_thread():
        previous = {}
    handled = [number for number, before in previous.items() if before is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, previous[number])


@contextmanager
def process_group(device: "torch.device") -> Iterator[None]:
    """Join the torchrun job (nccl on CUDA, gloo elsewhere) and leave it; do nothing in a plain process."""
    if current_ranks().world_size == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if device.type == "cuda":
        torch.cuda.set_device(device)  # collectives without a tensor, such as a barrier, run on this device
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def sum_over_ranks(*values: float, device: "torch.device") -> list[float]:
    """Sum each number over all ranks, in float64 where the device has it."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        return list(values)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    total = torch.tensor(values, dtype=dtype, device=device)
    reduce_over_ranks(total)
    return [float(value) for value in total.tolist()]


def sum_array(array: "NDArray[np.float64]", *, device: "torch.device") -> "NDArray[np.float64]":
    """Sum an array over all ranks, as `sum_over_ranks`."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        return array
    dtype = torch.float32 if device.type == "mps" else torch.float64
    total = torch.from_numpy(array).to(device, dtype)
    reduce_over_ranks(total)
    summed: NDArray[np.float64] = total.double().cpu().numpy()
    return summed


def min_over_ranks(value: float, *, device: "torch.device") -> float:
    """Return the smallest of the ranks' numbers."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        return value
    least = torch.tensor(value, dtype=torch.float32, device=device)
    reduce_over_ranks(least, smallest=True)
    return float(least)


def reduce_over_ranks(tensor: "torch.Tensor", *, smallest: bool = False) -> None:
    """Replace a tensor by its sum over all ranks of a job, or by the smallest values.

    Raises:
        UserError: another process is gone.
    """
    import torch.distributed as dist

    with _connected():
        dist.all_reduce(tensor, dist.ReduceOp.MIN if smallest else dist.ReduceOp.SUM)


def sum_gradients(parameters: "Iterable[torch.nn.Parameter]") -> None:
    """Replace every gradient by its sum over the ranks, in one collective.

    Losses are already divided by the count over all ranks, so that the sum is the gradient of the global mean
    and does not depend on how windows are divided among ranks. A parameter without a gradient counts as zero.
    """
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        return
    parameters = list(parameters)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    reduce_over_ranks(flat)
    offset = 0
    for parameter in parameters:
        size = parameter.numel()
        parameter.grad = flat[offset : offset + size].view_as(parameter)
        offset += size


def barrier() -> None:
    """Wait for all ranks.

    Raises:
        UserError: another process is gone.
    """
    import torch.distributed as dist

    if dist.is_initialized():
        with _connected():
            dist.barrier()


def broadcast(value: T) -> T:
    """Return the first rank's value on every rank.

    Raises:
        UserError: another process is gone.
    """
    import torch.distributed as dist

    if not dist.is_initialized():
        return value
    values = [value]
    with _connected():
        dist.broadcast_object_list(values)
    return values[0]


@contextmanager
def _connected() -> Iterator[None]:
    """Raise UserError if another process is gone."""
    try:
        yield
    except RuntimeError as error:
        time.sleep(_SECONDS_TO_PRINT)
        raise UserError(
            "the connection to another process of this job was lost",
            remedy="see which one ended first, and why; --resume goes on from the last checkpoint",
        ) from error
