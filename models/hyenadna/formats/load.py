"""Loading: from a path, or a name on the Hugging Face Hub, to files, and from files to a model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyenadna.adapters import is_adapter_parameter
from hyenadna.config import HeadConfig, HyenaConfig
from hyenadna.errors import ModelError
from hyenadna.model import HyenaDNA

from .adapters import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    AdapterFile,
    add_adapter,
    read_adapter,
    with_our_settings,
)
from .configs import CheckpointFormat, detect_format, read_config, read_table
from .files import find_weights, read_json, read_tensors
from .hub import fetch, parse_hub_name
from .tensors import (
    WHICH_CONFIG,
    all_buffers,
    base_sha256,
    check_tensors,
    head_from_tensors,
    to_ours,
    untangle,
    without_foreign_heads,
)


@dataclass(frozen=True)
class ModelFiles:
    """One model on disk, or one adapter."""

    weights: Path
    config: Path


def locate(spec: str | Path) -> ModelFiles:
    """Return the files of a model: a path where one exists, otherwise a name on the Hugging Face Hub.

    Raises:
        ModelError: there is no such path, the name cannot be one of the Hub, or files are missing.
    """
    path = Path(spec)
    if path.is_file():
        return ModelFiles(path, _config_beside(path))
    if path.is_dir():
        return _in_directory(_best_of_run(path))
    return _in_directory(fetch(*parse_hub_name(str(spec))))


def _best_of_run(folder: Path) -> Path:
    """Return the best checkpoint of a run directory, else its last; any other directory as it is."""
    if (folder / "config.json").exists() or not (folder / "checkpoints").is_dir():
        return folder
    for name in ("best", "last"):
        if (folder / "checkpoints" / name).is_dir():
            return folder / "checkpoints" / name
    raise ModelError(
        "is a run without a checkpoint yet", at=folder, remedy="wait for the first, or resume the run"
    )


def _in_directory(folder: Path) -> ModelFiles:
    config, adapter = folder / "config.json", folder / ADAPTER_CONFIG
    if not config.is_file() and adapter.is_file():
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise ModelError(f"has an {ADAPTER_CONFIG}, but no {ADAPTER_WEIGHTS}", at=folder)
        return ModelFiles(folder / ADAPTER_WEIGHTS, adapter)
    if not config.is_file():
        raise ModelError(
            "has no config.json",
            at=folder,
            remedy="give a model directory, or a weights file with its configuration",
        )
    return ModelFiles(find_weights(folder), config)


def _config_beside(weights: Path) -> Path:
    config = weights.parent / "config.json"
    if config.is_file():
        return config
    others = sorted(weights.parent.glob("*config.json"))
    if len(others) == 1:
        return others[0]
    message = f"has {len(others)} files *config.json beside it" if others else "has no config.json beside it"
    raise ModelError(message, at=weights, remedy="if these are weights, put their config.json there")


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
    files: ModelFiles,
    *,
    window_shift: float | None = None,
    base: str | Path | None = None,
    drop_head: bool = False,
) -> tuple[CheckpointFormat, HyenaDNA]:
    """Load a model as `load_model`, from located files, with its format (of an adapter, its base's).

    With `drop_head`, a head that no head of ours equals is left out instead of refused.
    """
    raw, tensors = read_json(files.config), read_tensors(files.weights)
    if "peft_type" in raw:
        adapter = read_adapter(with_our_settings(raw, files.config), tensors, files.config)
        return _load_adapted(adapter, files, window_shift, base)
    if base is not None:
        raise ModelError("is not an adapter, so that it has no base model", at=files.config)
    checkpoint = interpret(raw, tensors, files, drop_head=drop_head)
    if window_shift is not None:
        checkpoint = replace(checkpoint, config=replace(checkpoint.config, window_shift=window_shift))
    return checkpoint.format, build(checkpoint, files.weights)


def interpret(
    raw: Mapping[str, Any], tensors: Mapping[str, Tensor], files: ModelFiles, *, drop_head: bool = False
) -> Checkpoint:
    """Parse a config.json and the tensors beside it, whatever their checkpoint format."""
    checkpoint_format = detect_format(raw, files.config)
    config = read_config(raw, checkpoint_format, files.config)
    ours = to_ours(tensors, checkpoint_format)
    if checkpoint_format == "multimolecule":
        ours, heads = without_foreign_heads(ours)
        if heads and not drop_head:
            raise ModelError(
                f"has MultiMolecule's {' and '.join(heads)}, which hyena does not compute",
                at=files.weights,
                remedy="take the model without it: hyena models convert MODEL OUT --to native --drop-head",
            )
    if checkpoint_format != "native":
        ours, inferred = untangle(ours)
        config = replace(config, **inferred, head=_read_head(raw, ours, files))
    return Checkpoint(checkpoint_format, config, ours)


def _read_head(raw: Mapping[str, Any], tensors: Mapping[str, Tensor], files: ModelFiles) -> HeadConfig | None:
    """Return the head that an export of ours describes, or else what the tensors show."""
    described = raw.get("hyena_head")
    if described is None or not any(name.startswith("head.") for name in tensors):
        return head_from_tensors(tensors, raw, files.weights)
    return read_table(HeadConfig, described, "hyena_head", files.config)


def build(checkpoint: Checkpoint, at: object) -> HyenaDNA:
    """Build the model of a checkpoint, in eval mode.

    Raises:
        ModelError: tensors are missing, unexpected or misshapen.
    """
    _check_shapes(checkpoint, at)
    # the weights about to be replaced must not cost the caller's seed
    with torch.random.fork_rng(devices=[]):
        model = HyenaDNA(checkpoint.config)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in checkpoint.tensors.items():
            if name in parameters:
                parameters[name].copy_(tensor)
            else:
                owner, _, buffer = name.rpartition(".")
                setattr(model.get_submodule(owner), buffer, tensor.to(torch.float32, copy=True).contiguous())
    model.backbone.share_positions()
    return model.eval()


def _check_shapes(checkpoint: Checkpoint, at: object) -> None:
    """Compare the tensors with those of the architecture before any memory is taken for it."""
    config = checkpoint.config
    # a layer has a tensor at least: the skeleton of a million layers would take long, too
    if config.n_layer * (1 + config.n_inner_mlps) > len(checkpoint.tensors):
        raise ModelError(
            f"has {len(checkpoint.tensors)} tensors, but its configuration {config.n_layer:,} layers "
            f"with {config.n_inner_mlps:,} inner layers in the filter of each",
            at=at,
            remedy=WHICH_CONFIG,
        )
    with torch.device("meta"):
        skeleton = HyenaDNA(config)
    buffers = all_buffers(skeleton)
    # formats that do not store the closed-form buffers mean their closed form
    optional = set(buffers) if checkpoint.format in ("native", "multimolecule") else set()
    check_tensors(dict(skeleton.named_parameters()) | buffers, checkpoint.tensors, optional, at)


def _load_adapted(
    adapter: AdapterFile, files: ModelFiles, window_shift: float | None, base: str | Path | None
) -> tuple[CheckpointFormat, HyenaDNA]:
    """Load the base model of an adapter, check it, and put in the adapter."""
    # a relative path is one beside the adapter, or else as for any model
    reference = adapter.base
    beside = files.config.parent / (reference.path or "")
    spec = str(base or (beside if reference.path and beside.exists() else reference.path or ""))
    base_files = _locate_base(spec, files)
    if "peft_type" in read_json(base_files.config):
        raise ModelError("is an adapter too, and cannot be the base of another", at=base_files.config.parent)
    checkpoint_format, model = load_files(base_files, window_shift=reference.window_shift)
    sha256 = base_sha256(model)
    if reference.sha256 not in (None, sha256):
        raise ModelError(
            f"was trained on the model {reference.sha256}, but {base_files.weights} is {sha256}",
            at=files.config,
            remedy="give the base model that it was trained on",
        )
    if window_shift not in (None, reference.window_shift):
        model = load_files(base_files, window_shift=window_shift)[1]
    with torch.random.fork_rng(devices=[]):
        add_adapter(model, adapter, spec)
    parameters = dict(model.named_parameters())
    names = {name for name in parameters if is_adapter_parameter(name)}
    if adapter.head is not None:
        names |= {name for name in parameters if name.startswith("head.")}
    check_tensors({name: parameters[name] for name in names}, adapter.tensors, set(), files.weights)
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
