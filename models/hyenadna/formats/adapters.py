"""Adapter directories: adapter_config.json and adapter_model.safetensors.

LoRA as peft writes and reads it; a soft prompt likewise, under the names of peft's prompt tuning. What peft
does not know is in hyena_adapter.json: identity and window shift of the base, task and labels of the head,
and provenance.
"""

import json
import reprlib
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

from .configs import read_keys, read_table
from .files import BESIDE, CONFIG_SHA256, json_sha256, read_json, whole_directory, write_json, write_tensors
from .tensors import base_sha256

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_OURS = "hyena_adapter.json"  # peft warns of keys that it does not know
_LORA = {"rank": "r", "alpha": "lora_alpha", "targets": "target_modules"}
_LORA_OPTIONAL = {"dropout": "lora_dropout"}
_PROMPT = {"tokens": "num_virtual_tokens"}
_PROMPT_OPTIONAL = {"dropout": "prompt_dropout"}
_BASE = {
    "path": "base_model_name_or_path",
    "sha256": "base_model_sha256",
    "window_shift": "base_window_shift",
}
_WRITTEN = {ADAPTER_CONFIG, _OURS, ADAPTER_WEIGHTS, *BESIDE}
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
class BaseReference:
    """What an adapter's file says about its base model.

    Attributes:
        path: of the base, or its name.
        sha256: `base_sha256` of it; None in peft's own files.
        window_shift: of the base; None for the base's own.
    """

    path: str | None = None
    sha256: str | None = None
    window_shift: float | None = None


@dataclass(frozen=True)
class AdapterFile:
    """A parsed adapter directory.

    Attributes:
        config: which adapter.
        base: its base model.
        head: of the model, or None for the base's, if any.
        tensors: under our names.
    """

    config: LoraConfig | SoftPromptConfig
    base: BaseReference
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
        "task_type": None,
        "inference_mode": True,
        "modules_to_save": None if model.config.head is None else ["head"],
    }
    ours = {
        CONFIG_SHA256: json_sha256(raw),
        "base_model_sha256": base_sha256(model),
        "base_window_shift": model.config.window_shift,
        "head": None if model.config.head is None else asdict(model.config.head),
        "provenance": dict(provenance or {}),
    }
    with whole_directory(Path(path), _WRITTEN) as new:
        write_tensors(tensors, new / ADAPTER_WEIGHTS)
        (new / ADAPTER_CONFIG).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
        write_json(ours, new / _OURS)


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


def with_our_settings(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """Add what our file beside an adapter_config.json says, if there is one.

    Args:
        raw: what the adapter_config.json holds.
        path: of it.

    Raises:
        ModelError: our file is damaged, or was written for another configuration.
    """
    ours_path = path.with_name(_OURS)
    if not ours_path.is_file():
        return raw
    ours = read_json(ours_path)
    if ours.pop(CONFIG_SHA256, None) not in (None, json_sha256(raw)):
        what = f"has been changed since it was written: its checksum in {_OURS} does not fit"
        remedy = f'take an undamaged copy, or if you edited it, delete the line "{CONFIG_SHA256}" there'
        raise ModelError(what, at=path, remedy=remedy)
    return ours | raw


def read_adapter(raw: Mapping[str, Any], tensors: Mapping[str, Tensor], at: object) -> AdapterFile:
    """Parse the configuration of an adapter, and the tensors beside it.

    Args:
        raw: from `with_our_settings`.
        tensors: by their names in the file.
        at: the configuration file, for messages.

    Raises:
        ModelError: a value is missing or wrong, or the adapter is of a kind we do not compute.
    """
    config = _read_config(raw, at)
    ours = {_VECTORS.get(name, name.removeprefix(_WRAPPER)): tensor for name, tensor in tensors.items()}
    head = None if raw.get("head") is None else read_table(HeadConfig, raw["head"], "head", at)
    if head is None and any(name.startswith("head.") for name in ours):
        what = "does not say what the head beside it predicts, as peft leaves that out"
        remedy = f'copy the key "head" from {_OURS} of the adapter that peft was given into this file'
        raise ModelError(what, at=at, remedy=remedy)
    return AdapterFile(config, read_keys(BaseReference, raw, {}, _BASE, at), head, ours)


def add_adapter(model: HyenaDNA, adapter: AdapterFile, base: str) -> None:
    """Give a base model the head and the adapter of a file; the caller then puts in their tensors."""
    if adapter.head is not None:
        model.set_head(adapter.head)
    if isinstance(adapter.config, LoraConfig):
        add_lora(model, adapter.config, base=base)
    else:
        add_soft_prompt(model, adapter.config, base=base)


def _read_config(raw: Mapping[str, Any], at: object) -> LoraConfig | SoftPromptConfig:
    kind = raw["peft_type"]
    if kind == "PROMPT_TUNING":
        return read_keys(SoftPromptConfig, raw, _PROMPT, _PROMPT_OPTIONAL, at)
    if kind != "LORA":
        what = f"is an adapter of kind {reprlib.repr(kind)}, but only LORA and PROMPT_TUNING are supported"
        raise ModelError(what, at=at)
    for key, only in _ONLY.items():
        if raw.get(key, only) != only:
            raise ModelError(f"has {key} = {reprlib.repr(raw[key])}, but only {only!r} is supported", at=at)
    return read_keys(LoraConfig, raw, _LORA, _LORA_OPTIONAL, at)
