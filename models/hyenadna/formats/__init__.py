"""Checkpoint formats: native, official, Hugging Face, MultiMolecule; read any, write any."""

from .adapters import save_adapter
from .canonical import model_sha256
from .info import ModelInfo, describe
from .load import load_model
from .save import convert, save_model

__all__ = ["ModelInfo", "convert", "describe", "load_model", "model_sha256", "save_adapter", "save_model"]
