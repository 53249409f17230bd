"""Small pretraining runs, and what they leave."""

import csv
from pathlib import Path
from typing import Any

import torch

from hyenacli.pretrain.settings import PretrainSettings
from hyenadna import HeadConfig, HyenaConfig, HyenaDNA, load_model

TINY: dict[str, Any] = {
    "d_model": 8,
    "n_layer": 1,
    "max_length": 32,
    "max_steps": 6,
    "global_batch_size": 4,
    "micro_batch_size": 2,
    "eval_every": 3,
    "save_every": 2,
    "eval_windows": 8,
    "lr": 3e-3,
    "device": "cpu",
}


def settings(genome: Path, run: Path, **changes: Any) -> PretrainSettings:
    return PretrainSettings(fasta=[genome], output=run, **(TINY | changes))


def small_model() -> HyenaDNA:
    """A model with a head, as another task left it."""
    head = HeadConfig("binary", 1, ("bound",))
    return HyenaDNA(HyenaConfig(d_model=8, n_layer=1, d_inner=16, l_max=34, head=head))


def continuing(genome: Path, model: Path, run: Path, **changes: Any) -> PretrainSettings:
    """Settings that start from another model, which fixes the architecture."""
    fixed = {"d_model": None, "n_layer": None, "init_from": str(model)}
    return settings(genome, run, **fixed | changes)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def losses(run: Path) -> list[tuple[str, str, str]]:
    return [(row["step"], row["loss"], row["valid_loss"]) for row in rows(run)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_model(run / "checkpoints" / "last").state_dict()


def command(genome: Path, run: Path, *extra: str) -> list[str]:
    """The same as command-line arguments."""
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in TINY.items()]
    return ["pretrain", str(genome), "-o", str(run), *flags, *extra]
