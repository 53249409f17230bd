"""config.json of every checkpoint format, to and from HyenaConfig.

Only what changes the arithmetic is read; other keys are tolerated, for published files have many unused ones.
A key that the arithmetic depends on must be there: the class defaults of the Hugging Face port differ from
every published model. `local_order` of official files is unused (the taps of the short convolution are
`short_filter_order`), and so are the checkpoint_* flags (the tensors' names show it).
"""

import reprlib
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from types import UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from hyenadna.config import DemonstrationsConfig, HeadConfig, HyenaConfig
from hyenadna.errors import ModelError
from hyenadna.tokenizer import VOCABULARY

CheckpointFormat = Literal["native", "official", "hf", "multimolecule"]

_Config = TypeVar("_Config")
# by a part of a type's name, the first that fits
_KINDS = {
    "tuple": "a list of what it takes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "": "text",
}
_OFFICIAL = {
    "d_model": "d_model",
    "n_layer": "n_layer",
    "d_inner": "d_inner",
    "vocab_size": "vocab_size",
    "pad_vocab_multiple": "pad_vocab_size_multiple",
    "l_max": "layer.l_max",
    "emb_dim": "layer.emb_dim",
    "filter_order": "layer.filter_order",
    "activation_freq": "layer.w",
}
_OFFICIAL_OPTIONAL = {
    "embed_dropout": "embed_dropout",
    "resid_dropout": "resid_dropout",
    "hyena_dropout": "layer.dropout",
    "layer_norm_eps": "layer_norm_epsilon",
    "short_filter_order": "layer.short_filter_order",
    "n_inner_mlps": "layer.num_inner_mlps",
    "window_shift": "layer.shift",
}
_HF = {
    "d_model": "d_model",
    "n_layer": "n_layer",
    "d_inner": "d_inner",
    "vocab_size": "vocab_size",
    "pad_vocab_multiple": "pad_vocab_size_multiple",
    "l_max": "max_seq_len",
    "emb_dim": "emb_dim",
    "filter_order": "filter_order",
    "n_inner_mlps": "num_inner_mlps",
    "short_filter_order": "short_filter_order",
    "activation_freq": "activation_freq",
    "layer_norm_eps": "layer_norm_epsilon",
}
_HF_OPTIONAL = {name: name for name in ("embed_dropout", "resid_dropout", "hyena_dropout", "window_shift")}
_MM = {
    "d_model": "hidden_size",
    "n_layer": "num_hidden_layers",
    "d_inner": "intermediate_size",
    "pad_vocab_multiple": "pad_vocab_size_multiple",
    "l_max": "max_position_embeddings",
    "emb_dim": "filter_emb_dim",
    "filter_order": "filter_order",
    "n_inner_mlps": "num_inner_mlps",
    "short_filter_order": "short_filter_order",
    "activation_freq": "activation_freq",
    "layer_norm_eps": "layer_norm_eps",
}
_MM_OPTIONAL = {"embed_dropout": "embedding_dropout", "hyena_dropout": "hidden_dropout"}
_TABLES = {
    "official": (_OFFICIAL, _OFFICIAL_OPTIONAL),
    "hf": (_HF, _HF_OPTIONAL),
    "multimolecule": (_MM, _MM_OPTIONAL),
}


# the values that we compute with; a file with others describes another model
_ONLY: dict[str, dict[str, Any]] = {
    "official": {
        "attn_layer_idx": None,
        "layer._name_": "hyena",
        "layer.order": 2,
        "layer.bidirectional": False,
        "layer.modulate": True,
        "layer.normalized": False,
        "layer.num_heads": 1,
        "layer.num_blocks": 1,
        "layer.inner_factor": 1,
        "layer.outer_mixing": False,
        "layer.post_order_ffn": False,
        "layer.activation": "id",
    },
    # the port's block norms ignore the configured epsilon, so any but their default would mean two of them
    "hf": {"hyena_order": 2, "use_bias": True, "layer_norm_epsilon": 1e-5},
    "multimolecule": {"hyena_order": 2, "use_bias": True, "vocab_size": 11},
}
_NATIVE_VERSION = 1
# not the port's "hyenadna", which MultiMolecule takes for its own and opens with random weights
_HF_TYPE = "hyenadna-hf"
_HF_CLASSES = {
    "AutoConfig": "Config",
    "AutoModel": "Model",
    **{
        f"Auto{kind}": kind.removeprefix("Model")
        for kind in ("ModelForCausalLM", "ModelForSequenceClassification", "ModelForTokenClassification")
    },
}


def detect_format(raw: Mapping[str, Any], at: object) -> CheckpointFormat:
    """Return the checkpoint format of a config.json, by its keys.

    Raises:
        ModelError: it has no keys format, or is another model's.
    """
    if raw.get("format") == "hyena-native":
        return "native"
    if raw.get("model_type") == _HF_TYPE:
        return "hf"
    if raw.get("model_type", "hyenadna") != "hyenadna":
        model_type = reprlib.repr(raw["model_type"])
        raise ModelError(f"describes a {model_type} model, not HyenaDNA", at=at)
    if "model_type" in raw:
        return "multimolecule" if "hidden_size" in raw else "hf"
    if isinstance(raw.get("layer"), Mapping):
        return "official"
    raise ModelError(
        "is not a HyenaDNA configuration",
        at=at,
        remedy="it needs model_type 'hyenadna', a 'layer' table, or our format",
    )


def read_config(raw: Mapping[str, Any], checkpoint_format: CheckpointFormat, at: object) -> HyenaConfig:
    """Read the architecture of a config.json; what only tensors show (tying, foreign heads) is not in it.

    Raises:
        ModelError: a key is missing or has a wrong type, or the model is one we do not compute.
    """
    if checkpoint_format == "native":
        return _read_native(raw, at)
    flat = dict(raw)
    if checkpoint_format == "official":
        flat |= {f"layer.{key}": value for key, value in raw["layer"].items()}
    for key, only in _ONLY[checkpoint_format].items():
        if flat.get(key, only) != only:
            raise ModelError(f"has {key} = {reprlib.repr(flat[key])}, but only {only!r} is supported", at=at)
    return read_keys(HyenaConfig, flat, *_TABLES[checkpoint_format], at)


def read_keys(
    kind: type[_Config],
    raw: Mapping[str, Any],
    required: Mapping[str, str],
    optional: Mapping[str, str],
    at: object,
) -> _Config:
    """Build a configuration from a file's keys for its fields, if they are there and of the right types."""
    missing = [key for key in required.values() if key not in raw]
    if missing:
        raise ModelError(f"lacks {', '.join(missing)}", at=at, remedy="take the config.json of the weights")
    keys = {**required, **{ours: key for ours, key in optional.items() if key in raw}}
    return _build(kind, {ours: (key, raw[key]) for ours, key in keys.items()}, at)


def read_table(kind: type[_Config], raw: Any, name: str, at: object, **others: object) -> _Config:
    """Build a configuration from a native file's table, whose keys are its fields, and from other fields."""
    if not isinstance(raw, Mapping):
        raise ModelError(f"lacks the table {name!r}", at=at)
    expected = {field.name: field for field in fields(cast("Any", kind)) if field.name not in others}
    unknown = sorted(set(raw) - set(expected))
    missing = [name for name, field in expected.items() if field.default is MISSING and name not in raw]
    if unknown or missing:
        wrong = f"unknown {reprlib.repr(unknown[0])}" if unknown else f"missing {', '.join(missing)}"
        raise ModelError(f"{name}: {wrong}", at=at)
    return _build(kind, {key: (key, value) for key, value in {**raw, **others}.items()}, at)


def _build(kind: type[_Config], values: Mapping[str, tuple[str, Any]], at: object) -> _Config:
    """Build a configuration from {field: (key as in the file, value)}."""
    types = get_type_hints(kind)
    typed = {}
    for field, (key, value) in values.items():
        try:
            typed[field] = _typed(value, types[field])
        except ValueError:
            kind_name = next(name for part, name in _KINDS.items() if part in str(types[field]))
            raise ModelError(f"has {key} = {reprlib.repr(value)}, which is not {kind_name}", at=at) from None
    try:
        return kind(**typed)
    except ModelError as error:
        raise ModelError(str(error), at=at) from None


def _typed(value: Any, kind: Any) -> Any:
    """Return a JSON value as one of the type of a field; raise ValueError if it is none."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _typed(value, arguments[0])
    if origin is tuple and isinstance(value, list | tuple):
        kinds = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_typed(part, kind) for part, kind in zip(value, kinds, strict=True))
    if kind is float:
        if type(value) in (int, float) and abs(value) <= sys.float_info.max:
            return float(value)
    # the configuration itself checks words
    elif type(value) is (str if origin is Literal else kind):
        return value
    raise ValueError


def _read_native(raw: Mapping[str, Any], at: object) -> HyenaConfig:
    if raw.get("format_version") != _NATIVE_VERSION:
        raise ModelError(
            f"has format_version {reprlib.repr(raw.get('format_version'))}, not {_NATIVE_VERSION}",
            at=at,
            remedy="update hyena",
        )
    kinds = {"head": HeadConfig, "demonstrations": DemonstrationsConfig}
    others = {
        name: None if raw.get(name) is None else read_table(kind, raw[name], name, at)
        for name, kind in kinds.items()
    }
    return read_table(HyenaConfig, raw.get("architecture"), "architecture", at, **others)


def write_config(
    config: HyenaConfig, checkpoint_format: CheckpointFormat, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the config.json of a model in a checkpoint format; only the native one keeps `provenance`."""
    if checkpoint_format == "native":
        architecture = asdict(config)
        head, demonstrations = architecture.pop("head"), architecture.pop("demonstrations")
        return {
            "format": "hyena-native",
            "format_version": _NATIVE_VERSION,
            "architecture": architecture,
            "tokenizer": {"alphabet": list(VOCABULARY)},
            "head": head,
            **({} if demonstrations is None else {"demonstrations": demonstrations}),
            "provenance": dict(provenance),
        }
    required, optional = _TABLES[checkpoint_format]
    flat = {key: getattr(config, ours) for ours, key in (required | optional).items()}
    return (
        _official if checkpoint_format == "official" else _hf if checkpoint_format == "hf" else _multimolecule
    )(flat, config)


def _official(flat: dict[str, Any], config: HyenaConfig) -> dict[str, Any]:
    top = {key: value for key, value in flat.items() if not key.startswith("layer.")}
    layer = {key.removeprefix("layer."): value for key, value in flat.items() if key.startswith("layer.")}
    layer |= {"_name_": "hyena", "modulate": True, "local_order": config.short_filter_order}
    layer |= {"lr": 6e-4, "wd": 0.0, "lr_pos_emb": 0.0}
    flags = {
        "fused_mlp": False,
        "fused_dropout_add_ln": True,
        "residual_in_fp32": True,
        "return_hidden_state": True,
    }
    return top | flags | {"layer": layer}


def transformers_task(head: HeadConfig | None) -> str:
    """Return what transformers calls a model with this head, as in AutoModelForCausalLM."""
    if head is None:
        return "CausalLM"
    return "SequenceClassification" if head.level == "sequence" else "TokenClassification"


def _hf(flat: dict[str, Any], config: HyenaConfig) -> dict[str, Any]:
    return (
        flat
        | _ONLY["hf"]
        | {
            "model_type": _HF_TYPE,
            "architectures": [f"HyenaDNAFor{transformers_task(config.head)}"],
            "auto_map": {name: f"modeling_hyenadna.HyenaDNA{kind}" for name, kind in _HF_CLASSES.items()},
            "hyena_filter_dropout": 0.0,
            "initializer_range": 0.02,
            "pad_token_id": 4,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "train_freq": True,
            "use_cache": False,
        }
        | _hf_labels(config.head)
    )


def _hf_labels(head: HeadConfig | None) -> dict[str, Any]:
    if head is None:
        return {}
    names = head.labels or tuple(f"LABEL_{i}" for i in range(head.n_outputs))
    problems = {"regression": "regression", "multilabel": "multi_label_classification"}
    return {
        "hyena_head": asdict(head),
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "problem_type": problems.get(head.task, "single_label_classification"),
    }


def _multimolecule(flat: dict[str, Any], _config: HyenaConfig) -> dict[str, Any]:
    tokens = ("pad", "bos", "eos", "unk", "mask", "null")
    return (
        flat
        | _ONLY["multimolecule"]
        | {f"{token}_token_id": i for i, token in enumerate(tokens)}
        | {
            "model_type": "hyenadna",
            "architectures": ["HyenaDnaForCausalLM"],
            "filter_dropout": 0.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
            "train_freq": True,
        }
    )
