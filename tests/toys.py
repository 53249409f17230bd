"""Models read as HyenaDNA is, whose every answer is known by hand."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hyenacli.inference.prediction import Predicted, predict, prediction_head, prediction_options
from hyenacli.readers.records import SequenceRecord
from hyenadna import HyenaConfig, HyenaDNA, save_model
from hyenadna.config import HeadConfig
from hyenadna.engine.inference import FINAL, StateSlice
from hyenadna.engine.tiling import Tiling
from hyenadna.tokenizer import A

ORDER = b"ACGTN"
PLACE, SEEN = 5, 6


class ToyModel(nn.Module):
    """A position's state: one-hot of its base (A C G T N), its 1-based place in the input, and a digest.

    The digest is the sum, over the bases up to and including this one, of A=0 C=1 G=2 T=3 N=4: it tells what
    the model has read. The residual stream after block K is the state times 10**K.

    Args:
        context: most bases.
        n_layer: blocks.
        memory: most tokens of a batch; above it the model is out of memory.
    """

    def __init__(self, context: int = 8, n_layer: int = 2, memory: int | None = None):
        super().__init__()
        self.config = HyenaConfig(d_model=7, n_layer=n_layer, d_inner=1, l_max=context + 2)
        self.weight = nn.Parameter(torch.zeros(1))
        self.longest_input = self.config.l_max
        self.memory = memory
        self.batches: list[tuple[int, ...]] = []

    def stream_states(self, ids_BL: Tensor, layers: Sequence[int]) -> Iterator[StateSlice]:
        """The states in slices of three tokens; `batches` remembers the shape of every input."""
        assert ids_BL.shape[1] <= self.config.l_max
        if self.memory is not None and ids_BL.numel() > self.memory:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        self.batches.append(tuple(ids_BL.shape))
        bases_BL = (ids_BL - A).clamp(min=0)
        one_hot_BL5 = functional.one_hot(bases_BL, 5)
        place_BL = torch.arange(1, ids_BL.shape[1] + 1).expand_as(ids_BL)
        counts_BL2 = torch.stack([place_BL, bases_BL.cumsum(1)], dim=2)
        state_BLD = torch.cat([one_hot_BL5, counts_BL2], dim=2).float()
        for layer in layers:
            scale = 1 if layer == FINAL else 10**layer
            for tile in Tiling(tokens=3, samples=1, block=1).tiles(*ids_BL.shape):
                yield StateSlice(layer, tile, state_BLD[tile.rows, tile.positions] * scale)


def toy_states(read: bytes) -> list[list[float]]:
    """The states of ToyModel for one input, by plain counting."""
    codes = [ORDER.index(base) for base in read]
    return [
        [*(float(code == base) for base in range(5)), float(place), float(sum(codes[:place]))]
        for place, code in enumerate(codes, start=1)
    ]


def tiny_model(seed: int = 0, context: int = 64) -> HyenaDNA:
    """A real HyenaDNA of two narrow layers with random weights, large enough that every part matters."""
    config = HyenaConfig(d_model=16, n_layer=2, d_inner=32, l_max=context + 2)
    generator = torch.Generator().manual_seed(seed)
    model = HyenaDNA(config, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def save_heads(folder: Path, heads: Mapping[str, HeadConfig]) -> Path:
    """A folder with a tiny model for each head, its weights large enough to matter, and one without."""
    for name, head in heads.items():
        model = tiny_model()
        model.set_head(head, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            model.head.output_transform.weight.mul_(20)
        save_model(model, folder / name)
    save_model(tiny_model(), folder / "headless")
    return folder


def predict_with(
    model: HyenaDNA,
    records: Iterable[SequenceRecord],
    *,
    rc: bool,
    window: int | None = None,
    stride: int | None = None,
    **how: Any,
) -> Iterator[Predicted]:
    """Predict with the options of a model's own head."""
    options = prediction_options(prediction_head(model), rc=rc, window=window, stride=stride)
    return predict(model, records, options, **how)
