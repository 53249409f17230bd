"""Small fine-tuning runs: labelled sequences whose labels can be learnt at once, and a base model."""

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hyenacli.finetune.settings import FinetuneSettings
from hyenadna import HyenaConfig, HyenaDNA, save_model

TINY: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 16,
    "lr": 1e-2,
    "no_baseline": True,
    "device": "cpu",
    "rc": "none",
    "valid_fraction": 0.2,
    "test_fraction": 0.2,
}


def base_model(path: Path, *, l_max: int = 66) -> Path:
    """A model directory of a small model with fresh weights."""
    config = HyenaConfig(d_model=8, n_layer=1, d_inner=16, l_max=l_max)
    save_model(HyenaDNA(config, generator=torch.Generator().manual_seed(1)), path)
    return path


def sequences(count: int, seed: int = 0, length: tuple[int, int] = (20, 40)) -> list[tuple[str, float]]:
    """Sequences, and the share of each that is G or C: about a quarter or three quarters."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        weights = (3, 1, 1, 3) if i % 2 else (1, 3, 3, 1)
        bases = "".join(rng.choices("ACGT", weights, k=rng.randint(*length)))
        rows.append((bases, sum(base in "GC" for base in bases) / len(bases)))
    return rows


def write_table(
    path: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = ("sequence", "label")
) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def two_classes(path: Path, count: int = 120) -> Path:
    """A table of AT-rich and GC-rich sequences."""
    return write_table(
        path, [(bases, "rich" if share > 0.5 else "poor") for bases, share in sequences(count)]
    )


def settings(data: Path | Sequence[object], model: Path | str, run: Path, **changes: Any) -> FinetuneSettings:
    files = [data] if isinstance(data, Path) else data
    tiny = TINY | changes
    if "test_fraction" not in changes and {"folds", "test", "test_groups"} & set(changes):
        tiny = tiny | {"test_fraction": None}
    if changes.get("solver") == "sklearn":
        tiny = {key: value for key, value in tiny.items() if key not in ("epochs", "batch_size", "lr", "rc")}
        tiny |= {key: value for key, value in changes.items() if key == "rc"}
    return FinetuneSettings(data=[str(f) for f in files], model=str(model), output=run, **tiny)


def metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


def value(run: Path, split: str, name: str) -> float:
    found: float = metrics(run)["splits"][split]["metrics"][name]["value"]
    return found


def predictions(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.tsv").open() as stream:
        return list(csv.DictReader(stream, delimiter="\t"))
