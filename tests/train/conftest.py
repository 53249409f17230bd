"""A genome for small pretraining runs."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    path = tmp_path / "genome.fa"
    with path.open("w") as stream:
        for name in ("one", "two", "three"):
            stream.write(f">{name}\n{''.join(rng.choice(list('ACGT'), 2_000, p=[0.4, 0.1, 0.1, 0.4]))}\n")
    return path
