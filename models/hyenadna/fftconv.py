"""The long causal convolution.

B batch, D channel, L position, F frequency.
"""

import torch
from torch import Tensor


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
