"""Small trained additions to a frozen model: LoRA and soft prompts, and which parameters a method trains.

Both engines and the plain model take them in: a layer with LoRA has its effective weight where others have
theirs, and a soft prompt stands before the embedded tokens.

B sequence, L position of the tokens, n vector, D width; O output feature, I input feature, R rank.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from .errors import ModelError, require

if TYPE_CHECKING:
    from .backbone import Block
    from .model import HyenaDNA

Method = Literal["full", "head", "lora", "soft-prompt"]

TARGETS = ("in_proj", "out_proj", "fc1", "fc2")
"""The linear layers of a block that LoRA may change: the Hyena operator's, then the MLP's."""
MAX_PROMPT_TOKENS = 32_768


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank changes of linear layers (arXiv 2106.09685).

    Attributes:
        rank: of each change.
        alpha: a change is scaled by alpha / rank.
        dropout: on the input features of the changes, in training; drawn once per pass and layer, and so the
            same for all tokens, which leaves the layer a matrix.
        targets: names out of TARGETS, kept in the order there; these layers of every block.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = TARGETS

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"a LoRA rank must be at least 1, not {self.rank}")
        require(self.alpha > 0, f"LoRA's alpha must be positive, not {self.alpha}")
        require(0 <= self.dropout < 1, f"LoRA's dropout must lie in [0, 1), not {self.dropout}")
        unknown = sorted(set(self.targets) - set(TARGETS))
        require(
            bool(self.targets) and not unknown,
            f"LoRA can change {', '.join(TARGETS)}, not {', '.join(unknown) or 'nothing'}",
        )
        # one spelling of what is the same: it enters the hash of a model
        object.__setattr__(self, "alpha", float(self.alpha))
        object.__setattr__(self, "targets", tuple(name for name in TARGETS if name in self.targets))


@dataclass(frozen=True)
class SoftPromptConfig:
    """Vectors before the embedded tokens (HyenaDNA, arXiv 2306.15794).

    Attributes:
        tokens: how many.
        dropout: on the vectors, in training.
    """

    tokens: int
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require(
            1 <= self.tokens <= MAX_PROMPT_TOKENS,
            f"a soft prompt has 1 to {MAX_PROMPT_TOKENS:,} tokens, not {self.tokens:,}",
        )
        require(0 <= self.dropout < 1, f"a soft prompt's dropout must lie in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class Adapter:
    """The adapter of a model.

    Attributes:
        config: which, and its sizes.
        base: the model it was made for, as `load_model` takes it.
    """

    config: LoraConfig | SoftPromptConfig
    base: str


def is_adapter_parameter(name: str) -> bool:
    """Return whether a parameter of this name belongs to an adapter."""
    return ".lora_" in name or name.startswith("backbone.prompt.")


def freeze(model: "HyenaDNA", method: Method) -> None:
    """Give gradients to the parameters that a method trains, and to no others.

    "full" trains everything, "head" the head alone, "lora" and "soft-prompt" the adapter, and the head where
    there is one.

    Raises:
        ModelError: the model does not have what the method trains, or "full" would train a frozen base.
    """
    _check(model, method)
    for name, parameter in model.named_parameters():
        adapted = method != "head" and is_adapter_parameter(name)
        parameter.requires_grad_(method == "full" or adapted or name.startswith("head."))


def _check(model: "HyenaDNA", method: Method) -> None:
    adapter = None if model.adapter is None else model.adapter.config
    if method == "full" and adapter is not None:
        raise ModelError("a model with an adapter has a frozen base", remedy="merge the adapter first")
    if method == "head" and model.head is None:
        raise ModelError("the model has no head to train", remedy="give it one with set_head")
    kinds = {
        "lora": (LoraConfig, "LoRA", "add_lora"),
        "soft-prompt": (SoftPromptConfig, "soft prompt", "add_soft_prompt"),
    }
    if method in kinds:
        kind, name, call = kinds[method]
        if not isinstance(adapter, kind):
            raise ModelError(f"the model has no {name} to train", remedy=f"give it one with {call}")


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


_STD = 0.02


class SoftPrompt(nn.Module):
    """The vectors (n, D), as in `evals/soft_prompting_genomics.py` of the official code.

    Args:
        like: (V, D), a matrix of the same width, device and dtype.
        config: how many, and their dropout.
        generator: source of the vectors, N(0, 0.02); torch's default without it.
    """

    def __init__(self, like: Tensor, config: SoftPromptConfig, generator: torch.Generator | None = None):
        super().__init__()
        # drawn on the CPU, as LoRA's matrices
        vectors_nD = torch.empty(config.tokens, like.shape[1]).normal_(0, _STD, generator=generator)
        self.vectors = nn.Parameter(vectors_nD.to(like))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Put the vectors before x, (B, n + L, D); dropout is the same for all sequences."""
        return _before(self.dropout(self.vectors), x_BLD)

    def read(self, x_BLD: Tensor) -> Tensor:
        """Put the vectors before x as `forward` does, without dropout."""
        return _before(self.vectors, x_BLD)


def add_soft_prompt(
    model: "HyenaDNA", config: SoftPromptConfig, *, base: str, generator: torch.Generator | None = None
) -> None:
    """Give a model a soft prompt in place, and freeze all but it and the head.

    Args:
        model: without an adapter.
        config: of the prompt.
        base: the model as it is now, as `load_model` takes it: the name its files will record.
        generator: source of the vectors; torch's default without it.

    Raises:
        ModelError: the model has an adapter already, or no room for a token after the prompt.
    """
    check_free(model)
    if config.tokens >= model.config.l_max:
        raise ModelError(
            f"a soft prompt of {config.tokens:,} tokens leaves no room in a model that takes "
            f"{model.config.l_max:,}",
            remedy="take fewer, or a model with a longer context",
        )
    like_VD = model.backbone.embeddings.word_embeddings.weight.detach()
    model.backbone.prompt = SoftPrompt(like_VD, config, generator).train(model.training)
    attach(model, Adapter(config, base))


def _before(vectors_nD: Tensor, x_BLD: Tensor) -> Tensor:
    return torch.cat([vectors_nD.to(x_BLD.dtype).expand(len(x_BLD), -1, -1), x_BLD], dim=1)
