"""`hyena pretrain`."""

import typer

from hyenacli.config import PretrainConfig


def run(settings: PretrainConfig) -> None:
    """Pretrain; the exit code is 143 or 130 where a signal ended the run after a checkpoint."""
    from hyenacli.train.pretrain import pretrain

    raise typer.Exit(pretrain(settings).exit_code)
