"""The Hyena operator of order 2.

B batch, L position, D width, K the 3 D channels of the projection.
"""

from torch import Tensor, nn

from .config import HyenaConfig
from .fftconv import fft_conv
from .filter import HyenaFilter


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
