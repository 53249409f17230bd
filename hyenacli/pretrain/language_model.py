"""Next-nucleotide prediction: the model, and its objective in the training loop.

B batch, L input positions, W = L + 1 bases in a window, V vocabulary rows.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hyenacli import console
from hyenacli.adaptation.methods import load_merged
from hyenacli.distributed import current_ranks, sum_over_ranks
from hyenacli.errors import UsageError, UserError
from hyenacli.inference.sampling import WindowSampler
from hyenacli.pretrain.settings import PretrainSettings
from hyenacli.readers.genome import SOFT_MASKED, Codes, Tokens
from hyenadna import HyenaDNA, preset
from hyenadna.engine.mixer import ContextGroup
from hyenadna.engine.training import IGNORED, next_bases, next_token_loss

DEFAULT_PRESET = "tiny-1k"


def build_model(settings: PretrainSettings) -> HyenaDNA:
    """Build the model to train: a preset's architecture with the flags' changes, or another model's weights.

    A fresh model's l_max is its context + 2, as in every published one; weights depend on --seed alone.

    Raises:
        UsageError: --init-from with flags of the architecture.
        UserError: --max-length is beyond the model, or the model has a soft prompt.
    """
    if settings.init_from is not None:
        architecture = settings.preset or settings.d_model or settings.n_layer
        if architecture or settings.window_shift is not None:
            remedy = "leave out --preset, --d-model, --n-layer and --window-shift"
            raise UsageError("--init-from fixes the architecture", remedy=remedy)
        model = _load_language_model(settings.init_from)
        if settings.max_length and settings.max_length > model.config.l_max:
            raise UserError(
                f"--max-length {settings.max_length} is beyond the model's {model.config.l_max} tokens",
                at=settings.init_from,
                remedy="choose a model with a longer context",
            )
        return model
    config = preset(settings.preset or DEFAULT_PRESET)
    if settings.d_model:
        config = replace(config, d_model=settings.d_model, d_inner=4 * settings.d_model)
    if settings.n_layer:
        config = replace(config, n_layer=settings.n_layer)
    if settings.max_length:
        config = replace(config, l_max=settings.max_length + 2)
    if settings.window_shift is not None:
        config = replace(config, window_shift=settings.window_shift)
    return HyenaDNA(config, generator=torch.Generator().manual_seed(settings.seed))


def _load_language_model(spec: str) -> HyenaDNA:
    """Load the model to start from, without head and demonstrations; LoRA becomes part of the weights."""
    model = load_merged(spec)
    if model.config.head is not None or model.config.demonstrations is not None:
        dropped = "head" if model.config.demonstrations is None else "demonstrations"
        console.log.info("%s: pretraining leaves out its %s", spec, dropped)
        model.config, model.head = replace(model.config, head=None, demonstrations=None), None
    return model


def share_windows(model: HyenaDNA, ranks: int) -> None:
    """Let groups of `ranks` neighbouring ranks train on the same windows, each on a part of the positions.

    Raises:
        UsageError: the number of processes is not a multiple of `ranks`.
        ModelError: the model's width is not.
    """
    if ranks == 1:
        return
    world = current_ranks().world_size
    if world % ranks:
        raise UsageError(
            f"{world} process(es) cannot form groups of {ranks}",
            at="--context-parallel",
            remedy=f"start a multiple of {ranks}, for example with --nproc-per-node {ranks}",
        )
    for first in range(0, world, ranks):
        group = dist.new_group(list(range(first, first + ranks)))
        if first <= current_ranks().rank < first + ranks:
            model.backbone.context = ContextGroup(group)
            model.backbone.context.local_channels(model.config.d_model)


@dataclass(frozen=True)
class WindowBatch:
    """Windows on the device.

    Attributes:
        inputs: (B, L).
        targets: the bases that follow them (B, L), with N and [PAD] ignored.
        weights: of each prediction (B, L); None if all weigh the same.
        count: the sum of the weights of what is not ignored.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor | None
    count: float


def window_batch(codes_BW: Codes, device: torch.device, soft_mask_weight: float = 1.0) -> WindowBatch:
    """Move windows of codes to a device, as inputs and targets.

    Only A, C, G and T are predicted: N and padding are ignored, unlike in the first public code, which trains
    on padding.

    Args:
        codes_BW: the windows.
        device: where they go.
        soft_mask_weight: of predictions of soft-masked bases; the others count 1.
    """
    codes = torch.from_numpy(codes_BW).to(device, non_blocking=True)
    tokens_BW = (codes & int(~SOFT_MASKED)).long()
    inputs_BL, targets_BL = tokens_BW[:, :-1], next_bases(tokens_BW)
    real_BL = targets_BL != IGNORED
    if soft_mask_weight == 1.0:
        return WindowBatch(inputs_BL, targets_BL, None, float(real_BL.sum()))
    weights_BL = torch.where(codes[:, 1:] >= int(SOFT_MASKED), soft_mask_weight, 1.0)
    return WindowBatch(inputs_BL, targets_BL, weights_BL, float((weights_BL * real_BL).sum()))


class NextNucleotide:
    """Objective of cross entropy in float32 over all vocabulary rows, as the published models were trained.

    Args:
        sampler: the training stream.
        valid_NW: fixed held-out windows (N, W), whose bases all weigh the same; if there are none, `evaluate`
            returns NaN.
        batch_size: windows per forward pass in evaluation.
        device: where batches go.
        soft_mask_weight: of soft-masked bases in training.
    """

    evaluation_columns: tuple[str, ...] = ("valid_loss", "valid_bits_per_base", "valid_perplexity")
    monitor = "valid_loss"
    higher_is_better = False
    tie_breaker = monitor

    def __init__(
        self,
        sampler: WindowSampler,
        valid_NW: Tokens,
        *,
        batch_size: int,
        device: torch.device,
        soft_mask_weight: float = 1.0,
    ):
        self._sampler, self._valid_NW, self._batch_size = sampler, valid_NW, batch_size
        self._device, self._soft_mask_weight = device, soft_mask_weight

    def read(self, windows: range, length: int) -> Codes:
        """Read windows of the training stream with `length` predictions each, as codes (B, L + 1)."""
        return self._sampler.rows(windows, length + 1)

    def batch(self, host: Codes) -> WindowBatch:
        """Move windows to the device."""
        return window_batch(host, self._device, self._soft_mask_weight)

    def loss(self, model: nn.Module, batch: WindowBatch) -> Tensor:
        """Sum -log p(base | bases before it in the window) over the batch, weighted, in nats."""
        assert isinstance(model, HyenaDNA)  # noqa: S101  (internal invariant)
        return next_token_loss(model, batch.inputs, batch.targets, batch.weights)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Compute mean nats, bits and perplexity per base over the held-out windows, shared by the ranks."""
        ranks = current_ranks()
        windows_NW = self._valid_NW[ranks.rank :: ranks.world_size]
        total, count = 0.0, 0.0
        for start in range(0, len(windows_NW), self._batch_size):
            batch = window_batch(windows_NW[start : start + self._batch_size], self._device)
            total += float(self.loss(model, batch))
            count += batch.count
        total, bases = sum_over_ranks(total, count, device=self._device)
        nats = total / bases if bases else math.nan
        return {
            "valid_loss": nats,
            "valid_bits_per_base": nats / math.log(2),
            "valid_perplexity": math.exp(nats),
        }
