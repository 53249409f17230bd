"""How fast a device reads: tokens a second through models of the published sizes.

B sequence, L position.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hyenacli.devices import autocast
from hyenadna import HyenaDNA, preset
from hyenadna.tokenizer import A, T

_WORK = (("tiny-1k", 32, 1024), ("small-32k", 1, 8192), ("small-32k", 1, 32_768))
_SECONDS = 1.0


@dataclass(frozen=True)
class Speed:
    """Tokens a second of inference, logits included, with filters made beforehand."""

    device: str
    dtype: str
    model: str
    batch: int
    length: int
    tokens_per_second: int


def measure_speed(device: torch.device, dtype: str) -> Iterator[Speed]:
    """Time models with fresh weights, for about a second each or one pass, whichever is longer.

    Args:
        device: where the models run.
        dtype: float32, or bfloat16 for autocast.
    """
    generator = torch.Generator().manual_seed(0)
    for name, batch, length in _WORK:
        model = HyenaDNA(preset(name), generator=generator).eval().to(device)
        ids_BL = torch.randint(A, T + 1, (batch, length), generator=generator).to(device)
        with torch.inference_mode(), autocast(device, dtype):
            seconds = _seconds_per_pass(model, ids_BL)
        yield Speed(str(device), dtype, name, batch, length, round(batch * length / seconds))


def _seconds_per_pass(model: HyenaDNA, ids_BL: Tensor) -> float:
    """The fastest of a second's passes, after one that makes the filters."""
    _pass(model, ids_BL)
    taken: list[float] = []
    while sum(taken) < _SECONDS:
        start = time.perf_counter()
        _pass(model, ids_BL)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _pass(model: HyenaDNA, ids_BL: Tensor) -> None:
    model(ids_BL).logits[0, 0, 0].item()  # reading a number waits until the device is done
