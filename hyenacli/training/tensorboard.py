"""metrics.csv once more, for TensorBoard."""

import math
from pathlib import Path
from typing import Self

from hyenacli.errors import UserError


class TensorBoard:
    """A context that writes every number of a row as a scalar of its step, in `RUN/tensorboard`.

    Args:
        run: the run directory.
        after: what an earlier process wrote after this step is hidden.

    Raises:
        UserError: the package `tensorboard` is not installed.
    """

    def __init__(self, run: Path, after: int):
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=after + 1)

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Write what is left."""
        self._writer.close()

    def write(self, row: dict[str, float]) -> None:
        """One row of metrics.csv; `step` is the x axis."""
        for name, value in row.items():
            if name != "step" and math.isfinite(value):
                self._writer.add_scalar(name, value, int(row["step"]))


def check_tensorboard() -> None:
    """Raise UserError, which names the extra, unless the package is installed."""
    from importlib.util import find_spec

    if find_spec("tensorboard") is None:
        raise UserError(
            "TensorBoard is not installed", at="--tensorboard", remedy="pip install 'hyenacli[tensorboard]'"
        )
