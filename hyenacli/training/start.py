"""The verbs that train: run here, or in several processes."""

import importlib
from collections.abc import Callable
from typing import Any

import typer

from hyenacli.distributed import launched


def _trainer(target: str) -> Callable[[Any], None]:
    """A verb that calls "module:function", whose result says the exit code."""

    def run(settings: Any) -> None:
        if settings.nproc_per_node and not launched():
            from hyenacli.training.launch import launch

            raise typer.Exit(launch(settings.nproc_per_node))
        module, function = target.split(":")
        raise typer.Exit(getattr(importlib.import_module(module), function)(settings).exit_code)

    run.__doc__ = "Train; the exit code is 143 or 130 where a signal ended the run after a checkpoint."
    return run


pretrain = _trainer("hyenacli.pretrain.command:pretrain")
finetune = _trainer("hyenacli.finetune.command:finetune")
train_species = _trainer("hyenacli.species.train:train_species")
