"""Fresh weights by the official rule (`_init_weights`)."""

import math

import torch
from torch import Tensor, nn

from .config import HyenaConfig
from .filter import HyenaFilter, Sin
from .operator import HyenaOperator

_STD = 0.02


@torch.no_grad()
def initialise(model: nn.Module, config: HyenaConfig, generator: torch.Generator | None = None) -> None:
    """Draw every parameter of `model` anew, in the order of its modules.

    Linear weights (the filter MLP's too) and embeddings N(0, 0.02), biases 0; what writes into the residual
    stream (out_proj, fc2) N(0, 0.02 / sqrt(2 n_layer)); short convolution uniform within 1/sqrt(taps); skip
    N(0, 1); sine frequencies `activation_freq`; LayerNorm 1 and 0. (The Hugging Face port never applies the
    rule for out_proj and fc2; we follow the code the models were trained with.)

    Args:
        model: a module made of this package's parts.
        config: its architecture.
        generator: source of the numbers; torch's default one without it.
    """
    residual_std = _STD / math.sqrt(2 * config.n_layer)
    for name, module in model.named_modules():
        writes_residual = name.endswith(("mixer.out_proj", "mlp.fc2"))
        _fill(module, residual_std if writes_residual else _STD, config, generator)


def _fill(module: nn.Module, std: float, config: HyenaConfig, generator: torch.Generator | None) -> None:
    if isinstance(module, nn.Linear):
        module.weight.normal_(0, std, generator=generator)
        _zero(module.bias)
    elif isinstance(module, nn.Embedding):
        module.weight.normal_(0, std, generator=generator)
    elif isinstance(module, nn.LayerNorm):
        module.weight.fill_(1)
        _zero(module.bias)
    elif isinstance(module, Sin):
        module.freq.fill_(config.activation_freq)
    elif isinstance(module, HyenaFilter):
        module.bias.normal_(0, 1, generator=generator)
    elif isinstance(module, HyenaOperator):
        bound = 1 / math.sqrt(config.short_filter_order)
        for tensor in module.short_filter.parameters():
            tensor.uniform_(-bound, bound, generator=generator)


def _zero(bias: Tensor | None) -> None:
    if bias is not None:
        bias.zero_()
