"""Checks of a loaded model, and of a machine's arithmetic: the fast paths against the definition.

The models and inputs of a machine's check come from a counter-based generator, so that they are the same on
every machine, and so are the numbers that the definition must give for them.

B batch, L position, D width.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .config import HyenaConfig
from .engine.training import next_token_loss
from .formats.tensors import all_buffers, closed_form
from .model import HyenaDNA
from .operator import direct_conv, fft_conv
from .tokenizer import A, T

_CHECKED_LENGTH = 64
_MODEL_TOLERANCE = 1e-4


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
    kind = "closed form" if z <= _MODEL_TOLERANCE else "trained"
    return Check(
        "positions", fixed <= _MODEL_TOLERANCE, f"z {kind} (off by {z:.1e}), t and deltas off by {fixed:.1e}"
    )


def _some_ids(model: HyenaDNA) -> torch.Tensor:
    length = min(_CHECKED_LENGTH, model.longest_input)
    return torch.randint(7, 11, (1, length), generator=torch.Generator().manual_seed(0))


def _causality(model: HyenaDNA) -> Check:
    ids_BL = _some_ids(model)
    edited_BL, middle = ids_BL.clone(), ids_BL.shape[1] // 2
    edited_BL[:, middle:] = 17 - ids_BL[:, middle:]  # A <-> T, C <-> G
    moved = model(edited_BL).logits - model(ids_BL).logits
    return _small("causality", moved[:, :middle])


def _prefix(model: HyenaDNA) -> Check:
    ids_BL = _some_ids(model)
    middle = ids_BL.shape[1] // 2
    return _small("prefix", model(ids_BL[:, :middle]).logits - model(ids_BL).logits[:, :middle])


def _convolution(model: HyenaDNA) -> Check:
    length = _some_ids(model).shape[1]
    v_BDL = torch.randn(1, model.config.d_model, length, generator=torch.Generator().manual_seed(0))
    off = []
    for layer in model.backbone.blocks():
        k_DL, skip_D = layer.mixer.filter_fn(length), layer.mixer.filter_fn.bias
        off.append(fft_conv(v_BDL, k_DL, skip_D) - direct_conv(v_BDL, k_DL, skip_D))
    return _small("convolution", torch.stack(off))


def _small(name: str, difference: torch.Tensor) -> Check:
    worst = float(difference.abs().max())
    return Check(name, worst <= _MODEL_TOLERANCE, f"off by at most {worst:.1e}")  # a NaN is not small


Verdict = Literal["PASS", "WARN", "FAIL"]
DTYPES = ("float64", "float32", "bfloat16")
PATHS = ("inference", "long", "gradients")


@dataclass(frozen=True)
class DeviceCheck:
    """Result of one path on one device in one precision.

    Attributes:
        device: its name, such as cpu or cuda:0.
        dtype: float64, float32, or bfloat16 for float32 weights under autocast.
        check: definition (the plain model against stored numbers), inference, long (inference on an input
            that a CPU convolves in parts) or gradients (of the training loss, for every parameter).
        error: largest difference as a share of the largest expected number, of the worst tensor; NaN where no
            number came out.
        tolerance: largest error of sound arithmetic in this precision.
        limit: errors above it are wrong numbers.
        problem: why no number came out, in one line; else empty.
    """

    device: str
    dtype: str
    check: str
    error: float
    tolerance: float
    limit: float
    problem: str = ""

    @property
    def verdict(self) -> Verdict:
        """PASS within the tolerance, WARN (usable, but coarse) up to the limit, FAIL beyond and for NaN."""
        return "PASS" if self.error <= self.tolerance else "WARN" if self.error <= self.limit else "FAIL"


@dataclass(frozen=True)
class _Case:
    """A model's width and an input's shape; the key selects their random numbers."""

    d_model: int
    batch: int
    length: int
    key: int

    @property
    def config(self) -> HyenaConfig:
        """Architecture of two layers, and a context just longer than the input."""
        d = self.d_model
        return HyenaConfig(
            d_model=d, n_layer=2, d_inner=4 * d, l_max=self.length + 1, filter_order=12, embed_dropout=0
        )


# No length is a round number: transforms are padded, and of pieces the last is a short one.
_SHORT = _Case(d_model=16, batch=3, length=257, key=1)
_LONG = _Case(d_model=8, batch=1, length=132_999, key=2)
# Tolerance and limit. Errors of sound arithmetic are a third of the tolerance or less. Between the two bounds
# of float32 lie products of reduced precision, such as TF32; a small mistake shows in float64.
_BOUNDS = {"float64": (1e-11, 1e-9), "float32": (1e-4, 3e-2), "bfloat16": (1e-1, 3e-1)}
# The positional features are float32 by definition, and machines differ in their last bit.
_DEFINITION_BOUNDS = (2e-6, 1e-4)
# Logits of A, C, G and T at the last position of the short and of the long case; the short case's loss, and
# the norm of its gradient.
_DEFINITION = (
    (0.568830079, 0.40643212, 1.770932774, 0.677891698),
    (-0.503412772, 2.382509133, -1.116217807, -1.812224922),
    (2432.9252545,),
    (12489.045873236,),
)

_Path = Callable[[HyenaDNA, Tensor, AbstractContextManager[Any]], list[Tensor]]


def check_definition() -> DeviceCheck:
    """Compare the plain model in float64 on the CPU, the reference of all else, with stored numbers."""
    expected = reference_numbers()
    gradient = torch.stack([g.norm() for g in expected["gradients"]]).norm()
    last = [expected[case][0][-1, -1, A : T + 1] for case in ("inference", "long")]
    stored = [torch.tensor(numbers, dtype=torch.float64) for numbers in _DEFINITION]
    error = _error([*last, *expected["loss"], gradient], stored)
    return DeviceCheck("cpu", "float64", "definition", error, *_DEFINITION_BOUNDS)


def self_test(
    device: torch.device, dtypes: Sequence[str] = DTYPES, paths: Sequence[str] = PATHS
) -> list[DeviceCheck]:
    """Compare inference and training on a device, in each precision it has, with the float64 definition.

    Takes a few seconds. Nothing is raised for a device that cannot compute: that is a failed check.

    Args:
        device: the device.
        dtypes: which of DTYPES; MPS alone has no float64.
        paths: which of PATHS.
    """
    supported = [dtype for dtype in dtypes if dtype != "float64" or device.type != "mps"]
    return [_check(device, dtype, path) for dtype in supported for path in paths]


def _check(device: torch.device, dtype: str, check: str) -> DeviceCheck:
    case, path = _PATHS[check]
    expected, problem, error = reference_numbers()[check], "", math.nan
    half = torch.autocast(device.type, torch.bfloat16) if dtype == "bfloat16" else nullcontext()
    try:
        model = _model(case).to(device, torch.float64 if dtype == "float64" else torch.float32)
        error = _error(path(model, _ids(case).to(device), half), expected)
    except (RuntimeError, MemoryError) as failure:  # no kernel for this device, out of memory, and the like
        problem = str(failure).strip().partition("\n")[0] or type(failure).__name__
    return DeviceCheck(str(device), dtype, check, error, *_BOUNDS[dtype], problem)


def _read(model: HyenaDNA, ids_BL: Tensor, precision: AbstractContextManager[Any]) -> list[Tensor]:
    with torch.no_grad(), precision:
        return [model(ids_BL).logits]


def _train(model: HyenaDNA, ids_BL: Tensor, precision: AbstractContextManager[Any]) -> list[Tensor]:
    with precision:
        loss = next_token_loss(model, ids_BL[:, :-1], ids_BL[:, 1:])
    return list(torch.autograd.grad(loss, list(model.parameters())))


_PATHS: dict[str, tuple[_Case, _Path]] = {
    "inference": (_SHORT, _read),
    "long": (_LONG, _read),
    "gradients": (_SHORT, _train),
}


@cache
def reference_numbers() -> dict[str, list[Tensor]]:
    """Compute what each path must give, and the loss, by the plain model in float64 on the CPU."""
    model, ids_BL = _model(_SHORT), _ids(_SHORT)
    logits = model.plain(ids_BL[:, :-1]).logits.flatten(0, 1)
    loss = functional.cross_entropy(logits, ids_BL[:, 1:].flatten(), reduction="sum")
    gradients = list(torch.autograd.grad(loss, list(model.parameters())))
    with torch.no_grad():
        short, long = (_model(case).plain(_ids(case)).logits for case in (_SHORT, _LONG))
    return {"inference": [short], "long": [long], "gradients": gradients, "loss": [loss.detach()]}


def _error(ours: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference over the largest expected number, of the worst tensor, or NaN."""
    pairs = zip(ours, expected, strict=True)
    return float(torch.stack([(a.cpu().double() - b).abs().max() / b.abs().max() for a, b in pairs]).max())


@torch.no_grad()
def _model(case: _Case) -> HyenaDNA:
    """Make a float64 model in which every parameter matters, and none makes rounding errors grow."""
    with torch.random.fork_rng([]):  # the fresh weights are drawn for nothing
        model = HyenaDNA(case.config).double().eval()
    sizes = [parameter.numel() for parameter in model.parameters()]
    numbers = torch.split(torch.from_numpy(2 * _uniform(case.key, sum(sizes)) - 1), sizes)
    for (name, parameter), values in zip(model.named_parameters(), numbers, strict=True):
        centre, spread = _range(name, parameter, case)
        parameter.copy_(centre + spread * values.view(parameter.shape))
    return model


def _range(name: str, parameter: Tensor, case: _Case) -> tuple[float, float]:
    """Return centre and half width of a parameter's values."""
    unit_variance = math.sqrt(3 / parameter.shape[-1])
    if name.endswith("freq"):
        return 10.0, 1.0
    if "norm" in name or "ln_f" in name:
        return (1.0 if name.endswith("weight") else 0.0), 0.2
    if "implicit_filter" in name:
        last = len(parameter) == case.d_model
        return 0.0, 4 / math.sqrt(case.length) * unit_variance if last else 0.2 * unit_variance
    return 0.0, 0.5 if parameter.ndim == 1 else unit_variance


def _ids(case: _Case) -> Tensor:
    """Draw random bases (B, L)."""
    bases = A + np.floor((T + 1 - A) * _uniform(case.key + 1000, case.batch * case.length))
    return torch.from_numpy(bases.astype(np.int64)).view(case.batch, case.length)


def _uniform(key: int, size: int) -> NDArray[np.float64]:
    """Draw numbers in [0, 1) from the bits of Philox, which no version of numpy and no machine changes."""
    bits = np.random.Philox(key=key).random_raw(size) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53
