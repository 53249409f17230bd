"""HyenaDNA models: exact architecture, tokenizer and every published checkpoint format."""

from .adapters.lora import add_lora, merge
from .adapters.methods import Adapter, LoraConfig, SoftPromptConfig, freeze
from .adapters.soft_prompt import add_soft_prompt
from .checks.model import Check, verify
from .config import PRESETS, PUBLISHED_NAMES, DemonstrationsConfig, HeadConfig, HyenaConfig, preset
from .engine.decoding import Decoder, generate
from .errors import ModelError
from .formats import ModelInfo, convert, describe, load_model, model_sha256, save_adapter, save_model
from .model import HyenaDNA, HyenaOutput
from .tokenizer import Tokenizer

__all__ = [
    "PRESETS",
    "PUBLISHED_NAMES",
    "Adapter",
    "Check",
    "Decoder",
    "DemonstrationsConfig",
    "HeadConfig",
    "HyenaConfig",
    "HyenaDNA",
    "HyenaOutput",
    "LoraConfig",
    "ModelError",
    "ModelInfo",
    "SoftPromptConfig",
    "Tokenizer",
    "add_lora",
    "add_soft_prompt",
    "convert",
    "describe",
    "freeze",
    "generate",
    "load_model",
    "merge",
    "model_sha256",
    "preset",
    "save_adapter",
    "save_model",
    "verify",
]
