"""Saving: from a model to files; and the description of a model."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyenadna.adapters import LoraConfig, merge
from hyenadna.config import HyenaConfig
from hyenadna.errors import ModelError
from hyenadna.model import HyenaDNA

from .adapters import save_adapter
from .cards import model_card
from .configs import CheckpointFormat, write_config
from .files import BESIDE, whole_directory, write_json, write_tensors
from .huggingface import MODELING, write_multimolecule_files, write_transformers_files
from .load import ModelFiles, interpret, load_files, locate
from .tensors import all_buffers, canonical_tensors, closed_form, from_ours, model_sha256

_WRITTEN = {
    "config.json",
    "model.safetensors",
    "weights.ckpt",
    "README.md",
    MODELING,
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    *BESIDE,
}
_TIED_ONLY = ("official", "multimolecule")
_SHARED_FREQ_ONLY = ("official", "hf")


def save_model(model: HyenaDNA, path: str | Path, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write the native model directory: config.json, model.safetensors, README.md.

    The directory appears whole or not at all; a model directory that is there already is replaced. Tensors
    keep their dtypes; z, t and deltas are written only where they differ from their closed form. Of a model
    with an adapter, the adapter's directory is written: see `save_adapter`.

    Args:
        model: any model of this package.
        path: the directory.
        provenance: facts about where the weights come from, for config.json and the model card (JSON values).

    Raises:
        ModelError: `path` is something other than a model directory.
    """
    if model.adapter is not None:
        save_adapter(model, path, provenance=provenance)
        return
    _write(model, Path(path), "native", _native_tensors(model), provenance or {})


def convert(
    spec: str | Path,
    out: str | Path,
    checkpoint_format: CheckpointFormat,
    *,
    drop_head: bool = False,
    repository: str | None = None,
) -> None:
    """Rewrite a model in another checkpoint format, exactly; LoRA becomes part of the weights.

    Args:
        spec: as for `load_model`.
        out: the directory to write.
        checkpoint_format: "native", "hf" (Hugging Face port), "multimolecule", or "official" (weights.ckpt).
        drop_head: leave out the prediction head or the demonstrations, if there are any.
        repository: org/name on the Hub that the directory is meant for; its README.md then says so.

    Raises:
        ModelError: the model cannot be loaded, or the format cannot hold all of it.
    """
    source, model = load_files(locate(spec), drop_head=drop_head)
    if model.adapter is not None:
        merge(model)
    if drop_head:
        model.drop_head()
    if checkpoint_format == "native":
        save_model(model, out, provenance={"converted_from": source, "source": Path(spec).name})
        return
    tensors = from_ours(_all_tensors(model), checkpoint_format, model.config.n_inner_mlps)
    _check_format_holds_all(model, checkpoint_format, tensors)
    _write(model, Path(out), checkpoint_format, tensors, {}, repository)


def _all_tensors(model: HyenaDNA) -> dict[str, Tensor]:
    if (foreign := model.backbone.foreign_module(hooks=False)) is not None:
        raise ModelError(
            f"{foreign} is not a module of this package, and no checkpoint format can hold it",
            remedy="merge it into the weights first (peft: merge_and_unload)",
        )
    named = dict(model.named_parameters()) | all_buffers(model)
    return {name: tensor.detach().cpu() for name, tensor in named.items()}


def _native_tensors(model: HyenaDNA) -> dict[str, Tensor]:
    forms = closed_form(model.config)
    return {
        name: tensor
        for name, tensor in _all_tensors(model).items()
        if (form := forms.get(name)) is None or not torch.equal(tensor, form.to(tensor.dtype))
    }


def _check_format_holds_all(
    model: HyenaDNA, checkpoint_format: CheckpointFormat, tensors: Mapping[str, Tensor]
) -> None:
    """Read back what is about to be written: the format cannot hold what comes back changed."""
    config = model.config
    lost = []
    if not config.tied_head and checkpoint_format in _TIED_ONLY:
        lost.append("an LM head of its own")
    if not config.shared_freq and checkpoint_format in _SHARED_FREQ_ONLY:
        lost.append("sine frequencies that are not shared")
    if config.head is not None and checkpoint_format == "official" and not config.head.bias:
        lost.append("a prediction head without a bias")
    if config.head is not None and checkpoint_format == "multimolecule":
        lost.append("a prediction head")
    raw = write_config(config, checkpoint_format, {})
    reread = interpret(raw, tensors, ModelFiles(Path(checkpoint_format), Path(checkpoint_format)))
    read = reread.config
    lost += [
        "demonstrations" if field == "demonstrations" else f"{field} = {getattr(config, field)!r}"
        for field in config.__dataclass_fields__
        if getattr(read, field) != getattr(config, field) and not (field == "head" and lost)
    ]
    before, after = canonical_tensors(_all_tensors(model), config), canonical_tensors(reread.tensors, config)
    changed = [name for name in before if name not in after or not torch.equal(before[name], after[name])]
    lost += [f"the trained {name}" for name in changed if name in closed_form(config)]
    if lost or changed:
        names = ", ".join(dict.fromkeys(lost or changed[:3]))
        raise ModelError(
            f"checkpoint format {checkpoint_format!r} cannot hold {names}",
            remedy="convert to native, which holds all"
            + (", or leave out what predicts with --drop-head" if _predicts(config) else ""),
        )


def _predicts(config: HyenaConfig) -> bool:
    return config.head is not None or config.demonstrations is not None


def _write(
    model: HyenaDNA,
    target: Path,
    checkpoint_format: CheckpointFormat,
    tensors: Mapping[str, Tensor],
    provenance: Mapping[str, Any],
    repository: str | None = None,
) -> None:
    with whole_directory(target, _WRITTEN) as new:
        if checkpoint_format == "official":
            # torch's own writer says nothing useful of a full disk
            buffer = io.BytesIO()
            torch.save({"state_dict": dict(tensors)}, buffer)
            (new / "weights.ckpt").write_bytes(buffer.getbuffer())
        else:
            plain = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
            write_tensors(plain, new / "model.safetensors")
        raw = write_config(model.config, checkpoint_format, provenance)
        if checkpoint_format == "native":
            write_json(raw, new / "config.json")
        else:
            # without a checksum: other programs change such a file, and keep the keys that they do not know
            (new / "config.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
        if checkpoint_format == "hf":
            write_transformers_files(model.config, new)
        if checkpoint_format == "multimolecule":
            write_multimolecule_files(new)
        name, published = repository or target.absolute().name, repository is not None
        card = model_card(model, name, checkpoint_format, provenance, published=published)
        (new / "README.md").write_text(card, encoding="utf-8")


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a model.

    Attributes:
        weights: the file the tensors came from.
        checkpoint_format: of those files.
        config: architecture and head.
        context: the published context length in bases, l_max - 2.
        n_parameters: trainable numbers, exact, shared ones once.
        n_buffer_values: numbers in z, t and deltas of all layers, as files that keep them hold them.
        sha256: identity of the model, the same in every checkpoint format.
        adapter: which one it has, its sizes and its base; None without one.
    """

    weights: Path
    checkpoint_format: CheckpointFormat
    config: HyenaConfig
    context: int
    n_parameters: int
    n_buffer_values: int
    sha256: str
    adapter: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; of demonstrations their number, for their sequences would fill pages."""
        facts = asdict(self) | {"weights": str(self.weights)}
        if (shown := facts["config"]["demonstrations"]) is not None:
            shown["shots"] = len(shown["shots"])
        return facts


def describe(spec: str | Path) -> ModelInfo:
    """Load a model, as `load_model`, and describe it.

    Raises:
        ModelError: it cannot be loaded.
    """
    files = locate(spec)
    checkpoint_format, model = load_files(files)
    return ModelInfo(
        weights=files.weights,
        checkpoint_format=checkpoint_format,
        config=model.config,
        context=model.config.context,
        n_parameters=model.n_parameters,
        n_buffer_values=sum(buffer.numel() for buffer in all_buffers(model).values()),
        sha256=model_sha256(model),
        adapter=_adapter(model),
    )


def _adapter(model: HyenaDNA) -> dict[str, Any] | None:
    if model.adapter is None:
        return None
    kind = "LoRA" if isinstance(model.adapter.config, LoraConfig) else "soft prompt"
    return {"kind": kind, **asdict(model.adapter.config), "base": model.adapter.base}
