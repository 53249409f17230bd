"""The Hyena operator of order 2: its implicit filter, the long convolution, and the gates.

B batch, L position, D width or channel, K the 3 D channels of the projection, E positional feature, F filter
width (of `fft_conv`: frequency); a leading 1 is the official broadcast axis.
"""

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from .config import HyenaConfig

_TARGET, _FAST, _SLOW = 1e-2, 0.3, 1.5
"""A window decays to _TARGET within a share of l_max between _FAST (last channel) and _SLOW (first)."""


def _is_meta() -> bool:
    """Return whether tensors are made without values, for a model whose weights are about to be loaded.

    Arithmetic on them would import torch's compiler, which takes longer than importing torch.
    """
    return torch.get_default_device().type == "meta"


def positional_features(l_max: int, emb_dim: int) -> tuple[Tensor, Tensor]:
    """Compute the closed form of the buffers z and t, float32, as official `PositionalEmbedding`.

    t[n] = n / (l_max - 1); z[n] = [t, cos(f w), ..., -sin(f w), ...] with w = 2 pi n / l_max and the bands f.
    They are functions of l_max, not of the input's length: a shorter input takes the first rows. The complex
    exponential in float32 is part of the definition: cos and sin differ from it by 6e-8, and logits by 1e-5.

    Returns:
        z (1, l_max, emb_dim) and t (1, l_max, 1).
    """
    if _is_meta():
        return torch.empty(1, l_max, emb_dim), torch.empty(1, l_max, 1)
    t_1L1 = torch.linspace(0, 1, l_max, dtype=torch.float32)[None, :, None]
    n_1L1 = torch.linspace(0, l_max - 1, l_max, dtype=torch.float32)[None, :, None]
    omega_1L1 = 2 * math.pi * n_1L1 / l_max
    bands = (emb_dim - 1) // 2
    f_11E = torch.linspace(1e-4, bands - 1, bands, dtype=torch.float32)[None, None]
    wave_1LE = torch.exp(-1j * f_11E * omega_1L1)
    return torch.cat([t_1L1, wave_1LE.real, wave_1LE.imag], dim=-1), t_1L1


def decay_rates(d_model: int) -> Tensor:
    """Compute the closed form of the buffer deltas (1, 1, d_model), float32, as the official module."""
    if _is_meta():
        return torch.empty(1, 1, d_model)
    ends = math.log(_TARGET) / _SLOW, math.log(_TARGET) / _FAST
    return torch.linspace(*ends, d_model, dtype=torch.float32)[None, None]


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


def fft_conv(v_BDL: Tensor, k_DL: Tensor, skip_D: Tensor) -> Tensor:
    """Convolve each channel causally with its filter, and add the skip term.

    y[b, d, t] = sum over s in 0..t of k[d, s] v[b, d, t - s]  +  skip[d] v[b, d, t]

    Equals `fftconv` of the official code: FFT of exactly 2L points, 1/2L on the filter's spectrum. The
    arithmetic is in the dtype of `k_DL` (float32 or float64), whatever `v_BDL` has: half-precision FFTs need
    lengths that are powers of two and lose the small taps.

    Returns:
        (B, D, L) in the dtype of `v_BDL`.
    """
    length = v_BDL.shape[-1]
    n_fft = 2 * length
    exact_BDL = v_BDL.to(k_DL.dtype)
    k_DF = torch.fft.rfft(k_DL, n=n_fft) / n_fft
    v_BDF = torch.fft.rfft(exact_BDL, n=n_fft)
    y_BDL: Tensor = torch.fft.irfft(v_BDF * k_DF, n=n_fft, norm="forward")[..., :length]
    return (y_BDL + exact_BDL * skip_D[:, None]).to(v_BDL.dtype)


def direct_conv(v_BDL: Tensor, k_DL: Tensor, skip_D: Tensor) -> Tensor:
    """Compute `fft_conv` by its definition, term by term in O(L^2): for checking, on short inputs."""
    length = v_BDL.shape[-1]
    y_BDL = v_BDL * skip_D[:, None]
    for lag in range(length):
        y_BDL[..., lag:] += k_DL[:, lag, None] * v_BDL[..., : length - lag]
    return y_BDL


class HyenaOperator(nn.Module):
    """Projection, short convolution, gate, long convolution, gate, projection (Hyena, arXiv 2302.10866).

    Equals official `HyenaOperator` at order 2, the only portable order: the official copies lay out the
    filters of higher orders in three different ways.
    """

    def __init__(self, config: HyenaConfig, z_1LE: Tensor, t_1L1: Tensor):
        super().__init__()
        d, taps = config.d_model, config.short_filter_order
        self.in_proj = nn.Linear(d, 3 * d)
        self.out_proj = nn.Linear(d, d)
        self.short_filter = nn.Conv1d(3 * d, 3 * d, taps, groups=3 * d, padding=taps - 1)
        self.filter_fn = HyenaFilter(config, z_1LE, t_1L1)
        self.dropout = nn.Dropout(config.hyena_dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Map (B, L, D) to (B, L, D); position t sees positions 0..t only."""
        length = x_BLD.shape[1]
        u_BKL: Tensor = self.in_proj(x_BLD).transpose(1, 2)
        # padded on both sides and cut: the rest is causal, and the last tap meets the current token
        s_BKL: Tensor = self.short_filter(u_BKL)[..., :length]
        x0_BDL, x1_BDL, v_BDL = s_BKL.chunk(3, dim=1)
        gated_BDL: Tensor = self.dropout(v_BDL * x1_BDL)
        y_BDL = fft_conv(gated_BDL, self.filter_fn(length), self.filter_fn.bias)
        out_BLD: Tensor = self.out_proj((y_BDL * x0_BDL).transpose(1, 2))
        return out_BLD
