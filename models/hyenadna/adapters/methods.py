"""Ways of fine-tuning: the adapters as plain values, and which parameters each way trains."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hyenadna.errors import ModelError

if TYPE_CHECKING:
    from hyenadna.model import HyenaDNA

Method = Literal["full", "head", "lora", "soft-prompt"]

TARGETS = ("in_proj", "out_proj", "fc1", "fc2")
"""The linear layers of a block that LoRA may change: the Hyena operator's, then the MLP's."""
MAX_PROMPT_TOKENS = 32_768


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ModelError(message)


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
        _require(self.rank >= 1, f"a LoRA rank must be at least 1, not {self.rank}")
        _require(self.alpha > 0, f"LoRA's alpha must be positive, not {self.alpha}")
        _require(0 <= self.dropout < 1, f"LoRA's dropout must lie in [0, 1), not {self.dropout}")
        unknown = sorted(set(self.targets) - set(TARGETS))
        _require(
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
        _require(
            1 <= self.tokens <= MAX_PROMPT_TOKENS,
            f"a soft prompt has 1 to {MAX_PROMPT_TOKENS:,} tokens, not {self.tokens:,}",
        )
        _require(0 <= self.dropout < 1, f"a soft prompt's dropout must lie in [0, 1), not {self.dropout}")


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
