"""HyenaDNA models: exact architecture, tokenizer and every published checkpoint layout."""

from .checks import Check, verify
from .config import PRESETS, PUBLISHED_NAMES, HeadConfig, HyenaConfig, preset
from .engine.decoding import Decoder, generate
from .errors import ModelError
from .layouts import ModelInfo, convert, describe, load_model, model_sha256, save_model
from .model import HyenaDNA, HyenaOutput
from .tokenizer import Tokenizer

__all__ = [
    "PRESETS",
    "PUBLISHED_NAMES",
    "Check",
    "Decoder",
    "HeadConfig",
    "HyenaConfig",
    "HyenaDNA",
    "HyenaOutput",
    "ModelError",
    "ModelInfo",
    "Tokenizer",
    "convert",
    "describe",
    "generate",
    "load_model",
    "model_sha256",
    "preset",
    "save_model",
    "verify",
]
