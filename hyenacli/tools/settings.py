"""Settings of `hyena merge` and `hyena doctor`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hyenacli import options


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """Join what --shard 1/n to n/n have written into the file that one process would have written.

    The shards say themselves which parts they are, so their order and names do not matter. Missing, doubled
    and differing ones (another model, input or setting) are refused.

    Example: hyena merge peaks.*.parquet -o peaks.parquet
    """

    shards: Annotated[list[Path], typer.Argument(help="All shards of one run.", metavar="SHARD")]
    output: options.TableOutput


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """Say what this machine has, whether it computes right, and how fast.

    Inference, long inputs and training gradients are compared on every device, in every precision it has,
    with the definition of the model in float64, and that with stored numbers. The exit code is 1 if any
    number is wrong.

    Example: hyena doctor
    """

    device: Annotated[
        str | None,
        typer.Option(
            help="Only this device: auto, cpu, cuda, cuda:N or mps; default all there are.",
            metavar="DEVICE",
        ),
    ] = None
    no_speed: Annotated[bool, typer.Option("--no-speed", help="Leave the timing out.")] = False
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False
    threads: options.Threads = None
