"""From files to a model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyenadna.config import PRESETS, HyenaConfig
from hyenadna.errors import ModelError
from hyenadna.model import HyenaDNA

from .configs import Layout, detect_layout, read_config
from .heads import head_from_tensors
from .jsons import read_json
from .locate import ModelFiles, locate
from .names import to_ours, untangle
from .tensors import read_tensors

_SHOWN = 3


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint understood: its layout, its architecture, and its tensors under our names."""

    layout: Layout
    config: HyenaConfig
    tensors: dict[str, Tensor]


def load_model(
    spec: str | Path, *, window_shift: float | None = None, allow_preset: bool = False
) -> HyenaDNA:
    """A model in any layout, in eval mode, float32 on the CPU.

    Loading is strict, and runs no code from the files. z, t and deltas come from the checkpoint where it has
    them, for their closed form differs in the last bits between machines and a fine-tune may have trained z.

    Args:
        spec: a model directory or weights file (native, official, Hugging Face, MultiMolecule), a run
            directory, or a name on the Hub: "hyenadna-small-32k", "org/name", "org/name@revision". A path
            that exists wins over a name.
        window_shift: floor of the filters' window; None keeps the model's own, 0.05 unless it says otherwise.
        allow_preset: take "tiny-1k" ... "large-1m" for that architecture with fresh weights.

    Raises:
        ModelError: there is no such model, or it cannot be loaded exactly.
    """
    if allow_preset and spec in PRESETS and not Path(spec).exists():
        config = PRESETS[str(spec)]
        fresh = HyenaDNA(config if window_shift is None else replace(config, window_shift=window_shift))
        return fresh.eval()
    return load_files(locate(spec), window_shift=window_shift)[1]


def load_files(files: ModelFiles, *, window_shift: float | None = None) -> tuple[Layout, HyenaDNA]:
    """As `load_model`, of files already found, with the layout they are in."""
    checkpoint = interpret(read_json(files.config), read_tensors(files.weights), files)
    if window_shift is not None:
        checkpoint = replace(checkpoint, config=replace(checkpoint.config, window_shift=window_shift))
    return checkpoint.layout, build(checkpoint, files.weights)


def interpret(raw: Mapping[str, Any], tensors: Mapping[str, Tensor], files: ModelFiles) -> Checkpoint:
    """Understand a config.json and the tensors beside it, whatever layout they are in."""
    layout = detect_layout(raw, files.config)
    config = read_config(raw, layout, files.config)
    ours = to_ours(tensors, layout)
    if layout != "native":
        ours, found = untangle(ours)
        config = replace(config, **found, head=head_from_tensors(ours, raw, files.weights))
    return Checkpoint(layout, config, ours)


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
    # layouts that do not store the closed-form buffers mean their closed form
    optional = set(buffers) if checkpoint.layout in ("native", "multimolecule") else set()
    _check(parameters | buffers, checkpoint.tensors, optional, at)
    with torch.no_grad():
        for name, tensor in checkpoint.tensors.items():
            if name in parameters:
                parameters[name].copy_(tensor)
            else:
                owner, _, buffer = name.rpartition(".")
                setattr(model.get_submodule(owner), buffer, tensor.to(torch.float32).contiguous())
    model.backbone.share_positions()
    return model.eval()


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
