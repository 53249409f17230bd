"""The methods of adaptation, one object each: defaults, flags, what is added to a model, what is trained.

A new method is a subclass of `Method` and its entry in `METHODS`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from hyenacli import console
from hyenacli.adaptation.examples import EpochExamples, Epochs, TokenExamples
from hyenacli.adaptation.in_context import PromptExamples, check_classes, choose_demonstrations
from hyenacli.adaptation.labels import LabelScheme, Targets
from hyenacli.errors import UsageError
from hyenacli.readers.labelled_record import LabelledRecord
from hyenadna import HyenaDNA
from hyenadna.adapters import (
    LoraConfig,
    SoftPromptConfig,
    add_lora,
    add_soft_prompt,
    is_adapter_parameter,
    merge,
)
from hyenadna.formats.load import locate

S = TypeVar("S")


class Method:
    """A method of adaptation.

    Attributes:
        name: word of --method.
        defaults: of the flags that every method has.
        flags: settings that belong to this method alone, with their defaults.
        has_head: the model gets a head for the labels.
        freezes_states: the model's states never change, and are computed once where labels are of sequences.
        adapter: configuration of what is added to a frozen model; None where nothing is.
        adapter_name: as messages call it.
        mergeable: the adapter can become part of the weights.
    """

    name: ClassVar[str]
    defaults: ClassVar[dict[str, float]]
    flags: ClassVar[dict[str, float]] = {}
    has_head: ClassVar[bool] = True
    freezes_states: ClassVar[bool] = False
    adapter: ClassVar[type | None] = None
    adapter_name: ClassVar[str] = ""
    mergeable: ClassVar[bool] = False

    def fill_flags(self, settings: Any) -> dict[str, Any]:
        """Return the values of the method's own flags."""
        given = {name: getattr(settings, name) for name in self.flags}
        return {name: self.flags[name] if value is None else value for name, value in given.items()}

    def trains(self, parameter: str) -> bool:
        """Return whether the parameter of this name is trained."""
        adapter = self.adapter is not None and is_adapter_parameter(parameter)
        return adapter or parameter.startswith("head.")

    def add_adapter(self, model: HyenaDNA, settings: Any, generator: torch.Generator) -> None:
        """Add the adapter to a model in place."""

    def merge_adapter(self, model: HyenaDNA) -> None:
        """Make an adapter of this method part of the weights of a model in place."""
        raise NotImplementedError

    def check_labels(self, settings: Any, scheme: LabelScheme, targets: Sequence[Targets]) -> None:
        """Check that labels can be learnt by the method.

        Args:
            settings: with the method's defaults.
            scheme: meaning of the labels.
            targets: of the training records.

        Raises:
            UsageError, UserError: they cannot.
        """

    def set_demonstrations(
        self,
        model: HyenaDNA,
        settings: Any,
        scheme: LabelScheme,
        records: Sequence[LabelledRecord],
        targets: Sequence[Targets],
    ) -> None:
        """Give a model the training records that it predicts with, where the method has such."""

    def examples(
        self,
        model: HyenaDNA,
        settings: Any,
        scheme: LabelScheme,
        records: Sequence[LabelledRecord],
        targets: Sequence[Targets],
        order: Callable[[Sequence[int]], Epochs],
    ) -> EpochExamples:
        """Return the training examples of records; warn of sequences that are not read as a whole."""
        max_bases = min(settings.max_length or model.longest_input, model.longest_input)
        examples = TokenExamples(records, targets, scheme, max_bases, settings.seed, order)
        _warn_longer(examples.n_longer, max_bases, "read in windows, another one in each epoch")
        return examples


# Defaults of whole models, soft prompts and in-context learning: the paper, section A.2, and the
# configurations of its code. The others are ours; a head learns from means of states, which vary little: with
# 6e-4 it is far from done after 100 epochs (mouse2 and H4, by their validation splits).
class Full(Method):
    """All weights."""

    name = "full"
    defaults: ClassVar = {"lr": 6e-4, "weight_decay": 0.1, "batch_size": 128, "epochs": 100, "patience": 10}

    def trains(self, parameter: str) -> bool:  # noqa: ARG002
        """Return True."""
        return True


class Head(Method):
    """A linear head on a frozen model."""

    name = "head"
    defaults: ClassVar = Full.defaults | {"lr": 1e-2}
    freezes_states = True


class Lora(Method):
    """Low-rank changes of the weights of a frozen model, and a head."""

    name = "lora"
    defaults: ClassVar = Full.defaults | {"lr": 1e-3}
    flags: ClassVar = {"lora_rank": 8, "lora_alpha": 0.0}
    adapter = LoraConfig
    adapter_name = "LoRA"
    mergeable = True

    def fill_flags(self, settings: Any) -> dict[str, Any]:
        """Return rank and alpha; alpha is twice the rank by default."""
        flags = super().fill_flags(settings)
        if settings.lora_alpha is None:
            flags["lora_alpha"] = 2.0 * flags["lora_rank"]
        return flags

    def add_adapter(self, model: HyenaDNA, settings: Any, generator: torch.Generator) -> None:
        """Add LoRA to a model in place."""
        config = LoraConfig(rank=settings.lora_rank, alpha=settings.lora_alpha)
        add_lora(model, config, base=_adapter_base(settings.model), generator=generator)

    def merge_adapter(self, model: HyenaDNA) -> None:
        """Fold LoRA into the weights of a model in place."""
        merge(model)


class SoftPrompt(Method):
    """Vectors before the embedded tokens of a frozen model, and a head."""

    name = "soft-prompt"
    defaults: ClassVar = {"lr": 1e-3, "weight_decay": 0.0, "batch_size": 16, "epochs": 20, "patience": 2}
    flags: ClassVar = {"prompt_tokens": 32}
    adapter = SoftPromptConfig
    adapter_name = "a soft prompt"

    def add_adapter(self, model: HyenaDNA, settings: Any, generator: torch.Generator) -> None:
        """Add a soft prompt to a model in place."""
        config = SoftPromptConfig(settings.prompt_tokens)
        add_soft_prompt(model, config, base=_adapter_base(settings.model), generator=generator)


class InContext(Method):
    """All weights; labels are letters after demonstrations."""

    name = "icl"
    defaults: ClassVar = {"lr": 1e-4, "weight_decay": 0.0, "batch_size": 2, "epochs": 1, "patience": 10}
    flags: ClassVar = {"shots": 2}
    has_head = False

    def trains(self, parameter: str) -> bool:  # noqa: ARG002
        """Return True."""
        return True

    def check_labels(self, settings: Any, scheme: LabelScheme, targets: Sequence[Targets]) -> None:
        """Check that labels are classes with enough records for demonstrations; see `check_classes`."""
        check_classes(scheme, targets, settings.shots, trained=settings.epochs != 0)

    def set_demonstrations(
        self,
        model: HyenaDNA,
        settings: Any,
        scheme: LabelScheme,
        records: Sequence[LabelledRecord],
        targets: Sequence[Targets],
    ) -> None:
        """Give a model its demonstrations; see `choose_demonstrations`."""
        demonstrations = choose_demonstrations(
            scheme,
            records,
            targets,
            shots=settings.shots,
            seed=settings.seed,
            longest_input=model.longest_input,
            max_length=settings.max_length,
            rc=settings.rc == "mean",
        )
        model.set_demonstrations(demonstrations)

    def examples(
        self,
        model: HyenaDNA,
        settings: Any,
        scheme: LabelScheme,  # noqa: ARG002
        records: Sequence[LabelledRecord],
        targets: Sequence[Targets],
        order: Callable[[Sequence[int]], Epochs],
    ) -> EpochExamples:
        """Return prompts; warn of sequences that are cut to their middle."""
        demonstrations = model.config.demonstrations
        assert demonstrations is not None  # noqa: S101  (internal invariant)
        prompts = PromptExamples(
            records,
            targets,
            demonstrations,
            shots=settings.shots,
            seed=settings.seed,
            rc_augment=settings.rc_augment,
            order=order,
        )
        _warn_longer(prompts.n_longer, demonstrations.max_length, "cut to their middle")
        return prompts


METHODS: dict[str, Method] = {
    method.name: method for method in (Full(), Head(), Lora(), SoftPrompt(), InContext())
}


def with_method_defaults(settings: S, names: Iterable[str]) -> S:
    """Return settings with the defaults of their method where the user gave no value.

    Args:
        settings: of a verb that adapts a model.
        names: of the settings that take the defaults all methods have.

    Raises:
        UsageError: a flag of another method.
    """
    chosen: Any = settings
    method = METHODS[chosen.method]
    for other in METHODS.values():
        for name in other.flags:
            if other is not method and getattr(settings, name, None) is not None:
                raise UsageError(
                    f"belongs to --method {other.name}",
                    at=f"--{name.replace('_', '-')}",
                    remedy=f"leave it out, or choose --method {other.name}",
                )
    missing = [name for name in names if getattr(settings, name) is None]
    filled: S = replace(
        chosen, **{name: method.defaults[name] for name in missing}, **method.fill_flags(settings)
    )
    return filled


def adapter_method(model: HyenaDNA) -> Method | None:
    """Return the method that a model's adapter is of; None without an adapter."""
    if model.adapter is None:
        return None
    return next(method for method in METHODS.values() if method.adapter is type(model.adapter.config))


def _adapter_base(spec: str) -> str:
    """Return the model an adapter refers to: of a run the very checkpoint, not its best one of later."""
    return str(locate(spec).config.parent.resolve()) if Path(spec).is_dir() else spec


def _warn_longer(count: int, max_bases: int, what: str) -> None:
    if count:
        console.log.warning("%d training sequences are longer than %d bases: %s", count, max_bases, what)
