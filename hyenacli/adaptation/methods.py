"""The methods of adaptation, and the model of a run before its first step.

A new method is a subclass of `Method` and its entry in `METHODS`.

N record, C column of labels.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch

from hyenacli.adaptation.examples import EpochExamples, Epochs, TokenExamples
from hyenacli.adaptation.in_context import PromptExamples, check_classes, choose_demonstrations
from hyenacli.adaptation.labels import LabelScheme, Targets
from hyenacli.adaptation.settings import AdaptationOptions
from hyenacli.console import log
from hyenacli.errors import UsageError, UserError
from hyenacli.readers.tables import LabelledRecord
from hyenadna import HyenaDNA, load_model, preset
from hyenadna.adapters import (
    LoraConfig,
    SoftPromptConfig,
    add_lora,
    add_soft_prompt,
    is_adapter_parameter,
    merge,
)
from hyenadna.config import PRESETS, HeadConfig
from hyenadna.errors import ModelError
from hyenadna.formats.load import locate

S = TypeVar("S")


class TrainingSet(NamedTuple):
    """Labelled records to learn from, and the target of each."""

    scheme: LabelScheme
    records: Sequence[LabelledRecord]
    targets: Sequence[Targets]


class Method:
    """A method of adaptation.

    Attributes:
        name: word of --method.
        defaults: of the flags that every method has.
        on_cpu: other defaults of `finetune` on a CPU, where the paper's take days.
        flags: settings that belong to this method alone, with their defaults.
        has_head: the model gets a head for the labels.
        freezes_states: the model's states never change, and are computed once where labels are of sequences.
        adapter: configuration of what is added to a frozen model; None where nothing is.
        adapter_name: as messages call it.
    """

    name: ClassVar[str]
    defaults: ClassVar[dict[str, float]]
    on_cpu: ClassVar[dict[str, int]] = {}
    flags: ClassVar[dict[str, float]] = {}
    has_head: ClassVar[bool] = True
    freezes_states: ClassVar[bool] = False
    adapter: ClassVar[type | None] = None
    adapter_name: ClassVar[str] = ""

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

    def merge_adapter(self, model: HyenaDNA) -> bool:  # noqa: ARG002
        """Make an adapter of this method part of a model's weights in place; return False if it cannot be."""
        return False

    def check_labels(self, settings: Any, scheme: LabelScheme, targets: Sequence[Targets]) -> None:
        """Check that labels of training records can be learnt by the method; UserError if not."""

    def set_demonstrations(self, model: HyenaDNA, settings: Any, training: TrainingSet) -> None:
        """Give a model the training records that it predicts with, where the method has such."""

    def examples(
        self,
        model: HyenaDNA,
        settings: Any,
        training: TrainingSet,
        order: Callable[[Sequence[int]], Epochs],
    ) -> EpochExamples:
        """Return the examples of records; warn of sequences that are not read as a whole."""
        max_bases = min(settings.max_length or model.longest_input, model.longest_input)
        scheme, records, targets = training
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
    on_cpu: ClassVar = {"batch_size": 32, "epochs": 10}

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
    on_cpu: ClassVar = Full.on_cpu
    flags: ClassVar = {"lora_rank": 8, "lora_alpha": 0.0}
    adapter = LoraConfig
    adapter_name = "LoRA"

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

    def merge_adapter(self, model: HyenaDNA) -> bool:
        """Fold LoRA into the weights of a model in place."""
        merge(model)
        return True


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


class InContext(Full):
    """All weights; labels are letters after demonstrations."""

    name = "icl"
    defaults: ClassVar = {"lr": 1e-4, "weight_decay": 0.0, "batch_size": 2, "epochs": 1, "patience": 10}
    on_cpu: ClassVar = {}
    flags: ClassVar = {"shots": 2}
    has_head = False

    def check_labels(self, settings: Any, scheme: LabelScheme, targets: Sequence[Targets]) -> None:
        """Check that labels are classes with enough records for demonstrations; see `check_classes`."""
        check_classes(scheme, targets, settings.shots, trained=settings.epochs != 0)

    def set_demonstrations(self, model: HyenaDNA, settings: Any, training: TrainingSet) -> None:
        """Give a model its demonstrations; see `choose_demonstrations`."""
        demonstrations = choose_demonstrations(
            *training,
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
        training: TrainingSet,
        order: Callable[[Sequence[int]], Epochs],
    ) -> EpochExamples:
        """Return prompts; warn of sequences that are cut to their middle."""
        demonstrations = model.config.demonstrations
        assert demonstrations is not None  # noqa: S101  (internal invariant)
        prompts = PromptExamples(
            training.records,
            training.targets,
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
    """Return settings with the defaults of their method, for `names` and for its own flags without a value.

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


def _adapter_base(spec: str) -> str:
    """Return the model an adapter refers to: of a run the very checkpoint, not its best one of later."""
    return str(locate(spec).config.parent.resolve()) if Path(spec).is_dir() else spec


def _warn_longer(count: int, max_bases: int, what: str) -> None:
    if count:
        log.warning("%d training sequences are longer than %d bases: %s", count, max_bases, what)


def check_model(spec: str) -> None:
    """Check that a model exists, before anything is read.

    Raises:
        UserError: it does not; the message names the presets.
        ModelError: as `locate`, where something has that name.
    """
    if _is_preset(spec):
        return
    try:
        locate(spec)
    except ModelError as error:
        if Path(spec).exists():
            raise
        raise UserError(f"{error}; fresh weights: {', '.join(PRESETS)}") from None


def _is_preset(spec: str) -> bool:
    return spec in PRESETS and not Path(spec).exists()


def head_config(
    settings: AdaptationOptions, scheme: LabelScheme, targets: Sequence[Targets] = ()
) -> HeadConfig:
    """Return the head for a task; of a regression, its outputs have mean and spread of training targets."""
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    if scheme.task == "regression":
        rows_NC = np.concatenate([target.reshape(-1, scheme.n_outputs) for target in targets])
        center = tuple(float(value) for value in np.nan_to_num(np.nanmean(rows_NC, axis=0)))
        spread_C = np.nan_to_num(np.nanstd(rows_NC, axis=0))
        scale = tuple(float(value) or 1.0 for value in spread_C)
    return HeadConfig(
        scheme.task,
        scheme.n_outputs,
        scheme.names,
        pool=settings.pool,
        level=scheme.level,
        rc=settings.rc == "mean",
        window=settings.max_length,
        center=center,
        scale=scale,
    )


def build_model(settings: AdaptationOptions, head: HeadConfig) -> HyenaDNA:
    """Build the model of a run as it begins, on the CPU; fresh weights are a function of --seed alone.

    A head for the same labels is kept, any other is replaced; in-context learning has none. A LoRA of an
    earlier run becomes part of the weights.

    Raises:
        UsageError: the method needs a pretrained model.
        UserError: the model has an adapter that the method cannot start from, or is too short for
            --max-length.
        ModelError: the model cannot be loaded, or has no room for the soft prompt.
    """
    generator, method = torch.Generator().manual_seed(settings.seed), METHODS[settings.method]
    if not _is_preset(settings.model):
        model = load_merged(settings.model, adapted_again=method.adapter is not None)
    elif method.adapter is not None:
        raise UsageError(
            "a frozen model of fresh weights has nothing to adapt",
            at=f"--method {method.name}",
            remedy="give -m a pretrained model, or train with --method full",
        )
    else:
        model = HyenaDNA(preset(settings.model), generator=generator)
    model.set_dropout(embed=settings.embed_dropout, resid=settings.resid_dropout)
    if method.has_head:
        _set_head(model, head, generator)
    method.add_adapter(model, settings, generator)
    if settings.max_length and settings.max_length > model.longest_input:
        raise UserError(
            f"--max-length {settings.max_length:,} is beyond what the model takes, "
            f"{model.backbone.describe_room()} bases",
            at=settings.model,
            remedy="give fewer, or a model with a longer context",
        )
    return model


def load_merged(spec: str, *, adapted_again: bool = False) -> HyenaDNA:
    """Load a model to train; an adapter that it has, LoRA, becomes part of its weights.

    Raises:
        UserError: the adapter cannot be merged, or another is to be added (`adapted_again`).
    """
    model: HyenaDNA = load_model(spec)
    if model.adapter is None:
        return model
    adapter = model.adapter.config
    earlier = next(method for method in METHODS.values() if method.adapter is type(adapter))
    base, mergeable = model.adapter.base, earlier.merge_adapter(model)
    if adapted_again or not mergeable:
        remedy = f"start from its base, {base}"
        if mergeable:
            remedy += ", or make it whole with `hyena models convert`"
        raise UserError(f"the model has {earlier.adapter_name} already", at=spec, remedy=remedy)
    log.info("%s: its %s becomes part of the weights", spec, earlier.adapter_name)
    return model


def _set_head(model: HyenaDNA, head: HeadConfig, generator: torch.Generator) -> None:
    old = model.config.head
    kept = old and replace(head, rc=old.rc, window=old.window, average_windows=old.average_windows)
    if old is not None and kept == old:
        log.info("the model's head is for these labels, and is trained on")
        model.config = replace(model.config, head=head)
        return
    if old is not None:
        log.info("the model's head (%s) is replaced by a fresh one", ", ".join((old.task, *old.labels[:4])))
    model.set_head(head, generator=generator)


def parameter_groups(settings: AdaptationOptions, model: HyenaDNA) -> list[dict[str, Any]]:
    """Return the parameters that the method trains, for an optimizer; freeze all others."""
    method = METHODS[settings.method]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(method.trains(name))
    if model.head is not None and model.lm_head is not None:
        model.lm_head.requires_grad_(False)  # the head's loss does not depend on it
    return model.parameter_groups(settings.lr or 0.0, settings.weight_decay or 0.0)


def describe_model(settings: AdaptationOptions, model: HyenaDNA) -> str:
    """Describe a model, and how much of it is trained, in a line."""
    config, trained = model.config, sum(p.numel() for p in model.parameters() if p.requires_grad)
    fresh = " with fresh weights" if _is_preset(settings.model) else ""
    return (
        f"{settings.model}{fresh}: width {config.d_model}, layers {config.n_layer}, {model.n_parameters:,} "
        f"parameters, {trained:,} of them trained ({settings.method})"
    )
