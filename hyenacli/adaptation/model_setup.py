"""The model of an adaptation before its first step: loaded, with a head and an adapter, partly frozen.

N record, C column of labels.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyenacli.adaptation.labels import LabelScheme, Targets
from hyenacli.adaptation.methods import METHODS, adapter_method
from hyenacli.adaptation.settings import AdaptationOptions
from hyenacli.console import log
from hyenacli.errors import UsageError, UserError
from hyenadna import HyenaDNA, load_model, preset
from hyenadna.config import PRESETS, HeadConfig
from hyenadna.errors import ModelError
from hyenadna.formats.load import locate


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
    """Return the head for a task; of a regression, its outputs have mean and spread of the training labels.

    Args:
        settings: of the verb.
        scheme: the task.
        targets: of the training records; only a regression needs them.
    """
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
    """Load a model to train without an adapter of its own: LoRA becomes part of its weights.

    Args:
        spec: the model.
        adapted_again: another adapter is to be added, and so the model must have none.

    Raises:
        UserError: the model has an adapter that cannot be merged or must not be there.
    """
    model: HyenaDNA = load_model(spec)
    earlier = adapter_method(model)
    if earlier is None or model.adapter is None:
        return model
    if adapted_again or not earlier.mergeable:
        remedy = f"start from its base, {model.adapter.base}"
        if earlier.mergeable:
            remedy += ", or make it whole with `hyena models convert`"
        raise UserError(f"the model has {earlier.adapter_name} already", at=spec, remedy=remedy)
    log.info("%s: its %s becomes part of the weights", spec, earlier.adapter_name)
    earlier.merge_adapter(model)
    return model


def _set_head(model: HyenaDNA, head: HeadConfig, generator: torch.Generator) -> None:
    old = model.config.head
    if old is not None and replace(head, rc=old.rc, window=old.window) == old:
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
    return (
        f"{settings.model}: width {config.d_model}, layers {config.n_layer}, {model.n_parameters:,} "
        f"parameters, {trained:,} of them trained ({settings.method})"
    )
