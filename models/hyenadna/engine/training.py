"""The model with gradients, in a fraction of the plain model's memory.

Each half of a block keeps only its input; the loss never holds the logits of all positions.

B sequence, L position, N = B L tokens, D width, H filter width, V vocabulary row.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from hyenadna.adapters import trained_weight
from hyenadna.errors import ModelError
from hyenadna.tokenizer import PAD, A, T

from .gated import Fixed, three
from .inference import plain_precision, product_dtype
from .mixer import ContextGroup, MixerWithGradients
from .pointwise import MlpWithGradients, zeros
from .tiling import Tiling, slices, training_tiling

if TYPE_CHECKING:
    from hyenadna.backbone import Backbone, Block
    from hyenadna.model import HyenaDNA
    from hyenadna.operator import HyenaFilter

IGNORED = -100


def next_bases(tokens_BW: Tensor) -> Tensor:
    """Return the base after every token but the last (B, W - 1), `IGNORED` where it is no A, C, G or T."""
    targets_BL = tokens_BW[:, 1:]
    return targets_BL.masked_fill((targets_BL < A) | (targets_BL > T), IGNORED)


def run(
    backbone: "Backbone", x_BLD: Tensor, *, hidden_states: bool = False
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    """Compute the states after the final norm, and after each block if `hidden_states`, with gradients.

    Equals `Backbone.forward`, dropout included; where `backbone.activation_checkpointing` is set, a block
    keeps nothing but its input and is computed again in the backward pass. Where processes share windows
    (`backbone.context`), x and the states are this one's positions.

    Raises:
        ModelError: as `Backbone.forward`, or processes share windows that follow a soft prompt.
    """
    backbone.check_length(x_BLD.shape[1])
    backbone.check_readable()
    if backbone.n_soft and backbone.context is not None:
        raise ModelError(
            "windows with a soft prompt cannot be shared by processes", remedy="give each its own windows"
        )
    x_BLD = backbone.prompted(x_BLD)
    r_BLD = backbone.dropout(x_BLD.to(torch.promote_types(x_BLD.dtype, torch.float32)))
    dtype, sizes = product_dtype(backbone, r_BLD.device), training_tiling(r_BLD.shape[-1], r_BLD.device)
    blocks = backbone.blocks()
    n_kept = 1 if backbone.activation_checkpointing else len(blocks)
    keep = _Keep.within(sizes.kept_bytes // n_kept, r_BLD, blocks[0])
    run_block = partial(_block, dtype=dtype, sizes=sizes, keep=keep, backbone=backbone)
    residuals = []
    for block in blocks:
        if backbone.activation_checkpointing:
            r_BLD = recomputed(partial(run_block, block), r_BLD, block)
        else:
            r_BLD = run_block(block, r_BLD)
        if hidden_states:
            residuals.append(r_BLD[:, backbone.n_soft :])
    hidden_BLD: Tensor = backbone.ln_f(r_BLD[:, backbone.n_soft :].to(backbone.ln_f.weight.dtype))
    return hidden_BLD, tuple(residuals) if hidden_states else None


@dataclass(frozen=True)
class _Keep:
    """Which halves of the blocks keep what their gradients need, instead of computing it again.

    Attributes:
        mlp: the inner layers and their slopes.
        mixer: projections, gated spectra and convolutions.
    """

    mlp: bool
    mixer: bool

    @classmethod
    def within(cls, n_bytes: int, r_BLD: Tensor, block: "Block") -> Self:
        """Return what of one block can be kept in so much memory: the MLP first, which saves more for it."""
        inner, d = block.mlp.fc1.out_features, r_BLD.shape[-1]
        mlp = r_BLD[..., 0].numel() * (2 * inner + d) * r_BLD.itemsize
        # h, u and s; the padded convolution, and as much for its input's spectrum
        mixer = r_BLD[..., 0].numel() * (7 + 2 * 2.3) * d * r_BLD.itemsize
        return cls(mlp <= n_bytes, mlp + mixer <= n_bytes)


def _block(
    block: "Block", r_BLD: Tensor, *, dtype: torch.dtype, sizes: Tiling, keep: _Keep, backbone: "Backbone"
) -> Tensor:
    """Compute `backbone.Block.forward`."""
    if not torch.is_grad_enabled():
        keep = _Keep(mlp=False, mixer=False)
    with plain_precision(r_BLD.device):
        # neither half needs its own output for its gradient: the sum can overwrite it
        mixed_BLD: Tensor = block.dropout(_mix(block, r_BLD, dtype, sizes, keep, backbone))
        r_BLD = _add(mixed_BLD, r_BLD)
        fed_BLD: Tensor = block.dropout(_feed(block, r_BLD, dtype, sizes, keep))
        return _add(fed_BLD, r_BLD)


def _add(out_BLD: Tensor, r_BLD: Tensor) -> Tensor:
    return out_BLD.add_(r_BLD) if out_BLD.dtype == r_BLD.dtype else r_BLD + out_BLD


def _mix(
    block: "Block", r_BLD: Tensor, dtype: torch.dtype, sizes: Tiling, keep: _Keep, backbone: "Backbone"
) -> Tensor:
    (batch, n_local, d), mixer, context = r_BLD.shape, block.mixer, backbone.context
    length, positions, channels = n_local, slice(0, n_local), slice(d)
    if context is not None:
        # positions that were filled up may lie beyond those the filter has values for
        length = min(n_local * context.size, mixer.filter_fn.pos_emb.z.shape[1])
        positions, channels = context.positions(n_local), context.local_channels(d)
        # of its channels a process has whole sequences: fewer at once, or a share would need as much memory
        fewer = max(1, sizes.min_channels // context.size)
        sizes = replace(sizes, samples=sizes.samples // context.size, min_channels=fewer)
        keep = replace(keep, mixer=False)
    out_BLD: Tensor = MixerWithGradients.apply(  # type: ignore[no-untyped-call]
        r_BLD,
        block.norm1.weight,
        block.norm1.bias,
        trained_weight(mixer.in_proj).to(dtype),
        *_convolutions(block, channels, positions, dtype, sizes.feature_rows),
        trained_weight(mixer.out_proj).to(dtype),
        mixer.out_proj.bias.to(dtype),
        replace(_fixed(block, channels, (batch, length), sizes, context), keep=keep.mixer),
    )
    return out_BLD


def _convolutions(
    block: "Block", channels: slice, positions: slice, dtype: torch.dtype, feature_rows: int
) -> list[Tensor]:
    """Return the tensors of `gated.Convolutions` for these channels, the features for these positions."""
    mixer, layer = block.mixer, block.mixer.filter_fn
    short = mixer.short_filter
    learned: list[Tensor] = [mixer.in_proj.bias, short.weight[:, 0], cast("Tensor", short.bias)]
    last_w: Tensor = layer.last_weight
    skip_D: Tensor = layer.bias
    if channels != slice(len(skip_D)):
        learned = [three(t, channels) for t in learned]
        last_w, skip_D = last_w[channels], skip_D[channels]
    return [*(t.to(dtype) for t in learned), _features(layer, positions, feature_rows), last_w, skip_D]


def _fixed(
    block: "Block", channels: slice, shape: tuple[int, int], sizes: Tiling, context: ContextGroup | None
) -> Fixed:
    """Return what is not learned, for these channels of inputs of this shape (B, L)."""
    dropout, layer = block.mixer.dropout, block.mixer.filter_fn
    rate_D, share = layer.modulation.deltas[0, 0, channels].abs(), 1 - dropout.p
    kept_DBL = None
    if dropout.p > 0 and dropout.training:
        kept_DBL = torch.rand(len(rate_D), *shape, device=rate_D.device) < share
    return Fixed(
        eps=block.norm1.eps,
        t_L=layer.pos_emb.t[0, : shape[1], 0],
        rate_D=rate_D,
        shift=layer.modulation.shift,
        kept_DBL=kept_DBL,
        share=share,
        sizes=sizes,
        context=context,
    )


def _feed(block: "Block", r_BLD: Tensor, dtype: torch.dtype, sizes: Tiling, keep: _Keep) -> Tensor:
    norm, fc1, fc2 = block.norm2, block.mlp.fc1, block.mlp.fc2
    weights = (trained_weight(fc1), fc1.bias, trained_weight(fc2), fc2.bias)
    matrices = [t.to(dtype) for t in weights]
    out_ND: Tensor = MlpWithGradients.apply(  # type: ignore[no-untyped-call]
        r_BLD.flatten(0, 1), norm.weight, norm.bias, *matrices, norm.eps, sizes.tokens, keep.mlp
    )
    return out_ND.view(r_BLD.shape)


def _features(layer: "HyenaFilter", positions: slice, feature_rows: int) -> Tensor:
    """Compute `convolution.filter_features` with gradients, keeping nothing: each slice is computed again.

    Positions beyond those that the filter has values for are zeros.
    """
    mlp, z_LE = layer.implicit_filter[:-1], layer.pos_emb.z[0, positions]
    if len(z_LE) <= feature_rows:
        out_LH: Tensor = mlp(z_LE)  # keeps little
    else:
        out_LH = torch.cat([recomputed(mlp, z_LE[rows], mlp) for rows in slices(len(z_LE), feature_rows)])
    missing = positions.stop - positions.start - len(z_LE)
    return functional.pad(out_LH, (0, 0, 0, missing)) if missing else out_LH


def next_token_loss(
    model: "HyenaDNA", inputs_BL: Tensor, targets_BL: Tensor, weights_BL: Tensor | None = None
) -> Tensor:
    """Compute the sum of -log p(target | tokens up to and including its position), in nats: a float32 scalar.

    All vocabulary rows are in the softmax, as the published models were trained; targets of -100 are left
    out. Equals the cross entropy of `model(inputs_BL).logits`, which are never held for all positions.

    Where processes share windows (`backbone.context`), each gives the whole windows and gets the sum over its
    own positions; sums over the processes of losses and of gradients are those of a single one. Dropout is
    drawn by each for its part: seed them differently.

    Args:
        model: of this package.
        inputs_BL: tokens.
        targets_BL: the token after each.
        weights_BL: of each summand; None for 1.
    """
    context = model.backbone.context if torch.is_grad_enabled() or model.training else None
    if context is not None:
        model.backbone.check_length(inputs_BL.shape[1])
        inputs_BL, targets_BL = (
            context.local_positions(inputs_BL, PAD),
            context.local_positions(targets_BL, IGNORED),
        )
        weights_BL = None if weights_BL is None else context.local_positions(weights_BL, 0)
    hidden_BLD = model.hidden(inputs_BL)
    weights_N = torch.ones((), device=hidden_BLD.device) if weights_BL is None else weights_BL.flatten()
    rows = training_tiling(hidden_BLD.shape[-1], hidden_BLD.device).loss_tokens
    loss: Tensor = _SlicedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_BLD.flatten(0, 1),
        model.lm_weight,
        targets_BL.flatten(),
        weights_N.expand(targets_BL.numel()),
        rows,
    )
    return loss


class _SlicedCrossEntropy(torch.autograd.Function):
    """Scaled sum of cross entropies of states (N, D) through the matrix (V, D); logits are made twice."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scale_N: Tensor, tokens: int
    ) -> Tensor:
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, scale_N)
        ctx.tokens = tokens
        total = torch.zeros(
            (), dtype=torch.promote_types(hidden_ND.dtype, torch.float32), device=hidden_ND.device
        )
        for rows in slices(len(hidden_ND), tokens):
            logits_nV = _logits(hidden_ND[rows], weight_VD)
            nats_n = functional.cross_entropy(
                logits_nV, targets_N[rows], ignore_index=IGNORED, reduction="none"
            )
            total += (nats_n * scale_N[rows]).sum()
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, targets_N, scale_N = ctx.saved_tensors
        d_hidden_ND, d_weight_VD = zeros((hidden_ND, weight_VD), ctx.needs_input_grad[:2])
        for rows in slices(len(hidden_ND), ctx.tokens):
            targets_n1 = targets_N[rows, None]
            real_n1 = targets_n1 != IGNORED
            d_logits_nV = _logits(hidden_ND[rows], weight_VD).softmax(-1)
            d_logits_nV.scatter_add_(1, targets_n1.where(real_n1, 0), -real_n1.to(d_logits_nV.dtype))
            d_logits_nV = d_logits_nV.mul_(real_n1 * scale_N[rows, None]).mul_(d_loss).to(weight_VD.dtype)
            if d_hidden_ND is not None:
                torch.mm(d_logits_nV, weight_VD, out=d_hidden_ND[rows])
            if d_weight_VD is not None:
                d_weight_VD.addmm_(d_logits_nV.T, hidden_ND[rows])
        return d_hidden_ND, d_weight_VD, None, None, None


def _logits(hidden_nD: Tensor, weight_VD: Tensor) -> Tensor:
    with plain_precision(hidden_nD.device):
        logits_nV = functional.linear(hidden_nD, weight_VD)
    return logits_nV.to(torch.promote_types(logits_nV.dtype, torch.float32))


def recomputed(run: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module) -> Tensor:
    """Compute `run(x)`, keeping only x: intermediate results are made again when the gradient asks for them.

    torch's own checkpointing does the same, but importing it loads its compiler: a second and 150 MB.

    Args:
        run: a function of x and of the parameters of `module`. Random numbers are drawn again alike.
        x: its input.
        module: holder of every parameter that `run` uses.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    out: Tensor = _Recomputed.apply(run, x, *parameters)  # type: ignore[no-untyped-call]
    return out


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[[Tensor], Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x, *parameters)
        kind = x.device.type
        ctx.run, ctx.random = run, _RandomState(x.device)
        ctx.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        return run(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        x = x.detach().requires_grad_(ctx.needs_input_grad[1])
        inputs = (x, *parameters)
        with torch.enable_grad(), ctx.random.again(), torch.autocast(*ctx.autocast):
            out = ctx.run(x)
        out.data = d_out  # only its graph is needed: this frees its memory
        needed = [t for t in inputs if t.requires_grad]
        gradients = iter(torch.autograd.grad(out, needed, d_out, allow_unused=True))
        return None, *(next(gradients) if t.requires_grad else None for t in inputs)


class _RandomState:
    """The state of the random numbers a device draws from."""

    def __init__(self, device: torch.device):
        self._cuda = [device] if device.type == "cuda" else []
        self._states = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self._cuda)]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Return a context that draws the same numbers again, and then restores the state."""
        with torch.random.fork_rng(self._cuda):
            torch.set_rng_state(self._states[0])
            for device, state in zip(self._cuda, self._states[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
