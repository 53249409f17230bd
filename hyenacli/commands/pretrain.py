"""`hyena pretrain`."""

import typer

from hyenacli.config import PretrainConfig
from hyenacli.ranks import launched


def run(settings: PretrainConfig) -> None:
    """Pretrain; the exit code is 143 or 130 where a signal ended the run after a checkpoint."""
    if settings.nproc_per_node and not launched():
        from hyenacli.train.launch import launch

        raise typer.Exit(launch(settings.nproc_per_node))
    from hyenacli.train.pretrain import pretrain

    raise typer.Exit(pretrain(settings).exit_code)
