"""Options of the verbs that adapt a pretrained model, as a base dataclass of their settings."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from hyenacli import options
from hyenacli.options import DATA, MODEL, OUTPUT, TRAINING, NoBaseline
from hyenacli.training.settings import TrainingOptions


@dataclass(frozen=True, kw_only=True)
class AdaptationOptions(TrainingOptions):
    """How a pretrained model is adapted to labels or species."""

    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            help="Model to adapt, or a preset such as tiny-1k for random weights.",
            metavar="MODEL",
            autocompletion=options.completing(*options.MODELS, *options.PRESETS),
        ),
    ]
    max_length: Annotated[
        int | None,
        typer.Option(
            help="Longest training sequence in bases; default the most that the model takes. Each epoch "
            "reads another window of a longer sequence (all its windows at --level nucleotide); "
            "predictions pool all windows. --method icl reads the middle.",
            min=1,
            rich_help_panel=DATA,
        ),
    ] = None
    method: Annotated[
        Literal["full", "head", "lora", "soft-prompt", "icl"],
        typer.Option(
            help="full: train all weights. head: train a linear head on features computed once. lora, "
            "soft-prompt: train small additions to a frozen model, and a head. icl: train the model to "
            "predict a label after examples (default --lr 1e-4, --weight-decay 0).",
            rich_help_panel=MODEL,
        ),
    ] = "full"
    pool: Annotated[
        Literal["mean", "last", "max"],
        typer.Option(
            help="How the states of the bases become one vector for the head.", rich_help_panel=MODEL
        ),
    ] = "mean"
    lora_rank: Annotated[
        int | None,
        typer.Option(help="Rank of the LoRA matrices; default 8.", min=1, rich_help_panel=MODEL),
    ] = None
    lora_alpha: Annotated[
        float | None,
        typer.Option(
            help="LoRA changes are scaled by alpha/rank; default twice the rank.", rich_help_panel=MODEL
        ),
    ] = None
    prompt_tokens: Annotated[
        int | None,
        typer.Option(help="Vectors of a soft prompt; default 32.", min=1, max=32_768, rich_help_panel=MODEL),
    ] = None
    embed_dropout: Annotated[
        float | None,
        typer.Option(
            help="Dropout of the embedding; default the model's.", min=0.0, max=0.99, rich_help_panel=MODEL
        ),
    ] = None
    resid_dropout: Annotated[
        float | None,
        typer.Option(
            help="Dropout of the output of each block; default the model's.",
            min=0.0,
            max=0.99,
            rich_help_panel=MODEL,
        ),
    ] = None
    lr: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate; default 6e-4 for full, 1e-2 for head, 1e-3 for lora and soft-prompt.",
            min=0.0,
            rich_help_panel=TRAINING,
        ),
    ] = None
    weight_decay: Annotated[
        float | None,
        typer.Option(help="Weight decay; default 0.1, for soft-prompt 0.", min=0.0, rich_help_panel=TRAINING),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after this many evaluations without improvement; default in finetune 10, for "
            "soft-prompt 2; in classify-species never.",
            min=1,
            rich_help_panel=TRAINING,
        ),
    ] = None
    rc: Annotated[
        Literal["none", "mean"],
        typer.Option(
            help="mean: predict from a sequence and its reverse complement; stored with the model.",
            rich_help_panel=OUTPUT,
        ),
    ] = "none"
    no_baseline: NoBaseline = False
