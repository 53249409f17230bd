"""Settings of `hyena compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hyenacli import options

# Names of `evaluation.metrics.metric_names`, which imports torch.
METRICS = (
    *("accuracy", "balanced_accuracy", "mcc", "macro_f1", "auroc", "auprc", "auroc_median", "auprc_median"),
    *("pearson", "spearman", "r2", "mse"),
)


@dataclass(frozen=True, kw_only=True)
class CompareSettings(options.TableOutputOptions):
    """Compare runs of `hyena finetune` that were tested on the same records.

    RUN is a run directory, or a single trial of one. The first is what the others are compared with; its
    k-mer model is compared too. All are measured on the same bootstrap draws of the test records, so that a
    small difference shows where both are right and wrong on the same ones.

    OUT is a table with a row per run: the metric with its 95 % interval, the
    difference from the first run with its interval, and better, worse or no different.

    Examples:
        hyena compare full lora head --plot runs.svg
        hyena compare full lora --metric auroc
        hyena compare full lora -o runs.tsv
    """

    runs: Annotated[
        list[Path],
        typer.Argument(help="Runs of `hyena finetune`; the first is the reference.", metavar="RUN..."),
    ]
    output: options.TableOutput = Path("-")
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric to compare; default the one that chooses models of the task.",
            autocompletion=options.completing(*METRICS),
        ),
    ] = None
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the values with their intervals into this SVG.", metavar="FILE.svg"),
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.", min=0)] = 0
