"""From files to a model."""

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
    """A checkpoint understood: its format, its architecture, and its tensors under our names."""

    format: CheckpointFormat
    config: HyenaConfig
    tensors: dict[str, Tensor]


def load_model(
    spec: str | Path,
    *,
    window_shift: float | None = None,
    base: str | Path | None = None,
) -> HyenaDNA:
    """A model in any checkpoint format, in eval mode, float32 on the CPU.

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
    """As `load_model`, of files already found, with their checkpoint format; of an adapter, its base's."""
    raw, tensors = read_json(files.config), read_tensors(files.weights)
    if "peft_type" in raw:
        return _load_adapted(read_adapter(raw, tensors, files.config), files, window_shift, base)
    if base is not None:
        raise ModelError("is no adapter, so that it has no base model", at=files.config)
    checkpoint = interpret(raw, tensors, files)
    if window_shift is not None:
        checkpoint = replace(checkpoint, config=replace(checkpoint.config, window_shift=window_shift))
    return checkpoint.format, build(checkpoint, files.weights)


def interpret(raw: Mapping[str, Any], tensors: Mapping[str, Tensor], files: ModelFiles) -> Checkpoint:
    """Understand a config.json and the tensors beside it, whatever checkpoint format they are in."""
    checkpoint_format = detect_format(raw, files.config)
    config = read_config(raw, checkpoint_format, files.config)
    ours = to_ours(tensors, checkpoint_format)
    if checkpoint_format != "native":
        ours, found = untangle(ours)
        config = replace(config, **found, head=head_from_tensors(ours, raw, files.weights))
    return Checkpoint(checkpoint_format, config, ours)


def build(checkpoint: Checkpoint, at: object) -> HyenaDNA:
    """The model of a checkpoint, in eval mode.

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
    """The base model of an adapter, found and checked, with the adapter."""
    # a relative path is one beside the adapter, or else as for any model
    beside = files.config.parent / adapter.base
    spec = str(base or (beside if adapter.base and beside.exists() else adapter.base))
    found = _locate_base(spec, files)
    if "peft_type" in read_json(found.config):
        raise ModelError("is an adapter too, and cannot be the base of another", at=found.config.parent)
    checkpoint_format, model = load_files(found, window_shift=adapter.window_shift)
    sha256 = base_sha256(model)
    if adapter.sha256 not in (None, sha256):
        raise ModelError(
            f"was trained on the model {adapter.sha256}, but {found.weights} is {sha256}",
            at=files.config,
            remedy="give the base model that it was trained on",
        )
    if window_shift not in (None, adapter.window_shift):
        model = load_files(found, window_shift=window_shift)[1]
    with torch.random.fork_rng(devices=[]):
        add_adapter(model, adapter, spec)
    parameters = dict(model.named_parameters())
    own = {name for name in parameters if is_adapter_parameter(name)}
    if adapter.head is not None:
        own |= {name for name in parameters if name.startswith("head.")}
    _check({name: parameters[name] for name in own}, adapter.tensors, set(), files.weights)
    with torch.no_grad():
        for name, tensor in adapter.tensors.items():
            parameters[name].copy_(tensor)
    return checkpoint_format, model.eval()


def _locate_base(spec: str, files: ModelFiles) -> ModelFiles:
    """The files of an adapter's base."""
    try:
        if not spec:
            raise ModelError("it is not named")
        return locate(spec)
    except ModelError as error:
        raise ModelError(
            f"the base model of this adapter cannot be had ({error})",
            at=files.config,
            remedy="write its place into base_model_name_or_path",
        ) from error


def all_buffers(model: HyenaDNA) -> dict[str, Tensor]:
    """Every buffer by name, those that layers share listed for each layer."""
    return dict(model.named_buffers(remove_duplicate=False))


def _check(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], optional: set[str], at: object
) -> None:
    misshapen = [
        f"{name} {tuple(found[name].shape)} {found[name].dtype} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and (found[name].shape != tensor.shape or not found[name].is_floating_point())
    ]
    problems = {
        "missing": [name for name in expected if name not in found and name not in optional],
        "unexpected": [name for name in found if name not in expected],
        "misshapen": misshapen,
    }
    told = [_tell(kind, names) for kind, names in problems.items() if names]
    if told:
        raise ModelError(
            f"does not fit its configuration: {'; '.join(told)}",
            at=at,
            remedy="is this the config.json of these weights?",
        )


def _tell(kind: str, names: list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return f"{kind} {', '.join(names[:_SHOWN])}{more}"
