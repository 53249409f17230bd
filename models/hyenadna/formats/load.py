"""Loading: from files to a model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyenadna.adapters.methods import is_adapter_parameter
from hyenadna.config import HyenaConfig
from hyenadna.errors import ModelError
from hyenadna.model import HyenaDNA

from .adapters import AdapterFile, add_adapter, read_adapter
from .canonical import base_sha256
from .configs import CheckpointFormat, detect_format, head_from_tensors, read_config
from .files import read_json, read_tensors
from .locate import ModelFiles, locate
from .names import to_ours, untangle

_SHOWN = 3


@dataclass(frozen=True)
class Checkpoint:
    """A parsed checkpoint: its format, its architecture, and its tensors under our names."""

    format: CheckpointFormat
    config: HyenaConfig
    tensors: dict[str, Tensor]


def load_model(
    spec: str | Path,
    *,
    window_shift: float | None = None,
    base: str | Path | None = None,
) -> HyenaDNA:
    """Load a model of any checkpoint format, in eval mode, float32 on the CPU.

    Loading is strict, and runs no code from the files. z, t and deltas come from the checkpoint where it has
    them, for their closed form differs in the last bits between machines and a fine-tune may have trained z.

    Args:
        spec: a model directory or weights file (native, official, Hugging Face, MultiMolecule), a run
            directory, an adapter's directory (LoRA or soft prompt), or a name on the Hub:
            "hyenadna-small-32k", "org/name", "org/name@revision". A path that exists wins over a name.
        window_shift: floor of the filters' window; None keeps the model's own, 0.05 unless it says otherwise.
        base: the base model of an adapter, instead of the one its configuration names.

    Raises:
        ModelError: there is no such model, or it cannot be loaded exactly; or an adapter's base is not the
            model that it was trained on.
    """
    return load_files(locate(spec), window_shift=window_shift, base=base)[1]


def load_files(
    files: ModelFiles, *, window_shift: float | None = None, base: str | Path | None = None
) -> tuple[CheckpointFormat, HyenaDNA]:
    """Load a model as `load_model`, from located files, with its format (of an adapter, its base's)."""
    raw, tensors = read_json(files.config), read_tensors(files.weights)
    if "peft_type" in raw:
        return _load_adapted(read_adapter(raw, tensors, files.config), files, window_shift, base)
    if base is not None:
        raise ModelError("is not an adapter, so that it has no base model", at=files.config)
    checkpoint = interpret(raw, tensors, files)
    if window_shift is not None:
        checkpoint = replace(checkpoint, config=replace(checkpoint.config, window_shift=window_shift))
    return checkpoint.format, build(checkpoint, files.weights)


def interpret(raw: Mapping[str, Any], tensors: Mapping[str, Tensor], files: ModelFiles) -> Checkpoint:
    """Parse a config.json and the tensors beside it, whatever their checkpoint format."""
    checkpoint_format = detect_format(raw, files.config)
    config = read_config(raw, checkpoint_format, files.config)
    ours = to_ours(tensors, checkpoint_format)
    if checkpoint_format != "native":
        ours, inferred = untangle(ours)
        config = replace(config, **inferred, head=head_from_tensors(ours, raw, files.weights))
    return Checkpoint(checkpoint_format, config, ours)


def build(checkpoint: Checkpoint, at: object) -> HyenaDNA:
    """Build the model of a checkpoint, in eval mode.

    Raises:
        ModelError: tensors are missing, unexpected or misshapen.
    """
    with torch.random.fork_rng(
        devices=[]
    ):  # the weights about to be replaced must not cost the caller's seed
        model = HyenaDNA(checkpoint.config)
    parameters, buffers = dict(model.named_parameters()), all_buffers(model)
    # formats that do not store the closed-form buffers mean their closed form
    optional = set(buffers) if checkpoint.format in ("native", "multimolecule") else set()
    _check(parameters | buffers, checkpoint.tensors, optional, at)
    with torch.no_grad():
        for name, tensor in checkpoint.tensors.items():
            if name in parameters:
                parameters[name].copy_(tensor)
            else:
                owner, _, buffer = name.rpartition(".")
                setattr(model.get_submodule(owner), buffer, tensor.to(torch.float32, copy=True).contiguous())
    model.backbone.share_positions()
    return model.eval()


def _load_adapted(
    adapter: AdapterFile, files: ModelFiles, window_shift: float | None, base: str | Path | None
) -> tuple[CheckpointFormat, HyenaDNA]:
    """Load the base model of an adapter, check it, and put in the adapter."""
    # a relative path is one beside the adapter, or else as for any model
    beside = files.config.parent / adapter.base
    spec = str(base or (beside if adapter.base and beside.exists() else adapter.base))
    base_files = _locate_base(spec, files)
    if "peft_type" in read_json(base_files.config):
        raise ModelError("is an adapter too, and cannot be the base of another", at=base_files.config.parent)
    checkpoint_format, model = load_files(base_files, window_shift=adapter.window_shift)
    sha256 = base_sha256(model)
    if adapter.sha256 not in (None, sha256):
        raise ModelError(
            f"was trained on the model {adapter.sha256}, but {base_files.weights} is {sha256}",
            at=files.config,
            remedy="give the base model that it was trained on",
        )
    if window_shift not in (None, adapter.window_shift):
        model = load_files(base_files, window_shift=window_shift)[1]
    with torch.random.fork_rng(devices=[]):
        add_adapter(model, adapter, spec)
    parameters = dict(model.named_parameters())
    names = {name for name in parameters if is_adapter_parameter(name)}
    if adapter.head is not None:
        names |= {name for name in parameters if name.startswith("head.")}
    _check({name: parameters[name] for name in names}, adapter.tensors, set(), files.weights)
    with torch.no_grad():
        for name, tensor in adapter.tensors.items():
            parameters[name].copy_(tensor)
    return checkpoint_format, model.eval()


def _locate_base(spec: str, files: ModelFiles) -> ModelFiles:
    """Locate the files of an adapter's base."""
    try:
        if not spec:
            raise ModelError("it is not named")
        return locate(spec)
    except ModelError as error:
        raise ModelError(
            f"the base model of this adapter cannot be had ({error})",
            at=files.config,
            remedy="write its path into base_model_name_or_path",
        ) from error


def all_buffers(model: HyenaDNA) -> dict[str, Tensor]:
    """Return every buffer by name, listing those that layers share for each layer."""
    return dict(model.named_buffers(remove_duplicate=False))


def _check(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], optional: set[str], at: object
) -> None:
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype} instead of {tuple(parameter.shape)}"
        for name, parameter in expected.items()
        if name in tensors
        and (tensors[name].shape != parameter.shape or not tensors[name].is_floating_point())
    ]
    problems = {
        "missing": [name for name in expected if name not in tensors and name not in optional],
        "unexpected": [name for name in tensors if name not in expected],
        "misshapen": misshapen,
    }
    listed = [_list(kind, names) for kind, names in problems.items() if names]
    if listed:
        raise ModelError(
            f"does not fit its configuration: {'; '.join(listed)}",
            at=at,
            remedy="is this the config.json of these weights?",
        )


def _list(kind: str, names: list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return f"{kind} {', '.join(names[:_SHOWN])}{more}"
