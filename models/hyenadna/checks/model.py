"""Checks of a loaded model that need nothing but the model: finite, causal, positions and convolution right.

B batch, L position, D width.
"""

from dataclasses import dataclass

import torch

from hyenadna.fftconv import direct_conv, fft_conv
from hyenadna.formats.canonical import closed_form
from hyenadna.formats.load import all_buffers
from hyenadna.model import HyenaDNA

_LENGTH = 64
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Check:
    """Result of one check: its name, whether it passed, and the number that decided."""

    name: str
    passed: bool
    detail: str


@torch.no_grad()
def verify(model: HyenaDNA) -> list[Check]:
    """Check a model in eval mode, float32 on the CPU, in well under a second for tiny models.

    All numbers are finite; the positional buffers are their closed form (a trained z is allowed, and said);
    a changed token moves no earlier output; a prefix alone gives the outputs it gives in the whole; the FFT
    convolution with the model's own filters equals the direct sum.
    """
    return [_finite(model), _positions(model), _causality(model), _prefix(model), _convolution(model)]


def _finite(model: HyenaDNA) -> Check:
    named = dict(model.named_parameters()) | all_buffers(model)
    bad = [name for name, tensor in named.items() if not torch.isfinite(tensor).all()]
    return Check("finite", not bad, f"NaN or infinity in {bad[0]}" if bad else f"{len(named)} tensors")


def _positions(model: HyenaDNA) -> Check:
    buffers = all_buffers(model)
    off = {
        name: float((buffers[name] - form).abs().max()) for name, form in closed_form(model.config).items()
    }
    z = max(value for name, value in off.items() if name.endswith(".z"))
    fixed = max(value for name, value in off.items() if not name.endswith(".z"))
    kind = "closed form" if z <= _TOLERANCE else "trained"
    return Check(
        "positions", fixed <= _TOLERANCE, f"z {kind} (off by {z:.1e}), t and deltas off by {fixed:.1e}"
    )


def _ids(model: HyenaDNA) -> torch.Tensor:
    length = min(_LENGTH, model.longest_input)
    return torch.randint(7, 11, (1, length), generator=torch.Generator().manual_seed(0))


def _causality(model: HyenaDNA) -> Check:
    ids_BL = _ids(model)
    edited_BL, middle = ids_BL.clone(), ids_BL.shape[1] // 2
    edited_BL[:, middle:] = 17 - ids_BL[:, middle:]  # A <-> T, C <-> G
    moved = model(edited_BL).logits - model(ids_BL).logits
    return _small("causality", moved[:, :middle])


def _prefix(model: HyenaDNA) -> Check:
    ids_BL = _ids(model)
    middle = ids_BL.shape[1] // 2
    return _small("prefix", model(ids_BL[:, :middle]).logits - model(ids_BL).logits[:, :middle])


def _convolution(model: HyenaDNA) -> Check:
    length = _ids(model).shape[1]
    v_BDL = torch.randn(1, model.config.d_model, length, generator=torch.Generator().manual_seed(0))
    off = []
    for layer in model.backbone.blocks():
        k_DL, skip_D = layer.mixer.filter_fn(length), layer.mixer.filter_fn.bias
        off.append(fft_conv(v_BDL, k_DL, skip_D) - direct_conv(v_BDL, k_DL, skip_D))
    return _small("convolution", torch.stack(off))


def _small(name: str, difference: torch.Tensor) -> Check:
    worst = float(difference.abs().max())
    return Check(name, worst <= _TOLERANCE, f"off by at most {worst:.1e}")  # a NaN is not small
