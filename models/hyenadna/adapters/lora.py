"""LoRA: linear layers with a trained change of low rank.

O output feature, I input feature, R rank.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from hyenadna.errors import ModelError

from .methods import Adapter, LoraConfig, freeze

if TYPE_CHECKING:
    from hyenadna.backbone import Block
    from hyenadna.model import HyenaDNA


class LoraLinear(nn.Linear):
    """A linear layer whose `weight` is W + alpha / rank * B A.

    W and the bias keep the names they had in the state dict; A and B stand beside them under peft's names.
    B is zero at first, so that a fresh change is none.

    Args:
        layer: the layer, whose parameters are taken over.
        config: of the change.
        generator: source of A; torch's default without it.
    """

    def __init__(self, layer: nn.Linear, config: LoraConfig, generator: torch.Generator | None = None):
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        base_OI = layer.get_parameter("weight")
        # its name is that of the property, which stands before it
        self._parameters["weight"] = base_OI
        self.bias = layer.bias
        self.scale, self.dropout = config.alpha / config.rank, config.dropout
        bound = self.in_features**-0.5
        # drawn on the CPU: a generator then gives the same numbers for every device of the model
        a_RI = torch.empty(config.rank, self.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_A = _matrix(a_RI.to(base_OI))
        self.lora_B = _matrix(base_OI.new_zeros(self.out_features, config.rank))
        self.train(layer.training)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The effective weight (O, I), without dropout."""
        return self._changed(self.lora_A.weight)

    def trained_weight(self) -> Tensor:
        """Compute the effective weight (O, I) for one pass of training, with input features of A dropped."""
        a_RI = self.lora_A.weight
        kept_I = functional.dropout(a_RI.new_ones(self.in_features), self.dropout, self.training)
        return self._changed(a_RI * kept_I)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return functional.linear(x, self.trained_weight(), self.bias)

    def merged(self) -> nn.Linear:
        """Return a plain layer that computes the same."""
        layer = _matrix(self.weight.detach())
        layer.bias = self.bias
        return layer.train(self.training)

    def _changed(self, a_RI: Tensor) -> Tensor:
        base_OI, b_OR = self._parameters["weight"], self.lora_B.weight
        assert base_OI is not None  # noqa: S101  (a Linear always has one)
        with torch.autocast(a_RI.device.type, enabled=False):
            return torch.addmm(base_OI, b_OR, a_RI, alpha=self.scale)


def trained_weight(layer: nn.Linear) -> Tensor:
    """Return the matrix (O, I) that a layer multiplies by in a pass with gradients."""
    return layer.trained_weight() if isinstance(layer, LoraLinear) else layer.weight


def add_lora(
    model: "HyenaDNA", config: LoraConfig, *, base: str, generator: torch.Generator | None = None
) -> None:
    """Give a model LoRA in place, and freeze all but it and the head.

    Args:
        model: without an adapter.
        config: which layers, and what they get.
        base: the model as it is now, as `load_model` takes it: the name its files will record.
        generator: source of the fresh weights; torch's default without it.

    Raises:
        ModelError: the model has an adapter already.
    """
    check_free(model)
    for block in model.backbone.blocks():
        for name in config.targets:
            owner = _owner(block, name)
            setattr(owner, name, LoraLinear(getattr(owner, name), config, generator))
    attach(model, Adapter(config, base))


def merge(model: "HyenaDNA") -> None:
    """Fold LoRA into the weights in place: a plain model again, with nothing frozen.

    Raises:
        ModelError: the model has no LoRA.
    """
    if model.adapter is None or not isinstance(model.adapter.config, LoraConfig):
        has = "no adapter" if model.adapter is None else "a soft prompt, which no weights can hold"
        raise ModelError(f"only LoRA can be merged into a model, and this one has {has}")
    for block in model.backbone.blocks():
        for name in model.adapter.config.targets:
            owner = _owner(block, name)
            setattr(owner, name, getattr(owner, name).merged())
    model.adapter = None
    model.requires_grad_(True)


def check_free(model: "HyenaDNA") -> None:
    """Raise ModelError if a model has an adapter."""
    if model.adapter is not None:
        raise ModelError("the model has an adapter already", remedy="merge it first, or start from its base")


def attach(model: "HyenaDNA", adapter: Adapter) -> None:
    """Record the adapter whose parameters have been put into a model, and freeze the base."""
    model.adapter = adapter
    freeze(model, "lora" if isinstance(adapter.config, LoraConfig) else "soft-prompt")


def _matrix(weight_OI: Tensor) -> nn.Linear:
    """Make a layer of this weight, without bias."""
    out_features, in_features = weight_OI.shape
    layer = nn.Linear(in_features, out_features, bias=False, device="meta")
    layer.weight = nn.Parameter(weight_OI)
    return layer


def _owner(block: "Block", name: str) -> nn.Module:
    return block.mlp if name.startswith("fc") else block.mixer
