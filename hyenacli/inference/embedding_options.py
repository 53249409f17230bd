"""How a region becomes vectors, as the user says it: checked before any model is loaded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyenacli.errors import UsageError, nearest
from hyenacli.inference.pooling import Pooling, choose_layers, parse_layer, parse_pool

if TYPE_CHECKING:
    from hyenadna import HyenaConfig

RC = ("none", "mean", "concat")
MEAN = Pooling("mean")


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """How a region becomes vectors, for a model not yet known.

    Attributes:
        pooling: which positions, and what is made of them.
        layer: -1 after the final norm, K >= 1 the residual stream after block K, None all of them.
        rc: none; mean, or concatenation (the asked-for reading first), of both strands' vectors.
        stranded: read regions on the - strand as reverse complement.
        window: most bases the model reads at once; None is the model's context, or what a soft prompt leaves
            of it.
        stride: bases from one window's start to the next; None is the window.
    """

    pooling: Pooling = MEAN
    layer: int | None = -1
    rc: str = "none"
    stranded: bool = False
    window: int | None = None
    stride: int | None = None

    def readings(self, strand: str) -> tuple[bool, ...]:
        """The readings of a region, the asked-for first: true is the reverse complement.

        >>> EmbeddingOptions(rc="mean", stranded=True).readings("-")
        (True, False)
        """
        first = self.stranded and strand == "-"
        return (first,) if self.rc == "none" else (first, not first)

    def layers(self, config: "HyenaConfig") -> tuple[int, ...]:
        """The layers read of a model; UsageError where it has no such block."""
        return choose_layers(self.layer, config.n_layer)

    def width(self, config: "HyenaConfig") -> int:
        """Numbers per vector."""
        return config.d_model * (2 if self.rc == "concat" else 1)

    def windows(self, config: "HyenaConfig", longest: int) -> tuple[int, int]:
        """Width and stride of the windows for a model, in bases.

        Args:
            config: of the model.
            longest: tokens that the model takes, of which a soft prompt leaves fewer.

        Raises:
            UsageError: the model takes no such window, or the stride leaves gaps.
        """
        most = min(config.context, longest)
        window = self.window or most
        if window > longest:
            raise UsageError(
                f"the model takes at most {most:,} bases, not {window:,}",
                at="--window",
                remedy="choose a smaller window",
            )
        check_stride(window, self.stride)
        return window, self.stride or window


def make_recipe(
    *, pool: str, layer: str, rc: str, stranded: bool, window: int | None, stride: int | None
) -> EmbeddingOptions:
    """A recipe from the words of the command line.

    Raises:
        UsageError: an unknown word, or windows with gaps between them.
    """
    if rc not in RC:
        raise UsageError(f"unknown choice '{rc}'", at="--rc", remedy=nearest(rc, list(RC)))
    if window is not None:
        check_stride(window, stride)
    return EmbeddingOptions(
        pooling=parse_pool(pool),
        layer=parse_layer(layer),
        rc=rc,
        stranded=stranded,
        window=window,
        stride=stride,
    )


def check_stride(window: int, stride: int | None) -> None:
    """Raise UsageError where a stride leaves gaps between windows."""
    if stride is not None and stride > window:
        raise UsageError(
            f"a stride of {stride:,} skips bases between windows of {window:,}",
            at="--stride",
            remedy="make it at most the window",
        )
