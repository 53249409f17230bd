"""Adapter directories: adapter_config.json and adapter_model.safetensors.

LoRA as peft writes and reads it; a soft prompt likewise, under the names of peft's prompt tuning. What peft
does not know is the identity of the base, its window shift, the head's task and labels, and provenance.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hyenadna.adapters import (
    LoraConfig,
    SoftPromptConfig,
    add_lora,
    add_soft_prompt,
    is_adapter_parameter,
)
from hyenadna.config import HeadConfig
from hyenadna.errors import ModelError
from hyenadna.model import HyenaDNA

from .configs import head_from_json
from .files import whole_directory, write_tensors
from .tensors import base_sha256

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_WRITTEN = {ADAPTER_CONFIG, ADAPTER_WEIGHTS, "trainer.json", "trainer.safetensors"}
_WRAPPER = "base_model.model."
_VECTORS = {"prompt_embeddings": "backbone.prompt.vectors"}
# Of peft's configuration, what would be another arithmetic than ours; each with the value it must have.
_ONLY: dict[str, Any] = {
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "use_dora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "alora_invocation_tokens": None,
    "init_lora_weights": True,  # some others change the base
}


@dataclass(frozen=True)
class AdapterFile:
    """A parsed adapter directory.

    Attributes:
        config: which adapter.
        base: its base model, as written in it.
        sha256: `base_sha256` of that; None in peft's own files.
        window_shift: of the base; None for the base's own.
        head: of the model, or None for the base's, if any.
        tensors: under our names.
    """

    config: LoraConfig | SoftPromptConfig
    base: str
    sha256: str | None
    window_shift: float | None
    head: HeadConfig | None
    tensors: dict[str, Tensor]


def save_adapter(model: HyenaDNA, path: str | Path, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write the adapter of a model, and its head, to a directory of a few kB that refers to the base.

    The directory appears whole or not at all; an adapter directory that is there already is replaced. The
    base is referred to by its hash, and by its absolute path where it is one.

    Args:
        model: with an adapter.
        path: the directory.
        provenance: facts about where the adapter comes from (JSON values).

    Raises:
        ModelError: the model has no adapter, or `path` is something other than an adapter directory.
    """
    if model.adapter is None:
        raise ModelError("the model has no adapter", remedy="write it whole with save_model")
    theirs = {ours: name for name, ours in _VECTORS.items()}
    tensors = {
        theirs.get(name, _WRAPPER + name): parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if is_adapter_parameter(name) or name.startswith("head.")
    }
    base = model.adapter.base
    raw = _written(model.adapter.config, model.config.d_model) | {
        "base_model_name_or_path": str(Path(base).resolve()) if Path(base).exists() else base,
        "base_model_sha256": base_sha256(model),
        "base_window_shift": model.config.window_shift,
        "task_type": None,
        "inference_mode": True,
        "modules_to_save": None if model.config.head is None else ["head"],
        "head": None if model.config.head is None else asdict(model.config.head),
        "provenance": dict(provenance or {}),
    }
    with whole_directory(Path(path), _WRITTEN) as new:
        write_tensors(tensors, new / ADAPTER_WEIGHTS)
        (new / ADAPTER_CONFIG).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")


def _written(config: LoraConfig | SoftPromptConfig, d_model: int) -> dict[str, Any]:
    if isinstance(config, LoraConfig):
        return {
            "peft_type": "LORA",
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "target_modules": list(config.targets),
            "bias": "none",
            "fan_in_fan_out": False,
        }
    return {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": config.tokens,
        "token_dim": d_model,
        "prompt_dropout": config.dropout,
    }


def read_adapter(raw: Mapping[str, Any], tensors: Mapping[str, Tensor], at: object) -> AdapterFile:
    """Parse an adapter_config.json and the tensors beside it.

    Args:
        raw: the object in the file.
        tensors: by their names in the file.
        at: the configuration file, for messages.

    Raises:
        ModelError: a value is missing or wrong, or the adapter is of a kind we do not compute.
    """
    try:
        config = _read_config(raw)
        shift = None if raw.get("base_window_shift") is None else float(_number(raw, "base_window_shift"))
        base, sha256 = _text(raw, "base_model_name_or_path"), _text(raw, "base_model_sha256")
    except ModelError as error:
        raise ModelError(str(error), at=at) from None
    return AdapterFile(
        config=config,
        base=base or "",
        sha256=sha256,
        window_shift=shift,
        head=None if raw.get("head") is None else head_from_json(raw["head"], at),
        tensors={_VECTORS.get(name, name.removeprefix(_WRAPPER)): t for name, t in tensors.items()},
    )


def add_adapter(model: HyenaDNA, adapter: AdapterFile, base: str) -> None:
    """Give a base model the head and the adapter of a file; the caller then puts in their tensors."""
    if adapter.head is not None:
        model.set_head(adapter.head)
    if isinstance(adapter.config, LoraConfig):
        add_lora(model, adapter.config, base=base)
    else:
        add_soft_prompt(model, adapter.config, base=base)


def _read_config(raw: Mapping[str, Any]) -> LoraConfig | SoftPromptConfig:
    kind = raw["peft_type"]
    if kind == "PROMPT_TUNING":
        return SoftPromptConfig(
            int(_number(raw, "num_virtual_tokens")), float(_number(raw, "prompt_dropout", 0.0))
        )
    if kind != "LORA":
        raise ModelError(f"is an adapter of kind {kind!r}, but only LORA and PROMPT_TUNING are supported")
    for key, only in _ONLY.items():
        if raw.get(key, only) != only:
            raise ModelError(f"has {key} = {raw[key]!r}, but only {only!r} is supported")
    targets = raw.get("target_modules")
    if not isinstance(targets, list):
        raise ModelError(f"has target_modules = {targets!r}, which is not a list")
    return LoraConfig(
        rank=int(_number(raw, "r")),
        alpha=float(_number(raw, "lora_alpha")),
        dropout=float(_number(raw, "lora_dropout", 0.0)),
        targets=tuple(map(str, targets)),
    )


def _number(raw: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = raw.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ModelError(f"has {key} = {value!r}, which is not a number")
    return value


def _text(raw: Mapping[str, Any], key: str) -> str | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        raise ModelError(f"has {key} = {value!r}, which is not text")
    return value
