"""`hyena finetune`."""

import typer

from hyenacli.config import FinetuneConfig
from hyenacli.ranks import launched


def run(settings: FinetuneConfig) -> None:
    """Fine-tune; the exit code is 143 or 130 where a signal ended the run after a checkpoint."""
    if settings.nproc_per_node and not launched():
        from hyenacli.train.launch import launch

        raise typer.Exit(launch(settings.nproc_per_node))
    from hyenacli.train.finetune import finetune

    raise typer.Exit(finetune(settings).exit_code)
