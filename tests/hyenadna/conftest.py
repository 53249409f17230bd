"""Small models for the tests of the model package."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hyenadna import HyenaConfig, HyenaDNA


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small cases are faster on one thread than on many that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    return shared / "golden"


@pytest.fixture
def config() -> HyenaConfig:
    return HyenaConfig(d_model=8, n_layer=2, d_inner=16, l_max=40, filter_order=8)


@pytest.fixture
def model(config: HyenaConfig) -> HyenaDNA:
    """A tiny model in which nothing is zero or one."""
    generator = torch.Generator().manual_seed(1)
    fresh = HyenaDNA(config, generator=generator)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return fresh.eval()
