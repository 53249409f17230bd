"""Canonical form of a model for comparing and hashing, whatever checkpoint format it came from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from hyenadna.adapters.methods import LoraConfig, SoftPromptConfig, is_adapter_parameter
from hyenadna.config import HyenaConfig
from hyenadna.filter import decay_rates, positional_features
from hyenadna.model import HyenaDNA

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
