"""Which parameters a way of fine-tuning trains."""

from typing import TYPE_CHECKING, Any, Literal

from hyenadna.errors import ModelError

from .kinds import LoraConfig, SoftPromptConfig, is_adapter_parameter

if TYPE_CHECKING:
    from hyenadna.model import HyenaDNA

Method = Literal["full", "head", "lora", "soft-prompt"]


def freeze(model: "HyenaDNA", method: Method) -> None:
    """Let a method's parameters have gradients, and no others.

    "full" trains everything, "head" the head alone, "lora" and "soft-prompt" the adapter, and the head where
    there is one.

    Raises:
        ModelError: the model does not have what the method trains, or "full" would train a frozen base.
    """
    _check(model, method)
    for name, parameter in model.named_parameters():
        adapted = method != "head" and is_adapter_parameter(name)
        parameter.requires_grad_(method == "full" or adapted or name.startswith("head."))


def trainable_parameters(
    model: "HyenaDNA", method: Method, *, lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """`freeze`, then the optimizer's groups as of `HyenaDNA.parameter_groups`.

    The filter MLP and a soft prompt have no weight decay.
    """
    freeze(model, method)
    return model.parameter_groups(lr, weight_decay)


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
