"""From a model and what is to be learnt to what is trained: a head, an adapter, which weights are free.

N record, C column of labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from hyenacli.adaptation.labels import LabelScheme, Targets
from hyenacli.console import log
from hyenacli.errors import UsageError, UserError, nearest
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.species.settings import SpeciesTrainSettings
from hyenacli.training.curriculum import Steps
from hyenacli.training.loop import LoopSettings
from hyenadna import HyenaDNA, load_model, preset
from hyenadna.adapters.lora import add_lora, merge
from hyenadna.adapters.methods import LoraConfig, Method, SoftPromptConfig, freeze
from hyenadna.adapters.soft_prompt import add_soft_prompt
from hyenadna.config import PRESETS, HeadConfig, Pool
from hyenadna.errors import ModelError
from hyenadna.formats.locate import locate

Adapted = FinetuneSettings | SpeciesTrainSettings
POOLS: tuple[Pool, ...] = get_args(Pool)


@dataclass(frozen=True)
class MethodDefaults:
    """What a method is trained with where the user does not say.

    Attributes:
        lr: peak learning rate.
        weight_decay: of AdamW.
        batch_size: examples of a step.
        epochs: passes through the data.
        patience: evaluations without a better one.
    """

    lr: float
    weight_decay: float
    batch_size: int
    epochs: int
    patience: int


# Paper, section A.2 and the configurations of its code: whole models, soft prompts and in-context learning.
# The others are ours; a head learns from means of states, which vary little: with 6e-4 it is far from done
# after 100 epochs (mouse2 and H4, by their validation splits).
METHOD_DEFAULTS: dict[str, MethodDefaults] = {
    "full": MethodDefaults(6e-4, 0.1, 128, 100, 10),
    "head": MethodDefaults(1e-2, 0.1, 128, 100, 10),
    "lora": MethodDefaults(1e-3, 0.1, 128, 100, 10),
    "soft-prompt": MethodDefaults(1e-3, 0.0, 16, 20, 2),
    "icl": MethodDefaults(1e-4, 0.0, 2, 1, 10),
}


# Flags of one method only, and what they are where the user does not say.
_OWN: dict[str, dict[str, float]] = {
    "lora": {"lora_rank": 8, "lora_alpha": 0},
    "soft-prompt": {"prompt_tokens": 32},
    "icl": {"shots": 2},
}
# Flags of training step by step.
_STEPWISE = ("lr", "weight_decay", "batch_size", "epochs", "patience", "eval_every", "sweep")


def with_defaults(settings: FinetuneSettings) -> FinetuneSettings:
    """The settings with the recipe of their method where they are silent.

    Raises:
        UsageError: an unknown word, or flags that do not go together.
    """
    own = own_defaults(settings, list(METHOD_DEFAULTS))
    _check_word("--solver", settings.solver, ["adamw", "sklearn"])
    _check_word("--class-weights", settings.class_weights, ["none", "balanced"])
    if settings.solver == "sklearn" and (settings.method != "head" or settings.level != "sequence"):
        raise UsageError("fits heads on sequences", at="--solver sklearn", remedy="add --method head")
    for name in _STEPWISE if settings.solver == "sklearn" else ():
        if getattr(settings, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError("--solver sklearn takes no steps", at=flag, remedy="leave it out")
    recipe = METHOD_DEFAULTS[settings.method]
    if settings.solver == "sklearn":
        return settings

    def either(given: float | None, default: float) -> float:
        return default if given is None else given

    return replace(
        settings,
        lr=either(settings.lr, recipe.lr),
        weight_decay=either(settings.weight_decay, recipe.weight_decay),
        batch_size=settings.batch_size or recipe.batch_size,
        epochs=int(either(settings.epochs, recipe.epochs)),
        patience=settings.patience or recipe.patience,
        **own,
    )


def own_defaults(settings: Adapted, methods: list[str]) -> dict[str, Any]:
    """What the flags of a method are where the user does not say; others' flags are refused.

    Raises:
        UsageError: an unknown word, or a flag of another method.
    """
    _check_word("--method", settings.method, methods)
    _check_word("--pool", settings.pool, list(POOLS))
    _check_word("--rc", settings.rc, ["none", "mean"])
    for method, flags in _OWN.items():
        for name in flags:
            if getattr(settings, name, None) is not None and settings.method != method:
                flag = f"--{name.replace('_', '-')}"
                remedy = f"leave it out, or choose --method {method}"
                raise UsageError(f"belongs to --method {method}", at=flag, remedy=remedy)
    own: dict[str, Any] = {
        name: default
        for name, default in _OWN.get(settings.method, {}).items()
        if getattr(settings, name) is None
    }
    if own.get("lora_alpha") == 0:
        own["lora_alpha"] = 2.0 * (settings.lora_rank or own["lora_rank"])
    return own


def _check_word(flag: str, word: str, known: list[str]) -> None:
    if word not in known:
        raise UsageError(f"unknown word '{word}'", at=flag, remedy=nearest(word, known))


def method_of(settings: Adapted) -> Method:
    """The method, checked before, by what it trains: in-context learning trains all weights."""
    known: tuple[Method, ...] = get_args(Method)
    return next((method for method in known if method == settings.method), "full")


def pool_of(settings: Adapted) -> Pool:
    """How positions become one vector, checked before."""
    return next(pool for pool in POOLS if pool == settings.pool)


def groups_of(settings: Adapted, model: HyenaDNA) -> list[dict[str, Any]]:
    """What the method trains, for an optimizer; everything else is frozen."""
    freeze(model, method_of(settings))
    if model.head is not None and model.lm_head is not None:
        model.lm_head.requires_grad_(False)  # the head's loss says nothing of it
    return model.parameter_groups(settings.lr or 0.0, settings.weight_decay or 0.0)


def loop_of(settings: Adapted, steps: Steps, every: int, micro_tokens: int) -> LoopSettings:
    """Rates of an adaptation: a cosine to a tenth of the peak after a short warm-up.

    Args:
        settings: with the method's defaults.
        steps: of the run.
        every: steps from one evaluation to the next, where the user does not say.
        micro_tokens: most tokens in one forward pass.
    """
    lr, every = settings.lr or 0.0, settings.eval_every or max(1, every)
    return LoopSettings(
        curriculum=steps,
        micro_tokens=micro_tokens,
        lr=lr,
        min_lr=lr / 10,
        warmup=min(steps.steps // 4, max(10, steps.steps // 100)),
        grad_clip=settings.grad_clip,
        eval_every=every,
        save_every=every,
        seed=settings.seed,
        patience=settings.patience,
    )


def in_words(settings: Adapted, model: HyenaDNA) -> str:
    """The model, and how much of it is trained."""
    config, free = model.config, sum(p.numel() for p in model.parameters() if p.requires_grad)
    return (
        f"{settings.model}: width {config.d_model}, layers {config.n_layer}, {model.n_parameters:,} "
        f"parameters, {free:,} of them trained ({settings.method})"
    )


def check_model(spec: str) -> None:
    """Refuse a model that is not there, before anything is read.

    Raises:
        UserError: as `locate`; says which presets there are.
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


def head_for(settings: FinetuneSettings, scheme: LabelScheme, targets: Sequence[Targets]) -> HeadConfig:
    """The head for a task; of a regression, its outputs have the mean and spread of the training labels.

    Args:
        settings: of the verb.
        scheme: the task.
        targets: of the training records.
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
        pool=pool_of(settings),
        level=scheme.level,
        rc=settings.rc == "mean",
        window=settings.max_length,
        center=center,
        scale=scale,
    )


def build_model(settings: Adapted, head: HeadConfig) -> HyenaDNA:
    """The model with its head and adapter, as a run begins; fresh weights depend on --seed alone.

    A head for the same labels is kept, any other is replaced; in-context learning has none. LoRA of an
    earlier run becomes part of the weights.

    Raises:
        UsageError: the method needs weights that there are not.
        UserError: the model has a soft prompt, or is too short for --max-length.
        ModelError: the model cannot be loaded, or has no room for the soft prompt.
    """
    generator, method = torch.Generator().manual_seed(settings.seed), method_of(settings)
    if _is_preset(settings.model):
        if method in ("lora", "soft-prompt"):
            raise UsageError(
                "a frozen model of fresh weights has nothing to adapt",
                at=f"--method {method}",
                remedy="give -m a pretrained model, or train with --method full",
            )
        model = HyenaDNA(preset(settings.model), generator=generator)
    else:
        model = _unadapted(settings)
    model.set_dropout(embed=settings.embed_dropout, resid=settings.resid_dropout)
    if settings.method != "icl":
        _set_head(model, head, generator)
    if method == "lora":
        rank = settings.lora_rank or 1
        config = LoraConfig(rank=rank, alpha=settings.lora_alpha or rank)
        add_lora(model, config, base=_base(settings.model), generator=generator)
    elif method == "soft-prompt":
        prompt = SoftPromptConfig(settings.prompt_tokens or 1)
        add_soft_prompt(model, prompt, base=_base(settings.model), generator=generator)
    if settings.max_length and settings.max_length > model.longest_input:
        raise UserError(
            f"--max-length {settings.max_length:,} is beyond what the model takes, "
            f"{model.backbone.room_in_words()} bases",
            at=settings.model,
            remedy="give fewer, or a model with a longer context",
        )
    return model


def _unadapted(settings: Adapted) -> HyenaDNA:
    """The model to start from, without an adapter."""
    model: HyenaDNA = load_model(settings.model)
    if model.adapter is None:
        return model
    if isinstance(model.adapter.config, SoftPromptConfig) or method_of(settings) in ("lora", "soft-prompt"):
        kind = "a soft prompt" if isinstance(model.adapter.config, SoftPromptConfig) else "LoRA"
        raise UserError(
            f"the model has {kind} already",
            at=settings.model,
            remedy=f"start from its base, {model.adapter.base}"
            + ("" if kind == "a soft prompt" else ", or make it whole with `hyena models convert`"),
        )
    merge(model)
    return model


def _set_head(model: HyenaDNA, head: HeadConfig, generator: torch.Generator) -> None:
    old = model.config.head
    if old is not None and replace(head, rc=old.rc, window=old.window) == old:
        log.info("the model's head is for these labels, and is trained on")
        model.config = replace(model.config, head=head)
        return
    if old is not None:
        log.info("the model's head (%s) gives way to a fresh one", ", ".join((old.task, *old.labels[:4])))
    model.set_head(head, generator=generator)


def _base(spec: str) -> str:
    """The model an adapter refers to: the very checkpoint of a run, not what will be its best later."""
    return str(locate(spec).config.parent.resolve()) if Path(spec).is_dir() else spec
