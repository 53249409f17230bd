"""Exact generation: one pass over a prompt, then a short step for each token.

What the prompt adds to all later positions is one convolution. What new positions add to later ones is summed
in blocks of 1, 2, 4, ... positions (relaxed convolution: van der Hoeven 2002; for language models, Flash
Inference, arXiv 2410.12982). Before position i, the last U of them are convolved into the next U, where U is
the largest power of two that divides i: every two positions then meet exactly once, and n tokens cost
O(n log^2 n), not the O(n^2) of summing each position's history.

B sequence, P position of the prompt, S of prompt and continuation, n of the continuation, N layer, D width,
U position of a block, F frequency, K the 3 D channels of the projection, j position of the short convolution,
I inner width, V vocabulary row.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from hyenadna.errors import ModelError

from .convolution import filter_features, filter_taps, partition
from .inference import (
    BASES,
    BlockPass,
    final_norm,
    plain_precision,
    product_dtype,
    prompted_stream,
    token_stream,
)
from .pointwise import layer_norm
from .products import activated_product, product
from .tiling import tiling
from .workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyenadna.backbone import Block
    from hyenadna.model import HyenaDNA
    from hyenadna.operator import HyenaFilter

_DIRECT = 32
"""Blocks up to this size cost less term by term than through a transform."""


class Decoder:
    """A model that reads one token after another.

    The prompt takes the memory of one reading: the residual stream and the gated values of one layer. What
    stays, for each layer, channel and new position, is one number per sequence and one for the filter, in the
    filter's precision: 8 (B + 1) MB for 1,000 tokens of 8 layers of width 256.

    Args:
        model: the model; dropout does not act. Its weights must not change while a decoder is in use.
        prompt_BL: (B, L) int64 token ids, shorter prompts padded on the right.
        max_new_tokens: how many tokens can be appended.
        lengths_B: tokens of each prompt that count, 1 to L; L without it.

    Attributes:
        logits_BV: scores of the next token, equal to `model.plain` of all tokens so far at the last of them.

    Raises:
        ModelError: the prompt is not (B, L) or is empty, a length is not 1 to L, or prompt and new tokens
            exceed `longest_input`.
    """

    logits_BV: Tensor

    @torch.no_grad()
    def __init__(
        self, model: "HyenaDNA", prompt_BL: Tensor, max_new_tokens: int, lengths_B: Tensor | None = None
    ):
        _check_room(prompt_BL, max_new_tokens, model)
        if lengths_B is None:
            lengths_B = prompt_BL.new_full(prompt_BL.shape[:1], prompt_BL.shape[1])
        _check_lengths(lengths_B, prompt_BL)
        self._model, self._capacity, self._n = model, max_new_tokens, 0
        with plain_precision(prompt_BL.device):
            self._read(prompt_BL, lengths_B, product_dtype(model.backbone, prompt_BL.device))

    @torch.no_grad()
    def append(self, ids_B: Tensor) -> Tensor:
        """Append a token to each sequence, and return the new `logits_BV`.

        Raises:
            ModelError: there are not B ids, or `max_new_tokens` have been appended before.
        """
        if ids_B.shape != self.logits_BV.shape[:1]:
            raise ModelError(f"a step takes {len(self.logits_BV)} ids, not a tensor {tuple(ids_B.shape)}")
        if self._n == self._capacity:
            raise ModelError(
                f"this decoder has room for {self._capacity:,} new tokens", remedy="make it with more"
            )
        with plain_precision(ids_B.device):
            r_BD = token_stream(self._model.backbone, ids_B[:, None])[:, 0]
            for step, slot_BD in zip(self._steps, self._long.at(self._n), strict=True):
                step.run_(r_BD, slot_BD)
            self._n += 1
            return self._score(r_BD)

    @torch.no_grad()
    def select(self, rows_R: Tensor) -> None:
        """Keep these sequences, in this order: some are dropped, or one is continued several times.

        Args:
            rows_R: (R,) int64 indices of the sequences so far; one may come more than once.
        """
        self._long.select(rows_R)
        for step in self._steps:
            step.select(rows_R)
        self.logits_BV = self.logits_BV[rows_R]

    def _read(self, prompt_BL: Tensor, lengths_B: Tensor, dtype: torch.dtype) -> None:
        """Run the prompt, with products in `dtype`, and set up the steps."""
        backbone = self._model.backbone
        r_BPD = prompted_stream(backbone, prompt_BL)
        b, prompt, d = r_BPD.shape
        end_B = lengths_B.to(r_BPD.device) + backbone.n_soft
        row_B1 = torch.arange(b, device=r_BPD.device)[:, None]
        new_Bn = end_B[:, None] + torch.arange(self._capacity, device=r_BPD.device)
        length, sizes = prompt + self._capacity, tiling(d, r_BPD.device)
        part, blocks = partition(length, sizes), backbone.blocks()
        filters = [block.mixer.filter_fn for block in blocks]
        taps_nND = _first_taps(filters, self._capacity)
        z_DBS = taps_nND.new_empty(d, b, length)
        line_nNBD = taps_nND.new_empty(self._capacity, len(blocks), b, d)
        self._steps, work, ends = [], Workspace(), end_B.tolist()
        for index, block in enumerate(blocks):
            full = BlockPass(block, dtype, sizes)
            past_Bj = end_B[:, None] + torch.arange(-min(full.history, prompt), 0, device=r_BPD.device)
            past_BjD = r_BPD[row_B1, past_Bj.clamp(min=0)]
            now_D = taps_nND[0, index] + filters[index].bias
            self._steps.append(_BlockStep(block, dtype, past_BjD, past_Bj >= 0, now_D))
            full.gate_(r_BPD, z_DBS)
            # zeros after each prompt become what it adds there
            for row, end in enumerate(ends):
                z_DBS[:, row, end:] = 0
            full.convolve_(z_DBS, backbone.spectra.spectra(filters, index, part), part, work)
            full.finish_(r_BPD, z_DBS)
            line_nNBD[:, index] = z_DBS[:, row_B1, new_Bn].permute(2, 1, 0)
        self._long = _LongConvolution(line_nNBD, taps_nND)
        self._score(r_BPD[row_B1[:, 0], end_B - 1])

    def _score(self, r_BD: Tensor) -> Tensor:
        self.logits_BV = self._model.lm_logits(final_norm(self._model.backbone, r_BD))
        return self.logits_BV


class _BlockStep:
    """One block, position after position.

    It has as few operations as possible: for a single token many cost more to call than to do.

    Args:
        block: the block.
        dtype: of the products.
        past_BjD: residuals before the block at the positions that the next one's projection depends on.
        real_Bj: which of these positions there are; before a sequence, the short convolution reads zeros.
        now_D: weight of the current position in the long convolution: tap 0 and the skip term.
    """

    def __init__(self, block: "Block", dtype: torch.dtype, past_BjD: Tensor, real_Bj: Tensor, now_D: Tensor):
        self._norm1, self._norm2, self._dtype, self._now_D = block.norm1, block.norm2, dtype, now_D
        mixer, mlp = block.mixer, block.mlp
        self._in, self._out = _affine(mixer.in_proj, dtype), _affine(mixer.out_proj, dtype)
        self._fc1, self._fc2 = _affine(mlp.fc1, dtype), _affine(mlp.fc2, dtype)
        self._short = _ShortConvolution(mixer.short_filter, dtype, len(past_BjD))
        for r_BD, real_B in zip(past_BjD.unbind(1), real_Bj.unbind(1), strict=True):
            self._short.push(self._affine(r_BD) * real_B[:, None])

    def select(self, rows_R: Tensor) -> None:
        """Keep these sequences."""
        self._short.select(rows_R)

    def run_(self, r_BD: Tensor, slot_BD: Tensor) -> None:
        """Run the block at the next position, in place.

        Args:
            r_BD: residuals, input and output.
            slot_BD: what earlier positions add to the long convolution; becomes its gated input here.
        """
        x0_BD, x1_BD, v_BD = self._project(r_BD)
        z_BD = (v_BD * x1_BD).to(slot_BD.dtype)
        y_BD = torch.addcmul(slot_BD, z_BD, self._now_D)
        slot_BD.copy_(z_BD)
        r_BD += product(y_BD.to(self._dtype).mul_(x0_BD), *self._out)
        inner_BI = activated_product(layer_norm(self._norm2, r_BD, self._dtype), *self._fc1, _gelu)
        r_BD += product(inner_BI, *self._fc2)

    def _project(self, r_BD: Tensor) -> tuple[Tensor, ...]:
        """Compute norm, projection and short convolution at the next position: x0, x1 and v."""
        return self._short.push(self._affine(r_BD))

    def _affine(self, r_BD: Tensor) -> Tensor:
        return product(layer_norm(self._norm1, r_BD, self._dtype), *self._in)


class _ShortConvolution:
    """The short convolution, position after position, from a history of zeros.

    Args:
        short: the layer.
        dtype: of its arithmetic.
        batch: B.
    """

    def __init__(self, short: nn.Conv1d, dtype: torch.dtype, batch: int):
        self._weight_j1K = short.weight.to(dtype).permute(2, 1, 0).flip(0)
        bias_K = short.bias.to(dtype)  # type: ignore[union-attr]
        # Row j of the sums: the output j positions on, summed so far. The last row stays the bias alone.
        sums_jBK = bias_K.repeat(short.kernel_size[0] + 1, batch, 1)
        # the two buffers are swapped at every position, so that nothing is shifted
        self._share(sums_jBK, sums_jBK.clone())

    def _share(self, *sums_jBK: Tensor) -> None:
        self._sums_jBK = sums_jBK
        self._read, self._written = ((t[1:], t[:-1], t[0].chunk(3, dim=1)) for t in sums_jBK)

    def select(self, rows_R: Tensor) -> None:
        """Keep these sequences."""
        self._share(*(t[:, rows_R] for t in self._sums_jBK))

    def push(self, u_BK: Tensor) -> tuple[Tensor, ...]:
        """Return the thirds of the output, each (B, D), at the next position; valid for two positions."""
        self._read, self._written = self._written, self._read
        self._sums_jBK = self._sums_jBK[::-1]
        torch.addcmul(self._written[0], u_BK, self._weight_j1K, out=self._read[1])
        return self._read[2]


class _LongConvolution:
    """The long convolutions of all layers over the new positions.

    Args:
        line_nNBD: a value for each position. Before it has been read: the sum so far of what earlier
            positions add to its convolution; afterwards: its gated input, which the caller writes.
        taps_nND: the filters from lag 0.
    """

    def __init__(self, line_nNBD: Tensor, taps_nND: Tensor):
        self._line_nNBD, self._taps_nN1D = line_nNBD, taps_nND[:, :, None]

    def at(self, i: int) -> Tensor:
        """Return position i, (N, B, D), as a view: all that earlier positions add to it. Call it in order."""
        size = i & -i
        if size:
            self._add_block_(self._line_nNBD[i - size : i], self._line_nNBD[i : i + size])
        return self._line_nNBD[i]

    def select(self, rows_R: Tensor) -> None:
        """Keep these sequences."""
        self._line_nNBD = self._line_nNBD[:, :, rows_R]

    def _add_block_(self, z_UNBD: Tensor, ahead_UNBD: Tensor) -> None:
        """Add the contribution of a block to the positions ahead, of which there may be fewer."""
        size, n_ahead = len(z_UNBD), len(ahead_UNBD)
        if size <= _DIRECT:
            for m, z_NBD in enumerate(z_UNBD):
                nearest = size - m
                ahead_UNBD.addcmul_(z_NBD, self._taps_nN1D[nearest : nearest + n_ahead])
            return
        for layer in range(z_UNBD.shape[1]):
            spectrum_F1D = torch.fft.rfft(self._taps_nN1D[: 2 * size, layer], n=2 * size, dim=0)
            y_FBD = torch.fft.rfft(z_UNBD[:, layer], n=2 * size, dim=0).mul_(spectrum_F1D)
            ahead_UNBD[:, layer] += torch.fft.irfft(y_FBD, n=2 * size, dim=0)[size : size + n_ahead]


def generate(
    model: "HyenaDNA",
    prompt_BL: Tensor,
    n: int,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    among: tuple[int, int] = BASES,
) -> Tensor:
    """Continue each prompt by n tokens, and return the new ids, (B, n) int64.

    Args:
        model: the model.
        prompt_BL: (B, L) int64 token ids.
        n: tokens to make, at least 1. The last of them may be one past `longest_input`, since it is not read.
        temperature: divides the scores before sampling; 0 takes the highest score.
        generator: source of the samples, on the CPU; torch's default without it.
        among: the vocabulary rows that may be chosen, half-open: A, C, G and T.

    Raises:
        ModelError: as `Decoder`, or n is less than 1, or the temperature is negative.
    """
    if n < 1:
        raise ModelError(f"the number of tokens to make must be at least 1, not {n}")
    if not temperature >= 0:
        raise ModelError(f"the temperature must not be negative, but is {temperature}")
    decoder = Decoder(model, prompt_BL, n - 1)
    chosen = [_choose(decoder.logits_BV, temperature, generator, among)]
    while len(chosen) < n:
        chosen.append(_choose(decoder.append(chosen[-1]), temperature, generator, among))
    return torch.stack(chosen, dim=1)


def _choose(
    logits_BV: Tensor, temperature: float, generator: torch.Generator | None, among: tuple[int, int]
) -> Tensor:
    """Choose one id per row, on the CPU: a generator then draws the same for every device of the model."""
    first, last = among
    scores_BV = logits_BV[:, first:last].cpu().double()
    if temperature == 0:
        chosen_B = scores_BV.argmax(-1)
    else:
        # from the highest score down: a small temperature then gives -inf, never inf
        below_BV = (scores_BV - scores_BV.amax(-1, keepdim=True)) / temperature
        chosen_B = torch.multinomial(below_BV.softmax(-1), 1, generator=generator)[:, 0]
    return (chosen_B + first).to(logits_BV.device)


def _check_room(prompt_BL: Tensor, new: int, model: "HyenaDNA") -> None:
    if prompt_BL.ndim != 2 or prompt_BL.shape[1] < 1:
        raise ModelError(
            f"a prompt must be (batch, length) with a token at least, not {tuple(prompt_BL.shape)}"
        )
    if new < 0:
        raise ModelError(f"the number of new tokens must not be negative, but is {new}")
    prompt = prompt_BL.shape[1]
    if prompt + new > model.longest_input:
        raise ModelError(
            f"a prompt of {prompt:,} tokens and {new:,} new ones exceed the model's "
            f"{model.backbone.describe_room()}",
            remedy="shorten the prompt, ask for fewer tokens or use a model with a longer context",
        )


def _check_lengths(lengths_B: Tensor, prompt_BL: Tensor) -> None:
    b, length = prompt_BL.shape
    if lengths_B.shape != (b,) or not bool(((lengths_B >= 1) & (lengths_B <= length)).all()):
        raise ModelError(f"the lengths of {b} prompts must be 1 to {length:,}, not {lengths_B.tolist()}")


def _first_taps(filters: "Sequence[HyenaFilter]", length: int) -> Tensor:
    """Compute the taps (n, N, D) of all layers at lags below `length`, at least one."""
    taps_DN = [filter_taps(layer, filter_features(layer, max(1, length)), slice(None)) for layer in filters]
    return torch.stack([k_Dn.T for k_Dn in taps_DN], dim=1)


def _affine(layer: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return layer.weight.to(dtype), layer.bias.to(dtype)


def _gelu(x_BI: Tensor) -> Tensor:
    return functional.gelu(x_BI, approximate="tanh")
