"""HyenaDNA models: exact architecture, tokenizer and every published checkpoint format."""

from .adapters import Adapter, LoraConfig, SoftPromptConfig, add_lora, add_soft_prompt, freeze, merge
from .checks import Check, verify
from .config import PRESETS, PUBLISHED_NAMES, DemonstrationsConfig, HeadConfig, HyenaConfig, preset
from .engine.decoding import Decoder, generate
from .errors import ModelError
from .formats.adapters import save_adapter
from .formats.hub import check_upload, download, parse_hub_name, upload
from .formats.load import load_model
from .formats.save import ModelInfo, convert, describe, save_model
from .formats.tensors import model_sha256
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
    "check_upload",
    "convert",
    "describe",
    "download",
    "freeze",
    "generate",
    "load_model",
    "merge",
    "model_sha256",
    "parse_hub_name",
    "preset",
    "save_adapter",
    "save_model",
    "upload",
    "verify",
]
