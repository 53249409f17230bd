"""The implicit long filter of a Hyena layer: an MLP of position times a decaying window.

L position, E positional feature, F filter width, D channel; a leading 1 is the official broadcast axis.
"""

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from .config import HyenaConfig

_TARGET, _FAST, _SLOW = 1e-2, 0.3, 1.5
"""A window decays to _TARGET within a share of l_max between _FAST (last channel) and _SLOW (first)."""


def positional_features(l_max: int, emb_dim: int) -> tuple[Tensor, Tensor]:
    """Compute the closed form of the buffers z and t, float32, as official `PositionalEmbedding`.

    t[n] = n / (l_max - 1); z[n] = [t, cos(f w), ..., -sin(f w), ...] with w = 2 pi n / l_max and the bands f.
    They are functions of l_max, not of the input's length: a shorter input takes the first rows. The complex
    exponential in float32 is part of the definition: cos and sin differ from it by 6e-8, and logits by 1e-5.

    Returns:
        z (1, l_max, emb_dim) and t (1, l_max, 1).
    """
    t_1L1 = torch.linspace(0, 1, l_max, dtype=torch.float32)[None, :, None]
    n_1L1 = torch.linspace(0, l_max - 1, l_max, dtype=torch.float32)[None, :, None]
    omega_1L1 = 2 * math.pi * n_1L1 / l_max
    bands = (emb_dim - 1) // 2
    f_11E = torch.linspace(1e-4, bands - 1, bands, dtype=torch.float32)[None, None]
    wave_1LE = torch.exp(-1j * f_11E * omega_1L1)
    return torch.cat([t_1L1, wave_1LE.real, wave_1LE.imag], dim=-1), t_1L1


def decay_rates(d_model: int) -> Tensor:
    """Compute the closed form of the buffer deltas (1, 1, d_model), float32, as the official module."""
    rates_D = torch.linspace(
        math.log(_TARGET) / _SLOW, math.log(_TARGET) / _FAST, d_model, dtype=torch.float32
    )
    return rates_D[None, None]


class PositionalEmbedding(nn.Module):
    """Holder of z (1, l_max, E) and t (1, l_max, 1): buffers, so that a checkpoint's own values win."""

    z: Tensor
    t: Tensor

    def __init__(self, z_1LE: Tensor, t_1L1: Tensor):
        super().__init__()
        self.register_buffer("z", z_1LE)
        self.register_buffer("t", t_1L1)


class Sin(nn.Module):
    """sin(freq * x) with a learned frequency per feature."""

    def __init__(self, freq_1F: nn.Parameter):
        super().__init__()
        self.freq = freq_1F

    def forward(self, x_1LF: Tensor) -> Tensor:
        """Apply the sine to each number; the shape stays."""
        return torch.sin(self.freq * x_1LF)


class ExponentialModulation(nn.Module):
    """The decaying window; `shift` is its floor."""

    deltas: Tensor

    def __init__(self, d_model: int, shift: float):
        super().__init__()
        self.shift = shift
        self.register_buffer("deltas", decay_rates(d_model))

    def forward(self, t_1L1: Tensor, h_1LD: Tensor) -> Tensor:
        """Compute h * (exp(-t |delta|) + shift), (1, L, D)."""
        return h_1LD * (torch.exp(-t_1L1 * self.deltas.abs()) + self.shift)


def _filter_mlp(config: HyenaConfig) -> nn.Sequential:
    """Build Linear, Sin, (Linear, Sin) * n_inner_mlps, Linear without bias: the official indices 0 to 6."""
    width = config.filter_order

    def fresh() -> nn.Parameter:
        return nn.Parameter(torch.full((1, width), float(config.activation_freq)))

    shared = fresh()
    layers: list[nn.Module] = [nn.Linear(config.emb_dim, width)]
    for _ in range(config.n_inner_mlps):
        layers += [Sin(shared if config.shared_freq else fresh()), nn.Linear(width, width)]
    layers += [Sin(shared if config.shared_freq else fresh()), nn.Linear(width, config.d_model, bias=False)]
    return nn.Sequential(*layers)


class HyenaFilter(nn.Module):
    """The filter k of one layer and its skip weights `bias` (D of the paper), as official `HyenaFilter`.

    It never goes below float32: neither `model.bfloat16()` nor autocast touches it, because its positions
    and its frequencies do not survive 8 bits of mantissa.
    """

    def __init__(self, config: HyenaConfig, z_1LE: Tensor, t_1L1: Tensor):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(config.d_model))
        self.pos_emb = PositionalEmbedding(z_1LE, t_1L1)
        self.implicit_filter = _filter_mlp(config)
        self.modulation = ExponentialModulation(config.d_model, config.window_shift)

    def forward(self, length: int) -> Tensor:
        """Compute the first `length` taps, (D, L), which are the first of any longer filter."""
        z_1LE, t_1L1 = self.pos_emb.z[:, :length], self.pos_emb.t[:, :length]
        with torch.autocast(z_1LE.device.type, enabled=False):
            k_1LD: Tensor = self.modulation(t_1L1, self.implicit_filter(z_1LE))
        return k_1LD[0].T

    @property
    def last_weight(self) -> Tensor:
        """Matrix (D, F) of the MLP's last layer."""
        return self.get_parameter(f"implicit_filter.{len(self.implicit_filter) - 1}.weight")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def at_least_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype.itemsize < 4 else moved

        super()._apply(at_least_float32, recurse)  # type: ignore[no-untyped-call]
        return self
