"""Tensors of a model: their names in every checkpoint format, and the form in which models are compared.

Our names are the official ones without the wrapper: `backbone.*`, `lm_head.weight`,
`head.output_transform.*`. In them a shared sine frequency is listed once, at index 1, and a tied LM head not
at all.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from hyenadna.adapters import LoraConfig, SoftPromptConfig, is_adapter_parameter
from hyenadna.config import HeadConfig, HyenaConfig, Task
from hyenadna.errors import ModelError
from hyenadna.model import HyenaDNA
from hyenadna.operator import decay_rates, positional_features

EMBEDDING = "backbone.embeddings.word_embeddings.weight"
LM_HEAD = "lm_head.weight"
WHICH_CONFIG = "is this the config.json of these weights?"
_SHOWN = 3
_WEIGHT, _BIAS = "head.output_transform.weight", "head.output_transform.bias"
_PROBLEMS: dict[str, Task] = {"regression": "regression", "multi_label_classification": "multilabel"}
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
# the last three: of a backbone saved by itself
_MM_PREFIXES = {
    "model.final_layer_norm.": "backbone.ln_f.",
    "model.": "backbone.",
    "final_layer_norm.": "backbone.ln_f.",
    "embeddings.": "backbone.embeddings.",
    "layers.": "backbone.layers.",
}
# the pooler belongs to the heads: it reads the first token, which has seen nothing else
_MM_HEAD = re.compile(r"(backbone\.)?pooler\.|(?!lm_head)\w+_head\.")

# row of MultiMolecule's embedding that each of our rows is: its special tokens come in another order. [BOS]
# has no row there; ours takes the one its 11-token vocabulary leaves unused, which keeps the 16 rows (and so
# the softmax over them) a permutation of each other, and the round trip exact.
_MM_ROWS = (1, 2, 11, 4, 0, 5, 3, 6, 7, 8, 9, 10, 12, 13, 14, 15)


def to_ours(raw: Mapping[str, Tensor], checkpoint_format: str) -> dict[str, Tensor]:
    """Rename a checkpoint's tensors to ours; those of metrics are dropped, unknown names kept."""
    prefixes = _MM_PREFIXES if checkpoint_format == "multimolecule" else _PREFIXES
    kept = {name: tensor for name, tensor in raw.items() if "torchmetrics" not in name}
    tensors = {_rename(name.removeprefix("module."), prefixes): tensor for name, tensor in kept.items()}
    if checkpoint_format == "multimolecule":
        for name in (EMBEDDING, LM_HEAD):
            if len(tensors.get(name, ())) == len(_MM_ROWS):
                tensors[name] = tensors[name][list(_MM_ROWS)]
    return tensors


def without_foreign_heads(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Leave out MultiMolecule's heads, which compute what ours do not; return their names too.

    Its pooler goes with them; a backbone that was saved by itself has one as well.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not _MM_HEAD.match(name)}
    parts = {name.partition(".")[0] for name in tensors.keys() - kept.keys()}
    return kept, sorted(part for part in parts if part.endswith("_head"))


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


_ROUNDING = 2e-6
"""Largest difference between a stored z and its closed form that comes from another machine's rounding."""
# of no consequence for models that have none, whose identity is older than the field
_OPTIONAL = "demonstrations"
_TRAINING_ONLY = ("embed_dropout", "resid_dropout", "hyena_dropout", "activation_freq", "dropout")


def closed_form(config: HyenaConfig) -> dict[str, Tensor]:
    """Compute the buffers z, t and deltas of every layer by their formulas; layers share the tensors."""
    z, t = positional_features(config.l_max, config.emb_dim)
    deltas = decay_rates(config.d_model)
    buffers = {"pos_emb.z": z, "pos_emb.t": t, "modulation.deltas": deltas}
    return {
        f"backbone.layers.{i}.mixer.filter_fn.{name}": form
        for i in range(config.n_layer)
        for name, form in buffers.items()
    }


def canonical_tensors(tensors: Mapping[str, Tensor], config: HyenaConfig) -> dict[str, Tensor]:
    """Return our named tensors without the buffers that equal their closed form up to rounding."""
    forms = closed_form(config)
    return {
        name: tensor
        for name, tensor in tensors.items()
        if (form := forms.get(name)) is None
        or not torch.allclose(tensor.float(), form, rtol=0, atol=_ROUNDING)
    }


def model_sha256(model: HyenaDNA) -> str:
    """Return the identity of a model, 64 hex digits, the same in every checkpoint format of the same weights.

    SHA-256 over the configuration that the output depends on (sorted JSON, without dropouts) and, by name,
    every parameter as little-endian float32; z, t and deltas only where more than 2e-6 off their closed form.
    The device, the dtype it is stored in (if it holds the same numbers) and provenance do not enter. An
    adapter does, with its tensors beside those of the base.
    """
    facts = _facts(model.config)
    if model.adapter is not None:
        facts["adapter"] = _facts(model.adapter.config)
    return _digest(facts, model.config, _state(model))


def base_sha256(model: HyenaDNA) -> str:
    """Return `model_sha256` of the base of an adapted model: without adapter, head and demonstrations."""
    state = _state(model)
    base = {n: t for n, t in state.items() if not is_adapter_parameter(n) and not n.startswith("head.")}
    bare = replace(model.config, head=None, demonstrations=None)
    return _digest(_facts(bare), model.config, base)


def _facts(config: HyenaConfig | LoraConfig | SoftPromptConfig) -> dict[str, Any]:
    facts = {name: value for name, value in asdict(config).items() if name not in _TRAINING_ONLY}
    if facts.get(_OPTIONAL) is None:
        facts.pop(_OPTIONAL, None)
    return facts


def _state(model: HyenaDNA) -> dict[str, Tensor]:
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}
    state |= dict(model.named_buffers(remove_duplicate=False))
    return {name: tensor.cpu() for name, tensor in state.items()}


def _digest(facts: Mapping[str, Any], config: HyenaConfig, state: Mapping[str, Tensor]) -> str:
    tensors = canonical_tensors(state, config)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"\n{name} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].float().contiguous().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def all_buffers(model: HyenaDNA) -> dict[str, Tensor]:
    """Return every buffer by name, listing those that layers share for each layer."""
    return dict(model.named_buffers(remove_duplicate=False))


def check_tensors(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], optional: set[str], at: object
) -> None:
    """Raise ModelError unless there are the expected tensors and no others, of their shapes."""
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
            remedy=WHICH_CONFIG,
        )


def _list(kind: str, names: list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return f"{kind} {', '.join(names[:_SHOWN])}{more}"


def head_from_tensors(tensors: Mapping[str, Tensor], raw: Mapping[str, Any], at: object) -> HeadConfig | None:
    """Infer the head of a foreign checkpoint from its tensors and (Hugging Face) its labels.

    A decoder with bias is the official one, which averages all positions by default; `score`, without bias,
    is the Hugging Face port's, which takes the last. Where nothing states the task, its outputs suggest it.
    """
    weight = tensors.get(_WEIGHT)
    if weight is None or weight.ndim != 2:
        return None
    n = len(weight)
    guess: Task = "regression" if n == 1 else "binary" if n == 2 else "multiclass"
    has_bias = _BIAS in tensors
    try:
        return HeadConfig(
            task=_PROBLEMS.get(str(raw.get("problem_type")), guess),
            n_outputs=n,
            labels=_labels(raw.get("id2label")),
            pool="mean" if has_bias else "last",
            bias=has_bias,
        )
    except ModelError as error:
        raise ModelError(str(error), at=at) from None


def _labels(id2label: object) -> tuple[str, ...]:
    """Return the names in order; the port's automatic LABEL_0, LABEL_1 ... do not count as names."""
    if not isinstance(id2label, Mapping):
        return ()
    named = {int(i): str(name) for i, name in id2label.items() if i.isdecimal() and len(i) < 9}
    labels = tuple(named[i] for i in sorted(named))
    return () if labels == tuple(f"LABEL_{i}" for i in range(len(labels))) else labels
