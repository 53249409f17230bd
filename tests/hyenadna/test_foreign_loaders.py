"""Exports of ours, opened by transformers 4.57 and 5, MultiMolecule and peft in environments of their own.

`make loaders` builds the environments.
"""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hyenadna import HeadConfig, HyenaConfig, HyenaDNA, LoraConfig, add_lora, save_model

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = Path(os.environ.get("HYENA_LOADERS", ROOT / ".loaders"))
CONFIG = HyenaConfig(d_model=16, n_layer=2, d_inner=32, l_max=130, window_shift=0.0)
HEADS = {
    "mean": HeadConfig("multiclass", 3, ("a", "b", "c")),
    "last": HeadConfig("binary", 2, pool="last", bias=False),
    "unit": HeadConfig("regression", 1, center=(5.0,), scale=(2.0,), pool="max"),
    "base": HeadConfig("binary", 2, level="nucleotide"),
}


def randomised(model: HyenaDNA) -> HyenaDNA:
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    return model.eval()


def fresh(config: HyenaConfig) -> HyenaDNA:
    return randomised(HyenaDNA(config, generator=torch.Generator().manual_seed(1)))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Models of every kind, an adapter with a head, and one without (whose base `lm-native` is)."""
    save_model(fresh(CONFIG), tmp_path / "lm-native")
    save_model(fresh(replace(CONFIG, window_shift=0.05)), tmp_path / "shift-native")
    for name, head in HEADS.items():
        save_model(fresh(replace(CONFIG, head=head)), tmp_path / f"{name}-native")
    for name, head_config in (("lora-native", None), ("adapter", HEADS["mean"])):
        model = fresh(CONFIG)
        if head_config is not None:
            model.set_head(head_config)
        add_lora(model, LoraConfig(rank=2), base=str(tmp_path / "lm-native"))
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if "lora_B" in parameter_name:
                    parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(3))
        save_model(model, tmp_path / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "check"),
    [
        ("transformers4", "transformers"),
        ("transformers5", "transformers"),
        ("transformers5", "multimolecule"),
        ("transformers5", "peft"),
    ],
)
def test_exports_open(models: Path, environment: str, check: str) -> None:
    python = ENVIRONMENTS / environment / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is absent: `make loaders` builds it")
    settings = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(models / "cache"),
        "PYTHONPATH": f"{ROOT / 'models'}",
    }
    command = [python, ROOT / "tests/hyenadna/foreign_loaders.py", check, models]
    result = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
