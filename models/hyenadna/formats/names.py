"""Tensor names of every checkpoint format, to and from ours.

Ours are the official ones without the wrapper: `backbone.*`, `lm_head.weight`, `head.output_transform.*`. In
them a shared sine frequency is listed once, at index 1, and a tied LM head not at all.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

EMBEDDING = "backbone.embeddings.word_embeddings.weight"
LM_HEAD = "lm_head.weight"
_LATER_FREQ = re.compile(r"^(.+\.implicit_filter\.)(\d+)(\.freq)$")
_WRAPPED = re.compile(r"\.(mixer|mlp)\.layer\.")

# prefixes in checkpoints -> ours, the first that fits
_PREFIXES = {
    "model.backbone.": "backbone.",
    "hyena.backbone.": "backbone.",
    "model.lm_head.": "lm_head.",
    "decoder.0.output_transform.": "head.output_transform.",
    "score.": "head.output_transform.",
}
_MM_PREFIXES = {"model.final_layer_norm.": "backbone.ln_f.", "model.": "backbone."}

# row of MultiMolecule's embedding that each of our rows is: its special tokens come in another order. [BOS]
# has no row there; ours takes the one its 11-token vocabulary leaves unused, which keeps the 16 rows (and so
# the softmax over them) a permutation of each other, and the round trip exact.
_MM_ROWS = (1, 2, 11, 4, 0, 5, 3, 6, 7, 8, 9, 10, 12, 13, 14, 15)


def to_ours(raw: Mapping[str, Tensor], checkpoint_format: str) -> dict[str, Tensor]:
    """Rename a checkpoint's tensors to ours; those of metrics are dropped, unknown names kept."""
    prefixes = _MM_PREFIXES if checkpoint_format == "multimolecule" else _PREFIXES
    kept = {name: tensor for name, tensor in raw.items() if "torchmetrics" not in name}
    tensors = {_rename(name.removeprefix("module."), prefixes): tensor for name, tensor in kept.items()}
    if checkpoint_format == "multimolecule" and len(tensors.get(EMBEDDING, ())) == len(_MM_ROWS):
        tensors[EMBEDDING] = tensors[EMBEDDING][list(_MM_ROWS)]
    return tensors


def _rename(name: str, prefixes: Mapping[str, str]) -> str:
    # activation checkpointing wraps mixer and mlp in a module of its own
    name = _WRAPPED.sub(r".\1.", name)
    for theirs, ours in prefixes.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def untangle(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Drop tensors listed twice, and return what that shows: `tied_head` and `shared_freq` of HyenaConfig.

    Official files list the one shared frequency at indices 1, 3 and 5 and the tied LM head beside the
    embedding; MultiMolecule's three frequencies are independent and may have diverged.
    """
    later = {name: _first_freq(name) for name in tensors if _first_freq(name) not in (None, name)}
    shared = all(
        first in tensors and torch.equal(tensors[name], tensors[first])
        for name, first in later.items()
        if first
    )
    dropped = set(later) if shared else set()
    head, embedding = tensors.get(LM_HEAD), tensors.get(EMBEDDING)
    tied = head is None or (embedding is not None and torch.equal(head, embedding))
    if tied:
        dropped.add(LM_HEAD)
    kept = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    return kept, {"tied_head": tied, "shared_freq": shared}


def _first_freq(name: str) -> str | None:
    match = _LATER_FREQ.match(name)
    return f"{match[1]}1{match[3]}" if match else None


def from_ours(tensors: Mapping[str, Tensor], checkpoint_format: str, n_inner_mlps: int) -> dict[str, Tensor]:
    """Rename our tensors, with z, t and deltas, to the names of a checkpoint format."""
    if checkpoint_format == "official":
        tensors = dict(_repeat_freq(tensors, n_inner_mlps))
        tensors.setdefault(LM_HEAD, tensors[EMBEDDING])
        new = {"backbone.": "model.backbone.", "lm_head.": "model.lm_head.", "head.": "decoder.0."}
    elif checkpoint_format == "hf":
        tensors = dict(tensors)
        if not any(name.startswith("head.") for name in tensors):
            tensors.setdefault(LM_HEAD, tensors[EMBEDDING])
        new = {"backbone.": "hyena.backbone.", "head.output_transform.": "score."}
    else:
        rebuilt = ("pos_emb.z", "pos_emb.t", "modulation.deltas")
        tensors = {n: t for n, t in _repeat_freq(tensors, n_inner_mlps) if not n.endswith(rebuilt)}
        ours = torch.tensor(_MM_ROWS).argsort()
        tensors[EMBEDDING] = tensors[EMBEDDING][ours]
        new = {"backbone.ln_f.": "model.final_layer_norm.", "backbone.": "model."}
    return {_rename(name, new): tensor for name, tensor in tensors.items()}


def _repeat_freq(tensors: Mapping[str, Tensor], n_inner_mlps: int) -> Iterable[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        yield name, tensor
        if name == _first_freq(name):
            for index in range(3, 2 * n_inner_mlps + 2, 2):
                later = name.replace("implicit_filter.1.", f"implicit_filter.{index}.")
                if later not in tensors:
                    yield later, tensor
