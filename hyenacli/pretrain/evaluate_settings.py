"""Settings of `hyena evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hyenacli import options


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Loss, bits per base and perplexity of a model on held-out sequence, by the length of its context.

    Windows of the longest length are spread evenly over the sequence, and cut into windows of each shorter
    one, so that all lengths predict the same bases. N is never predicted. Which bases the model was trained
    on is yours to know. One process does it all: start it without torchrun.

    Example: hyena evaluate genome.fa.gz -m run --contigs chr21,chr22 --plot context.svg
    """

    fasta: Annotated[
        list[Path], typer.Argument(help="Genome FASTA files (plain, bgzip or gzip).", metavar="FASTA")
    ]
    model: options.Model
    output: options.TableOutput = Path("-")
    output_type: options.OutputType = None
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Bases that a window predicts, as 1024,4096; default 64, 256, 1024 ... up to the model's "
            "context.",
            metavar="L,L,...",
        ),
    ] = None
    contigs: Annotated[
        str | None,
        typer.Option(help="Only these contigs, comma-separated; default all.", metavar="NAMES"),
    ] = None
    intervals: Annotated[
        Path | None,
        typer.Option(
            help="BED whose column 4 says train, valid or test: one of them is read.", metavar="BED"
        ),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(help="Which intervals; default valid.", metavar="train|valid|test"),
    ] = None
    max_windows: Annotated[int, typer.Option(help="Most windows of the longest length.", min=1)] = 128
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw perplexity against context length into this SVG.", metavar="FILE.svg"),
    ] = None
    batch_size: options.BatchSize = "auto"
    device: options.Device = "auto"
    dtype: options.Dtype = "float32"
    threads: options.Threads = None
